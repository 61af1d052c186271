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
  /** A text config that ties the head has its way, whatever the whole config says, as older files mean it. */
  readonly textTies?: true;
  /** Older files have the text model's keys beside `vision_config`. */
  readonly flat?: true;
  /** What the class computes whatever its text config says. */
  readonly fixed?: Json;
  /** What this class assumes of a text config in place of `classValues`. */
  readonly assumed?: Readonly<Record<string, number>>;
  /** Files hold the matrices of packed experts the other way round: [experts, in, out]. */
  readonly turnedExperts?: true;
  /** The class does to its logits what the text model's own class does. */
  readonly factorOnLogits?: true;
}

/** Text models with a `model_type` of their own, and the family that computes the same on text. */
const textFamilies = {
  qwen2_vl_text: "qwen2",
  qwen2_5_vl_text: "qwen2",
  qwen3_vl_text: "qwen3",
  qwen3_vl_moe_text: "qwen3_moe",
  granite4_vision_text: "granite",
  exaone4_5_text: "exaone4",
} as const satisfies Readonly<Record<string, Family>>;

const qwen2Text = { text: "qwen2", tied: false, textTies: true } as const satisfies Composite;

/** Multimodal classes by `model_type`. */
const composites: Readonly<Record<string, Composite>> = {
  gemma3: { text: "gemma3_text", tied: true },
  mistral3: { text: "mistral", tied: true },
  llava: { text: "llama", tied: false, textTies: true },
  llava_next: { text: "llama", tied: false },
  llava_next_video: { text: "llama", tied: false, textTies: true },
  llava_onevision: qwen2Text,
  vipllava: { text: "llama", tied: false },
  video_llava: { text: "llama", tied: false },
  qwen2_vl: { text: "qwen2_vl_text", tied: false, textTies: true, flat: true },
  qwen2_5_vl: { text: "qwen2_5_vl_text", tied: false, textTies: true, flat: true },
  qwen3_vl: { text: "qwen3_vl_text", tied: false },
  internvl: { text: "qwen2", tied: true },
  idefics2: { text: "mistral", tied: false },
  idefics3: { text: "llama", tied: false },
  smolvlm: { text: "llama", tied: false },
  // Its router always renormalises.
  qwen3_vl_moe: { text: "qwen3_vl_moe_text", tied: false, fixed: { norm_topk_prob: true }, turnedExperts: true },
  // Without `token_type_ids`, which say where a prompt ends, its class attends causally, whatever the key says.
  paligemma: { text: "gemma", tied: true, fixed: { use_bidirectional_attention: null, num_image_tokens: null } },
  aya_vision: { text: "cohere2", tied: true },
  cohere2_vision: { text: "cohere2", tied: true },
  granite_speech: { text: "granite", tied: true },
  granite_speech_plus: { text: "granite", tied: true },
  granite4_vision: { text: "granite4_vision_text", tied: false, factorOnLogits: true },
  hyperclovax_vision_v2: { text: "hyperclovax", tied: true, factorOnLogits: true },
  exaone4_5: { text: "exaone4_5_text", tied: false },
  deepseek_vl: { text: "llama", tied: true },
  deepseek_vl_hybrid: { text: "llama", tied: true },
  janus: { text: "llama", tied: true },
  video_llama_3: qwen2Text,
  qwen2_audio: { text: "qwen2", tied: false },
  vibevoice_asr: { text: "qwen2", tied: false },
  lighton_ocr: { text: "qwen3", tied: true },
  qwen3_asr: { text: "qwen3", tied: true },
  glmasr: {
    text: "llama",
    tied: true,
    assumed: { ...sizes(59_264, 2048, 6144, 28, 16, 4), max_position_embeddings: 8192, rms_norm_eps: 1e-5 },
  },
};

/** Multimodal types whose text part is read. */
export const multimodalTypes: readonly string[] = Object.keys(composites);

/**
 * What a class assumes: sizes, which a model's own config.json has to state while a `text_config` often holds only what
 * departs from them, and what the family's own class assumes otherwise.
 */
