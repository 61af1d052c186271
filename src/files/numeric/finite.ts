/**
 * Weights that are no numbers: NaN, or infinite. Looking for them costs little beside moving the bytes: a run of bytes
 * without any is seen by SIMD kernels at several GB/s (`bench/finite.mjs`), and only a run with one is counted.
 */
import { floatBytes, type FloatDtype } from "./dtype.js";
import { kernelMemory, type Kernels } from "./kernels.js";

/** The exponent's bits of a value, all of which are set in NaN and infinities. */
const exponents: Readonly<Record<FloatDtype, number>> = { F64: 0x7ff00000, F32: 0x7f800000, F16: 0x7c00, BF16: 0x7f80 };

/** Bytes that the kernels look at in one go: what a core's first cache holds. */
const blockBytes = 16 << 10;

let block: { readonly bytes: Uint8Array; readonly kernels: Kernels } | undefined;

/** How many of the values are NaN or infinite. */
export function countNonFinite(dtype: FloatDtype, bytes: Uint8Array): number {
  return dtype !== "F64" && isFinite(dtype, bytes) ? 0 : counted(dtype, bytes);
}

function isFinite(dtype: Exclude<FloatDtype, "F64">, bytes: Uint8Array): boolean {
  if (block === undefined) {
    const { buffer, kernels } = kernelMemory(blockBytes);
    block = { kernels, bytes: new Uint8Array(buffer, 0, blockBytes) };
  }
  const { kernels } = block;
  const anyMasked = (count: number, mask: number): number =>
    floatBytes[dtype] === 2 ? kernels.anyMasked16(0, count, mask) : kernels.anyMasked32(0, count, mask);
  for (let start = 0; start < bytes.byteLength; start += blockBytes) {
    const count = Math.min(blockBytes, bytes.byteLength - start);
    block.bytes.set(bytes.subarray(start, start + count));
    // What stands behind a last short block is of earlier bytes: zeros are finite.
    const padded = Math.ceil(count / 16) * 16;
    if (padded > count) block.bytes.fill(0, count, padded);
    if (anyMasked(padded, exponents[dtype]) !== 0) return false;
  }
  return true;
}

function counted(dtype: FloatDtype, bytes: Uint8Array): number {
  const size = floatBytes[dtype];
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % Math.min(4, size) === 0 ? bytes : bytes.slice();
  const words =
    size === 2
      ? new Uint16Array(buffer, byteOffset, byteLength / 2)
      : new Uint32Array(buffer, byteOffset, byteLength / 4);
  const mask = exponents[dtype];
  // Of a value of 8 bytes the second word has the exponent.
  const step = size === 8 ? 2 : 1;
  let count = 0;
  for (let i = step - 1; i < words.length; i += step) if ((words[i]! & mask) === mask) count++;
  return count;
}
