/**
 * The part of `config.json` that all families share, and the checks every family makes before writing.
 * Read defaults come from transformers' configuration classes (v5.18 and the last v4), stated per family.
 */
import { at } from "../../../base/at.js";
import { inputError } from "../../../base/errors.js";
import { jsonText } from "../../../base/shown.js";
import type { UpcycleError } from "../../../base/errors.js";
import { departures } from "../plain.js";
import { plainBlocks, rmsNorm } from "../types.js";
import type {
  ActivationKind,
  AttentionSpec,
  DecoderSpec,
  DenseFfn,
  Family,
  LayerSpec,
  NormSpec,
  QkNorm,
  Rope,
  SpecialTokens,
} from "../types.js";
import type { ConfigReader } from "./reader.js";
import { isInteger } from "./reader.js";
import { readRope, writeRope } from "./rope.js";

/** How one `model_type` spells a spec. */
export interface Dialect {
  readonly family: Family;
  /** transformers class, for `architectures`. */
  readonly architecture: string;
  /** Throws inputError if a key is missing, wrong, or asks for something a spec cannot say. */
  read(config: ConfigReader): DecoderSpec;
  /** Writes the whole config itself, without `writeCommon`. */
  readonly standalone?: true;
  /** Given by families that are not Llama-like: what they start from, for `writeCommon`. */
  readonly defaults?: Defaults;
  /** The keys beyond `writeCommon`. Throws inputError if the family has no way to say what the spec says. */
  write(spec: DecoderSpec): Record<string, unknown>;
}

/** What a class assumes when a key is absent, and what its modelling code fixes. Left out: as Llama has it. */
export interface Defaults {
  readonly kvHeads: number | "heads";
  /** `derived`: hidden size / heads. */
  readonly headDim: number | "derived";
  /** Reads the head size from keys other than `head_dim`; it may be odd. */
  readonly readHeadDim?: (config: ConfigReader) => number;
  readonly maxPositions: number;
  readonly normEps: number;
  /** Null: the key must be there, because versions of the class disagree. */
  readonly ropeTheta: number | null;
  readonly bos: number | null;
  readonly eos: number | null;
  readonly pad?: number;
  readonly tiedHead?: boolean;
  readonly initStd?: number;
  /** Key of the norms' epsilon; null if the class fixes it. */
  readonly normKey?: string | null;
  readonly norm?: Omit<NormSpec, "eps">;
  /** If given, `hidden_act` may be any activation that a spec can say. */
  readonly activation?: ActivationKind;
  /** Beside the activation nothing departs from Llama. */
  readonly llamaLike?: true;
  /** Keys of the activation, the first one present counts; `hidden_act` if left out. */
  readonly activationKeys?: readonly string[];
  /** `partial_rotary_factor`; if left out, rope turns whole heads. */
  readonly partialRotary?: number;
  readonly interleavedRope?: boolean;
  /** What a top-level `original_max_position_embeddings` is when absent, in classes that have one. */
  readonly originalMaxPositions?: number;
  /** Usual key -> the family's own spelling of it. */
  readonly names?: Readonly<Record<string, string>>;
}

/** Enough for any model; stops a typing error from building a billion layers. */
const maxLayers = 10_000;

/** What every family reads from its config. */
export interface Common extends Omit<DecoderSpec, "attn" | "layers" | "auxLossCoef"> {
  readonly attn: Omit<AttentionSpec, "qkNorm" | "qkvBias" | "outBias">;
  readonly rope: Rope;
  readonly activation: ActivationKind;
  readonly layerCount: number;
}

/** What a family's attention may have beyond the common part. */
export interface AttentionOptions {
  /** Norm on queries and keys, of the same kind and epsilon as the block's; true: over each head. */
  readonly qkNorm: boolean | QkNorm["span"];
  readonly qkvBias: boolean;
  readonly outBias: boolean;
}

/**
 * Throws inputError if a key that the class does not look at, or whose other values a spec cannot say, is there with
 * another value than the given one.
 */
export function requireKeys(config: ConfigReader, keys: Readonly<Record<string, unknown>>): void {
  for (const [key, value] of Object.entries(keys)) {
    if (config.has(key) && jsonText(config.get(key)) !== jsonText(value)) throw config.fail(key, JSON.stringify(value));
  }
}

/** Sizes are required, everything else falls back to the family's class default. */
export function readCommon(config: ConfigReader, family: Family, defaults: Defaults): Common {
  const base = readBase(config, family, defaults);
  return { ...base, rope: readRope(config, base.attn.headDim, defaults) };
}

