import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import { addLowRank, type LowRank } from "../../../src/files/numeric/low-rank.js";

function normals(count: number, name: string): Float32Array {
  const out = new Float32Array(count);
  randomStream(4, name).normals(out, 0, 0, 1);
  return out;
}

/** One element, in plain arithmetic: the order that `addLowRank` promises. */
function element(w: number, row: number, column: number, { rank, scale, a, b }: LowRank): number {
  let sum = 0;
  for (let k = 0; k < rank; k++) sum += at(b, row * rank + k) * at(a, (k * a.length) / rank + column);
  return Math.fround(w + scale * sum);
}

describe("low-rank changes", () => {
  it("of a rectangle are the rectangle of the whole's, to the last bit", () => {
    const sizes = fc.tuple(
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 1, max: 5 }),
    );
    const numbers = fc.infiniteStream(fc.float({ noNaN: true, noDefaultInfinity: true, min: -8, max: 8 }));
    fc.assert(
      fc.property(sizes, numbers, fc.nat(), fc.nat(), ([rows, columns, rank], drawn, r, c) => {
        const take = (count: number): Float32Array =>
          Float32Array.from({ length: count }, () => drawn.next().value as number);
        const [w, change] = [
          take(rows * columns),
          { rank, scale: 0.75, a: take(rank * columns), b: take(rows * rank) },
        ];
        const whole = new Float32Array(w.length);
        addLowRank(
          w,
          Array.from({ length: rows }, (_, i) => i),
          0,
          change,
          whole,
        );
        const [row, column] = [r % rows, c % columns];
        const one = new Float32Array(1);
        addLowRank(Float32Array.of(at(w, row * columns + column)), [row], column, change, one);
        expect(one[0]).toBe(whole[row * columns + column]);
        expect(one[0]).toBe(element(at(w, row * columns + column), row, column, change));
      }),
    );
  });

  it.each([
    { rows: 64, columns: 1024 },
    { rows: 65, columns: 1025 },
    { rows: 131, columns: 2051 },
    { rows: 1, columns: 3000 },
    { rows: 200, columns: 3 },
  ])("of $rows x $columns, also in place and with rows in any order", ({ rows, columns }) => {
    const rank = 3;
    const change: LowRank = { rank, scale: -1.25, a: normals(rank * (columns + 7), "a"), b: normals(rows * rank, "b") };
    const w = normals(rows * columns, "w");
    const order = Array.from({ length: rows }, (_, i) => (i * 37 + 5) % rows);
    const expected = w.map((value, i) => element(value, at(order, Math.floor(i / columns)), 7 + (i % columns), change));
    const out = new Float32Array(w.length);
    addLowRank(w, order, 7, change, out);
    expect(out).toEqual(expected);
    addLowRank(w, order, 7, change, w);
    expect(w).toEqual(expected);
  });

  it("of no rows are nothing, and a later change of a higher rank has room", () => {
    addLowRank(
      new Float32Array(0),
      [],
      0,
      { rank: 2, scale: 1, a: normals(8, "a"), b: normals(8, "b") },
      new Float32Array(0),
    );
    const change: LowRank = { rank: 700, scale: 1, a: normals(700 * 5, "a"), b: normals(700 * 2, "b") };
    const [w, out] = [normals(10, "w"), new Float32Array(10)];
    addLowRank(w, [1, 0], 0, change, out);
    expect(out).toEqual(w.map((value, i) => element(value, i < 5 ? 1 : 0, i % 5, change)));
  });
});
