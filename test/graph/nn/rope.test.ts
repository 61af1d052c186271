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
    expect([...plain].map((x) => Number(x.toPrecision(12)))).toEqual([1, 0.1, 0.01, 0.001]);
    expect([...ropeFrequencies({ ...plainRope(10000, 8), scaling: { kind: "linear", factor: 4 } }, 1)]).toEqual(
      [...plain].map((x) => x / 4),
    );
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
            expect(at(frequencies, i) / value).toBeCloseTo(1, 12),
          );
          frequencies.forEach((value, i) => {
            expect(value).toBeLessThanOrEqual(at(plain, i) * (1 + 1e-12));
            expect(value).toBeGreaterThanOrEqual((at(plain, i) / factor) * (1 - 1e-12));
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
    expect(ratio[63]).toBeCloseTo(1 / 8, 12);
    // The wave of index 32 is about 4443 tokens long, between 8192/4 and 8192/1: blended.
    const smooth = (8192 / ((2 * Math.PI) / at(plain, 32)) - 1) / 3;
    expect(ratio[32]).toBeCloseTo((1 - smooth) / 8 + smooth, 12);
    expect(smooth).toBeGreaterThan(0);
    expect(smooth).toBeLessThan(1);
  });

  it("tables hold cos and sin of position times frequency", () => {
    const rope = plainRope(100, 6);
    const { cos, sin } = ropeTables(rope, 5);
    const frequencies = ropeFrequencies(rope, 5);
    for (let position = 0; position < 5; position++) {
      frequencies.forEach((frequency, i) => {
        expect(cos[position * 3 + i]).toBe(Math.fround(Math.cos(position * frequency)));
        expect(sin[position * 3 + i]).toBe(Math.fround(Math.sin(position * frequency)));
      });
    }
  });
});