/** The common part without the rope, for families whose layers have different ones. */
export function readBase(config: ConfigReader, family: Family, defaults: Defaults): Omit<Common, "rope"> {
  const hidden = config.int("hidden_size");
  const heads = config.int("num_attention_heads");
  const kvHeads =
    config.intOrNull("num_key_value_heads", defaults.kvHeads === "heads" ? null : defaults.kvHeads) ?? heads;
  if (heads % kvHeads !== 0) throw config.fail("num_key_value_heads", `a divisor of num_attention_heads (${heads})`);
  const headDim = readHeadDim(config, hidden, heads, defaults);
  return {
    ...plainBlocks,
    family,
    vocab: config.int("vocab_size"),
    hidden,
    tiedHead: config.bool("tie_word_embeddings", defaults.tiedHead ?? false),
    norm: { ...(defaults.norm ?? rmsNorm(0)), eps: readEps(config, defaults) },
    maxPositions: config.int("max_position_embeddings", defaults.maxPositions),
    attn: {
      heads,
      kvHeads,
      headDim,
      scale: headDim ** -0.5,
      softcap: null,
      clip: null,
      sinks: false,
      latent: null,
      alibi: null,
      lengthScale: null,
    },
    activation: readActivation(config, defaults),
    layerCount: config.int("num_hidden_layers", undefined, { max: maxLayers }),
    tokens: readTokens(config, defaults),
    initStd: config.positive("initializer_range", defaults.initStd ?? 0.02, { zero: true }),
  };
}

/** Names in transformers' `ACT2FN` (activations.py); the first of each kind is the one written. */
const activationNames: Readonly<Record<ActivationKind, readonly [string, ...string[]]>> = {
  silu: ["silu", "swish"],
  gelu: ["gelu"],
  geluTanh: ["gelu_pytorch_tanh", "gelu_new"],
  relu: ["relu"],
  relu2: ["relu2"],
  xielu: ["xielu"],
};

function readEps(config: ConfigReader, { normKey = "rms_norm_eps", normEps }: Defaults): number {
  return normKey === null ? normEps : config.positive(normKey, normEps);
}

/** `fallback` undefined: the family has SiLU only. */
function readActivation(
  config: ConfigReader,
  { activation: fallback, activationKeys: keys = ["hidden_act"] }: Defaults,
): ActivationKind {
  const key = keys.find((name) => config.has(name)) ?? at(keys, 0);
  const value = config.get(key) ?? activationNames[fallback ?? "silu"][0];
  // Only one class hands its numbers on.
  const known = (Object.keys(activationNames) as ActivationKind[]).filter(
    (name) => name !== "xielu" || fallback === "xielu",
  );
  const kinds = fallback === undefined ? (["silu"] as const) : known;
  const kind = kinds.find((name) => activationNames[name].some((spelling) => spelling === value));
  if (kind === undefined)
    throw config.fail(key, kinds.map((name) => JSON.stringify(activationNames[name][0])).join(" or "));
  return kind;
}

function readHeadDim(config: ConfigReader, hidden: number, heads: number, defaults: Defaults): number {
  const fallback = defaults.headDim === "derived" ? null : defaults.headDim;
  if (defaults.readHeadDim !== undefined) return defaults.readHeadDim(config);
  const ownHeadDim = config.intOrNull("head_dim", fallback);
  if (ownHeadDim === null && hidden % heads !== 0) {
    throw config.fail("num_attention_heads", `a divisor of hidden_size (${hidden}), because head_dim is not given`);
  }
  const headDim = ownHeadDim ?? hidden / heads;
  if (headDim % 2 !== 0) {
    throw inputError(`the head size is ${headDim}, expected an even number (rotary embedding turns pairs)`, {
      where: config.where,
    });
  }
  return headDim;
}

function readTokens(config: ConfigReader, defaults: Defaults): SpecialTokens {
  // Early Llama files say -1 for "no such token".
  const one = (key: string, fallback: number | null): number | null => {
    const id = config.intOrNull(key, fallback, { min: -1 });
    return id === -1 ? null : id;
  };
  const eosList = Array.isArray(config.get("eos_token_id"))
    ? config.list("eos_token_id", isInteger, "token ids")
    : null;
  const eos = eosList ?? [one("eos_token_id", defaults.eos)].filter((id) => id !== null);
  if (eos.some((id) => id < 0)) throw config.fail("eos_token_id", "token ids from 0");
  return { bos: one("bos_token_id", defaults.bos), eos: [...eos], pad: one("pad_token_id", defaults.pad ?? null) };
}

/**
 * The keys all families write. Without `defaults` the family is a Llama-like decoder, and a spec that is not is
 * refused; with them, what the keys cannot say shows when the config is read back (`configFromSpec`).
 */
