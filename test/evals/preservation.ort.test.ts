/** The promise of the toolkit: an upcycled model computes its parent's function, measured, not derived. */
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { at, entryOf } from "../../src/base/at.js";
import { randomStream } from "../../src/base/random.js";
import { openCheckpoint } from "../../src/files/checkpoint/open.js";
import { resultOf } from "../../src/base/events.js";
import { convertCheckpoint } from "../../src/surgery/convert/convert.js";
import { compareModels, meanLoss } from "../../src/evals/compare.js";
import { openModel, type TextModel } from "../../src/evals/model.js";
import { GraphBuilder } from "../../src/graph/ir/builder.js";
import { evaluateOnce } from "../engine/onnxruntime/evaluate-once.js";
import type { Preservation } from "../../src/model/results/result.js";
import { targets as table } from "../../src/surgery/planning/targets.js";
import { holders } from "../support/holders.js";
import { upcycleRecipe, type RecipeOptions } from "../../src/surgery/planning/recipe.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { inThread } from "../support/backend.js";
import { golden, readTensors } from "../support/golden.js";

/** Of the parent's largest absolute logit, in float32. */
const EXACT = 1e-5;
/** LFM2 adds 1e-6 to a divisor that a random router of large logits can make as small as 0.01. */
const exactFor = (target: string): number => (target === "lfm2_moe" ? 1e-4 : EXACT);
const parents = ["dense/llama", "dense/llama_tied", "dense/mistral", "dense/qwen2", "dense/qwen3"] as const;
const root = temporaryFolder();
let folders = 0;

const tokensOf = (name: string): Int32Array =>
  Int32Array.from(entryOf(readTensors(golden(name, "expected.safetensors")), "input_ids").data);

/** Parents that were measured against, each opened once. */
const open = new Map<string, Promise<TextModel>>();
function opened(name: string): Promise<TextModel> {
  const model = open.get(name) ?? openModel(golden(name), inThread, 1);
  open.set(name, model);
  return model;
}
afterAll(async () => {
  for (const model of open.values()) await (await model).close();
});

interface Measured extends Preservation {
  /** Largest logit difference over largest logit. */
  readonly error: number;
}

async function measure(name: string, recipe: string, options: RecipeOptions = {}): Promise<Measured> {
  const out = join(root, `m${folders++}`);
  await resultOf(convertCheckpoint({ source: golden(name), recipe: upcycleRecipe(recipe, options), out }));
  const child = await openModel(out, inThread, 1);
  const comparison = await compareModels(await opened(name), child, tokensOf(name), {
    sequence: 24,
    limitTokens: 1000,
  });
  await child.close();
  return { ...comparison, error: comparison.maxAbsLogitDiff / comparison.maxAbsLogit };
}

const targetsOf = async (name: string, order: "topk-softmax" | "softmax-topk") => {
  const checkpoint = await openCheckpoint(golden(name));
  await checkpoint.close();
  return holders(checkpoint.spec, upcycleRecipe("E8G1T2", { order }));
};

const routings = [
  ["E4G1T2", 0.02],
  ["E4G1T1", 1],
  ["E8G1T2", 1],
  ["E8G8T8", 0.02],
  ["E4G8T16", 1],
  ["E3G4T8", 1],
  ["E8G8T8", 0],
] as const;
/** Three of them, so that each of the seven meets every parent and every target, though not both together. */
const routedBy = (turn: number) => [0, 2, 4].map((step) => at(routings, (turn + step) % routings.length));

describe.each(parents)("%s", (name) => {
  it("topK-then-softmax keeps the function for any router, whole or cut, in every family that holds it", async () => {
    const targets = await targetsOf(name, "topk-softmax");
    expect(targets.length).toBeGreaterThan(0);
    for (const [place, target] of targets.entries()) {
      for (const [recipe, routerStd] of routedBy(parents.indexOf(name) + place)) {
        const { error, parentLoss, childLoss, maxAbsLogit, tokens } = await measure(name, recipe, {
          target,
          routerStd,
          seed: 5,
        });
        expect(error, `${target} ${recipe} std ${routerStd}`).toBeLessThanOrEqual(exactFor(target));
        expect(Math.abs(parentLoss - childLoss)).toBeLessThan(1e-5);
        expect(tokens).toBe(47);
        expect(maxAbsLogit).toBeGreaterThan(0.1);
      }
    }
  });

  it("softmax-then-topK keeps it with a constant router, and the error of another is measured", async () => {
    const targets = await targetsOf(name, "softmax-topk");
    for (const [place, target] of targets.entries()) {
      // Each of the two meets every family, with one parent or another.
      const recipe = (parents.indexOf(name) + place) % 2 === 0 ? "E4G1T2" : "E8G8T8";
      const options = { target, order: "softmax-topk" as const };
      expect(
        (await measure(name, recipe, { ...options, routerStd: 0 })).error,
        `${target} ${recipe} constant`,
      ).toBeLessThanOrEqual(EXACT);
      const small = await measure(name, recipe, { ...options, routerStd: 0.02 });
      const large = await measure(name, recipe, { ...options, routerStd: 1 });
      expect(small.error, `${target} ${recipe} small`).toBeGreaterThan(EXACT);
      expect(large.error, `${target} ${recipe} large`).toBeGreaterThan(small.error);
      // All experts chosen: softmax weights sum to 1 whatever the router says.
      if (table[target].routers["softmax-topk"]!.score !== "softmax") continue;
      expect(
        (await measure(name, "E4G1T4", { target, order: "softmax-topk", routerStd: 1 })).error,
      ).toBeLessThanOrEqual(EXACT);
    }
  });

  it("other scalings miss it where a factor is due, and only there", async () => {
    for (const scaling of ["paper", "none"] as const) {
      expect((await measure(name, "E4G1T2", { scaling })).error, `${scaling}, no factor due`).toBeLessThanOrEqual(
        EXACT,
      );
      expect((await measure(name, "E8G8T8", { scaling })).error, `${scaling}, G = 8`).toBeGreaterThan(1e-3);
    }
  });
});

