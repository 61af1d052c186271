/**
 * The decoder in the config of a multimodal model. Its class holds a text model of a family beside towers for images or
 * sound; on text alone it computes what the family's own class computes (transformers 5.18, checked with tiny models of
 * each class listed here: `test/golden/found`). Rope by three coordinates (`mrope`) is rope by one on text, where all
 * three are the position.
 */
import { inputError } from "../../base/errors.js";
import { shown } from "../../base/shown.js";
import type { Family } from "./types.js";

type Json = Readonly<Record<string, unknown>>;

/** What a class assumes of its text model. */
interface Composite {
  /** `model_type` of a `text_config` that does not say. */
  readonly text: Family | keyof typeof textFamilies;
  /** `tie_word_embeddings` where neither config says. */
  readonly tied: boolean;
  /** Older files have the text model's keys beside `vision_config`. */
  readonly flat?: true;
  /** What the class computes whatever its text config says. */
  readonly fixed?: Json;
  /** Files hold the matrices of packed experts the other way round: [experts, in, out]. */
  readonly turnedExperts?: true;
}

/** Text models with a `model_type` of their own, and the family that computes the same on text. */
const textFamilies = {
  qwen2_vl_text: "qwen2",
  qwen2_5_vl_text: "qwen2",
  qwen3_vl_text: "qwen3",
  qwen3_vl_moe_text: "qwen3_moe",
} as const satisfies Readonly<Record<string, Family>>;

/** Multimodal classes by `model_type`. */
const composites: Readonly<Record<string, Composite>> = {
  gemma3: { text: "gemma3_text", tied: true },
  mistral3: { text: "mistral", tied: true },
  llava: { text: "llama", tied: false },
  llava_next: { text: "llama", tied: false },
  llava_next_video: { text: "llama", tied: false },
  llava_onevision: { text: "qwen2", tied: false },
  vipllava: { text: "llama", tied: false },
  qwen2_vl: { text: "qwen2_vl_text", tied: false, flat: true },
  qwen2_5_vl: { text: "qwen2_5_vl_text", tied: false, flat: true },
  qwen3_vl: { text: "qwen3_vl_text", tied: false },
  internvl: { text: "qwen2", tied: true },
  idefics3: { text: "llama", tied: false },
  smolvlm: { text: "llama", tied: false },
  // Its router always renormalises.
  qwen3_vl_moe: { text: "qwen3_vl_moe_text", tied: false, fixed: { norm_topk_prob: true }, turnedExperts: true },
  // Without `token_type_ids`, which say where a prompt ends, its class attends causally, whatever the key says.
  paligemma: { text: "gemma", tied: true, fixed: { use_bidirectional_attention: null, num_image_tokens: null } },
};

/**
 * What a class assumes: sizes, which a model's own config.json has to state while a `text_config` often holds only what
 * departs from them, and what the family's own class assumes otherwise.
 */
const classValues: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  llama: sizes(32_000, 4096, 11_008, 32, 32, 32),
  mistral: sizes(32_000, 4096, 14_336, 32, 32, 8),
  qwen2: sizes(151_936, 4096, 22_016, 32, 32, 32),
  qwen3: sizes(151_936, 4096, 22_016, 32, 32, 32),
  gemma3_text: sizes(262_208, 2304, 9216, 26, 8, 4),
  gemma: { ...sizes(256_000, 3072, 24_576, 28, 16, 16), head_dim: 256 },
  gemma2: { ...sizes(256_000, 2304, 9216, 26, 8, 4), head_dim: 256 },
  qwen2_vl_text: { ...sizes(152_064, 8192, 29_568, 80, 64, 8), rms_norm_eps: 1e-5, rope_theta: 1_000_000 },
  qwen2_5_vl_text: { ...sizes(152_064, 8192, 29_568, 80, 64, 8), rms_norm_eps: 1e-5, rope_theta: 1_000_000 },
  qwen3_vl_text: {
    ...sizes(151_936, 4096, 22_016, 32, 32, 32),
    max_position_embeddings: 128_000,
    rope_theta: 500_000,
  },
  qwen3_vl_moe_text: {
    ...sizes(151_936, 2048, 5632, 24, 16, 16),
    max_position_embeddings: 128_000,
    rope_theta: 500_000,
    moe_intermediate_size: 1408,
    num_experts: 60,
    num_experts_per_tok: 4,
  },
};

