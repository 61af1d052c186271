/** `upcycle forward`: logits of given token ids, file to file. */
import { basename, dirname, join } from "node:path";
import { rename, rm } from "node:fs/promises";
import { inputError, interruptedError } from "../base/errors.js";
import { planHeader } from "../format/safetensors.js";
import { withFsErrors } from "../io/fs-errors.js";
import { requireOutputFile } from "../io/open.js";
import { requireFreeSpace } from "../io/space.js";
import { openTensorFile, writeTensorFile } from "../io/tensor-file.js";
import type { RunnableModel } from "./model.js";

export interface InputIds {
  readonly ids: Int32Array;
  readonly batch: number;
  readonly sequence: number;
}

/** Reads `input_ids` [B, T], int32 or int64, from a safetensors file; other tensors are ignored. Throws inputError if it is not there. */
export async function readInputIds(path: string): Promise<InputIds> {
  const file = await openTensorFile(path);
  try {
    const found = file.tensors.get("input_ids");
    if (found === undefined) {
      throw inputError(`no tensor input_ids, found ${[...file.tensors.keys()].join(", ") || "none"}`, { where: path });
    }
    const { dtype, shape } = found;
    if (shape.length !== 2 || shape.some((size) => size === 0)) {
      throw inputError(`input_ids has shape [${shape.join(", ")}], expected [batch, sequence]`, { where: path });
    }
    const bytes = await file.read("input_ids");
    if (dtype === "I32") return { ids: new Int32Array(bytes.buffer), batch: shape[0]!, sequence: shape[1]! };
    if (dtype !== "I64") throw inputError(`input_ids has dtype ${dtype}, expected I32 or I64`, { where: path });
    const ids = Int32Array.from(new BigInt64Array(bytes.buffer), (id) => {
      if (id < 0n || id > 0x7fffffffn) throw inputError(`input_ids holds ${id}, which is no token id`, { where: path });
      return Number(id);
    });
    return { ids, batch: shape[0]!, sequence: shape[1]! };
  } finally {
    await file.close();
  }
}

/**
 * Writes `logits` [B, T, V] float32, one sequence in memory at a time; the file gets its name when it is complete.
 * Throws inputError like `requireOutputFile`. `signal` stops between two sequences and leaves nothing.
 */
export async function writeLogits(
  model: RunnableModel, { ids, batch, sequence }: InputIds, path: string, signal?: AbortSignal,
): Promise<{ readonly shape: readonly number[] }> {
  const shape = [batch, sequence, model.spec.vocab];
  const meta = { name: "logits", dtype: "F32" as const, shape };
  const partial = join(dirname(path), `.${basename(path)}.partial`);
  await requireOutputFile(path);
  await requireFreeSpace(path, planHeader([meta]).fileBytes);
  try {
    await writeTensorFile(partial, [meta], () => rows(model, { ids, batch, sequence }, path, signal));
    await withFsErrors(path, "name file", () => rename(partial, path));
  } catch (cause) {
    await rm(partial, { force: true }).catch(() => undefined);
    throw cause;
  }
  return { shape };
}

async function* rows(model: RunnableModel, { ids, batch, sequence }: InputIds, path: string, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  for (let row = 0; row < batch; row++) {
    if (signal?.aborted === true) throw interruptedError("stopped, nothing was written", { where: path });
    const logits = await model.logits(ids.slice(row * sequence, (row + 1) * sequence), { batch: 1, sequence });
    yield new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength);
  }
}
