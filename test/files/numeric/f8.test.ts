import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import {
  dequantizeF8,
  e8m0ToFloat32,
  f8Dtypes,
  f8Values,
  scaleGrid,
  type F8Dtype,
} from "../../../src/files/numeric/f8.js";
import { toFloat32 } from "../../../src/files/numeric/dtype.js";

/** Bytes and values as `torch.tensor([byte], dtype=torch.uint8).view(torch.float8_*).float()` prints them. */
const torchSays: Readonly<Record<F8Dtype, readonly (readonly [number, number])[]>> = {
  F8_E4M3: [
    [0x00, 0],
    [0x80, -0],
    [0x01, 0.001953125],
    [0x07, 0.013671875],
    [0x08, 0.015625],
    [0x37, 0.9375],
    [0x38, 1],
    [0xb9, -1.125],
    [0x77, 240],
    [0x78, 256],
    [0x7e, 448],
    [0xfe, -448],
    [0x7f, NaN],
    [0xff, NaN],
  ],
  F8_E5M2: [
    [0x00, 0],
    [0x80, -0],
    [0x01, 0.0000152587890625],
    [0x03, 0.0000457763671875],
    [0x04, 0.00006103515625],
    [0x3c, 1],
    [0xbd, -1.25],
    [0x7b, 57344],
    [0xfb, -57344],
    [0x7c, Infinity],
    [0xfc, -Infinity],
    [0x7d, NaN],
    [0xff, NaN],
  ],
};

describe("8-bit floats", () => {
  it.each(f8Dtypes)("%s has torch's values", (dtype) => {
    for (const [byte, value] of torchSays[dtype]) expect(f8Values(dtype)[byte]).toBe(value);
  });

  it("E5M2 is the upper byte of a float16", () => {
    const halves = Uint8Array.from({ length: 512 }, (_, i) => (i % 2 === 0 ? 0 : i >> 1));
    expect(f8Values("F8_E5M2")).toEqual(toFloat32("F16", halves));
  });

  it("E4M3 counts up by its bits: each step is an eighth of the power of two below", () => {
    const table = f8Values("F8_E4M3");
    for (let byte = 0; byte < 0x7e; byte++) {
      const step = at(table, byte + 1) - at(table, byte);
      expect(step).toBe(2 ** (Math.max(byte >> 3, 1) - 10));
      expect(table[byte | 0x80]).toBe(-at(table, byte));
    }
  });

  it("scales that are powers of two are read from their exponents", () => {
    expect([...e8m0ToFloat32(Uint8Array.of(127, 128, 0, 254, 255))]).toEqual([1, 2, 2 ** -127, 2 ** 127, NaN]);
  });
});

describe("grids of scales", () => {
  const cases: [number[], number[], [number, number] | null, object | null][] = [
    [[6, 4], [], null, { gridRows: 1, gridColumns: 1, shared: true }],
    [[6, 4], [1], null, { gridRows: 1, gridColumns: 1, shared: true }],
    [[6, 4], [6, 1], null, { gridRows: 6, gridColumns: 1, blockRows: 1 }],
    [[6, 4], [6], null, { gridRows: 6, gridColumns: 1, blockRows: 1 }],
    [[300, 200], [3, 2], null, { blockRows: 128, blockColumns: 128 }],
    [[300, 200], [5, 4], [64, 64], { blockRows: 64, blockColumns: 64 }],
    [[192, 256], [2, 2], null, { blockRows: 128, blockColumns: 128 }],
    [[64, 64], [4, 2], null, { blockRows: 16, blockColumns: 32 }],
    [[64, 64], [64, 2], null, { blockRows: 1, blockColumns: 32 }],
    [[7], [7], null, { gridRows: 7, blockRows: 1 }],
    [[3, 6, 4], [3], null, { gridRows: 1, gridColumns: 1, shared: false }],
    [[3, 6, 4], [3, 1, 1], null, { gridRows: 1, gridColumns: 1, shared: false }],
    [[3, 6, 4], [3, 6], null, { gridRows: 6, blockRows: 1 }],
    [[3, 6, 4], [3, 3, 2], null, { blockRows: 2, blockColumns: 2 }],
    [[6, 4], [4, 4], null, null],
    [[6, 4], [4, 1], null, null],
    [[6, 4], [0], null, null],
    [[6, 4], [2, 6, 1], null, null],
    [[300, 200], [7, 2], null, null],
  ];
  it.each(cases)("weight %j, scales %j, block %j", (weight, scale, block, expected) => {
    const grid = scaleGrid(weight, scale, block);
    if (expected === null) expect(grid).toBeNull();
    else expect(grid).toMatchObject(expected);
  });

  it("any part of a weight is the same part of the whole, each value times the scale of its block", () => {
    const size = fc.integer({ min: 1, max: 9 });
    fc.assert(
      fc.property(
        size,
        size,
        size,
        size,
        fc.integer({ min: 1, max: 3 }),
        fc.nat(),
        fc.nat(),
        (rows, columns, height, width, matrices, from, length) => {
          const [gridRows, gridColumns] = [Math.ceil(rows / height), Math.ceil(columns / width)];
          const shape = matrices === 1 ? [rows, columns] : [matrices, rows, columns];
          const scaleShape = matrices === 1 ? [gridRows, gridColumns] : [matrices, gridRows, gridColumns];
          const grid = scaleGrid(shape, scaleShape, [height, width])!;
          const bytes = Uint8Array.from({ length: matrices * rows * columns }, (_, i) => 0x30 + (i % 32));
          const scales = Float32Array.from({ length: matrices * gridRows * gridColumns }, (_, i) => i + 1);
          const whole = dequantizeF8("F8_E4M3", bytes, 0, grid, scales);
          const start = from % (bytes.length + 1);
          const end = start + (length % (bytes.length - start + 1));
          expect(dequantizeF8("F8_E4M3", bytes.subarray(start, end), start, grid, scales)).toEqual(
            whole.slice(start, end),
          );
          // The grid's own blocks: a size that is as good as the stated one may have been taken (one block, one per
          // row).
          whole.forEach((value, i) => {
            const [matrix, row, column] = [
              Math.floor(i / (rows * columns)),
              Math.floor(i / columns) % rows,
              i % columns,
            ];
            const perMatrix = grid.shared ? 0 : matrix * gridRows * gridColumns;
            const scale = at(scales, perMatrix + Math.floor(row / height) * gridColumns + Math.floor(column / width));
            expect(value).toBe(f8Values("F8_E4M3")[at(bytes, i)]! * scale);
          });
        },
      ),
    );
  });

  it("without scales the values are as they are", () => {
    expect([...dequantizeF8("F8_E5M2", Uint8Array.of(0x3c, 0x40), 5, null, new Float32Array(0))]).toEqual([1, 2]);
  });
});
