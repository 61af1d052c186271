import { describe, expect, it } from "vitest";
import { floatBytes, fromFloat32, type FloatDtype } from "../../../src/files/numeric/dtype.js";
import { countNonFinite } from "../../../src/files/numeric/finite.js";

const dtypes = Object.keys(floatBytes) as FloatDtype[];

/** Values in every binade that a dtype holds, both signs and zeros. */
const finite = (dtype: FloatDtype): Float32Array =>
  Float32Array.from({ length: 300 }, (_, i) => {
    const [least, most] = dtype === "F16" ? [-24, 15] : [-149, 127];
    return (i % 2 === 0 ? 1 : -1) * 2 ** Math.max(least, Math.min(most, least + i));
  });

describe("countNonFinite", () => {
  it.each(dtypes)("finds none among finite %s values, the largest and the smallest included", (dtype) => {
    const largest = { F64: Number.MAX_VALUE, F32: 3.4028234663852886e38, F16: 65504, BF16: 3.3895313892515355e38 }[
      dtype
    ];
    const bytes =
      dtype === "F64"
        ? new Uint8Array(Float64Array.of(largest, -largest, 0, -0, Number.MIN_VALUE).buffer)
        : fromFloat32(dtype, Float32Array.of(largest, -largest, 0, -0));
    expect(countNonFinite(dtype, bytes)).toBe(0);
    expect(countNonFinite(dtype, fromFloat32(dtype, finite(dtype)))).toBe(0);
    expect(countNonFinite(dtype, new Uint8Array(0))).toBe(0);
  });

  it.each(dtypes)("counts NaN and both infinities in %s, wherever they stand", (dtype) => {
    for (const length of [1, 3, 8, 9, 1000, 9000, 20_001]) {
      for (const place of [0, length >> 1, length - 1]) {
        for (const value of [NaN, Infinity, -Infinity]) {
          const values = new Float32Array(length).fill(1.5);
          values[place] = value;
          expect(countNonFinite(dtype, fromFloat32(dtype, values)), `${length} ${place} ${value}`).toBe(1);
        }
      }
    }
    expect(countNonFinite(dtype, fromFloat32(dtype, new Float32Array(5000).fill(NaN)))).toBe(5000);
  });

  it("reads bytes that begin anywhere, and remembers nothing of earlier ones", () => {
    const bad = fromFloat32("BF16", Float32Array.of(1, NaN, 2));
    for (let shift = 0; shift < 4; shift++) {
      const moved = new Uint8Array(shift + bad.length);
      moved.set(bad, shift);
      expect(countNonFinite("BF16", moved.subarray(shift))).toBe(1);
      expect(countNonFinite("BF16", fromFloat32("BF16", Float32Array.of(1)))).toBe(0);
    }
  });
});
