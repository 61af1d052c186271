/** What experts are worth, beside transformers' (test/external/make_utility.py), and multiplication by it. */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { resultOf } from "../../../src/base/events.js";
import { expertUtility } from "../../../src/surgery/calibration/expert-utility.js";
import { convertCheckpoint } from "../../../src/surgery/convert/convert.js";
import { multiplying } from "../../../src/surgery/convert/multiply.js";
import { makeByWorkflow } from "../../../src/surgery/convert/workflow.js";
import type { ExpertUtility, MultiplyRecipe } from "../../../src/surgery/planning/multiply.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { inThread } from "../../support/backend.js";
import { golden } from "../../support/golden.js";
import { lineOf } from "../../support/line.js";
import { wordOf, withWordTokenizer } from "../../support/word-tokenizer.js";

interface UtilityCase {
  readonly model: string;
  readonly sequence: number;
  readonly ids: readonly number[];
  readonly load: readonly (readonly number[] | null)[];
  readonly gradient: readonly (readonly number[] | null)[];
}
const cases = JSON.parse(readFileSync(new URL("golden/utility.json", import.meta.url), "utf8")) as UtilityCase[];

const root = temporaryFolder();
const text = join(root, "text.txt");
const ids = cases[0]!.ids;
writeFileSync(text, ids.map(wordOf).join(" "));
const readable = (name: string): string => {
  const dir = join(root, name.replace("/", "-"));
  cpSync(golden(name), dir, { recursive: true });
  return withWordTokenizer(dir);
};
const errorOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no error",
    (cause: unknown) =>
      lineOf(() => {
        throw cause;
      }).replaceAll(root, "ROOT"),
  );
const on = { text: [text], backend: inThread, threads: 1 };
const tools = { backend: inThread, threads: { prompts: 1, calibration: 1, writing: 1, proof: 1 }, text: [text] };

describe("expertUtility", () => {
  it.each(cases)("counts load and gradients of $model as transformers does", async (wanted) => {
    const source = readable(`moe/${wanted.model}`);
    const load = await expertUtility({ ...on, source, by: "load", sequence: wanted.sequence });
    expect(load).toEqual({ values: wanted.load, tokens: wanted.ids.length, source: "text.txt" });
    const { values } = await expertUtility({ ...on, source, by: "gradient", sequence: wanted.sequence });
    for (const [layer, expected] of wanted.gradient.entries()) {
      if (expected === null) expect(values[layer]).toBe(null);
      else expected.forEach((value, i) => expect(values[layer]![i]! / value).toBeCloseTo(1, 4));
    }
  });

  it("refuses dense models and models that read no text", async () => {
    const dense = readable("dense/llama");
    for (const by of ["load", "gradient"] as const)
      expect(await errorOf(expertUtility({ ...on, source: dense, by }))).toContain(
        "the model is dense: it has no experts whose worth could be measured",
      );
    expect(await errorOf(expertUtility({ ...on, source: golden("moe/mixtral"), by: "load" }))).toContain(
      "the experts' load is to be measured on text, but the model has no tokenizer.json",
    );
  });
});

