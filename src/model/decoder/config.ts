/**
 * `DecoderSpec` from and to a Hugging Face `config.json`. What a config says beyond mathematics (dropout, cache, router
 * jitter: training-time noise or serving hints) is not read.
 */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import type { DecoderSpec, Family } from "./types.js";
import { refuseDepartures, unknownKeys } from "./attributes.js";
import { allExpertTensors, mostTensors } from "./bounds.js";
import { whyNotRead } from "./other-types.js";
import { readQuantization } from "./quantization.js";
import { families, ownFamily } from "./types.js";
import { textPartOf } from "./text-part.js";
import type { Dialect } from "./families/common.js";
import { writeCommon } from "./families/common.js";
import { ConfigReader } from "./families/reader.js";
import { deepseekV3 } from "./families/deepseek_v3.js";
import { dots1 } from "./families/dots1.js";
import { flexOlmo } from "./families/flex_olmo.js";
import { dbrx } from "./families/dbrx.js";
import { gpt2 } from "./families/gpt2.js";
import { ernie45Moe } from "./families/ernie4_5_moe.js";
import { gptOss } from "./families/gpt_oss.js";
import { lfm2Moe } from "./families/lfm2_moe.js";
import { gemma } from "./families/gemma.js";
import { gemma2 } from "./families/gemma2.js";
import { gemma3Text } from "./families/gemma3_text.js";
import { glm4Moe } from "./families/glm4_moe.js";
import { gptNeox } from "./families/gpt_neox.js";
import { granite } from "./families/granite.js";
import { graniteMoe } from "./families/granitemoe.js";
import { graniteMoeSwa } from "./families/granitemoe_swa.js";
import { cohere } from "./families/cohere.js";
import { hunyuanV1Moe } from "./families/hunyuan_v1_moe.js";
import { hyV3 } from "./families/hy_v3.js";
import { llama } from "./families/llama.js";
import { mellum } from "./families/mellum.js";
import { mistral } from "./families/mistral.js";
import { mixtral } from "./families/mixtral.js";
import { nemotron } from "./families/nemotron.js";
import { olmo } from "./families/olmo.js";
import { olmo2 } from "./families/olmo2.js";
import { olmo3 } from "./families/olmo3.js";
import { olmoe } from "./families/olmoe.js";
import { phi3 } from "./families/phi3.js";
import { phimoe } from "./families/phimoe.js";
import { qwen2 } from "./families/qwen2.js";
import { qwen2Moe } from "./families/qwen2_moe.js";
import { qwen3 } from "./families/qwen3.js";
import { qwen3Moe } from "./families/qwen3_moe.js";
import { smollm3 } from "./families/smollm3.js";
import { solarOpen } from "./families/solar_open.js";
import { stablelm } from "./families/stablelm.js";
import { starcoder2 } from "./families/starcoder2.js";
import { glm } from "./families/glm.js";
import { glm4 } from "./families/glm4.js";
import { seedOss } from "./families/seed_oss.js";
import { arcee } from "./families/arcee.js";
import { exaone4 } from "./families/exaone4.js";
import { cohere2 } from "./families/cohere2.js";
import { ernie45 } from "./families/ernie4_5.js";
import { hunyuanV1Dense } from "./families/hunyuan_v1_dense.js";
import { helium } from "./families/helium.js";
import { ministral } from "./families/ministral.js";
import { ministral3 } from "./families/ministral3.js";
import { apertus } from "./families/apertus.js";
import { falcon } from "./families/falcon.js";
import { opt } from "./families/opt.js";
import { mpt } from "./families/mpt.js";
import { codegen } from "./families/codegen.js";
import { gptj } from "./families/gptj.js";
import { phi } from "./families/phi.js";
import { gptNeo } from "./families/gpt_neo.js";
import { gptBigcode } from "./families/gpt_bigcode.js";
import { cwm } from "./families/cwm.js";
import { jais2 } from "./families/jais2.js";
import { hyperclovax } from "./families/hyperclovax.js";
import { vaultgemma } from "./families/vaultgemma.js";
import { upcycle } from "./families/upcycle.js";
import { requireSaidWindows } from "./families/windows.js";

