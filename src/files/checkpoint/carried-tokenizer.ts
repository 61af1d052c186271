/**
 * The `tokenizer_config.json` of a model that got its tokenizer from another one. transformers chooses the tokenizer's
 * class by this file, and without it by the model's family, which a conversion changes: for `qwen2_moe` it would
 * rebuild any tokenizer as Qwen's.
 */
import { inputError } from "../../base/errors.js";

type Json = Readonly<Record<string, unknown>>;

/** The parsed files that say which tokenizer a model has, of the model that it comes from; null: there is none. */
export interface CarriedTokenizer {
  readonly tokenizerConfig: Json | null;
  readonly specialTokens: Json | null;
  readonly tokenizer: Json | null;
  readonly config: Json | null;
}

const specialNames = ["bos_token", "eos_token", "unk_token", "pad_token"] as const;

/** The class of transformers that reads `tokenizer.json` as it is. */
const plainClass = "PreTrainedTokenizerFast";

/**
 * Text of the `tokenizer_config.json` to write; null if the source's own file, or its absence, is right as it is.
 * Throws inputError for values that are nested too deeply to be written.
 */
export function carriedTokenizerConfig({
  tokenizerConfig,
  specialTokens,
  tokenizer,
  config,
}: CarriedTokenizer): string | null {
  // Without a tokenizer.json only the class knows how to read the other files.
  if (tokenizer === null) return null;
  if (tokenizerConfig !== null) {
    // Code that `auto_map` names is not carried along.
    const { auto_map: code, tokenizer_class: className, ...rest } = tokenizerConfig;
    if (code === undefined && typeof className === "string") return null;
    return jsonText({ ...rest, tokenizer_class: plainClass });
  }
  const positions = config?.["max_position_embeddings"] ?? config?.["n_positions"];
  const tokens = specialNames.map((name): [string, unknown] => [
    name,
    specialTokens?.[name] ?? contentOf(tokenizer, config?.[`${name}_id`]),
  ]);
  return jsonText({
    tokenizer_class: plainClass,
    ...(typeof positions === "number" ? { model_max_length: positions } : {}),
    clean_up_tokenization_spaces: false,
    ...Object.fromEntries(tokens.filter(([, token]) => token !== undefined)),
  });
}

/** The token of an id (or of the first of several), if the tokenizer lists it among its special ones. */
function contentOf(tokenizer: Json, id: unknown): string | undefined {
  const firstId: unknown = Array.isArray(id) ? id[0] : id;
  if (typeof firstId !== "number") return undefined;
  const added = Array.isArray(tokenizer["added_tokens"]) ? (tokenizer["added_tokens"] as unknown[]) : [];
  for (const token of added) {
    if (typeof token !== "object" || token === null) continue;
    const { id: tokenId, content } = token as Json;
    if (tokenId === firstId && typeof content === "string") return content;
  }
  return undefined;
}

function jsonText(config: Json): string {
  try {
    return `${JSON.stringify(config, null, 2)}\n`;
  } catch (cause) {
    // Lists within lists, many thousand deep, can be read but not written.
    throw inputError("a value nests too deeply", { where: "tokenizer_config.json or special_tokens_map.json", cause });
  }
}
