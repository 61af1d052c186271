/**
 * Reads `model+adapter`, as mergekit writes a model with a LoRA adapter. Paths may hold a `+` too, so which one
 * separates the two is decided by what exists.
 */
import { inputError } from "../base/errors.js";
import type { ModelSource } from "../files/checkpoint/model-source.js";

/**
 * Finds what a name stands for: a folder, or a reference to the Hub; null for nothing. `model` is set where the name is
 * that of an adapter of this model.
 */
export type FindModel = (name: string, model: string | null) => Promise<string | null>;

/**
 * The model that `words` name, as folders or `hf://` references. If the words as a whole stand for something, that is
 * the model; else they are divided at the one `+` with a model before it and an adapter behind it. Null: no part before
 * a `+` is a model. Throws inputError, with the place `where`, for an adapter that does not exist, and where several
 * `+` would do.
 */
export async function namedModel(words: string, find: FindModel, where?: string): Promise<ModelSource | null> {
  const whole = await find(words, null);
  if (whole !== null) return whole;
  const readings: ModelSource[] = [];
  let missingAdapter: string | null = null;
  for (let plus = words.indexOf("+"); plus >= 0; plus = words.indexOf("+", plus + 1)) {
    const model = await find(words.slice(0, plus), null);
    if (model === null) continue;
    const adapter = await find(words.slice(plus + 1), model);
    if (adapter === null) missingAdapter = words.slice(plus + 1);
    else readings.push({ model, adapter });
  }
  const [reading = null, ...others] = readings;
  if (others.length > 0) {
    throw inputError(`"${words}" can be read as a model and its adapter in ${readings.length} ways`, {
      where,
      hint: "rename a folder, so that one + has a model before it and an adapter behind it",
    });
  }
  if (reading === null && missingAdapter !== null) {
    throw inputError(`no such adapter: "${missingAdapter}"`, {
      where,
      hint: "behind the + stands the folder of a LoRA adapter, or one of the Hub: org/name or org/name@revision",
    });
  }
  return reading;
}
