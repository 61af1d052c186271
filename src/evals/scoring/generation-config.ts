/**
 * What a model's generation_config.json would change about the likeliest text. transformers applies it, and so does the
 * LM Evaluation Harness with it; answers here are the likeliest texts.
 */
import { join } from "node:path";
import { entryAt } from "../../files/io/model-folder.js";
import { readJson } from "../../files/io/ranges.js";

/** Settings that change greedy decoding, with the values that leave it as it is. */
const settings: Readonly<Record<string, (value: unknown) => boolean>> = {
  repetition_penalty: (value) => value === 1,
  encoder_repetition_penalty: (value) => value === 1,
  no_repeat_ngram_size: (value) => value === 0,
  num_beams: (value) => value === 1,
  num_beam_groups: (value) => value === 1,
  min_length: (value) => value === 0,
  min_new_tokens: (value) => value === 0,
  bad_words_ids: isEmpty,
  suppress_tokens: isEmpty,
  begin_suppress_tokens: isEmpty,
  sequence_bias: isEmpty,
  forced_bos_token_id: () => false,
  forced_eos_token_id: () => false,
  exponential_decay_length_penalty: () => false,
  guidance_scale: (value) => value === 1,
};

function isEmpty(value: unknown): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}

/** Those settings of a model's folder, as `name value`; none without a readable generation_config.json. */
export async function generationChanges(folder: string): Promise<readonly string[]> {
  const path = join(folder, "generation_config.json");
  const json = (await entryAt(path)) === null ? null : await readJson(path).catch(() => null);
  if (typeof json !== "object" || json === null) return [];
  const config = json as Readonly<Record<string, unknown>>;
  return Object.entries(settings).flatMap(([name, isNeutral]) => {
    const value = config[name] ?? null;
    return value === null || isNeutral(value) ? [] : [`${name} ${JSON.stringify(value)}`];
  });
}
