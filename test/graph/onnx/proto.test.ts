import fc from "fast-check";
import { expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { encodeModel } from "../../../src/graph/onnx/proto.js";
import { fields, part } from "../../support/onnx.js";

it("parts of every length come back, whatever number of bytes says how long they are", () => {
  // Lengths around 2^7 and 2^14, and beyond the first buffer.
  const length = fc.oneof(
    fc.integer({ min: 0, max: 40 }),
    fc.integer({ min: 4080, max: 4110 }),
    fc.integer({ min: 16_000, max: 70_000 }),
  );
  fc.assert(
    fc.property(
      fc.array(length, { minLength: 1, maxLength: 4 }),
      fc.string({ unit: "grapheme", maxLength: 200 }),
      fc.integer(),
      (lengths, name, whole) => {
        const initializers = lengths.map((count) => ({
          name,
          type: "float" as const,
          shape: [count],
          data: Float32Array.from({ length: count }, (_, i) => i + 0.5),
        }));
        const nodes = [{ op: "Op", inputs: [name], outputs: ["y"], attributes: { whole } }];
        const graph = part(encodeModel({ nodes, initializers, inputs: [], outputs: [] }).bytes, 7);
        const tensors = fields(graph)
          .filter(({ field }) => field === 5)
          .map(({ value }) => value as Uint8Array);
        expect(tensors.length).toBe(lengths.length);
        tensors.forEach((tensor, i) => {
          expect(new TextDecoder().decode(part(tensor, 8))).toBe(name);
          expect(Buffer.compare(part(tensor, 9), new Uint8Array(at(initializers, i).data.buffer))).toBe(0);
        });
        const node = part(graph, 1);
        expect(new TextDecoder().decode(part(node, 1))).toBe(name);
        expect(fields(part(node, 5)).find(({ field }) => field === 3)!.value).toBe(whole);
      },
    ),
    { numRuns: 40 },
  );
});

it("what is written later fits into its hole, wherever it lies", () => {
  const length = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 4080, max: 4110 }));
  fc.assert(
    fc.property(fc.array(fc.record({ length, later: fc.boolean() }), { minLength: 1, maxLength: 5 }), (tensors) => {
      const data = tensors.map((tensor, i) => Float32Array.from({ length: tensor.length }, (_, j) => i + j / 8));
      const model = (holes: boolean) =>
        encodeModel({
          nodes: [{ op: "Op", inputs: ["x"], outputs: ["y"] }],
          inputs: [],
          outputs: [],
          initializers: tensors.map(({ later }, i) => ({
            name: `w${i}`,
            type: "float" as const,
            shape: [at(data, i).length],
            data: holes && later ? { later: true as const, bytes: at(data, i).byteLength } : at(data, i),
          })),
        });
      const { bytes, holes } = model(true);
      expect(holes.map(({ name }) => name)).toEqual(tensors.flatMap(({ later }, i) => (later ? [`w${i}`] : [])));
      const parts: Uint8Array[] = [];
      let written = 0;
      for (const hole of holes) {
        parts.push(bytes.subarray(written, hole.at), new Uint8Array(at(data, Number(hole.name.slice(1))).buffer));
        written = hole.at;
      }
      parts.push(bytes.subarray(written));
      expect(Buffer.compare(Buffer.concat(parts), model(false).bytes)).toBe(0);
    }),
  );
});
