/**
 * Weights that are no numbers: NaN, or infinite. Looking for them costs little beside moving the bytes: a run of bytes
 * without any is seen by SIMD kernels at several GB/s (`bench/finite.mjs`), and only a run with one is counted.
 */
import { UpcycleError } from "../../base/errors.js";
import { floatBytes, type FloatDtype } from "./dtype.js";
import { kernelMemory, type Kernels } from "./kernels.js";

/** The exponent's bits of a value, all of which are set in NaN and infinities. */
const exponents: Readonly<Record<FloatDtype, number>> = { F64: 0x7ff00000, F32: 0x7f800000, F16: 0x7c00, BF16: 0x7f80 };

/** Bytes that the kernels look at in one go: what a core's first cache holds. */
const blockBytes = 16 << 10;

interface Block {
  readonly bytes: Uint8Array;
  readonly kernels: Kernels;
}

/** Null: no addresses are left for one. */
let block: Block | null | undefined;

/** How many of the values are NaN or infinite. */
export function countNonFinite(dtype: FloatDtype, bytes: Uint8Array): number {
  if (dtype === "F64") return counted(dtype, bytes);
  if (block === undefined) block = openBlock();
  return block !== null && isFinite(block, dtype, bytes) ? 0 : counted(dtype, bytes);
}

/** Where addresses are limited there may be none for a kernel's memory, and values are counted one by one. */
function openBlock(): Block | null {
  try {
    const { buffer, kernels } = kernelMemory(blockBytes);
    return { kernels, bytes: new Uint8Array(buffer, 0, blockBytes) };
  } catch (error) {
    if (error instanceof UpcycleError) return null;
    throw error;
  }
}

function isFinite(block: Block, dtype: Exclude<FloatDtype, "F64">, bytes: Uint8Array): boolean {
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
