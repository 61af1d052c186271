/** Routers whose rows are centroids of what FFNs read. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { resultOf } from "../../../src/base/events.js";
import { measurePreservation } from "../../../src/evals/preservation.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { centroidRouter, type CentroidRouter } from "../../../src/surgery/calibration/centroid-router.js";
import { convertCheckpoint, planConversion, upcycling } from "../../../src/surgery/convert/convert.js";
import { readRecord, recipeOf } from "../../../src/surgery/convert/record.js";
import { makeByWorkflow } from "../../../src/surgery/convert/workflow.js";
import { parseRecipeConfig } from "../../../src/base/schemas/index.js";
import { recipeFromConfig } from "../../../src/surgery/planning/recipe-config.js";
import { upcycleRecipe, type RecipeOptions, type UpcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { inThread } from "../../support/backend.js";
import { golden } from "../../support/golden.js";
import { lineOf } from "../../support/line.js";
import { perturbed } from "../../support/perturbed.js";
import { withWordTokenizer } from "../../support/word-tokenizer.js";

const root = temporaryFolder();
const source = withWordTokenizer(perturbed("dense/llama", join(root, "base"), 0));
const text = join(root, "text.txt");
const kinds = ["the code of a loop", "verse and rhyme of the verse", "a loop a loop code"];
writeFileSync(text, Array.from({ length: 60 }, (_, i) => at(kinds, (i * i) % 3)).join(" "));
const other = join(root, "other.txt");
writeFileSync(other, "the rhyme of a verse ".repeat(40));

const recipe = (name: string, options: RecipeOptions = {}): UpcycleRecipe =>
  upcycleRecipe(name, { routerInit: { kind: "centroids", text: null }, ...options });
const make = (of: UpcycleRecipe, files = [text], tokens?: number): Promise<CentroidRouter> =>
  centroidRouter({ source, recipe: of, text: files, tokens, sequence: 16, backend: inThread, threads: 1 });
const errorOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no error",
    (cause: unknown) =>
      lineOf(() => {
        throw cause;
      }).replaceAll(root, "ROOT"),
  );
const workflow = { backend: inThread, threads: { prompts: 1, calibration: 1, writing: 1, proof: 1 } };

describe("centroidRouter", () => {
  it("gives rows of length 1 that are the mean directions of their tokens, by seed and text alone", async () => {
    const { rows, clusters, tokens, source: words } = await make(recipe("E4G1T2"));
    expect([rows.length, words]).toEqual([2, "text.txt"]);
    expect(tokens % 16).toBe(0);
    for (const [layer, matrix] of rows.entries()) {
      expect(matrix).toHaveLength(4 * 32);
      for (let row = 0; row < 4; row++)
        expect(Math.hypot(...matrix!.subarray(row * 32, (row + 1) * 32))).toBeCloseTo(1, 6);
      const { smallest, largest, cosine } = clusters[layer]!;
      expect(smallest).toBeGreaterThan(0);
      expect(largest).toBeLessThan(1);
      expect(cosine).toBeGreaterThan(0.5);
    }
    expect(await make(recipe("E4G1T2"))).toEqual(await make(recipe("E4G1T2")));
    expect((await make(recipe("E4G1T2", { seed: 1 }))).rows).not.toEqual(rows);
    expect((await make(recipe("E4G1T2"), [other])).rows).not.toEqual(rows);
  });

  it("makes rows for the chosen layers alone", async () => {
    const { rows, clusters } = await make(recipe("E2G1T1", { layers: "1" }));
    expect([rows[0], clusters[0]]).toEqual([null, null]);
    expect(rows[1]).toHaveLength(2 * 32);
  });

  it("refuses what has no centroids", async () => {
    expect(await errorOf(make(recipe("E8G1T2"), [text], 4))).toContain(
      "text.txt: 4 tokens cannot have 8 centroids; give more text, or more of it (--calibration-tokens), or use at " +
        "most 4 experts",
    );
    const same = join(root, "same.txt");
    writeFileSync(same, "loop");
    expect(await errorOf(make(recipe("E8G1T2"), [same]))).toContain("too little text");
    expect(await errorOf(make(upcycleRecipe("E8G1T2")))).toContain("router is not made of centroids");
    const bare = golden("dense/llama");
    expect(
      await errorOf(centroidRouter({ source: bare, recipe: recipe("E2G1T1"), backend: inThread, threads: 1 })),
    ).toContain("router rows are to be centroids of what the FFNs read on text, but the model has no tokenizer.json");
    const parents = [0, 1].map((index) => ({ source: index, noise: 0, scale: 1 }));
    expect(lineOf(() => recipe("E2G1T1", { parents }))).toContain("centroids say nothing of which parent");
    expect(lineOf(() => recipe("E1G4T2"))).toContain("with one copy the parts are no experts for clusters of inputs");
    expect(lineOf(() => recipe("E1G4T4"))).toContain("there is one copy");
    expect(await errorOf(resultOf(convertCheckpoint({ source, recipe: recipe("E2G1T1"), out: join(root, "x") })))).toBe(
      "recipe E2G1T1: the router is to be made from centroids, and its rows were not given; make them with " +
        "centroidRouter",
    );
  });
});

describe("a conversion with centroids", () => {
  it.each([
    ["E4G1T2", {}],
    ["E3G2T4", { seed: 5 }],
    ["E4G1T4", { order: "softmax-topk" }],
  ] as const)("keeps the function (%s, %o)", async (name, options) => {
    const out = join(root, `kept-${name}`);
    const wanted = recipe(name, options);
    const events: { readonly type: string }[] = [];
    const surgery = upcycling({ source, recipe: wanted });
    const { made, proof } = await resultOf(
      makeByWorkflow(surgery, { ...workflow, out, text: [other], calibration: { text: [text] }, report: true }),
      (event) => events.push(event),
    );
    expect(made.plan.expected).toMatchObject({ kind: "exact", exactAtStart: true });
    expect(proof?.preservation?.relative).toBeLessThan(1e-5);
    expect(["identical", "same"]).toContain(proof?.preservation?.verdict.kind);
    expect(events.filter(({ type }) => type === "clustered")).toHaveLength(1);
    // The rows in the folder are the centroids, each as often as a copy has parts.
    const { rows, tokens } = await centroidRouter({
      source,
      recipe: wanted,
      text: [text],
      backend: inThread,
      threads: 1,
    });
    const checkpoint = await openCheckpoint(out);
    const written = await checkpoint.readFloat32("layers.1.router");
    await checkpoint.close();
    const { expansion, granularity } = wanted;
    expect(written).toHaveLength(expansion * granularity * 32);
    for (let expert = 0; expert < expansion * granularity; expert++) {
      const row = Math.floor(expert / granularity);
      expect(written.subarray(expert * 32, (expert + 1) * 32)).toEqual(rows[1]!.subarray(row * 32, (row + 1) * 32));
    }
    const centroids = { kind: "centroids", text: { tokens, source: "text.txt" } };
    expect(recipeOf((await readRecord(out))!).routerInit).toEqual(centroids);
    expect(readFileSync(join(out, "README.md"), "utf8")).toContain(
      `centroids of what each layer's FFN of the parent reads on ${tokens} tokens of text.txt`,
    );
  });

  it("sends a token to the cluster that it is nearest to, so that calibrated scaling comes near the function", async () => {
    const measured = async (scaling: "exact" | "calibrated"): Promise<number> => {
      const out = join(root, `order-${scaling}`);
      const surgery = upcycling({ source, recipe: recipe("E4G1T1", { order: "softmax-topk", scaling }) });
      await resultOf(makeByWorkflow(surgery, { ...workflow, out, text: [text], report: false }));
      const compared = { parent: source, child: out, text: [text], sequence: 16, backend: inThread, threads: 1 };
      const { layers } = await measurePreservation({ ...compared, memory: 0 });
      return Math.max(...layers!.map(({ relative }) => relative));
    };
    const plan = await planConversion({ source, recipe: recipe("E4G1T1", { order: "softmax-topk" }) });
    expect(plan.plan.expected).toMatchObject({ kind: "constant-router", exactAtStart: false });
    expect(await measured("calibrated")).toBeLessThan((await measured("exact")) / 2);
  });

  it("is what recipe files ask for with init: centroids", () => {
    const parse = (yaml: string): UpcycleRecipe => recipeFromConfig(parseRecipeConfig(yaml, "r.yaml"));
    expect(parse("recipe: E3G1T2\nrouter: {init: centroids}\n").routerInit).toEqual({ kind: "centroids", text: null });
    expect(lineOf(() => parse("recipe: E3G1T2\nrouter: {init: centroids, prompts: [a, b, c]}\n"))).toContain(
      "prompts are for the inits hidden and cheap_embed, this one is centroids",
    );
  });
});
