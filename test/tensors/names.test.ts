import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseSafetensors } from "../../src/format/safetensors.js";
import { specFromConfig } from "../../src/spec/config.js";
import { isComputedBuffer, namedSlots, tensorName } from "../../src/tensors/names.js";
import { families, specOf } from "../spec/arbitrary.js";
import { goldenFiles, goldenModels, readGolden } from "../golden.js";

describe("tensorName", () => {
  test.each(goldenModels)("%s: our slots are exactly the tensors transformers wrote", (model) => {
    const spec = specFromConfig(JSON.parse(readGolden(model, "config.json").toString()), model);
    const stored = new Map(
      goldenFiles(model).flatMap((file) => [...parseSafetensors(readGolden(model, file), file).tensors]),
    );
    const ours = namedSlots(spec);
    expect(ours.map(({ name }) => name).sort()).toEqual([...stored.keys()].sort());
    for (const { slot, name } of ours) expect([name, slot.shape]).toEqual([name, stored.get(name)!.shape]);
  });

  test("names are unique and complete for every spec of every family", () => {
    fc.assert(
      fc.property(fc.constantFrom(...families).chain(specOf), (spec) => {
        const names = namedSlots(spec).map(({ name }) => name);
        expect(new Set(names).size).toBe(names.length);
        expect(names.join()).not.toMatch(/[{}]|undefined/);
      }),
    );
  });

  test("a part the family does not have is a defect", () => {
    const spec = specFromConfig(JSON.parse(readGolden("moe/mixtral", "config.json").toString()), "mixtral");
    expect(tensorName(spec, { part: "up", layer: 1, expert: 3 })).toBe(
      "model.layers.1.block_sparse_moe.experts.3.w3.weight",
    );
    expect(() => tensorName(spec, { part: "gate", layer: 1 })).toThrow('mixtral has no name for {"part":"gate","layer":1}');
  });

  test("computed buffers", () => {
    expect(isComputedBuffer("model.layers.0.self_attn.rotary_emb.inv_freq")).toBe(true);
    expect(isComputedBuffer("model.layers.0.self_attn.q_proj.weight")).toBe(false);
  });
});
