/** Every dense golden model in every family that says it can hold it: the child's logits are the parent's. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { entryOf } from "../../src/base/at.js";
import { resultOf } from "../../src/base/events.js";
import { convertCheckpoint } from "../../src/surgery/convert/convert.js";
import { compareModels } from "../../src/evals/compare.js";
import { openModel, type TextModel } from "../../src/evals/model.js";
import { upcycleRecipe } from "../../src/surgery/planning/recipe.js";
import { holders } from "../support/holders.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { inThread } from "../support/backend.js";
import { golden, readTensors } from "../support/golden.js";

/** Of the parent's largest absolute logit, in float32. */
const EXACT = 1e-5;
const root = temporaryFolder();
const parents = readdirSync(golden("dense")).map((name) => `dense/${name}`);
let folders = 0;

/** What the compatibility notes call exact, beside our own format; a family may hold more. */
const promised: Readonly<Record<string, readonly string[]>> = {
  "dense/llama": ["mixtral", "granitemoe", "qwen2_moe", "ernie4_5_moe", "glm4_moe", "solar_open"],
  "dense/llama_tied": ["mixtral", "granitemoe", "qwen2_moe"],
  "dense/llama3_rope": ["mixtral", "granitemoe", "qwen2_moe"],
  "dense/mistral": ["mixtral"],
  "dense/qwen2": ["qwen2_moe", "granitemoe", "glm4_moe"],
  "dense/qwen3": ["qwen3_moe", "mellum", "lfm2_moe", "dots1", "glm4_moe", "hy_v3"],
  "dense/olmo2": ["flex_olmo"],
  "dense/phi3": ["mixtral"],
  "dense/gemma": ["granitemoe", "mixtral"],
  "dense/granite": ["granitemoe"],
  "dense/smollm3": ["granitemoe_swa"],
  "dense/olmo": ["dbrx"],
};

describe.each(parents)("%s", (name) => {
  const ids = Int32Array.from(entryOf(readTensors(golden(name, "expected.safetensors")), "input_ids").data);
  let parent: TextModel;
  beforeAll(async () => void (parent = await openModel(golden(name), inThread, 1)));
  afterAll(() => parent.close());

  it.each([
    ["E8G2T4", "topk-softmax", 0.5],
    ["E4G1T2", "topk-softmax", 0.5],
    ["E4G1T2", "softmax-topk", 0],
  ] as const)("%s, %s, router std %s", async (recipeName, order, routerStd) => {
    const families = holders(parent.spec, upcycleRecipe(recipeName, { order, routerStd }));
    expect(families).toContain("upcycle");
    // It always selects two.
    if (name === "dense/stablelm" && recipeName === "E4G1T2" && order === "topk-softmax")
      expect(families).toContain("phimoe");
    if (order === "topk-softmax") expect(families).toEqual(expect.arrayContaining([...(promised[name] ?? [])]));
    for (const target of families) {
      const out = join(root, `m${folders++}`);
      await resultOf(
        convertCheckpoint({
          source: golden(name),
          recipe: upcycleRecipe(recipeName, { order, routerStd, target, seed: 5 }),
          out,
        }),
      );
      const child = await openModel(out, inThread, 1);
      const { maxAbsLogitDiff, maxAbsLogit, tokens } = await compareModels(parent, child, ids, {
        sequence: 24,
        limitTokens: 1000,
      });
      await child.close();
      expect(tokens).toBeGreaterThan(20);
      expect(maxAbsLogitDiff / maxAbsLogit, target).toBeLessThanOrEqual(EXACT);
    }
  });
});
