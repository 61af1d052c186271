import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { convertBytes, floatBytes, fromFloat32, storedPlace, toFloat32 } from "../../../src/files/numeric/dtype.js";
import type { FloatDtype } from "../../../src/files/numeric/dtype.js";

const allHalves = (): Uint8Array => new Uint8Array(Uint16Array.from({ length: 65536 }, (_, i) => i).buffer);
const one = (dtype: FloatDtype, value: number): number =>
  toFloat32(dtype, fromFloat32(dtype, Float32Array.of(value)))[0]!;

/** Value of a float16 pattern, from the definition of the format. */
function f16Value(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >>> 10) & 31;
  const mantissa = half & 0x3ff;
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** Nearest of all values of a 16-bit format, ties to the even pattern; overflow as if the next power of two existed. */
function nearest(value: number, finite: readonly { value: number; pattern: number }[], overflow: number): number {
  if (Math.abs(value) >= overflow) return Math.sign(value) * Infinity;
  let best = at(finite, 0);
  for (const candidate of finite) {
    const a = Math.abs(candidate.value - value);
    const b = Math.abs(best.value - value);
    if (a < b || (a === b && candidate.pattern % 2 === 0)) best = candidate;
  }
  return best.value;
}

describe("16-bit floats", () => {
  it.each(["F16", "BF16"] as const)("every %s pattern survives the round trip", (dtype) => {
    const bytes = allHalves();
    expect(fromFloat32(dtype, toFloat32(dtype, bytes))).toEqual(bytes);
  });

  it("every float16 pattern decodes to its defined value", () => {
    const decoded = toFloat32("F16", allHalves());
    for (let half = 0; half < 65536; half++)
      if (!Object.is(decoded[half], f16Value(half))) expect([half, decoded[half]]).toEqual([half, f16Value(half)]);
  });

  it("bfloat16 is the upper half of float32", () => {
    expect([...toFloat32("BF16", Uint8Array.of(0x80, 0x3f, 0x49, 0x40, 0x80, 0xff, 1, 0))]).toEqual([
      1,
      3.140625,
      -Infinity,
      2 ** -133,
    ]);
  });

  it("float16 encoding rounds to nearest even, subnormals included", () => {
    const finite = Array.from({ length: 0x7c00 }, (_, pattern) => ({ value: f16Value(pattern), pattern }));
    const value = fc.oneof(
      fc.float({ noNaN: true, min: 0 }),
      fc.float({ noNaN: true, min: 0, max: Math.fround(2e-4) }),
      fc.float({ noNaN: true, min: 1, max: 70000 }),
    );
    fc.assert(
      fc.property(value, (x) => one("F16", x) === nearest(x, finite, 65520) && one("F16", -x) === -one("F16", x)),
      { numRuns: 300 },
    );
    // Exact ties between neighbours, all over the range.
    for (let pattern = 0; pattern < 0x7bff; pattern += 7) {
      const tie = (f16Value(pattern) + f16Value(pattern + 1)) / 2;
      expect(one("F16", tie)).toBe(f16Value(pattern % 2 === 0 ? pattern : pattern + 1));
    }
  });

  it("bfloat16 encoding rounds to nearest even", () => {
    const bits = new Uint32Array(1);
    const float = new Float32Array(bits.buffer);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0x7f7f }), fc.integer({ min: 0, max: 0xffff }), (high, low) => {
        bits[0] = (high << 16) | low;
        const up = low > 0x8000 || (low === 0x8000 && high % 2 === 1);
        const expected = new Float32Array(Uint32Array.of((high + (up ? 1 : 0)) << 16).buffer)[0]!;
        return one("BF16", at(float, 0)) === expected;
      }),
    );
  });

  it("rounds at the limits of each precision, and keeps infinities and NaN", () => {
    expect(one("F16", 65519)).toBe(65504);
    expect(one("F16", 65520)).toBe(Infinity);
    expect(one("F16", 2 ** -25)).toBe(0);
    expect(one("F16", 2 ** -25 * 1.0001)).toBe(2 ** -24);
    expect(Object.is(one("F16", -0), -0)).toBe(true);
    expect(one("BF16", 3.4e38)).toBe(Infinity);
    expect(one("BF16", -Infinity)).toBe(-Infinity);
    // NaN whose payload lies only in the bits that are dropped.
    const quiet = new Float32Array(Uint32Array.of(0x7f800001, 0xff800001).buffer);
    for (const dtype of ["F16", "BF16"] as const)
      expect([...toFloat32(dtype, fromFloat32(dtype, quiet))]).toEqual([NaN, NaN]);
  });
});

describe("other dtypes", () => {
  it("F64 keeps every float32 and rounds doubles", () => {
    fc.assert(
      fc.property(fc.float32Array(), (values) => {
        expect(toFloat32("F64", fromFloat32("F64", values))).toEqual(values);
      }),
    );
    expect(toFloat32("F64", new Uint8Array(Float64Array.of(0.1).buffer))[0]).toBe(Math.fround(0.1));
  });

  it("unaligned bytes decode like aligned ones", () => {
    fc.assert(
      fc.property(
        fc.float32Array({ noNaN: true }),
        fc.constantFrom<FloatDtype>("F64", "F32", "F16", "BF16"),
        (values, dtype) => {
          const bytes = fromFloat32(dtype, values);
          const shifted = new Uint8Array(bytes.byteLength + 1);
          shifted.set(bytes, 1);
          expect(toFloat32(dtype, shifted.subarray(1))).toEqual(toFloat32(dtype, bytes.slice()));
        },
      ),
    );
  });

  it("a broken length is an input error", () => {
    expect(() => toFloat32("F32", new Uint8Array(6))).toThrow(UpcycleError);
    expect(() => toFloat32("BF16", new Uint8Array(3))).toThrow("3 bytes are not a whole number of BF16 values");
  });

  it("converting to the same dtype copies nothing", () => {
    const bytes = Uint8Array.of(1, 2);
    expect(convertBytes("F16", "F16", bytes)).toBe(bytes);
    expect(toFloat32("BF16", convertBytes("F32", "BF16", fromFloat32("F32", Float32Array.of(1.5))))[0]).toBe(1.5);
  });
});

it("values decoded into the memory that their bytes lie in are the same, however many", () => {
  fc.assert(
    fc.property(
      fc.constantFrom<FloatDtype>("F64", "F32", "F16", "BF16"),
      fc.integer({ min: 0, max: 70 }),
      fc.nat(20),
      fc.nat(),
      (dtype, count, more, seed) => {
        const bytes = Uint8Array.from(
          { length: count * floatBytes[dtype] },
          (_, i) => Math.imul(seed + i, 2654435761) >>> 24,
        );
        const memory = new ArrayBuffer(4 * (count + more));
        const place = storedPlace(dtype, count, memory);
        place?.set(bytes);
        expect(place === undefined).toBe(dtype === "F64");
        const decoded = toFloat32(dtype, place ?? bytes, memory);
        expect([decoded.buffer === memory, decoded.byteOffset, decoded.length]).toEqual([true, 0, count]);
        const bits = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, count);
        // Narrowing a float64 may choose another NaN.
        if (dtype === "F64") expect(decoded).toEqual(toFloat32(dtype, bytes));
        else expect(bits(decoded)).toEqual(bits(toFloat32(dtype, bytes)));
      },
    ),
  );
});