const classValues: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  llama: sizes(32_000, 4096, 11_008, 32, 32),
  mistral: sizes(32_000, 4096, 14_336, 32, 32, 8),
  qwen2: sizes(151_936, 4096, 22_016, 32, 32, 32),
  qwen3: sizes(151_936, 4096, 22_016, 32, 32, 32),
  gemma3_text: sizes(262_208, 2304, 9216, 26, 8, 4),
  gemma: { ...sizes(256_000, 3072, 24_576, 28, 16, 16), head_dim: 256 },
  gemma2: { ...sizes(256_000, 2304, 9216, 26, 8, 4), head_dim: 256 },
  cohere2: sizes(256_000, 8192, 22_528, 40, 64),
  granite: sizes(32_000, 4096, 11_008, 32, 32),
  granite4_vision_text: sizes(32_000, 4096, 11_008, 32, 32),
  hyperclovax: sizes(32_000, 4096, 11_008, 32, 32),
  exaone4: sizes(102_400, 4096, 16_384, 32, 32, 32),
  exaone4_5_text: sizes(102_400, 4096, 16_384, 32, 32, 32),
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

/** Without `kvHeads` there are as many as heads, however many those are. */
function sizes(
  vocab: number,
  hidden: number,
  ffn: number,
  layers: number,
  heads: number,
  kvHeads?: number,
): Readonly<Record<string, number>> {
  return {
    vocab_size: vocab,
    hidden_size: hidden,
    intermediate_size: ffn,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    ...(kvHeads === undefined ? {} : { num_key_value_heads: kvHeads }),
  };
}

/**
 * What a family's own class does to its logits, and the value that does nothing: most multimodal classes have a head of
 * their own, which does nothing more.
 */
const logitKeys: Readonly<Partial<Record<string, { readonly key: string; readonly nothing: number | null }>>> = {
  gemma2: { key: "final_logit_softcapping", nothing: null },
  gemma3_text: { key: "final_logit_softcapping", nothing: null },
  vaultgemma: { key: "final_logit_softcapping", nothing: null },
  granite: { key: "logits_scaling", nothing: 1 },
  granitemoe: { key: "logits_scaling", nothing: 1 },
  granitemoe_swa: { key: "logits_scaling", nothing: 1 },
  hyperclovax: { key: "logits_scaling", nothing: 1 },
  cohere: { key: "logit_scale", nothing: 1 },
  cohere2: { key: "logit_scale", nothing: 1 },
};

/** Keys that a multimodal config states once, for all its parts. */
const commonKeys = ["dtype", "torch_dtype", "quantization_config", "bos_token_id", "eos_token_id", "pad_token_id"];

/** The decoder of a multimodal model. */
export interface TextPart {
  /** Its config as its family's own `config.json` would have it. */
  readonly config: Json;
  /** `model_type` of the whole. */
  readonly of: string;
  /** What its text config asks for and the multimodal class of transformers 5 does not compute, in words. */
  readonly leftOut: readonly string[];
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
  const common = Object.fromEntries(
    commonKeys.flatMap((key) => (config[key] === undefined || own[key] != null ? [] : [[key, config[key]]])),
  );
  const familyOfType = Object.hasOwn(textFamilies, type) ? textFamilies[type as keyof typeof textFamilies] : type;
  const plain = composite.factorOnLogits === true ? undefined : logitKeys[familyOfType];
  return {
    of,
    config: {
      ...assumedFor(composite.assumed ?? classValues[type] ?? {}, own),
      ...own,
      ...common,
      ...Object.fromEntries(ropeKeys.flatMap((key) => (own[key] === undefined ? [] : [[key, onText(own[key])]]))),
      ...composite.fixed,
      ...(plain === undefined ? {} : { [plain.key]: plain.nothing }),
      model_type: familyOfType,
      ...tying(config, own, composite),
    },
    leftOut: plain === undefined ? [] : leftOutWords(of, own[plain.key], plain),
  };
}

/** Whether the head is tied; nothing is said where the family's own class decides. */
function tying(config: Json, own: Json, { tied, textTies }: Composite): Json {
  const [whole, text] = [config["tie_word_embeddings"] ?? undefined, own["tie_word_embeddings"] ?? undefined];
  if (textTies !== true) return { tie_word_embeddings: whole ?? text ?? tied };
  if (whole === true) return { tie_word_embeddings: true };
  return text === undefined ? {} : { tie_word_embeddings: text };
}

/** A family's own class and that of the whole disagree on logits where the text config sets what the latter ignores. */
function leftOutWords(of: string, value: unknown, { key, nothing }: { key: string; nothing: unknown }): string[] {
  if (value === undefined || value === null || value === nothing) return [];
  return [
    `${key} ${shown(value)} of its text config is left out of the logits, as the ${of} class of transformers 5 does ` +
      "(the text model's own class and vLLM apply it)",
  ];
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

/** What a class assumes of keys that the text config does not have, under whatever name. */
function assumedFor(assumed: Readonly<Record<string, number>>, own: Json): Json {
  const { rope_theta: theta, num_experts: experts, ...values } = assumed;
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