it("an FFN cut without whole copies is far from the parent", async () => {
  expect((await measure("dense/llama", "E8G8T4", { allowUnevenTopK: true })).error).toBeGreaterThan(1e-2);
});

it("equal router rows give equal bits, for any number of tokens, experts and threads", async () => {
  for (const [tokens, hidden, groups, size] of [
    [1, 32, 8, 8],
    [1, 520, 3, 8],
    [2, 64, 9, 2],
    [5, 257, 5, 3],
    [33, 128, 8, 8],
    [1, 64, 1, 17],
  ] as const) {
    const b = new GraphBuilder();
    const x = b.input("x", "f32", [tokens, hidden]);
    const w = b.input("w", "f32", [groups * size, hidden]);
    const graph = b.finish([b.linear(x, w)]);
    const values = new Float32Array(tokens * hidden);
    randomStream(1, "x").normals(values, 0);
    const rows = new Float32Array(groups * size * hidden);
    for (let e = 0; e < groups * size; e++)
      randomStream(1, `row ${Math.floor(e / size)}`).normals(rows.subarray(e * hidden, (e + 1) * hidden), 0);
    for (const threads of [1, 2]) {
      const [logits] = await evaluateOnce(graph, [values, rows], threads);
      logits!.data.forEach((value, i) => {
        const first = Math.floor(i / size) * size;
        if (value !== logits!.data[first])
          expect.fail(`${tokens} x ${hidden}, ${groups} groups of ${size}, ${threads} threads: [${i}]`);
      });
    }
  }
});

describe("compareModels", () => {
  it("of a model with itself is zero, its loss transformers' loss", async () => {
    const model = await openModel(golden("moe/mixtral"), inThread, 1);
    const { data, shape } = entryOf(readTensors(golden("moe/mixtral", "expected.safetensors")), "input_ids");
    const tokens = Int32Array.from(data).subarray(0, shape[1]);
    const comparison = await compareModels(model, model, tokens, { sequence: 23, limitTokens: 1000 });
    expect(comparison).toMatchObject({ tokens: 23, maxAbsLogitDiff: 0, meanAbsLogitDiff: 0 });
    expect(comparison.childLoss).toBe(comparison.parentLoss);
    const alone = await meanLoss(model, tokens, { sequence: 23, limitTokens: 1000 });
    expect(alone.tokens).toBe(23);
    expect(Math.abs(alone.loss - comparison.parentLoss)).toBeLessThan(1e-6);
    const short = await meanLoss(model, tokens, { sequence: 5, limitTokens: 7 });
    expect(short.tokens).toBe(7);
    await model.close();
  });

  it("measures what it says: differences and losses restated from the logits", async () => {
    const [a, b] = [
      await openModel(golden("dense/llama"), inThread, 1),
      await openModel(golden("dense/qwen3"), inThread, 1),
    ];
    const tokens = tokensOf("dense/llama").subarray(0, 13);
    const comparison = await compareModels(a, b, tokens, { sequence: 6, limitTokens: 12 });
    const differences: number[] = [];
    const loss = { parent: 0, child: 0 };
    let largest = 0;
    for (const start of [0, 6]) {
      const ids = tokens.slice(start, start + 6);
      const [x, y] = [await a.logits(ids, { batch: 1, sequence: 6 }), await b.logits(ids, { batch: 1, sequence: 6 })];
      x.forEach((value, i) => differences.push(Math.abs(value - at(y, i))));
      largest = Math.max(largest, ...x.map(Math.abs));
      for (let row = 0; row < 6; row++) {
        const target = at(tokens, start + row + 1);
        const of = (logits: Float32Array): number => {
          const all = Array.from(logits.subarray(row * 96, (row + 1) * 96));
          return Math.log(all.reduce((sum, v) => sum + Math.exp(v), 0)) - at(all, target);
        };
        loss.parent += of(x) / 12;
        loss.child += of(y) / 12;
      }
    }
    expect(comparison.tokens).toBe(12);
    expect(comparison.maxAbsLogitDiff).toBeCloseTo(Math.max(...differences), 5);
    expect(comparison.meanAbsLogitDiff).toBeCloseTo(differences.reduce((s, d) => s + d) / differences.length, 5);
    expect(comparison.maxAbsLogit).toBeCloseTo(largest, 5);
    expect(comparison.parentLoss).toBeCloseTo(loss.parent, 5);
    expect(comparison.childLoss).toBeCloseTo(loss.child, 5);
    await a.close();
    await b.close();
  });
});
