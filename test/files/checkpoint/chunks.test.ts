import { at, entryOf } from "../../../src/base/at.js";
import { copyRectangle, matrixShape } from "../../../src/files/numeric/rectangles.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { planChunks, type Chunk } from "../../../src/files/checkpoint/chunks.js";
import { fillChunk, type MakeRectangle } from "../../../src/files/checkpoint/fill.js";
import type { PlannedFile } from "../../../src/files/checkpoint/plan-files.js";
import { planHeader } from "../../../src/files/formats/safetensors.js";
import { type SlotLayout, type Placement, type RowRuns } from "../../../src/model/tensors/placement.js";
import { putSlot } from "../../support/put-slot.js";

const place = (
  key: string,
  own: readonly number[],
  stored: readonly number[],
  layout: SlotLayout | null,
): Placement => ({
  slot: { key, at: { part: "q" }, shape: own },
  name: "w",
  shape: stored,
  first: 0,
  count: at(own, 0),
  layout,
});

/** Slots that are rows of a stored matrix. */
const lines = (columns: number, rows: RowRuns, base = 0): SlotLayout => ({
  base,
  rows,
  rowStride: columns,
  columnStride: 1,
});
/** Slots that are columns of a stored matrix, of which there are `of`. */
const transposed = (of: number, rows: RowRuns, base = 0): SlotLayout => ({
  base,
  rows,
  rowStride: 1,
  columnStride: of,
});

/** Ways in which slots share a stored tensor, for matrices of `columns` columns. */
function stores(columns: number, a: number, b: number, heads: number): [string, Placement[]][] {
  const third = { run: a, period: 3 * a };
  const sum = a + b;
  const [first, second] = [
    { start: 0, run: a, period: sum },
    { start: a, run: b, period: sum },
  ];
  const experts = Array.from({ length: heads }, (_, e) => e);
  const alternate = (i: number): RowRuns => ({ start: i, run: 1, period: 2 });
  const halves = (i: number): RowRuns => ({ start: i * a, run: a, period: 2 * a });
  const fused = (
    own: readonly number[],
    stored: readonly number[],
    layout: (expert: number, i: number) => SlotLayout,
  ): Placement[] => experts.flatMap((e) => [0, 1].map((i) => place(`${e} ${i}`, own, stored, layout(e, i))));
  return [
    ["alone", [place("x", [sum, columns], [sum, columns], null)]],
    ["a vector", [place("x", [a], [a], null)]],
    ["transposed", [place("x", [sum, columns], [columns, sum], transposed(sum, { start: 0, run: sum, period: sum }))]],
    [
      "stacked",
      [
        place("x", [a, columns], [sum, columns], lines(columns, first)),
        place("y", [b, columns], [sum, columns], lines(columns, second)),
      ],
    ],
    [
      "columns side by side",
      [
        place("x", [a, columns], [columns, sum], transposed(sum, first)),
        place("y", [b, columns], [columns, sum], transposed(sum, second)),
      ],
    ],
    [
      "head by head",
      ["x", "y", "z"].map((key, i) =>
        place(key, [heads * a, columns], [3 * heads * a, columns], lines(columns, { start: i * a, ...third })),
      ),
    ],
    [
      "vectors head by head",
      ["x", "y", "z"].map((key, i) => place(key, [heads * a], [3 * heads * a], lines(1, { start: i * a, ...third }))),
    ],
    [
      "experts, halves",
      fused([a, columns], [heads, 2 * a, columns], (e, i) => lines(columns, halves(i), e * 2 * a * columns)),
    ],
    [
      "experts, alternating",
      fused([a, columns], [heads, 2 * a, columns], (e, i) => lines(columns, alternate(i), e * 2 * a * columns)),
    ],
    [
      "experts, transposed, alternating",
      fused([a, columns], [heads, columns, 2 * a], (e, i) => transposed(2 * a, alternate(i), e * 2 * a * columns)),
    ],
    ["biases of experts, alternating", fused([a], [heads, 2 * a], (e, i) => lines(1, alternate(i), e * 2 * a))],
  ];
}

/** Bytes that tell every position of every slot from every other. */
const bytesOf = (key: string, shape: readonly number[]): Uint8Array =>
  new Uint8Array(
    Uint16Array.from(
      { length: shape.reduce((p, q) => p * q, 1) },
      (_, i) => (key.charCodeAt(0) * 4001 + (key.charCodeAt(2) || 0) * 997 + i) & 0xffff,
    ).buffer,
  );

const make: MakeRectangle = ({ key, shape }, { rowStart, rowCount, columnStart, columnCount }) =>
  Promise.resolve(
    copyRectangle(bytesOf(key, shape), {
      rowStart,
      rowCount,
      columnStart: 2 * columnStart,
      columnCount: 2 * columnCount,
      stride: 2 * matrixShape(shape)[1],
    }),
  );

function fileWith(slots: readonly Placement[]): PlannedFile {
  const header = planHeader([{ name: "w", dtype: "BF16", shape: at(slots, 0).shape }]);
  const { begin, end } = entryOf(header.tensors, "w");
  return { file: "f", header, tensors: [{ name: "w", dtype: "BF16", slots, begin, end }] };
}

async function assemble(file: PlannedFile, chunks: readonly Chunk[]): Promise<Uint8Array> {
  const { begin, end } = at(file.tensors, 0);
  const out = new Uint8Array(end - begin).fill(255);
  const writes = new Uint8Array(out.length);
  for (const chunk of chunks) {
    const bytes = new Uint8Array(chunk.bytes).fill(254);
    await fillChunk(chunk, make, bytes);
    for (const { offset } of chunk.places) {
      out.set(bytes, offset - begin);
      writes.subarray(offset - begin, offset - begin + bytes.length).forEach((_, i, all) => (all[i] = at(all, i) + 1));
    }
  }
  expect(writes.every((count) => count === 1)).toBe(true);
  return out;
}

describe("chunks", () => {
  it("of any size put every slot where its placement says, each byte once", async () => {
    const size = fc.integer({ min: 1, max: 7 });
    await fc.assert(
      fc.asyncProperty(
        size,
        size,
        size,
        size,
        fc.integer({ min: 1, max: 300 }),
        async (columns, a, b, heads, chunkBytes) => {
          for (const [name, slots] of stores(columns, a, b, heads)) {
            const file = fileWith(slots);
            const expected = new Uint8Array(at(file.tensors, 0).end - at(file.tensors, 0).begin);
            for (const slot of slots) putSlot(slot, expected, bytesOf(slot.slot.key, slot.slot.shape), 2);
            const chunks = planChunks([file], chunkBytes);
            expect(await assemble(file, chunks), name).toEqual(expected);
            // One row at least.
            expect(Math.max(...chunks.map(({ bytes }) => bytes))).toBeLessThanOrEqual(
              Math.max(chunkBytes, 2 * (at(slots, 0).shape.at(-1) ?? 0)),
            );
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it("of slots with equal values are made once and written to all their places", () => {
    const slots = ["x", "y", "z"].map((key, i) =>
      place(key, [64, 600], [192, 600], lines(600, { start: i * 64, run: 64, period: 192 })),
    );
    const file = fileWith(slots);
    const same = planChunks([file], 20_000, () => "equal");
    expect(same.every(({ places }) => places.length === 3)).toBe(true);
    expect(same.length).toBe(4);
    const differ = planChunks([file], 20_000, ({ key }) => key);
    expect(differ.every(({ places }) => places.length === 1)).toBe(true);
    expect(differ.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(3 * 64 * 600 * 2);
  });
});
