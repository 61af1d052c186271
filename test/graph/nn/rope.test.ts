import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { plainRope } from "../../../src/model/decoder/plain.js";
import { ropeFrequencies, ropeTables } from "../../../src/graph/nn/rope.js";

/** transformers' _compute_llama3_parameters as it is written there: masks and torch.where, no early returns. */
function llama3(theta: number, headDim: number, factor: number, low: number, high: number, original: number): number[] {
  const inverse = Array.from({ length: headDim / 2 }, (_, i) => 1 / theta ** ((2 * i) / headDim));
  return inverse.map((frequency) => {
    const wavelength = (2 * Math.PI) / frequency;
    const scaled = wavelength > original / low ? frequency / factor : frequency;
    const smooth = (original / wavelength - low) / (high - low);
    const smoothed = ((1 - smooth) * scaled) / factor + smooth * scaled;
    const medium = !(wavelength < original / high) && !(wavelength > original / low);
    return medium ? smoothed : scaled;
  });
}

describe("rotary frequencies", () => {
  it("are theta^(-2i/D), divided by a linear factor", () => {
    const plain = ropeFrequencies({ ...plainRope(10000, 8), scaling: { kind: "none" } }, 1);
    expect([...plain].map((x) => Number(x.toPrecision(6)))).toEqual([1, 0.1, 0.01, 0.001]);
    expect([...ropeFrequencies({ ...plainRope(10000, 8), scaling: { kind: "linear", factor: 4 } }, 1)]).toEqual(
      [...plain].map((x) => x / 4),
    );
  });

  it("are rounded to float32 step by step, as transformers' inv_freq of 24 elements is", () => {
    // 0.1 and 0.001 would be other numbers if they were rounded once.
    expect([...ropeFrequencies(plainRope(10000, 24), 1)]).toEqual([
      1, 0.46415889263153076, 0.2154434472322464, 0.10000000149011612, 0.04641588404774666, 0.02154434844851494,
      0.009999999776482582, 0.00464158970862627, 0.002154434332624078, 0.0010000000474974513, 0.00046415894757956266,
      0.00021544341871049255,
    ]);
  });

  it("llama3: agree with transformers' formula; long waves are slowed, short ones kept", () => {
    fc.assert(
      fc.property(
        fc.record({
          theta: fc.constantFrom(10_000, 500_000, 1e6),
          half: fc.integer({ min: 1, max: 64 }),
          factor: fc.integer({ min: 1, max: 64 }),
          low: fc.constantFrom(0.5, 1, 2),
          spread: fc.integer({ min: 1, max: 8 }),
          original: fc.constantFrom(16, 512, 8192),
        }),
        ({ theta, half, factor, low, spread, original }) => {
          const high = low + spread;
          const scaling = {
            kind: "llama3" as const,
            factor,
            lowFreqFactor: low,
            highFreqFactor: high,
            originalMaxPositions: original,
          };
          const frequencies = ropeFrequencies({ ...plainRope(theta, 2 * half), scaling }, 1);
          const plain = ropeFrequencies(plainRope(theta, 2 * half), 1);
          llama3(theta, 2 * half, factor, low, high, original).forEach((value, i) =>
            expect(Math.abs(at(frequencies, i) / value - 1)).toBeLessThan(1e-5),
          );
          frequencies.forEach((value, i) => {
            expect(value).toBeLessThanOrEqual(at(plain, i) * (1 + 1e-6));
            expect(value).toBeGreaterThanOrEqual((at(plain, i) / factor) * (1 - 1e-6));
          });
        },
      ),
    );
  });

  it("llama3 with Llama 3.1's numbers", () => {
    const scaling = {
      kind: "llama3" as const,
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositions: 8192,
    };
    const frequencies = ropeFrequencies({ ...plainRope(500_000, 128), scaling }, 1);
    const plain = ropeFrequencies({ ...plainRope(500_000, 128), scaling: { kind: "none" } }, 1);
    const ratio = [...frequencies].map((x, i) => x / at(plain, i));
    expect(ratio[0]).toBe(1);
    expect(ratio[28]).toBe(1);
    expect(ratio[63]).toBe(1 / 8);
    // The wave of index 32 is about 4443 tokens long, between 8192/4 and 8192/1: blended.
    const smooth = (8192 / ((2 * Math.PI) / at(plain, 32)) - 1) / 3;
    expect(ratio[32]).toBeCloseTo((1 - smooth) / 8 + smooth, 6);
    expect(smooth).toBeGreaterThan(0);
    expect(smooth).toBeLessThan(1);
  });

  it("tables hold cos and sin of position times frequency", () => {
    const rope = plainRope(100, 6);
    const { cos, sin } = ropeTables(rope, 5);
    const frequencies = ropeFrequencies(rope, 5);
    for (let position = 0; position < 5; position++) {
      frequencies.forEach((frequency, i) => {
        const angle = Math.fround(position * frequency);
        expect(cos[position * 3 + i]).toBe(Math.fround(Math.cos(angle)));
        expect(sin[position * 3 + i]).toBe(Math.fround(Math.sin(angle)));
      });
    }
  });

  it("tables at positions 511 and 4,095 are transformers', whose angles are float32", () => {
    const { cos } = ropeTables(plainRope(10000, 24), 4096);
    const rows = [511, 4095].map((position) => [...cos.subarray(position * 12, position * 12 + 4)]);
    // Exact angles would give -0.0050559 for the second of the first row and -0.8543330 for the third of the other.
    const expected = [
      [-0.47167888283729553, -0.005049401894211769, -0.9907857775688171, 0.6715335249900818],
      [-0.06597599387168884, -0.9977457523345947, -0.8542811870574951, 0.4598633348941803],
    ];
    rows.forEach((row, i) =>
      row.forEach((value, j) => expect(Math.abs(value - expected[i]![j]!)).toBeLessThan(1.2e-7)),
    );
  });
});
