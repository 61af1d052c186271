/**
 * Seeded random numbers, addressed by (seed, stream name, index): the value at an index never depends on
 * the order in which values are drawn or on how work is split over threads.
 *
 * The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3);
 * the key is a hash of seed and stream name, the counter is the index of a block of four 32-bit words.
 */

const PHILOX_M0 = 0xd2511f53;
const PHILOX_M1 = 0xcd9e8d57;
const PHILOX_W0 = 0x9e3779b9;
const PHILOX_W1 = 0xbb67ae85;

/** High 32 bits of the unsigned product of two 32-bit integers. */
function mulHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = aLow * bLow;
  const mid1 = aHigh * bLow + (low >>> 16);
  const mid2 = aLow * bHigh + (mid1 & 0xffff);
  return (aHigh * bHigh + Math.floor(mid1 / 0x10000) + Math.floor(mid2 / 0x10000)) >>> 0;
}

/** Writes the four words of block `counter` into `out`. */
function philox(counterLow: number, counterHigh: number, key0: number, key1: number, out: Uint32Array): void {
  let x0 = counterLow >>> 0;
  let x1 = counterHigh >>> 0;
  let x2 = 0;
  let x3 = 0;
  let k0 = key0 >>> 0;
  let k1 = key1 >>> 0;
  for (let round = 0; round < 10; round++) {
    const high0 = mulHigh(PHILOX_M0, x0);
    const low0 = Math.imul(PHILOX_M0, x0) >>> 0;
    const high1 = mulHigh(PHILOX_M1, x2);
    const low1 = Math.imul(PHILOX_M1, x2) >>> 0;
    x0 = (high1 ^ x1 ^ k0) >>> 0;
    x1 = low1;
    x2 = (high0 ^ x3 ^ k1) >>> 0;
    x3 = low0;
    k0 = (k0 + PHILOX_W0) >>> 0;
    k1 = (k1 + PHILOX_W1) >>> 0;
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

/** 64-bit FNV-1a of a string's UTF-8 bytes, as two 32-bit words. */
export function hash64(text: string): readonly [number, number] {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return [Number(hash & 0xffffffffn), Number(hash >> 32n)];
}

/** A sequence of random numbers, readable from any index. */
export interface RandomStream {
  /** Fills `out` with normal deviates number `start`, `start + 1`, ... of this stream. */
  normals(out: Float32Array | Float64Array, start: number, mean?: number, std?: number): void;
  /** Uniform in [0, 1) with 32 bits: number `index` of this stream. */
  uniformAt(index: number): number;
  /** Fills `out` with numbers 0, 1, ... of this stream, uniform from `low` to `high`, rounded to float32. */
  uniforms(out: Float32Array, low: number, high: number): void;
  /** Fills `out` with a permutation of 0..out.length-1 (Fisher-Yates). */
  permutation(out: Int32Array | Uint32Array): void;
}

/** 2^32: the words of a block are whole numbers below it. */
const wordRange = 0x100000000;

/** The stream called `name` of seed `seed`; equal arguments give equal numbers, everywhere and always. */
export function randomStream(seed: number | string, name: string): RandomStream {
  const [key0, key1] = hash64(`${seed}\u0000${name}`);
  const words = new Uint32Array(4);
  const block = (index: number): void => philox(index >>> 0, Math.floor(index / wordRange), key0, key1, words);
  const uniformAt = (index: number): number => {
    block(Math.floor(index / 4));
    return words[index % 4]! / wordRange;
  };
  const four = new Float64Array(4);
  return {
    uniformAt,
    normals(out, start, mean = 0, std = 1) {
      let current = -1;
      for (let i = 0; i < out.length; i++) {
        const index = start + i;
        const blockIndex = Math.floor(index / 4);
        if (blockIndex !== current) {
          block(blockIndex);
          boxMuller(words, four);
          current = blockIndex;
        }
        out[i] = mean + std * four[index % 4]!;
      }
    },
    uniforms(out, low, high) {
      const step = (high - low) / wordRange;
      for (let i = 0; i < out.length; i += 4) {
        block(i / 4);
        for (let j = 0; j < 4 && i + j < out.length; j++) out[i + j] = low + step * words[j]!;
      }
    },
    permutation(out) {
      for (let i = 0; i < out.length; i++) out[i] = i;
      for (let i = out.length - 1; i > 0; i--) {
        const j = Math.floor(uniformAt(i) * (i + 1));
        const swap = out[i]!;
        out[i] = out[j]!;
        out[j] = swap;
      }
    },
  };
}

/**
 * Box-Muller: words 0 and 1 of a block give two normals, as cosine and sine parts of one draw, words 2 and 3 the other
 * two.
 */
function boxMuller(words: Uint32Array, out: Float64Array): void {
  for (let half = 0; half < 2; half++) {
    const radius = Math.sqrt(-2 * Math.log((words[2 * half]! + 0.5) / wordRange));
    const angle = (2 * Math.PI * words[2 * half + 1]!) / wordRange;
    out[2 * half] = radius * Math.cos(angle);
    out[2 * half + 1] = radius * Math.sin(angle);
  }
}
