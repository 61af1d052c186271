/** Watches the weights that a model is run with: which of them are NaN or infinite. */
import { at } from "../base/at.js";
import { stopError } from "../base/errors.js";
import { countNonFinite } from "../files/numeric/finite.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { tensorNames } from "../model/tensors/names.js";
import { slotsOf } from "../model/tensors/slots.js";
import type { WeightSource } from "./weight-rows.js";

/** Weights that are watched, and what was found so far: values that are no numbers, by slot. */
export interface WatchedWeights extends WeightSource {
  readonly nonFinite: ReadonlyMap<string, number>;
}

/** The same weights; what is read is looked at on its way. */
export function watchedWeights(weights: WeightSource): WatchedWeights {
  const nonFinite = new Map<string, number>();
  const look = (key: string, values: Float32Array): Float32Array => {
    const count = countNonFinite("F32", new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    if (count > 0) nonFinite.set(key, (nonFinite.get(key) ?? 0) + count);
    return values;
  };
  return {
    nonFinite,
    readFloat32: async (key) => look(key, await weights.readFloat32(key)),
    readRows: async (key, ...rows) => look(key, await weights.readRows(key, ...rows)),
  };
}

/** What is to be said of a model with such weights; null: it has none, as far as they were read. */
export function nonFiniteWords({
  spec,
  nonFinite,
}: {
  readonly spec: DecoderSpec;
  readonly nonFinite: ReadonlyMap<string, number>;
}): string | null {
  const [first] = nonFinite.keys();
  const slot = slotsOf(spec).find(({ key }) => key === first);
  if (slot === undefined) return null;
  const name = at(tensorNames(spec, slot.at), 0);
  const tensors = nonFinite.size === 1 ? name : `${name} and ${nonFinite.size - 1} more`;
  return `weights are NaN or infinite (${tensors}): the model is damaged, and what it computes is no measure of it`;
}

/** Throws stopError where weights that were read so far are NaN or infinite: what is made of them would be, too. */
export function requireFiniteWeights(model: Parameters<typeof nonFiniteWords>[0] & { readonly dir: string }): void {
  const words = nonFiniteWords(model);
  if (words !== null) throw stopError(words, { where: model.dir, hint: "use an earlier checkpoint" });
}