function sizes(vocab: number, hidden: number, ffn: number, layers: number, heads: number, kvHeads: number) {
  return {
    vocab_size: vocab,
    hidden_size: hidden,
    intermediate_size: ffn,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
  };
}

const uncapped = { final_logit_softcapping: null };

/** What a family's own class does to its logits: a multimodal class has a head of its own, which does nothing more. */
const plainLogits: Readonly<Partial<Record<string, Json>>> = {
  gemma2: uncapped,
  gemma3_text: uncapped,
  vaultgemma: uncapped,
  granite: { logits_scaling: 1 },
  hyperclovax: { logits_scaling: 1 },
  cohere: { logit_scale: 1 },
  cohere2: { logit_scale: 1 },
};

/** Keys that a multimodal config states once, for all its parts. */
const commonKeys = ["dtype", "torch_dtype", "quantization_config", "bos_token_id", "eos_token_id", "pad_token_id"];

/** The decoder of a multimodal model. */
export interface TextPart {
  /** Its config as its family's own `config.json` would have it. */
  readonly config: Json;
  /** `model_type` of the whole. */
  readonly of: string;
}

/**
 * The text model's config; null for a config that is none of these classes. Throws inputError for a multimodal config
 * whose text model is missing.
 */
export function textPartOf(config: Json, where: string): TextPart | null {
  const of = config["model_type"];
  const composite = typeof of === "string" && Object.hasOwn(composites, of) ? composites[of] : undefined;
  if (typeof of !== "string" || composite === undefined) return null;
  const text = composite.flat === true && config["text_config"] === undefined ? config : config["text_config"];
  if (typeof text !== "object" || text === null || Array.isArray(text))
    throw inputError(`text_config is ${shown(text)}, expected the config of the text model of ${of}`, { where });
  const own = text === config ? withoutOtherParts(config) : (text as Json);
  // A flat config names the whole model.
  const named = text === config ? undefined : own["model_type"];
  const type = typeof named === "string" ? named : composite.text;
  const tied = config["tie_word_embeddings"] ?? own["tie_word_embeddings"] ?? composite.tied;
  const common = Object.fromEntries(
    commonKeys.flatMap((key) => (config[key] === undefined || own[key] != null ? [] : [[key, config[key]]])),
  );
  const familyOfType = Object.hasOwn(textFamilies, type) ? textFamilies[type as keyof typeof textFamilies] : type;
  return {
    of,
    config: {
      ...assumedFor(type, own),
      ...own,
      ...common,
      ...Object.fromEntries(ropeKeys.flatMap((key) => (own[key] === undefined ? [] : [[key, onText(own[key])]]))),
      ...composite.fixed,
      ...plainLogits[familyOfType],
      model_type: familyOfType,
      tie_word_embeddings: tied,
    },
  };
}

/** A flat config without the keys of the parts beside the text model. */
function withoutOtherParts(config: Json): Json {
  const isOther = (key: string): boolean =>
    key === "vision_config" || (key.endsWith("_token_id") && !commonKeys.includes(key));
  return Object.fromEntries(Object.entries(config).filter(([key]) => !isOther(key)));
}

/** Whether the files of a model hold the matrices of packed experts the other way round. */
export function turnsExperts(config: Json): boolean {
  const { model_type: of } = config;
  return typeof of === "string" && Object.hasOwn(composites, of) && composites[of]?.turnedExperts === true;
}

const ropeKeys = ["rope_scaling", "rope_parameters"];

/** What the class of a text model assumes of keys that its config does not have, under whatever name. */
function assumedFor(type: string, own: Json): Json {
  const { rope_theta: theta, num_experts: experts, ...values } = classValues[type] ?? {};
  const saysTheta = ropeKeys.some((key) => {
    const rope = own[key];
    return typeof rope === "object" && rope !== null && "rope_theta" in rope;
  });
  return {
    ...values,
    ...(theta === undefined || saysTheta ? {} : { rope_theta: theta }),
    ...(experts === undefined || "num_local_experts" in own ? {} : { num_experts: experts }),
  };
}

/** Rope keys without what three coordinates are about. */
function onText(rope: unknown): unknown {
  if (typeof rope !== "object" || rope === null) return rope;
  const isThreefold = (key: string, value: unknown): boolean =>
    ["mrope_section", "mrope_interleaved"].includes(key) || (["type", "rope_type"].includes(key) && value === "mrope");
  return Object.fromEntries(Object.entries(rope).filter(([key, value]) => !isThreefold(key, value)));
}
