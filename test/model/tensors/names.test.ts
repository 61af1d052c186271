import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseSafetensors } from "../../support/safetensors.js";
import { specFromConfig } from "../../../src/model/decoder/config.js";
import { isComputedBuffer, tensorNames } from "../../../src/model/tensors/names.js";
import {
  isWholeTensor,
  placements,
  storedTensors,
  takeSlot,
  transposedRowsOf,
} from "../../../src/model/tensors/placement.js";
import { putSlot } from "../../support/put-slot.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { families, specOf } from "../decoder/arbitrary.js";
import { readFileSync } from "node:fs";
import { golden, goldenFolders, weightFiles } from "../../support/golden.js";
import { at } from "../../../src/base/at.js";
import { present } from "../../support/present.js";

describe("tensorNames", () => {
  it.each(goldenFolders)("%s: our slots are exactly the tensors transformers wrote", (model) => {
    const spec = specFromConfig(JSON.parse(readFileSync(golden(model, "config.json")).toString()), model);
    const tensors = new Map(
      weightFiles(model).flatMap((file) => [...parseSafetensors(readFileSync(golden(model, file)), file).tensors]),
    );
    const ours = placements(spec);
    expect([...new Set(ours.map(({ name }) => name))].sort()).toEqual([...tensors.keys()].sort());
    for (const { shape, name } of ours) expect([name, shape]).toEqual([name, present(tensors.get(name)).shape]);
  });

  it("names every slot of every spec, and slots fill their tensors without overlap", () => {
    fc.assert(
      fc.property(fc.constantFrom(...families).chain(specOf), (spec) => {
        const tensors = storedTensors(spec);
        expect([...tensors.keys()].join()).not.toMatch(/[{}]|undefined/);
        for (const slots of tensors.values()) {
          if (slots.length === 1 && isWholeTensor(at(slots, 0))) continue;
          const tensors = new Uint8Array(at(slots, 0).shape.reduce((a, b) => a * b, 1));
          slots.forEach((place, i) => {
            expect(place.shape).toEqual(at(slots, 0).shape);
            const own = new Uint8Array(place.slot.shape.reduce((a, b) => a * b, 1));
            const width = own.length / (place.slot.shape[0] ?? 1);
            const share = own.slice().fill(i + 1, place.first * width, (place.first + place.count) * width);
            const readBack = own.slice().fill(9);
            takeSlot(place, tensors, readBack, 1);
            expect(readBack).toEqual(share.map((value) => (value === 0 ? 9 : 0)));
            putSlot(place, tensors, share, 1);
            takeSlot(place, tensors, own, 1);
            expect(own).toEqual(share);
          });
          expect(tensors).not.toContain(0);
        }
        const places = placements(spec);
        for (const slot of slotsOf(spec)) {
          const own = places.filter((place) => place.slot.key === slot.key);
          expect(own.reduce((end, { first, count }) => (first === end ? end + count : NaN), 0)).toBe(slot.shape[0]);
        }
      }),
    );
  });

  it("throws for a part that the family does not have", () => {
    const spec = specFromConfig(JSON.parse(readFileSync(golden("moe/mixtral", "config.json")).toString()), "mixtral");
    expect(tensorNames(spec, { part: "up", layer: 1, expert: 3 })).toEqual([
      "model.layers.1.block_sparse_moe.experts.3.w3.weight",
    ]);
    expect(() => tensorNames(spec, { part: "gate", layer: 1 })).toThrow(
      'mixtral has no name for {"part":"gate","layer":1}',
    );
  });

  it("takes a slot stored as columns the other way round", () => {
    const slot = { key: "layers.0.k", at: { part: "k", layer: 0 }, shape: [2, 3] } as const;
    const place = {
      slot,
      name: "c_attn",
      first: 0,
      count: 2,
      ...transposedRowsOf(slot, 6, { start: 2, run: 2, period: 6 }),
    };
    const tensors = Uint8Array.from({ length: 18 }, (_, i) => i);
    const own = new Uint8Array(6);
    takeSlot(place, tensors, own, 1);
    expect([...own]).toEqual([2, 8, 14, 3, 9, 15]);
    const copy = new Uint8Array(18);
    putSlot(place, copy, own, 1);
    expect([...copy.slice(6, 12)]).toEqual([0, 0, 8, 9, 0, 0]);
  });

  it("knows buffers that are computed from the config by their names", () => {
    expect(isComputedBuffer("model.layers.0.self_attn.rotary_emb.inv_freq")).toBe(true);
    expect(isComputedBuffer("gpt_neox.layers.0.attention.masked_bias")).toBe(true);
    expect(isComputedBuffer("h.0.attn.bias")).toBe(true);
    expect(isComputedBuffer("transformer.h.0.attn.c_attn.bias")).toBe(false);
    expect(isComputedBuffer("gpt_neox.layers.0.attention.dense.bias")).toBe(false);
    expect(isComputedBuffer("model.layers.0.self_attn.q_proj.weight")).toBe(false);
  });
});
