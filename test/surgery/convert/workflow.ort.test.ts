/** The workflow of a conversion: refuse, measure on text, plan, write, prove. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { resultOf } from "../../../src/base/events.js";
import { unfinishedName } from "../../../src/files/io/resumable-directory.js";
import { convertCheckpoint, upcycling } from "../../../src/surgery/convert/convert.js";
import { merging } from "../../../src/surgery/convert/merge.js";
import { multiplying } from "../../../src/surgery/convert/multiply.js";
import { makeByWorkflow, planByWorkflow, type WorkflowTools } from "../../../src/surgery/convert/workflow.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { inThread } from "../../support/backend.js";
import { golden } from "../../support/golden.js";
import { hashes } from "./hashes.js";

const root = temporaryFolder();
let folders = 0;
const fresh = (): string => join(root, `out${folders++}`);
const source = golden("dense/llama");
const tools: WorkflowTools = { backend: inThread, threads: { prompts: 1, calibration: 1, writing: 1, proof: 1 } };
const calibrated = upcycleRecipe("E4G1T2", { order: "softmax-topk", scaling: "calibrated" });

const prompts = ["code", "verse"].map((text) => ({ positive: [text], negative: [] }));

/** Types of events, each run of equal ones once. */
function typesOf(events: readonly { readonly type: string }[]): string[] {
  return events.map(({ type }) => type).filter((type, i, all) => type !== all[i - 1]);
}

describe("makeByWorkflow", () => {
  it("calibrates, plans, writes and proves an upcycled model", async () => {
    const events: { readonly type: string }[] = [];
    const out = fresh();
    const run = makeByWorkflow(upcycling({ source, recipe: calibrated }), { ...tools, out, report: true });
    const result = await resultOf(run, (event) => events.push(event));
    expect(typesOf(events)).toEqual(["calibrated", "planned", "progress", "proof"]);
    expect(result.made.plan.recipe.calibration).toHaveLength(result.made.plan.target.layers.length);
    expect(JSON.parse(readFileSync(join(out, "preservation.json"), "utf8"))).toEqual(result.proof?.preservation);
    expect(readFileSync(join(out, "README.md"), "utf8")).not.toContain("Not measured.");
  });

  it("writes what convertCheckpoint writes where nothing is measured", async () => {
    const [one, two] = [fresh(), fresh()];
    const recipe = upcycleRecipe("E4G2T4");
    await resultOf(convertCheckpoint({ source, recipe, out: one }));
    await resultOf(makeByWorkflow(upcycling({ source, recipe }), { ...tools, out: two, report: false }));
    expect(hashes(two)).toEqual(hashes(one));
  });

  it("makes merged and multiplied models by the same steps", async () => {
    const moe = golden("moe/mixtral");
    const merged = merging({ source: moe, choice: { kind: "mean", weights: null } });
    const recipe = { copies: 2, topK: null, routerStd: 0, seed: 0 };
    const multiplied = multiplying({ source: moe, recipe });
    const events: { readonly type: string }[] = [];
    await resultOf(makeByWorkflow(merged, { ...tools, out: fresh(), report: false }), (event) => events.push(event));
    expect(typesOf(events)).toEqual(["planned", "progress"]);
    const { proof } = await resultOf(makeByWorkflow(multiplied, { ...tools, out: fresh(), report: true }));
    expect(["identical", "same"]).toContain(proof?.preservation?.verdict.kind);
  });

  it("refuses a folder that is taken before it calibrates", async () => {
    const events: unknown[] = [];
    const run = makeByWorkflow(upcycling({ source, recipe: calibrated }), { ...tools, out: root, report: false });
    await expect(resultOf(run, (event) => events.push(event))).rejects.toThrow();
    expect(events).toEqual([]);
  });

  it("refuses a recipe that cannot be planned before it looks for a tokenizer to read prompts with", async () => {
    const recipe = upcycleRecipe("E2G7T7", { routerInit: { kind: "hidden", prompts } });
    const run = makeByWorkflow(upcycling({ source, recipe }), { ...tools, out: fresh(), report: false });
    await expect(resultOf(run)).rejects.toThrow("7");
    const plannable = upcycling({ source, recipe: { ...recipe, granularity: 1, topK: 1 } });
    await expect(resultOf(makeByWorkflow(plannable, { ...tools, out: fresh(), report: false }))).rejects.toThrow(
      "no tokenizer.json",
    );
  });
});

describe("planByWorkflow", () => {
  it("calibrates, which the plan needs, and does not read prompts, which it does not", async () => {
    const events: { readonly type: string }[] = [];
    const { plan } = await resultOf(planByWorkflow(upcycling({ source, recipe: calibrated }), tools), (event) =>
      events.push(event),
    );
    expect(typesOf(events)).toEqual(["calibrated"]);
    expect(plan.recipe.calibration).not.toBe(null);
    const recipe = upcycleRecipe("E2G1T1", { routerInit: { kind: "hidden", prompts } });
    await resultOf(planByWorkflow(upcycling({ source, recipe }), tools));
  });
});

describe("convertCheckpoint, left after its first progress", () => {
  it("stops, and resumes to the same bytes", async () => {
    const [whole, out] = [fresh(), fresh()];
    const options = { source, recipe: upcycleRecipe("E4G2T4"), pace: { chunkBytes: 512, flushBytes: 20_000 } };
    await resultOf(convertCheckpoint({ ...options, out: whole }));
    let pieces = 0;
    for await (const { type } of convertCheckpoint({ ...options, out }))
      if (type === "progress" && ++pieces > 60) break;
    expect([existsSync(out), existsSync(unfinishedName(out))]).toEqual([false, true]);
    const types: string[] = [];
    await resultOf(convertCheckpoint({ ...options, out }), ({ type }) => types.push(type));
    expect(types).toContain("resumed");
    expect(hashes(out)).toEqual(hashes(whole));
  });
});
