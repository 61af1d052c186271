/**
 * Stored floating-point bytes <-> Float32Array. Encoding rounds to nearest, ties to even; NaN (with its payload
 * where it fits), infinities, signed zeros and subnormals are kept.
 *
 * Bytes are little-endian, as safetensors stores them, and are read through typed-array views: this works only on a
 * little-endian host, which every platform we support is. Values travel as bit patterns, never as JS numbers, so that
 * signalling NaNs survive.
 */
import { inputError, stopError } from "../../base/errors.js";

/** Bytes per element of the dtypes that can hold weights. */
export const floatBytes = { F64: 8, F32: 4, F16: 2, BF16: 2 } as const;
/** A floating-point dtype that weights are read and computed in. */
export type FloatDtype = keyof typeof floatBytes;

/** Whether a stored dtype is one of `FloatDtype`. */
export function isFloatDtype(dtype: string): dtype is FloatDtype {
  return Object.hasOwn(floatBytes, dtype);
}

const hostIsLittleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

function requireLittleEndian(): void {
  if (!hostIsLittleEndian)
    throw stopError("this machine is big-endian; weights can only be read on little-endian machines");
}

/** The same bytes at an offset that a typed array of `itemSize` may start at; copied only if they have to be. */
function aligned(bytes: Uint8Array, itemSize: number): Uint8Array {
  return bytes.byteOffset % itemSize === 0 ? bytes : bytes.slice();
}

/**
 * Decodes stored values. For F32 the result may share memory with `bytes`; for the others it is always fresh.
 * F64 values are rounded to the nearest float32. Throws inputError if the length is not a whole number of elements, and
 * stopError on a big-endian machine.
 *
 * With `memory` (4 bytes an element at least) the values lie at its beginning, and `bytes` may lie in it where
 * `storedPlace` says.
 */
export function toFloat32(dtype: FloatDtype, bytes: Uint8Array, memory?: ArrayBuffer): Float32Array {
  requireLittleEndian();
  const itemSize = floatBytes[dtype];
  if (bytes.byteLength % itemSize !== 0) {
    throw inputError(`${bytes.byteLength} bytes are not a whole number of ${dtype} values (${itemSize} bytes each)`);
  }
  const count = bytes.byteLength / itemSize;
  const { buffer, byteOffset } = aligned(bytes, itemSize);
  if (dtype === "F32" && (memory === undefined || (buffer === memory && byteOffset === 0)))
    return new Float32Array(buffer, byteOffset, count);
  const out = new Float32Array(memory ?? new ArrayBuffer(4 * count), 0, count);
  switch (dtype) {
    case "F32":
      out.set(new Float32Array(buffer, byteOffset, count));
      break;
    case "F64":
      out.set(new Float64Array(buffer, byteOffset, count));
      break;
    case "BF16":
      decodeBf16(new Uint16Array(buffer, byteOffset, count), new Uint32Array(out.buffer, 0, count));
      break;
    case "F16":
      decodeF16(new Uint16Array(buffer, byteOffset, count), new Uint32Array(out.buffer, 0, count));
  }
  return out;
}

/**
 * Where `count` stored values may be put in the memory that they are decoded into. Values of 2 bytes lie at its end:
 * decoded from first to last, none is overwritten before it has been read. Undefined for F64, which needs memory of its
 * own.
 */
export function storedPlace(dtype: FloatDtype, count: number, memory: ArrayBuffer): Uint8Array | undefined {
  const size = floatBytes[dtype];
  return size > 4 ? undefined : new Uint8Array(memory, (4 - size) * count, size * count);
}

/**
 * Encodes values for storage, rounding to nearest even. For F32 the result shares memory with `values`. Throws
 * stopError on a big-endian machine.
 */
export function fromFloat32(dtype: FloatDtype, values: Float32Array): Uint8Array {
  requireLittleEndian();
  switch (dtype) {
    case "F32":
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    case "F64":
      return new Uint8Array(new Float64Array(values).buffer);
    case "BF16":
      return encode16(values, bf16FromBits);
    case "F16":
      return encode16(values, f16FromBits);
  }
}

/**
 * Stored bytes of one dtype as stored bytes of another; the input itself if they are the same. Throws like `toFloat32`.
 */
export function convertBytes(from: FloatDtype, to: FloatDtype, bytes: Uint8Array): Uint8Array {
  return from === to ? bytes : fromFloat32(to, toFloat32(from, bytes));
}

function encode16(values: Float32Array, encode: (bits: number) => number): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) out[i] = encode(bits[i]!);
  return new Uint8Array(out.buffer);
}

function decodeBf16(halves: Uint16Array, out: Uint32Array): void {
  const count = halves.length;
  let done = 0;
  if (halves.byteOffset % 4 === 0) {
    // Two at a time take three quarters of the time.
    const pairs = new Uint32Array(halves.buffer, halves.byteOffset, count >> 1);
    for (let i = 0; i < pairs.length; i++, done += 2) {
      const pair = pairs[i]!;
      out[done] = pair << 16;
      out[done + 1] = pair & 0xffff0000;
    }
  }
  for (; done < count; done++) out[done] = halves[done]! << 16;
}

/** The bfloat16 bits of float32 bits, rounded to nearest even. */
function bf16FromBits(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) {
    const high = bits >>> 16;
    // A payload living only in the dropped half would turn the NaN into an infinity.
    return (high & 0x7f) === 0 ? high | 0x40 : high;
  }
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

let f16Table: Uint32Array | undefined;

/** The float32 bits of every float16 pattern: 256 kB, built on first use. */
function f16Bits(): Uint32Array {
  if (f16Table !== undefined) return f16Table;
  const table = new Uint32Array(65536);
  for (let half = 0; half < 65536; half++) table[half] = bitsFromF16(half);
  f16Table = table;
  return table;
}

function bitsFromF16(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  let mantissa = half & 0x3ff;
  if (exponent === 0x1f) return sign | 0x7f800000 | (mantissa << 13);
  if (exponent !== 0) return sign | ((exponent + 112) << 23) | (mantissa << 13);
  if (mantissa === 0) return sign;
  // Subnormal: shift until the leading one is implicit.
  let shifted = 113;
  while ((mantissa & 0x400) === 0) {
    mantissa <<= 1;
    shifted--;
  }
  return sign | (shifted << 23) | ((mantissa & 0x3ff) << 13);
}

function decodeF16(halves: Uint16Array, out: Uint32Array): void {
  const table = f16Bits();
  for (let i = 0; i < halves.length; i++) out[i] = table[halves[i]!]!;
}

/** The float16 bits of float32 bits, rounded to nearest even. */
function f16FromBits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x7f800000) {
    if (magnitude === 0x7f800000) return sign | 0x7c00;
    const payload = (magnitude >>> 13) & 0x3ff;
    return sign | 0x7c00 | (payload === 0 ? 0x200 : payload);
  }
  // 65520 lies halfway between the largest float16 and the next power of two; it and all above become infinite.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) {
    // Normal: rebias the exponent; a carry out of the mantissa lands in the exponent, as it should.
    const rebased = magnitude - 0x38000000;
    return sign | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13);
  }
  // Half of the smallest subnormal, or less, rounds to zero.
  if (magnitude <= 0x33000000) return sign;
  const shift = 126 - (magnitude >>> 23);
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const quotient = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  const roundsUp = rest > half || (rest === half && (quotient & 1) === 1);
  return sign | (quotient + (roundsUp ? 1 : 0));
}
