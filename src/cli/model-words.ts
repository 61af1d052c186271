/**
 * `model+adapter`, as mergekit writes a model with a LoRA adapter: which `+` parts the two is found out by what there
 * is, since paths may hold one.
 */
import { inputError } from "../base/errors.js";
import type { ModelSource } from "../files/checkpoint/model-source.js";

/**
 * What a name stands for, or null: a folder as it is found, or a reference of the Hub. `model`: that of which an
 * adapter is looked for.
 */
export type FindModel = (name: string, model: string | null) => Promise<string | null>;

/**
 * Folders or `hf://` references. A name that stands for something as it is wins; else the one `+` with a model before
 * and an adapter behind it. Null: none of its beginnings is a model. Throws `input` where an adapter is not found, or
 * where several of its `+` would do.
 */
export async function namedModel(words: string, find: FindModel, where?: string): Promise<ModelSource | null> {
  const whole = await find(words, null);
  if (whole !== null) return whole;
  const found: ModelSource[] = [];
  let lost: string | null = null;
  for (let at = words.indexOf("+"); at >= 0; at = words.indexOf("+", at + 1)) {
    const model = await find(words.slice(0, at), null);
    if (model === null) continue;
    const adapter = await find(words.slice(at + 1), model);
    if (adapter === null) lost = words.slice(at + 1);
    else found.push({ model, adapter });
  }
  if (found.length > 1) {
    throw inputError(`"${words}" can be read as a model and its adapter in ${found.length} ways`, {
      where,
      hint: "rename a folder, so that one + has a model before it and an adapter behind it",
    });
  }
  if (found[0] === undefined && lost !== null) {
    throw inputError(`no such adapter: "${lost}"`, {
      where,
      hint: "behind the + stands the folder of a LoRA adapter, or one of the Hub: org/name or org/name@revision",
    });
  }
  return found[0] ?? null;
}
