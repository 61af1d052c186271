/** Layer by layer, streamed: the same measurement as on models held in memory, and what it says of each layer. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../src/base/errors.js";
import { resultOf } from "../../src/base/events.js";
import { convertCheckpoint } from "../../src/surgery/convert/convert.js";
import { compareModels } from "../../src/evals/compare.js";
import { measurePreservation, type PreservationOptions } from "../../src/evals/preservation.js";
import { openModel } from "../../src/evals/model.js";
import { compareStreamed, type StreamedComparison } from "../../src/evals/compare-streamed.js";
import { openStreamedModel } from "../../src/evals/streamed-model.js";
import { upcycleRecipe, type RecipeOptions } from "../../src/surgery/planning/recipe.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { inThread } from "../support/backend.js";
import { golden } from "../support/golden.js";

const root = temporaryFolder();
let folders = 0;
const tokens = Int32Array.from({ length: 101 }, (_, i) => (i * 37 + 11) % 96);

async function upcycled(
  parent: string,
  recipe: string,
  options: RecipeOptions & { readonly dtype?: "BF16" | "F16" } = {},
): Promise<string> {
  const out = join(root, `m${folders++}`);
  await resultOf(
    convertCheckpoint({
      source: golden(parent),
      recipe: upcycleRecipe(recipe, options),
      dtype: options.dtype,
      out,
    }),
  );
  return out;
}

async function streamed(
  parent: string,
  child: string,
  activationBytes = 1e9,
  progress?: string[],
): Promise<StreamedComparison> {
  const [a, b] = [
    await openStreamedModel(parent, inThread, { threads: 1, weightElements: 500 }),
    await openStreamedModel(child, inThread, { threads: 1, weightElements: 500 }),
  ];
  try {
    return await compareStreamed(a, b, tokens, {
      sequence: 20,
      limitTokens: 90,
      activationBytes,
      onProgress: (done, total) => progress?.push(`${done}/${total}`),
    });
  } finally {
    await a.close();
    await b.close();
  }
}

describe("compareStreamed", () => {
  it.each(["dense/llama", "dense/gpt_neox", "moe/qwen3_moe_mixed"])(
    "agrees with compareModels, in one pass or several: %s",
    async (other) => {
      const parent = golden("dense/qwen2");
      const models = [await openModel(parent, inThread, 1), await openModel(golden(other), inThread, 1)] as const;
      const inMemory = await compareModels(...models, tokens, { sequence: 20, limitTokens: 90 });
      await Promise.all(models.map((model) => model.close()));
      for (const bytes of [1e9, 1]) {
        const comparison = await streamed(parent, golden(other), bytes);
        expect(comparison.tokens).toBe(90);
        for (const key of [
          "parentLoss",
          "childLoss",
          "klDivergence",
          "meanAbsLogitDiff",
          "maxAbsLogitDiff",
          "maxAbsLogit",
        ] as const) {
          expect(Math.abs(comparison[key] - inMemory[key]), key).toBeLessThanOrEqual(1e-5 * inMemory.maxAbsLogit);
        }
        expect(comparison.topAgreement).toBe(inMemory.topAgreement);
        // A parallel block's FFN reads another place of the residual stream: there is nothing to compare.
        expect(comparison.layers === null).toBe(other === "dense/gpt_neox");
      }
    },
  );

  it("finds nothing between a model and itself, and says how far it is", async () => {
    const progress: string[] = [];
    const comparison = await streamed(golden("moe/mixtral"), golden("moe/mixtral"), 1, progress);
    expect(comparison).toMatchObject({ maxAbsLogitDiff: 0, meanAbsLogitDiff: 0, klDivergence: 0, topAgreement: 1 });
    expect(comparison.layers).toEqual([0, 1].map((layer) => ({ layer, relative: 0, largest: 0 })));
    expect(progress).toEqual(Array.from({ length: 10 }, (_, i) => `${i + 1}/10`));
  });

  it("measures each layer's error on the parent's own activations", async () => {
    const exact = await streamed(golden("dense/llama"), await upcycled("dense/llama", "E4G2T4"));
    for (const { relative, largest } of exact.layers!) expect(Math.max(relative, largest)).toBeLessThanOrEqual(1e-6);
    // Eight parts of weight 1/8 without a factor: an eighth of the FFN's output in every layer, however the errors
    // before it add up.
    const eighth = await streamed(golden("dense/llama"), await upcycled("dense/llama", "E8G8T8", { scaling: "none" }));
    expect(eighth.layers!.map(({ layer }) => layer)).toEqual([0, 1]);
    for (const { relative, largest } of eighth.layers!) {
      expect(relative).toBeCloseTo(7 / 8, 5);
      expect(largest).toBeCloseTo(7 / 8, 5);
    }
  });

  it("refuses a child with a vocabulary of another size", async () => {
    const model = await openStreamedModel(golden("dense/llama"), inThread, { threads: 1 });
    const other = { ...model, dir: "other", spec: { ...model.spec, vocab: 97 } };
    const error: unknown = await compareStreamed(model, other, tokens, {
      sequence: 20,
      limitTokens: 90,
      activationBytes: 1e9,
    }).catch((cause: unknown) => cause);
    expect((error as UpcycleError).line).toContain("other: its vocabulary has 97 tokens");
    await model.close();
  });
});

describe("measurePreservation", () => {
  const measure = (parent: string, child: string, options: Partial<PreservationOptions> = {}) =>
    measurePreservation({ parent, child, backend: inThread, threads: 1, tokens: 60, sequence: 20, ...options });

  it("holds what fits and streams what does not, with the same result", async () => {
    const child = await upcycled("dense/qwen3", "E4G1T2");
    const [inMemory, passing] = [
      await measure(golden("dense/qwen3"), child),
      await measure(golden("dense/qwen3"), child, { memory: 0 }),
    ];
    expect([inMemory.streamed, passing.streamed]).toEqual([false, true]);
    expect(inMemory).toMatchObject({
      version: 1,
      tokens: 60,
      sequence: 20,
      precision: { parent: "F32", child: "F32" },
      source: "random token ids (the model has no tokenizer.json)",
    });
    expect(inMemory.relative).toBeLessThanOrEqual(1e-5);
    expect(passing.relative).toBeLessThanOrEqual(1e-5);
    expect(passing.parentLoss).toBeCloseTo(inMemory.parentLoss, 5);
    expect(passing.childLoss).toBeCloseTo(inMemory.childLoss, 5);
    expect(passing.layers!.length).toBe(inMemory.layers!.length);
    expect(["identical", "same"]).toContain(inMemory.verdict.kind);
  });

  it("tells rounding to bfloat16 from another function", async () => {
    const rounded = await measure(golden("dense/llama"), await upcycled("dense/llama", "E4G1T2", { dtype: "BF16" }));
    expect(rounded).toMatchObject({
      precision: { parent: "F32", child: "BF16" },
      verdict: { kind: "rounded", tolerance: 2e-2 },
    });
    expect(rounded.relative).toBeGreaterThan(1e-5);
    const wrong = await measure(
      golden("dense/llama"),
      await upcycled("dense/llama", "E8G8T8", { dtype: "BF16", scaling: "none" }),
    );
    expect(wrong.verdict.kind).toBe("different");
  });

  it("stops between two reads of weights when its signal is aborted", async () => {
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(measure(golden("dense/llama"), golden("dense/llama"), { signal })).rejects.toThrow("enough");
  });
});
