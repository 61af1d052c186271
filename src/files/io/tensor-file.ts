/** Single safetensors files that are no model: optimizer state, inputs and outputs of commands. */
import {
  lengthBytes,
  headerLength,
  parseHeader,
  planHeader,
  type Dtype,
  type TensorMeta,
} from "../formats/safetensors.js";
import { writeAll } from "./atomic.js";
import { withFsErrors } from "./fs-errors.js";
import { openForWriting } from "./open.js";
import { openRanges } from "./ranges.js";

/** An open safetensors file. */
interface TensorFile {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, { readonly dtype: Dtype; readonly shape: readonly number[] }>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Bytes of one tensor; throws an Error for a name that is not in `tensors`. */
  read(name: string): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/** Opens a file and checks its header against its size. Throws inputError if it is missing, cut short or malformed. */
export async function openTensorFile(path: string): Promise<TensorFile> {
  const file = await openRanges(path);
  try {
    const length = headerLength(await file.read(0, Math.min(lengthBytes, file.size)), file.size, path);
    const { tensors, metadata } = parseHeader(await file.read(lengthBytes, length), file.size, path);
    return {
      path,
      tensors,
      metadata,
      async read(name) {
        const tensor = tensors.get(name);
        if (tensor === undefined) throw new Error(`no tensor ${name} in ${path}`);
        return file.read(tensor.begin, tensor.end - tensor.begin);
      },
      close: () => file.close(),
    };
  } catch (cause) {
    await file.close();
    throw cause;
  }
}

/** A tensor's bytes at once, or in consecutive chunks, so that a large one is never in memory as a whole. */
type TensorBytes = Promise<Uint8Array> | AsyncIterable<Uint8Array>;

/**
 * Writes a file tensor by tensor, each asked for when its turn comes, and flushes it. The writing is not atomic, so it
 * is for files of a staged folder. Throws inputError or stopError as the disk says; what `bytesOf` throws passes
 * through.
 */
export async function writeTensorFile(
  path: string,
  tensors: readonly TensorMeta[],
  bytesOf: (name: string) => TensorBytes,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  const plan = planHeader(tensors, metadata);
  const onDisk = <T>(run: () => Promise<T>): Promise<T> => withFsErrors(path, "write file", run);
  const handle = await openForWriting(path);
  try {
    await onDisk(() => writeAll(handle, plan.bytes, 0));
    for (const [name, { begin, end }] of plan.tensors) {
      const tensorBytes = bytesOf(name);
      let at = begin;
      for await (const chunk of Symbol.asyncIterator in tensorBytes ? tensorBytes : [tensorBytes]) {
        const start = at;
        at += chunk.byteLength;
        if (at <= end) await onDisk(() => writeAll(handle, chunk, start));
      }
      if (at !== end) throw new Error(`${name}: got ${at - begin} bytes, expected ${end - begin}`);
    }
    await onDisk(() => handle.sync());
  } finally {
    await handle.close();
  }
}
