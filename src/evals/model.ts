/** A model folder opened for running: its weights in a forward runtime. */
import { inputError } from "../base/errors.js";
import { openCheckpoint } from "../checkpoint/open.js";
import type { FloatDtype } from "../numeric/dtype.js";
import type { DecoderSpec } from "../spec/types.js";
import { logitsProgram, type LogitsProgram } from "../step/programs.js";
import type { Backend } from "../step/runtime.js";
import { slotsOf } from "../tensors/slots.js";

export interface RunnableModel {
  readonly dir: string;
  readonly spec: DecoderSpec;
  /** What most of the weights are stored in. */
  readonly precision: FloatDtype;
  /** Logits [rows or B*S, V] for ids [B*S]; `rows` picks positions of the flattened batch. */
  logits(ids: Int32Array, shape: { readonly batch: number; readonly sequence: number }, rows?: Int32Array): Promise<Float32Array>;
  close(): Promise<void>;
}

export async function openModel(dir: string, backend: Backend, threads: number): Promise<RunnableModel> {
  const checkpoint = await openCheckpoint(dir);
  try {
    const { spec } = checkpoint;
    const runtime = await backend.openForward({ threads });
    try {
      for (const { key } of slotsOf(spec)) await runtime.write(key, await checkpoint.readFloat32(key));
    } catch (cause) {
      await runtime.close();
      throw cause;
    }
    const programs = new Map<string, LogitsProgram>();
    return {
      dir, spec, precision: checkpoint.dtype,
      logits(ids, { batch, sequence }, rows) {
        requireIds(ids, spec.vocab, dir);
        const name = `${batch}x${sequence}x${rows?.length ?? "all"}`;
        const program = programs.get(name) ?? logitsProgram(spec, { batch, sequence, rows: rows?.length });
        programs.set(name, program);
        return runtime.run(name, program, rows === undefined ? [ids] : [ids, rows]);
      },
      close: () => runtime.close(),
    };
  } finally {
    await checkpoint.close();
  }
}

/** Throws inputError for an id outside the vocabulary. */
export function requireIds(ids: Int32Array, vocab: number, where: string): void {
  const bad = ids.find((id) => id < 0 || id >= vocab);
  if (bad !== undefined) throw inputError(`token id ${bad} is outside the vocabulary 0..${vocab - 1}`, { where });
}
