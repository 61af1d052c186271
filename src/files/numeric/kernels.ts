/**
 * Vector kernels in WebAssembly SIMD. Pointers are byte offsets into the memory that the kernels work in; counts are
 * numbers of floats, multiples of 4.
 */
import { stopError } from "../../base/errors.js";
import { bytes as bytesInWords } from "../../base/format.js";
import { kernelsBase64 } from "./kernels-wasm.js";

/** The numeric kernels, in WebAssembly. */
export interface Kernels {
  /** Adds in place: dst[i] += src[i]. */
  add(dst: number, src: number, count: number): void;
  /** Blends in place: dst[i] = a * dst[i] + b * src[i]. */
  blend(dst: number, src: number, count: number, a: number, b: number): void;
  /** The sum of squares, accumulated in float64. */
  sumSquares(x: number, count: number): number;
  /** Does one AdamW update in place; see kernels.wat for the formula. */
  adamw(
    p: number,
    m: number,
    v: number,
    g: number,
    count: number,
    gradScale: number,
    beta1: number,
    oneMinusBeta1: number,
    beta2: number,
    oneMinusBeta2: number,
    rate: number,
    correct: number,
    eps: number,
    keep: number,
  ): void;
  /**
   * Adds a low-rank change in place, w += scale B A; see kernels.wat for the layouts. `rows` is even, `groups` counts
   * four columns each, and neither they nor `rank` may be 0.
   */
  addLowRank(w: number, a: number, b: number, rows: number, groups: number, rank: number, scale: number): void;
  /** 1 where any 16-bit word of `bytes` bytes, a multiple of 16, has all bits of the mask, else 0. */
  anyMasked16(x: number, bytes: number, mask: number): number;
  /** The same of 32-bit words. */
  anyMasked32(x: number, bytes: number, mask: number): number;
}

// TypeScript ships the types of WebAssembly with the browser's only; these are the parts used here.
interface WasmMemory {
  readonly buffer: ArrayBuffer;
}
interface Wasm {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object, imports: object) => { readonly exports: unknown };
  Memory: new (limits: { readonly initial: number; readonly maximum: number }) => WasmMemory;
}
const wasm = (globalThis as unknown as { WebAssembly: Wasm }).WebAssembly;

/**
 * Zeroed, page-aligned memory of at least `bytes` bytes. If address space is short (V8 reserves about 10 GB around each
 * WebAssembly memory), an ArrayBuffer without guaranteed alignment.
 */
export function pageMemory(bytes: number, allocate: typeof wasmMemory = wasmMemory): ArrayBuffer {
  const pages = Math.ceil(bytes / 65536);
  try {
    return allocate(pages).buffer;
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    return new ArrayBuffer(bytes);
  }
}

const wasmMemory = (pages: number): WasmMemory => new wasm.Memory({ initial: pages, maximum: pages });

/**
 * A WebAssembly memory of so many pages of 64 KiB. Throws stopError where there is no memory, or where the engine gets
 * no addresses for it.
 */
export function kernelPages(pages: number, allocate: typeof wasmMemory = wasmMemory): WasmMemory {
  try {
    return allocate(pages);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw stopError(`cannot get ${bytesInWords(65536 * pages)} of memory for weights (${cause.message})`, {
      hint:
        "where addresses are limited (ulimit -v) raise that limit, or set " +
        "NODE_OPTIONS=--disable-wasm-trap-handler, without which Node.js reserves 10 GB for each",
      cause,
    });
  }
}

let compiled: object | undefined;

/**
 * A block of memory of fixed size, and kernels that work in it. Throws stopError like `kernelPages`, and a plain Error
 * for more than 4 GiB.
 */
export function kernelMemory(bytes: number): { readonly buffer: ArrayBuffer; readonly kernels: Kernels } {
  const pages = Math.max(1, Math.ceil(bytes / 65536));
  if (pages > 65536) throw new Error(`${bytes} bytes do not fit one WebAssembly memory`);
  const memory = kernelPages(pages);
  compiled ??= new wasm.Module(Uint8Array.from(atob(kernelsBase64), (char) => char.charCodeAt(0)));
  const instance = new wasm.Instance(compiled, { env: { memory } });
  return { buffer: memory.buffer, kernels: instance.exports as Kernels };
}
