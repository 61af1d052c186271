/**
 * The `tokenizer_config.json` of a model that got its tokenizer from another one. transformers chooses the tokenizer's
 * class by this file, and without it by the model's family, which a conversion changes: for `qwen2_moe` it would
 * rebuild any tokenizer as Qwen's.
 */
import { inputError } from "../../base/errors.js";

type Json = Readonly<Record<string, unknown>>;

/** The files that say which tokenizer a model has. */
export interface CarriedTokenizer {
  /** The parsed files of the model the tokenizer comes from; null: not there. */
  readonly tokenizerConfig: Json | null;
  readonly specialTokens: Json | null;
  readonly tokenizer: Json | null;
  readonly config: Json | null;
}

const specialNames = ["bos_token", "eos_token", "unk_token", "pad_token"] as const;

/** Reads `tokenizer.json` as it is. */
const plainClass = "PreTrainedTokenizerFast";

/** Text of the file to write; null if the source's own file, or its absence, is right as it is. */
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
    const { auto_map: code, tokenizer_class: named, ...rest } = tokenizerConfig;
    if (code === undefined && typeof named === "string") return null;
    return text({ ...rest, tokenizer_class: plainClass });
  }
  const positions = config?.["max_position_embeddings"] ?? config?.["n_positions"];
  const tokens = specialNames.map((name): [string, unknown] => [
    name,
    specialTokens?.[name] ?? contentOf(tokenizer, config?.[`${name}_id`]),
  ]);
  return text({
    tokenizer_class: plainClass,
    ...(typeof positions === "number" ? { model_max_length: positions } : {}),
    clean_up_tokenization_spaces: false,
    ...Object.fromEntries(tokens.filter(([, token]) => token !== undefined)),
  });
}

/** The token of an id (or of the first of several), if the tokenizer lists it among its special ones. */
function contentOf(tokenizer: Json, id: unknown): string | undefined {
  const first: unknown = Array.isArray(id) ? id[0] : id;
  const added = Array.isArray(tokenizer["added_tokens"]) ? (tokenizer["added_tokens"] as unknown[]) : [];
  for (const token of added) {
    if (typeof token !== "object" || token === null) continue;
    const { id: own, content } = token as Json;
    if (typeof first === "number" && own === first && typeof content === "string") return content;
  }
  return undefined;
}

function text(config: Json): string {
  try {
    return `${JSON.stringify(config, null, 2)}\n`;
  } catch (cause) {
    // Lists within lists, many thousand deep, can be read but not written.
    throw inputError("a value nests too deeply", { where: "tokenizer_config.json or special_tokens_map.json", cause });
  }
}
