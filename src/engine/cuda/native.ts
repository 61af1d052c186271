/** The only file that touches koffi, which calls functions of shared libraries. It is an optional dependency. */
import { inputError } from "../../base/errors.js";
import type { LibraryHandle } from "koffi";

type Koffi = typeof import("koffi");

/** Types of arguments: handles and device addresses are 64-bit integers, host memory is passed as typed arrays. */
export const u64 = "uint64_t";
/** An unsigned 32-bit number. */
export const u32 = "uint32_t";
/** A 64-bit number. */
export const i64 = "int64_t";
/** A 32-bit number. */
export const i32 = "int";
/** A number of bytes. */
export const size = "size_t";
/** Memory of the host. */
export const host = "void*";
/** Text that ends with a zero byte. */
export const text = "str";

/** A handle, or an address of the device or of pinned memory. */
export type Address = bigint;

/** What an argument may be. */
export type NativeValue = number | bigint | string | null | ArrayBufferView | readonly string[];
/** A function of a library whose result is a status. */
export interface StatusFunction {
  (...args: readonly NativeValue[]): number;
  /** In another thread; the last argument is called with an error or null, and the status. */
  async(...args: readonly unknown[]): void;
}

/** Version of the installed koffi. */
export const koffiVersion = "3.3.4";

let loaded: Promise<Koffi> | undefined;

/** koffi. Throws inputError where it is not installed, with the line that installs it. */
export function native(): Promise<Koffi> {
  loaded ??= import("koffi").then(
    (koffi) => {
      // Launches pass few arguments, compilers of kernels work deep.
      const [deep, wide] = [16 << 20, 4 << 20];
      koffi.config({
        sync_stack_size: deep,
        sync_heap_size: wide,
        async_stack_size: deep,
        async_heap_size: wide,
      });
      return koffi;
    },
    (cause: unknown) => {
      throw inputError("the CUDA backend calls its libraries through koffi, which is not installed", {
        hint: `npm install koffi@${koffiVersion}`,
        cause,
      });
    },
  );
  return loaded;
}

export type { LibraryHandle };

/** A library by name or path, or null where the system cannot open it. */
export async function openLibrary(path: string, options: { global?: boolean } = {}): Promise<LibraryHandle | null> {
  const koffi = await native();
  try {
    return koffi.load(path, options);
  } catch {
    return null;
  }
}

/** The handle or address that a call writes into its first argument. */
export function handleFrom(call: (into: BigUint64Array) => void): Address {
  const into = new BigUint64Array(1);
  call(into);
  return into[0] ?? 0n;
}

/** The integer that a call writes into its first argument. */
export function integerFrom(call: (into: Int32Array) => void): number {
  const into = new Int32Array(1);
  call(into);
  return into[0] ?? 0;
}

/** The text that a call writes, as C has it, into a buffer of `length` bytes. */
export function textFrom(length: number, call: (into: Uint8Array) => void): string {
  const into = new Uint8Array(length);
  call(into);
  const end = into.indexOf(0);
  return Buffer.from(into.subarray(0, end < 0 ? length : end)).toString();
}