const dialects: Readonly<Record<Family, Dialect>> = {
  upcycle,
  llama,
  mistral,
  qwen2,
  qwen3,
  nemotron,
  starcoder2,
  stablelm,
  cohere,
  phi3,
  gpt_neox: gptNeox,
  gemma,
  gemma2,
  gemma3_text: gemma3Text,
  granite,
  smollm3,
  glm,
  glm4,
  seed_oss: seedOss,
  arcee,
  exaone4,
  cohere2,
  ernie4_5: ernie45,
  hunyuan_v1_dense: hunyuanV1Dense,
  helium,
  ministral,
  ministral3,
  apertus,
  cwm,
  jais2,
  hyperclovax,
  vaultgemma,
  falcon,
  opt,
  mpt,
  gptj,
  codegen,
  phi,
  gpt_neo: gptNeo,
  gpt_bigcode: gptBigcode,
  olmo2,
  olmo3,
  olmo,
  mixtral,
  qwen2_moe: qwen2Moe,
  qwen3_moe: qwen3Moe,
  olmoe,
  flex_olmo: flexOlmo,
  mellum,
  dots1,
  glm4_moe: glm4Moe,
  solar_open: solarOpen,
  hy_v3: hyV3,
  hunyuan_v1_moe: hunyuanV1Moe,
  deepseek_v3: deepseekV3,
  granitemoe: graniteMoe,
  granitemoe_swa: graniteMoeSwa,
  phimoe,
  ernie4_5_moe: ernie45Moe,
  lfm2_moe: lfm2Moe,
  gpt_oss: gptOss,
  dbrx,
  gpt2,
};

/**
 * Whose config layout is written: the release that written models are checked with. transformers takes a folder without
 * this key for a Mistral of old, and warns of a wrong tokenizer if the vocabulary is large
 * (`tokenization_utils_tokenizers.py`, 5.18).
 */
const transformersVersion = "5.18.0";

/** Names that transformers gives to weight precisions. */
export type ConfigDtype = "float32" | "bfloat16" | "float16";

/**
 * The config of the decoder: of a multimodal model the one of its text model. Throws inputError for what is no object.
 */
export function decoderConfig(config: unknown, where: string): Readonly<Record<string, unknown>> {
  if (typeof config !== "object" || config === null || Array.isArray(config))
    throw inputError("not a JSON object", { where });
  const keys = config as Readonly<Record<string, unknown>>;
  return textPartOf(keys, where)?.config ?? keys;
}

/**
 * Reads a parsed `config.json`; `where` is the file's path, for errors. Absent keys mean what the family's transformers
 * class says they mean; sizes must be present. Throws inputError naming file, key, value and what is supported.
 */
export function specFromConfig(config: unknown, where: string): DecoderSpec {
  const reader = new ConfigReader(decoderConfig(config, where), where);
  const type = reader.get("model_type");
  if (typeof type !== "string") throw reader.fail("model_type", `one of ${families.join(", ")}`);
  if (!Object.hasOwn(dialects, type)) {
    const why = whyNotRead(type);
    if (why !== undefined) throw inputError(`a ${type} model is not read: ${why}`, { where });
    throw reader.fail("model_type", `one of ${families.join(", ")}`);
  }
  // Also refuses what cannot be read; how 8-bit weights are stored is no matter of the spec.
  readQuantization(config, where);
  refuseDepartures(reader, type as Family);
  const spec = dialects[type as Family].read(reader);
  requireSaidWindows(reader, spec);
  const tensors = allExpertTensors(spec);
  if (tensors > mostTensors) {
    throw inputError(`${spec.layers.length} layers of experts are ${tensors} tensors, the limit is ${mostTensors}`, {
      where,
      hint: "are the numbers of layers and experts right?",
    });
  }
  return spec;
}

/**
 * Keys of a parsed `config.json` that say something and that, as far as is known, nobody reads for its `model_type`.
 */
export function unreadKeys(config: Readonly<Record<string, unknown>>): readonly string[] {
  const { model_type: type } = config;
  const isKnown = typeof type === "string" && Object.hasOwn(dialects, type) && type !== ownFamily;
  return isKnown ? unknownKeys(new ConfigReader(config, "config.json"), type as Family) : [];
}

/**
 * A config that transformers 4 and 5, vLLM and llama.cpp read as this spec. Serialise it with `stringifyConfig`.
 * Throws inputError if the family has no way to say something the spec says.
 */
export function configFromSpec(spec: DecoderSpec, { dtype }: { dtype: ConfigDtype }): Record<string, unknown> {
  const dialect = dialects[spec.family];
  const config = nested({
    architectures: [dialect.architecture],
    model_type: spec.family,
    // transformers 5 reads `dtype`, 4 reads `torch_dtype`.
    dtype,
    torch_dtype: dtype,
    transformers_version: transformersVersion,
    ...(dialect.standalone ? {} : writeCommon(spec, dialect.defaults)),
    ...dialect.write(spec),
  });
  // Reading it back refuses impossible numbers (an odd head size, more kept experts than there are) before they are on
  // disk.
  const readBack = dialect.read(new ConfigReader(config, `config of the ${spec.family} model to be written`));
  const changed = difference(spec, readBack, "");
  if (changed !== null) throw inputError(`a ${spec.family} model cannot have ${changed}`);
  return config;
}

