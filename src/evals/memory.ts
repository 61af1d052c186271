/** Whether models fit in this machine's memory, judged before any of their weights is read. */
import { totalmem } from "node:os";
import { inputError } from "../base/errors.js";
import { bytes } from "../base/format.js";
import { countParams } from "../model/cost/params.js";
import type { DecoderSpec } from "../model/decoder/types.js";

/** Engine, tokenizer, activations and keys and values of a text beside the weights of a model. */
const besideWeights = 300e6;

/** A model by its name. */
export interface NamedSpec {
  readonly name: string;
  readonly spec: DecoderSpec;
}

/** Bytes that a model takes while it generates: its weights in float32, and what stands beside them. */
export const memoryOf = (spec: DecoderSpec): number => 4 * countParams(spec).total + besideWeights;

/** Bytes of memory of this machine, or of the part of it that this process may use. */
export function machineMemory(): number {
  const [machine, allowed] = [totalmem(), process.constrainedMemory()];
  return allowed > 0 ? Math.min(machine, allowed) : machine;
}

/** Throws inputError with the sum where models do not fit in `memory` together. */
export function requireMemory(models: readonly NamedSpec[], memory = machineMemory()): void {
  const each = models.map(({ name, spec }) => ({ name, bytes: memoryOf(spec), params: countParams(spec).total }));
  const needed = each.reduce((sum, model) => sum + model.bytes, 0);
  if (needed <= memory) return;
  const sum = each.map(({ name, params }) => `${bytes(4 * params)} for the weights of ${name} in float32`).join(" + ");
  throw inputError(
    `this takes ${bytes(needed)} of memory, and there are ${bytes(memory)}: ${sum} + ` +
      `${bytes(besideWeights * models.length)} beside them`,
    {
      where: models.map(({ name }) => name).join(" and "),
      hint: models.length > 1 ? "take one of the models alone, or smaller ones" : "take a smaller model",
    },
  );
}
