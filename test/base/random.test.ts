import { describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import { meanOf } from "../../src/base/mean.js";
import { hash64, randomStream } from "../../src/base/random.js";

const count = 40_000;

describe("a random stream", () => {
  it("gives the numbers that it has always given, since models and data orders are drawn from it", () => {
    const stream = randomStream(7, "weights");
    const normals = new Float64Array(3);
    stream.normals(normals, 3);
    for (const [i, value] of [-0.8448766747632438, 0.04381968513807971, -1.593410144488465].entries())
      expect(at(normals, i)).toBeCloseTo(value, 14);
    expect([stream.uniformAt(0), stream.uniformAt(2 ** 34 + 1)]).toEqual([0.2713620630092919, 0.35574341262690723]);
    const order = new Int32Array(6);
    stream.permutation(order);
    expect([...order]).toEqual([0, 3, 5, 2, 1, 4]);
  });

  it("gives the same normals from any start, in any pieces", () => {
    const whole = new Float64Array(64);
    randomStream(7, "weights").normals(whole, 0);
    for (const start of [0, 1, 2, 3, 17, 60]) {
      const piece = new Float64Array(4);
      randomStream(7, "weights").normals(piece, start);
      expect(piece).toEqual(whole.slice(start, start + 4));
    }
  });

  it("differs with the seed and with the name", () => {
    const first = (seed: number, name: string): number => randomStream(seed, name).uniformAt(0);
    expect(new Set([first(0, "a"), first(1, "a"), first(0, "b"), first(1, "b")]).size).toBe(4);
    expect(first(0, "a")).toBe(first(0, "a"));
  });

  it("has uniform numbers in [0, 1) and normals with mean 0 and deviation 1", () => {
    const uniforms = Float64Array.from({ length: count }, (_, i) => randomStream(3, "u").uniformAt(i));
    expect(uniforms.every((value) => value >= 0 && value < 1)).toBe(true);
    expect(meanOf(uniforms)).toBeCloseTo(0.5, 1);
    const normals = new Float64Array(count);
    randomStream(3, "n").normals(normals, 0);
    expect(meanOf(normals)).toBeCloseTo(0, 1);
    expect(meanOf(normals.map((value) => value * value))).toBeCloseTo(1, 1);
  });

  it("scales normals by mean and deviation, and uniforms to a range, without changing which are drawn", () => {
    const [plain, scaled] = [new Float64Array(9), new Float64Array(9)];
    randomStream(1, "x").normals(plain, 5);
    randomStream(1, "x").normals(scaled, 5, 10, 0.5);
    for (const [i, value] of scaled.entries()) expect(value).toBeCloseTo(10 + 0.5 * at(plain, i), 12);
    const range = new Float32Array(6);
    randomStream(1, "x").uniforms(range, -2, 2);
    for (const [i, value] of range.entries())
      expect(value).toBe(Math.fround(-2 + 4 * randomStream(1, "x").uniformAt(i)));
  });

  it("makes permutations that hold every index once", () => {
    for (const length of [0, 1, 2, 33]) {
      const order = new Int32Array(length);
      randomStream("seed", "order").permutation(order);
      expect([...order].sort((a, b) => a - b)).toEqual([...order.keys()]);
    }
  });
});

describe("the hash of a text", () => {
  it("is 64-bit FNV-1a, low word first", () => {
    // Test vectors of the FNV reference implementation: "" and "foobar".
    expect(hash64("")).toEqual([0x84222325, 0xcbf29ce4]);
    expect(hash64("foobar")).toEqual([0xf73967e8, 0x85944171]);
  });
});
