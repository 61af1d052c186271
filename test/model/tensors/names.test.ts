import fc from "fast-check";
import { describe, expect, test } from "vitest";
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

describe("tensorNames", () => {
  test.each(goldenFolders)("%s: our slots are exactly the tensors transformers wrote", (model) => {
    const spec = specFromConfig(JSON.parse(readFileSync(golden(model, "config.json")).toString()), model);
    const stored = new Map(
      weightFiles(model).flatMap((file) => [...parseSafetensors(readFileSync(golden(model, file)), file).tensors]),
    );
    const ours = placements(spec);
    expect([...new Set(ours.map(({ name }) => name))].sort()).toEqual([...stored.keys()].sort());
    for (const { shape, name } of ours) expect([name, shape]).toEqual([name, stored.get(name)!.shape]);
  });

  test("names are complete and slots fill their tensors without overlap for every spec of every family", () => {
    fc.assert(
      fc.property(fc.constantFrom(...families).chain(specOf), (spec) => {
        const tensors = storedTensors(spec);
        expect([...tensors.keys()].join()).not.toMatch(/[{}]|undefined/);
        for (const slots of tensors.values()) {
          if (slots.length === 1 && isWholeTensor(slots[0]!)) continue;
          const stored = new Uint8Array(slots[0]!.shape.reduce((a, b) => a * b, 1));
          slots.forEach((place, i) => {
            expect(place.shape).toEqual(slots[0]!.shape);
            const own = new Uint8Array(place.slot.shape.reduce((a, b) => a * b, 1));
            const width = own.length / (place.slot.shape[0] ?? 1);
            const share = own.slice().fill(i + 1, place.first * width, (place.first + place.count) * width);
            const taken = own.slice().fill(9);
            takeSlot(place, stored, taken, 1);
            expect(taken).toEqual(share.map((value) => (value === 0 ? 9 : 0)));
            putSlot(place, stored, share, 1);
            takeSlot(place, stored, own, 1);
            expect(own).toEqual(share);
          });
          expect(stored).not.toContain(0);
        }
        const places = placements(spec);
        for (const slot of slotsOf(spec)) {
          const own = places.filter((place) => place.slot.key === slot.key);
          expect(own.reduce((end, { first, count }) => (first === end ? end + count : NaN), 0)).toBe(slot.shape[0]);
        }
      }),
    );
  });

  test("a part the family does not have is a defect", () => {
    const spec = specFromConfig(JSON.parse(readFileSync(golden("moe/mixtral", "config.json")).toString()), "mixtral");
    expect(tensorNames(spec, { part: "up", layer: 1, expert: 3 })).toEqual([
      "model.layers.1.block_sparse_moe.experts.3.w3.weight",
    ]);
    expect(() => tensorNames(spec, { part: "gate", layer: 1 })).toThrow(
      'mixtral has no name for {"part":"gate","layer":1}',
    );
  });

  test("a slot stored as columns is turned round", () => {
    const slot = { key: "layers.0.k", at: { part: "k", layer: 0 }, shape: [2, 3] } as const;
    const place = {
      slot,
      name: "c_attn",
      first: 0,
      count: 2,
      ...transposedRowsOf(slot, 6, { start: 2, run: 2, period: 6 }),
    };
    const stored = Uint8Array.from({ length: 18 }, (_, i) => i);
    const own = new Uint8Array(6);
    takeSlot(place, stored, own, 1);
    expect([...own]).toEqual([2, 8, 14, 3, 9, 15]);
    const copy = new Uint8Array(18);
    putSlot(place, copy, own, 1);
    expect([...copy.slice(6, 12)]).toEqual([0, 0, 8, 9, 0, 0]);
  });

  test("computed buffers", () => {
    expect(isComputedBuffer("model.layers.0.self_attn.rotary_emb.inv_freq")).toBe(true);
    expect(isComputedBuffer("gpt_neox.layers.0.attention.masked_bias")).toBe(true);
    expect(isComputedBuffer("h.0.attn.bias")).toBe(true);
    expect(isComputedBuffer("transformer.h.0.attn.c_attn.bias")).toBe(false);
    expect(isComputedBuffer("gpt_neox.layers.0.attention.dense.bias")).toBe(false);
    expect(isComputedBuffer("model.layers.0.self_attn.q_proj.weight")).toBe(false);
  });
});