/** `attn_config.clip_qkv` becomes an entry of the object `attn_config`. */
function nested(keys: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const config: Record<string, unknown> = {};
  for (const [path, value] of Object.entries(keys)) {
    const names = path.split(".");
    const place = names.slice(0, -1).reduce((inside, name) => (inside[name] ??= {}) as Record<string, unknown>, config);
    place[at(names, names.length - 1)] = value;
  }
  return config;
}

/** The first place where `readBack` does not say what `intended` says, as `PATH VALUE`; null if there is none. */
function difference(intended: unknown, readBack: unknown, path: string): string | null {
  const isObject = (value: unknown): value is object => typeof value === "object" && value !== null;
  if (isObject(intended) && isObject(readBack)) {
    for (const key of new Set([...Object.keys(intended), ...Object.keys(readBack)])) {
      const inside = (value: object): unknown => (value as Record<string, unknown>)[key];
      const changed = difference(inside(intended), inside(readBack), path === "" ? key : `${path}.${key}`);
      if (changed !== null) return changed;
    }
    return null;
  }
  // A factor stored as its reciprocal may come back with its last bit changed; Gemma's embedding factor is rounded to
  // the weights' type, so that one model has slightly different ones in two types.
  const tolerance = path === "multipliers.embedding" ? 2 ** -7 : 1e-12;
  const near =
    typeof intended === "number" &&
    typeof readBack === "number" &&
    Math.abs(intended - readBack) <= tolerance * Math.abs(intended);
  return near || Object.is(intended, readBack) ? null : `${path} ${JSON.stringify(intended)}`;
}

/**
 * Keys typed `float` in transformers 5's strict config classes. An integer literal in some of them makes
 * `from_pretrained` fail, and `JSON.stringify(1.0)` is `1`.
 */
const floatKeys: ReadonlySet<string> = new Set([
  "rms_norm_eps",
  "norm_eps",
  "norm_epsilon",
  "layer_norm_eps",
  "logit_scale",
  "attn_logit_softcapping",
  "final_logit_softcapping",
  "clip_qkv",
  "initializer_range",
  "attention_dropout",
  "rope_theta",
  "factor",
  "low_freq_factor",
  "high_freq_factor",
  "router_aux_loss_coef",
  "router_jitter_noise",
  "input_jitter_noise",
  "layer_rope_theta",
  "moe_norm_min",
  "moe_loss_weight",
  "moe_normalize_expert_weights",
  "layer_norm_epsilon",
  "swiglu_limit",
  "short_mscale",
  "long_mscale",
  "partial_rotary_factor",
  "rotary_pct",
  "attention_factor",
  "beta_fast",
  "beta_slow",
  "routed_scaling_factor",
  "router_scaling_factor",
  "mscale",
  "mscale_all_dim",
  "llama_4_scaling_beta",
  "softmax_scale",
]);

/**
 * JSON with sorted keys, indent 2 and a final newline (transformers' own layout), float keys always written as floats.
 */
export function stringifyConfig(config: Readonly<Record<string, unknown>>): string {
  return `${stringify(config, undefined, "")}\n`;
}

function stringify(value: unknown, key: string | undefined, indent: string): string {
  const inside = `${indent}  `;
  if (Array.isArray(value)) {
    if (value.length === 0) return "[]";
    return `[\n${value.map((entry) => inside + stringify(entry, key, inside)).join(",\n")}\n${indent}]`;
  }
  if (typeof value === "object" && value !== null) {
    const keys = Object.keys(value)
      .filter((name) => (value as Record<string, unknown>)[name] !== undefined)
      .sort();
    if (keys.length === 0) return "{}";
    const lines = keys.map(
      (name) =>
        `${inside}${JSON.stringify(name)}: ${stringify((value as Record<string, unknown>)[name], name, inside)}`,
    );
    return `{\n${lines.join(",\n")}\n${indent}}`;
  }
  const text = JSON.stringify(value);
  const isFloat = key !== undefined && floatKeys.has(key) && typeof value === "number";
  return isFloat && /^-?\d+$/.test(text) ? `${text}.0` : text;
}
