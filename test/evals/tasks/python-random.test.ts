import { describe, expect, it } from "vitest";
import { PythonRandom } from "../../../src/evals/tasks/python-random.js";

/** All numbers here were printed by CPython 3.11. */
describe("CPython's generator", () => {
  it("gives the same 32-bit words for a seed", () => {
    const random = new PythonRandom(1234);
    expect([random.uint32(), random.uint32(), random.uint32()]).toEqual([4150886329, 3342196574, 1892932127]);
  });

  it("samples by rejection from large populations, and goes on from draw to draw", () => {
    const hundred = new PythonRandom(1234);
    expect(hundred.sample(100, 5)).toEqual([99, 56, 14, 0, 11]);
    expect(hundred.sample(100, 5)).toEqual([74, 4, 85, 88, 10]);
    const thousand = new PythonRandom(1234);
    expect(thousand.sample(1000, 5)).toEqual([989, 796, 451, 119, 7]);
    expect(thousand.sample(1000, 5)).toEqual([92, 932, 965, 961, 826]);
  });

  it("samples from a pool where the population is small", () => {
    const random = new PythonRandom(0);
    expect(random.sample(10, 3)).toEqual([6, 9, 0]);
    expect(random.sample(10, 3)).toEqual([4, 8, 7]);
  });

  it("chooses with replacement", () => {
    expect([...new PythonRandom(0).choices(10, new Int32Array(12))]).toEqual([8, 7, 4, 2, 5, 4, 7, 3, 4, 5, 9, 5]);
  });

  it("refuses to draw more than there is", () => {
    expect(() => new PythonRandom(0).sample(3, 4)).toThrow(RangeError);
  });
});