export function writeCommon(spec: DecoderSpec, defaults?: Defaults): Record<string, unknown> {
  const [departure] = departures(spec, { anyActivation: defaults?.activation !== undefined });
  if (departure !== undefined && (defaults === undefined || defaults.llamaLike === true)) throw refuse(spec, departure);
  const [firstLayer] = spec.layers;
  if (firstLayer === undefined) throw refuse(spec, "zero layers");
  const rope = spec.layers.map((layer) => layer.rope).find((one) => one !== null);
  const { normKey = "rms_norm_eps", activationKeys = ["hidden_act"] } = defaults ?? {};
  const activation = activationNames[firstLayer.ffn.activation][0];
  const { bos, eos, pad } = spec.tokens;
  const keys = {
    vocab_size: spec.vocab,
    hidden_size: spec.hidden,
    ...Object.fromEntries(activationKeys.map((key) => [key, activation])),
    num_hidden_layers: spec.layers.length,
    num_attention_heads: spec.attn.heads,
    num_key_value_heads: spec.attn.kvHeads,
    head_dim: spec.attn.headDim,
    max_position_embeddings: spec.maxPositions,
    ...(normKey === null ? {} : { [normKey]: spec.norm.eps }),
    initializer_range: spec.initStd,
    attention_dropout: 0,
    tie_word_embeddings: spec.tiedHead,
    use_cache: true,
    bos_token_id: bos,
    eos_token_id: eos.length === 0 ? null : eos.length === 1 ? eos[0] : eos,
    pad_token_id: pad,
    ...(rope === undefined ? {} : writeRope(rope, defaults?.partialRotary === undefined ? null : spec.attn.headDim)),
  };
  const names = new Map(Object.entries(defaults?.names ?? {}));
  return Object.fromEntries(Object.entries(keys).map(([key, value]) => [names.get(key) ?? key, value]));
}

/** A spec that its family's config cannot say. */
export function refuse(spec: DecoderSpec, what: string): UpcycleError {
  return inputError(`a ${spec.family} model cannot have ${what}`);
}

/** Throws inputError if the attention has something the family does not. */
export function requireAttention(
  spec: DecoderSpec,
  family: { qkNorm: boolean; qkvBias: boolean | "any"; outBias: boolean | "any" },
): void {
  const { qkvBias, outBias } = spec.attn;
  const qkNorm = spec.attn.qkNorm !== null;
  if (qkNorm !== family.qkNorm)
    throw refuse(spec, qkNorm ? "a norm on queries and keys" : "queries and keys without a norm");
  if (family.qkvBias !== "any" && qkvBias !== family.qkvBias)
    throw refuse(spec, qkvBias ? "query, key and value biases" : "queries, keys and values without biases");
  if (family.outBias !== "any" && outBias !== family.outBias)
    throw refuse(spec, outBias ? "an output projection bias" : "an output projection without a bias");
}

/** One `attention_bias` key governs all four projections. */
export function sharedAttentionBias(spec: DecoderSpec): boolean {
  const { qkvBias, outBias } = spec.attn;
  if (qkvBias !== outBias) throw refuse(spec, "a bias on only some of the attention projections");
  return qkvBias;
}

/** The one FFN of a dense model. Throws inputError if layers differ, are MoE, or carry biases the family lacks. */
export function uniformDense(spec: DecoderSpec, allowBias: boolean): DenseFfn {
  const ffns = spec.layers.map(({ ffn }) => ffn);
  const [first] = ffns;
  if (first === undefined) throw refuse(spec, "zero layers");
  for (const ffn of ffns) {
    if (ffn.kind !== "dense") throw refuse(spec, "mixture-of-experts layers");
    if (JSON.stringify(ffn) !== JSON.stringify({ ...ffn, ...first }))
      throw refuse(spec, "FFNs that differ between layers");
    if (ffn.bias && !allowBias) throw refuse(spec, "FFN biases");
  }
  if (spec.auxLossCoef !== 0) throw refuse(spec, "a load-balancing loss");
  return first as DenseFfn;
}

/** The common part of an attention with a family's own. */
export function attentionOf(
  common: Pick<Common, "attn" | "norm">,
  { qkNorm, qkvBias, outBias }: AttentionOptions,
): AttentionSpec {
  const span = qkNorm === true ? "head" : qkNorm;
  return {
    ...common.attn,
    qkNorm: span === false ? null : { span, norm: common.norm, afterRope: false },
    qkvBias,
    outBias,
  };
}

/** Assembles the spec of a dense model; without `ropes` every layer has the common one. */
export function denseSpec(
  { layerCount, rope, activation, ...common }: Common,
  attn: AttentionOptions,
  ffn: Pick<DenseFfn, "ffnDim" | "bias"> & { readonly gated?: boolean },
  windows: readonly (number | null)[],
  ropes?: readonly (Rope | null)[],
): DecoderSpec {
  const layers: LayerSpec[] = Array.from({ length: layerCount }, (_, layer) => ({
    window: windows[layer] ?? null,
    rope: ropes === undefined ? rope : at(ropes, layer),
    ffn: { kind: "dense", ffnDim: ffn.ffnDim, bias: ffn.bias, activation, gated: ffn.gated ?? true },
  }));
  return { ...common, attn: attentionOf(common, attn), layers, auxLossCoef: 0 };
}
