/**
 * `upcycle forward`: logits of the token ids of one file, written to another.
 *
 * Letters: B batch, T tokens of a sequence, V vocabulary.
 */
import { rename, rm } from "node:fs/promises";
import { inputError, interruptedError } from "../base/errors.js";
import { planHeader } from "../files/formats/safetensors.js";
import { reservePartial } from "../files/io/atomic.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { requireFilePlace } from "../files/io/named-file.js";
import { requireFreeSpace } from "../files/io/space.js";
import { openTensorFile, writeTensorFile } from "../files/io/tensor-file.js";
import type { RunnableModel } from "./model.js";

/** Sequences of one length. */
export interface InputIds {
  /** [B * T] */
  readonly ids: Int32Array;
  readonly batch: number;
  readonly sequence: number;
}

/**
 * Reads `input_ids` [B, T], int32 or int64, from a safetensors file; other tensors are ignored. Throws inputError if it
 * is not there.
 */
export async function readInputIds(path: string): Promise<InputIds> {
  const file = await openTensorFile(path);
  try {
    const header = file.tensors.get("input_ids");
    if (header === undefined) {
      throw inputError(`no tensor input_ids, found ${[...file.tensors.keys()].join(", ") || "none"}`, { where: path });
    }
    const { dtype, shape } = header;
    const [batch, sequence, ...more] = shape;
    if (batch === undefined || sequence === undefined || more.length > 0 || batch * sequence === 0) {
      throw inputError(`input_ids has shape [${shape.join(", ")}], expected [batch, sequence]`, { where: path });
    }
    const { buffer } = await file.read("input_ids");
    if (dtype === "I32") return { ids: new Int32Array(buffer), batch, sequence };
    if (dtype !== "I64") throw inputError(`input_ids has dtype ${dtype}, expected I32 or I64`, { where: path });
    const ids = Int32Array.from(new BigInt64Array(buffer), (id) => {
      if (id < 0n || id > 0x7fffffffn) throw inputError(`input_ids holds ${id}, which is no token id`, { where: path });
      return Number(id);
    });
    return { ids, batch, sequence };
  } finally {
    await file.close();
  }
}

/**
 * Throws inputError unless logits can be written there: a file that is there and holds anything else, such as a model's
 * weights, is not replaced.
 */
export async function requireLogitsPlace(path: string): Promise<void> {
  await requireFilePlace(path, "file of logits", async () => {
    const file = await openTensorFile(path).catch(() => null);
    await file?.close();
    return file !== null && [...file.tensors.keys()].join() === "logits";
  });
}

/**
 * Writes `logits` [B, T, V] float32, one sequence in memory at a time; the file gets its name when it is complete.
 * Throws inputError like `requireOutputFile`. `signal` stops between two sequences and leaves nothing.
 */
export async function writeLogits(
  model: RunnableModel,
  { ids, batch, sequence }: InputIds,
  path: string,
  signal?: AbortSignal,
): Promise<{ readonly shape: readonly number[] }> {
  const shape = [batch, sequence, model.spec.vocab];
  const meta = { name: "logits", dtype: "F32" as const, shape };
  await requireLogitsPlace(path);
  await requireFreeSpace(path, planHeader([meta]).fileBytes);
  const { partial, place } = await reservePartial(path);
  try {
    await writeTensorFile(partial, [meta], () => rows(model, { ids, batch, sequence }, path, signal));
    await withFsErrors(path, "name file", () => rename(partial, place));
  } catch (cause) {
    await rm(partial, { force: true }).catch(() => undefined);
    throw cause;
  }
  return { shape };
}

async function* rows(
  model: RunnableModel,
  { ids, batch, sequence }: InputIds,
  path: string,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  for (let row = 0; row < batch; row++) {
    if (signal?.aborted === true) throw interruptedError("stopped, nothing was written", { where: path });
    const logits = await model.logits(ids.slice(row * sequence, (row + 1) * sequence), { batch: 1, sequence });
    yield new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength);
  }
}
