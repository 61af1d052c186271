/** Which dense model an upcycled one was made from, where every run has a checkpoint of the same name. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { encodeSafetensors } from "../../../src/files/formats/safetensors.js";
import { specFromConfig } from "../../../src/model/decoder/config.js";
import type { CheckpointList, ModelDetail, ModelRow } from "../../../src/studio/data/model-types.js";
import { Studio } from "../../../src/studio/server/studio.js";
import { recordOf } from "../../../src/surgery/convert/record.js";
import { planUpcycle } from "../../../src/surgery/planning/plan.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { tinyConfig } from "../folder.js";

let dir: string;
const write = (name: string, content: string | Uint8Array | object): void => {
  mkdirSync(join(dir, name, ".."), { recursive: true });
  const isData = typeof content === "string" || content instanceof Uint8Array;
  writeFileSync(join(dir, name), isData ? content : JSON.stringify(content));
};

/** A model whose embedding is one number, but in its last row of 256; null: its weights are not there. */
function writeModel(
  name: string,
  family: "llama" | "mixtral",
  weight: number | null,
  { last = weight ?? 0, ...changes }: { readonly last?: number; readonly [key: string]: unknown } = {},
): void {
  write(`${name}/config.json`, { ...tinyConfig(family), vocab_size: 256, ...changes });
  write(`${name}/tokenizer.json`, "{}");
  if (weight === null) return;
  const values = new Float32Array(256 * 16).fill(weight).fill(last, 255 * 16);
  const bytes = new Uint8Array(values.buffer);
  const tensor = { name: "model.embed_tokens.weight", dtype: "F32", shape: [256, 16], bytes } as const;
  write(`${name}/model.safetensors`, encodeSafetensors([tensor]));
}
function writeChild(name: string, weight: number | null, last?: number): void {
  writeModel(name, "mixtral", weight, last === undefined ? {} : { last });
  const plan = planUpcycle(specFromConfig(tinyConfig("llama"), "config.json"), upcycleRecipe("E4G1T2"));
  write(`${name}/upcycle.json`, recordOf(plan, ["last"], "0.1.0", []));
}

/** The parent by the list of models, by the page of one, and by the list of what can generate. */
async function parentsOf(name: string): Promise<readonly [string, string, string | null]> {
  const studio = await Studio.open({ dir, actions: false });
  await studio.look();
  const ask = async <T>(path: string, query = ""): Promise<T> =>
    (await studio.answer(path, new URLSearchParams(query))) as T;
  const { models } = await ask<{ models: readonly ModelRow[] }>("/api/models");
  const { command } = await ask<ModelDetail>("/api/model", `name=${name}`);
  const { models: playable } = await ask<CheckpointList>("/api/checkpoints");
  const find = <T extends { readonly name: string }>(list: readonly T[]): T => list.find((one) => one.name === name)!;
  return [find(models).parent, command![2]!, find(playable).parent];
}

beforeEach(() => {
  dir = temporaryFolder();
});

describe("the parent of a model, among checkpoints of its name", () => {
  it("is the one whose embedding the model has, not the first or the nearest", async () => {
    writeModel("alone/last", "llama", 1);
    writeModel("study/arms/dense/seed-0-0123456789abcdef/last", "llama", 2);
    writeModel("study/parents/parent-0123456789abcdef/last", "llama", 3);
    writeChild("models/child", 3);
    const parent = "study/parents/parent-0123456789abcdef/last";
    expect(await parentsOf("models/child")).toEqual(["study/parents/parent", join(dir, parent), parent]);
  });

  it("is told by more than the first rows, which are of tokens that no text has", async () => {
    writeModel("a/last", "llama", 1, { last: 2 });
    writeModel("b/last", "llama", 1, { last: 3 });
    writeChild("models/child", 1, 3);
    expect(await parentsOf("models/child")).toEqual(["b", join(dir, "b/last"), "b/last"]);
  });

  it("is none of another size, and none whose weights are others", async () => {
    writeModel("smaller/last", "llama", 1, { hidden_size: 8, head_dim: 8 });
    writeModel("other/last", "llama", 2);
    writeChild("models/child", 1);
    expect(await parentsOf("models/child")).toEqual(['a checkpoint "last"', "last", null]);
  });

  it("is the only one that fits where weights cannot be compared, in a study its parent", async () => {
    writeModel("study/arms/dense/seed-0-0123456789abcdef/last", "llama", null);
    writeModel("study/parents/parent-0123456789abcdef/last", "llama", null);
    writeChild("study/starts/child", null);
    const parent = "study/parents/parent-0123456789abcdef/last";
    expect(await parentsOf("study/starts/child")).toEqual(["study/parents/parent", join(dir, parent), parent]);
  });

  it("is not guessed where several fit and none is nearer", async () => {
    writeModel("one/last", "llama", null);
    writeModel("two/last", "llama", null);
    writeChild("models/child", null);
    expect(await parentsOf("models/child")).toEqual(['a checkpoint "last"', "last", null]);
  });
});
