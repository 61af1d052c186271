import { at } from "../../../src/base/at.js";
import { copyRectangle, matrixShape } from "../../../src/files/numeric/rectangles.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { openRectangleReader } from "../../../src/files/checkpoint/rectangle-reader.js";
import { floatBytes } from "../../../src/files/numeric/dtype.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { golden } from "../../support/golden.js";

describe("rectangles of slots", () => {
  it.each(["dense/llama", "dense/phi3", "dense/gpt_neox", "dense/stablelm_qk"])(
    "of %s have the same bytes as in the whole slot",
    async (model) => {
      const checkpoint = await openCheckpoint(golden(model));
      const slots = slotsOf(checkpoint.spec);
      await fc.assert(
        fc.asyncProperty(
          fc.nat(),
          fc.array(fc.nat(), { minLength: 4, maxLength: 4 }),
          fc.boolean(),
          async (which, [a = 0, b = 0, c = 0, d = 0], hasMemory) => {
            const { key, shape } = at(slots, which % slots.length);
            const [rows, columns] = matrixShape(shape);
            const [rowStart, columnStart] = [a % rows, b % columns];
            const [rowCount, columnCount] = [1 + (c % (rows - rowStart)), 1 + (d % (columns - columnStart))];
            const rectangle = { key, rowStart, rowCount, columnStart, columnCount, stride: columns };
            const size = floatBytes[checkpoint.dtypeOf(key)];
            const { bytes } = await checkpoint.readRectangle(
              rectangle,
              hasMemory ? new Uint8Array(rowCount * columnCount * size + 3) : undefined,
            );
            const whole = (await checkpoint.readBytes(key)).bytes;
            const expected = copyRectangle(whole, {
              ...rectangle,
              columnStart: columnStart * size,
              columnCount: columnCount * size,
              stride: columns * size,
            });
            expect(Buffer.compare(bytes, expected), key).toBe(0);
          },
        ),
        { numRuns: 150 },
      );
      await checkpoint.close();
    },
  );

  it("of a transposed matrix are read block by block, and short runs come out of blocks that were read before", async () => {
    const [rows, columns] = [700, 900];
    // Stored [columns, rows]: slot element (i, j) is stored element j * rows + i.
    const stored = Uint16Array.from({ length: rows * columns }, (_, i) => i);
    const bytes = new Uint8Array(stored.buffer);
    let reads = 0;
    const source = {
      name: "w",
      dtype: "BF16" as const,
      count: rows * columns,
      first: 0,
      rows,
      layout: { base: 0, rows: { start: 0, run: rows, period: rows }, rowStride: 1, columnStride: rows },
      read: async (start: number, count: number) => {
        reads++;
        return bytes.slice(2 * start, 2 * (start + count));
      },
    };
    const read = openRectangleReader();
    const rectangle = { key: "w", rowStart: 5, rowCount: 600, columnStart: 3, columnCount: 800, stride: columns };
    const values = new Uint16Array((await read([source], rectangle)).bytes.slice().buffer);
    expect(values.every((value, k) => value === (((3 + (k % 800)) * rows + 5 + Math.floor(k / 800)) & 0xffff))).toBe(
      true,
    );
    expect(reads).toBe(2);
    await read([source], { ...rectangle, columnCount: 7 });
    expect(reads).toBe(2);
  });
});