describe("multiplication by utility", () => {
  const recipe = (by: ExpertUtility["by"], changes: Partial<MultiplyRecipe> = {}, noise = 0.01): MultiplyRecipe => ({
    copies: 2,
    topK: null,
    routerStd: 0,
    seed: 0,
    utility: { by, values: null, text: null, noise },
    ...changes,
  });

  it("copies the experts of most load more often, behind the model's own, and measures what was kept", async () => {
    const source = readable("moe/mixtral");
    const out = join(root, "by-load");
    const surgery = multiplying({ source, recipe: recipe("load") });
    const calibration = { text: [text], tokens: ids.length };
    const { made, proof } = await resultOf(makeByWorkflow(surgery, { ...tools, calibration, out, report: true }));
    const { plan } = made;
    const busiest = plan.recipe.utility!.values!.map((values) => values!.indexOf(Math.max(...values!)));
    expect(plan.origins.map((origins) => origins!.slice(0, 7))).toEqual(
      busiest.map((expert) => [0, 1, 2, 3, expert, expert, expert]),
    );
    expect([plan.target.layers[0]!.ffn, plan.expected.kind]).toMatchObject([{ experts: 8, topK: 2 }, "approximate"]);
    expect(proof?.preservation?.relative).toBeGreaterThan(0);
    expect(Number.isFinite(proof?.preservation?.klDivergence)).toBe(true);
    const record = JSON.parse(readFileSync(join(out, "multiply.json"), "utf8")) as Record<string, unknown>;
    expect(record["origins"]).toEqual(plan.origins);
    expect(record["recipe"]).toMatchObject({ utility: { by: "load", text: { tokens: 64, source: "text.txt" } } });
    const [before, after] = [await openCheckpoint(source), await openCheckpoint(out)];
    for (const part of ["gate", "down"] as const) {
      const own = await before.readFloat32(`layers.1.experts.${busiest[1]}.${part}`);
      for (const expert of [busiest[1], 4, 5, 6])
        expect(await after.readFloat32(`layers.1.experts.${expert}.${part}`)).toEqual(own);
    }
    // Router rows: the model's own unchanged; the copies' differ from it by about one hundredth of their std.
    const [own, rows] = [await before.readFloat32("layers.1.router"), await after.readFloat32("layers.1.router")];
    expect(rows.slice(0, 4 * 32)).toEqual(own);
    const row = own.subarray(busiest[1]! * 32, (busiest[1]! + 1) * 32);
    const mean = row.reduce((a, b) => a + b, 0) / 32;
    const std = Math.sqrt(row.reduce((sum, x) => sum + (x - mean) ** 2, 0) / 32);
    const moved = Math.hypot(...row.map((x, i) => rows[4 * 32 + i]! - x)) / Math.sqrt(32);
    expect(moved / std).toBeGreaterThan(0.004);
    expect(moved / std).toBeLessThan(0.02);
    await Promise.all([before.close(), after.close()]);
  });

  it("keeps the function of a model whose tokens go to one expert, without noise", async () => {
    const dense = readable("dense/qwen3");
    const [source, out] = [join(root, "top1"), join(root, "top1-multiplied")];
    const one = upcycleRecipe("E4G1T1", { noise: { std: 0.3, relative: true, fraction: 1 }, target: "qwen3_moe" });
    await resultOf(convertCheckpoint({ source: dense, recipe: one, out: source }));
    const surgery = multiplying({ source, recipe: recipe("gradient", {}, 0) });
    const { made, proof } = await resultOf(makeByWorkflow(surgery, { ...tools, out, report: true }));
    expect(made.plan.expected).toMatchObject({ kind: "exact", exactAtStart: true });
    expect(proof?.preservation?.relative).toBeLessThan(1e-5);
    const moves = made.plan.origins[0]!.slice(4);
    expect(new Set(moves).size).toBe(2);
  });

  it("refuses, before anything is measured, groups of experts and experts that are not all made alike", async () => {
    const make = (source: string, more: MultiplyRecipe = recipe("load")): Promise<unknown> =>
      resultOf(
        makeByWorkflow(multiplying({ source, recipe: more }), { ...tools, out: join(root, "no"), report: false }),
      );
    expect(await errorOf(make(readable("moe/deepseek_v3")))).toMatch(
      /chooses among \d+ groups of equally many experts/,
    );
    const dense = readable("dense/llama");
    for (const [name, options, words] of [
      ["E4G2T4", {}, "are 2 parts of each copy of an FFN, as upcycle.json says"],
      ["E4G1T2", { permute: true }, "have their units in orders of their own"],
    ] as const) {
      const source = join(root, `alike-${name}`);
      await resultOf(convertCheckpoint({ source: dense, recipe: upcycleRecipe(name, options), out: source }));
      expect(await errorOf(make(source))).toContain(words);
    }
    expect(await errorOf(make(readable("moe/mixtral"), recipe("load", { topK: 9 })))).toContain("top 9 is more than");
  });
});
