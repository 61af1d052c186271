/**
 * The part of `config.json` that all families share, and the checks every family makes before writing.
 * Read defaults come from transformers' configuration classes (v5.18 and the last v4), stated per family.
 */
import { inputError } from "../../base/errors.js";
import type { UpcycleError } from "../../base/errors.js";
import { departures } from "../plain.js";
import { plainBlocks, rmsNorm } from "../types.js";
import type { AttentionSpec, DecoderSpec, DenseFfn, Family, LayerSpec, Rope, SpecialTokens } from "../types.js";
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
  /** The keys beyond `writeCommon`. Throws inputError if the family has no way to say what the spec says. */
  write(spec: DecoderSpec): Record<string, unknown>;
}

/** What a class assumes when a key is absent. */
export interface Defaults {
  readonly kvHeads: number | "heads";
  /** `derived`: hidden size / heads. */
  readonly headDim: number | "derived";
  readonly maxPositions: number;
  readonly normEps: number;
  readonly ropeTheta: number;
  readonly bos: number | null;
  readonly eos: number | null;
}

/** Enough for any model; stops a typing error from building a billion layers. */
const maxLayers = 10_000;

/** Keys that change the mathematics in ways a spec cannot say, wherever they are set. */
const inexpressible = ["quantization_config", "clip_qkv", "attn_logit_softcapping", "final_logit_softcapping"];

export interface Common extends Omit<DecoderSpec, "attn" | "layers" | "auxLossCoef"> {
  readonly attn: Omit<AttentionSpec, "qkNorm" | "qkvBias" | "outBias">;
  readonly rope: Rope;
  readonly layerCount: number;
}

/** What a family's attention may have beyond the common part. */
export interface AttentionOptions {
  /** Norm over each query and key head, of the same kind and epsilon as the block's. */
  readonly qkNorm: boolean;
  readonly qkvBias: boolean;
  readonly outBias: boolean;
}

/** Sizes are required, everything else falls back to the family's class default. */
export function readCommon(config: ConfigReader, family: Family, defaults: Defaults): Common {
  for (const key of inexpressible) if (config.has(key)) throw config.fail(key, "no such key", hintFor(key));
  const act = config.get("hidden_act") ?? "silu";
  if (act !== "silu" && act !== "swish") throw config.fail("hidden_act", '"silu"');
  const hidden = config.int("hidden_size");
  const heads = config.int("num_attention_heads");
  const kvHeads = config.intOrNull("num_key_value_heads", defaults.kvHeads === "heads" ? null : defaults.kvHeads) ?? heads;
  if (heads % kvHeads !== 0) throw config.fail("num_key_value_heads", `a divisor of num_attention_heads (${heads})`);
  const headDim = readHeadDim(config, hidden, heads, defaults);
  return {
    ...plainBlocks,
    family,
    vocab: config.int("vocab_size"),
    hidden,
    tiedHead: config.bool("tie_word_embeddings", false),
    norm: rmsNorm(config.positive("rms_norm_eps", defaults.normEps)),
    maxPositions: config.int("max_position_embeddings", defaults.maxPositions),
    attn: { heads, kvHeads, headDim, scale: headDim ** -0.5, softcap: null, clip: null },
    rope: readRope(config, defaults.ropeTheta, headDim),
    layerCount: config.int("num_hidden_layers", undefined, { max: maxLayers }),
    tokens: readTokens(config, defaults),
    initStd: config.positive("initializer_range", 0.02, { zero: true }),
  };
}

function hintFor(key: string): string | undefined {
  return key === "quantization_config" ? "use the unquantized checkpoint (float32, float16 or bfloat16)" : undefined;
}

function readHeadDim(config: ConfigReader, hidden: number, heads: number, defaults: Defaults): number {
  const fallback = defaults.headDim === "derived" ? null : defaults.headDim;
  const given = config.intOrNull("head_dim", fallback);
  if (given === null && hidden % heads !== 0) {
    throw config.fail("num_attention_heads", `a divisor of hidden_size (${hidden}), because head_dim is not given`);
  }
  const headDim = given ?? hidden / heads;
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
  const eos = Array.isArray(config.get("eos_token_id"))
    ? config.list("eos_token_id", isInteger, "token ids")!
    : [one("eos_token_id", defaults.eos)].filter((id) => id !== null);
  if (eos.some((id) => id < 0)) throw config.fail("eos_token_id", "token ids from 0");
  return { bos: one("bos_token_id", defaults.bos), eos: [...eos], pad: one("pad_token_id", null) };
}

/** The keys all families write. Throws inputError for a spec that is no Llama-like decoder. */
export function writeCommon(spec: DecoderSpec): Record<string, unknown> {
  const [departure] = departures(spec);
  if (departure !== undefined) throw refuse(spec, departure);
  const rope = spec.layers[0]?.rope;
  if (rope === undefined || rope === null) throw refuse(spec, "zero layers");
  const { bos, eos, pad } = spec.tokens;
  return {
    vocab_size: spec.vocab,
    hidden_size: spec.hidden,
    hidden_act: "silu",
    num_hidden_layers: spec.layers.length,
    num_attention_heads: spec.attn.heads,
    num_key_value_heads: spec.attn.kvHeads,
    head_dim: spec.attn.headDim,
    max_position_embeddings: spec.maxPositions,
    rms_norm_eps: spec.norm.eps,
    initializer_range: spec.initStd,
    attention_dropout: 0,
    tie_word_embeddings: spec.tiedHead,
    use_cache: true,
    bos_token_id: bos,
    eos_token_id: eos.length === 0 ? null : eos.length === 1 ? eos[0] : eos,
    pad_token_id: pad,
    ...writeRope(rope),
  };
}

/** A spec that its family's config cannot say. */
export function refuse(spec: DecoderSpec, what: string): UpcycleError {
  return inputError(`a ${spec.family} model cannot have ${what}`);
}

/** Throws inputError if the attention has something the family does not. */
export function requireAttention(
  spec: DecoderSpec,
  allowed: { qkNorm: boolean; qkvBias: boolean | "any"; outBias: boolean | "any" },
): void {
  const { qkvBias, outBias } = spec.attn;
  const qkNorm = spec.attn.qkNorm !== null;
  if (qkNorm !== allowed.qkNorm) throw refuse(spec, `${qkNorm ? "" : "no "}norm on queries and keys`);
  if (allowed.qkvBias !== "any" && qkvBias !== allowed.qkvBias)
    throw refuse(spec, `${qkvBias ? "" : "no "}query, key and value biases`);
  if (allowed.outBias !== "any" && outBias !== allowed.outBias)
    throw refuse(spec, `${outBias ? "" : "no "}output projection bias`);
}

/** One `attention_bias` key governs all four projections. */
export function sharedAttentionBias(spec: DecoderSpec): boolean {
  const { qkvBias, outBias } = spec.attn;
  if (qkvBias !== outBias) throw refuse(spec, "a bias on only some of the attention projections");
  return qkvBias;
}

/** The one FFN of a dense model. Throws inputError if layers differ, are MoE, or carry biases the family lacks. */
export function uniformDense(spec: DecoderSpec, allowBias: boolean): DenseFfn {
  const found = spec.layers.map(({ ffn }) => ffn);
  const first = found[0];
  if (first === undefined) throw refuse(spec, "zero layers");
  for (const ffn of found) {
    if (ffn.kind !== "dense") throw refuse(spec, "mixture-of-experts layers");
    if (first.kind !== "dense" || ffn.inner !== first.inner || ffn.bias !== first.bias)
      throw refuse(spec, "FFNs that differ between layers");
    if (ffn.bias && !allowBias) throw refuse(spec, "FFN biases");
  }
  if (spec.auxLossCoef !== 0) throw refuse(spec, "a load-balancing loss");
  return first as DenseFfn;
}

/** The common part of an attention with a family's own. */
export function attentionOf(common: Pick<Common, "attn" | "norm">, { qkNorm, qkvBias, outBias }: AttentionOptions): AttentionSpec {
  return { ...common.attn, qkNorm: qkNorm ? { span: "head", norm: common.norm } : null, qkvBias, outBias };
}

/** Assembles the spec of a dense model. */
export function denseSpec(
  { layerCount, rope, ...common }: Common,
  attn: AttentionOptions,
  ffn: Pick<DenseFfn, "inner" | "bias">,
  windows: readonly (number | null)[],
): DecoderSpec {
  const layers: LayerSpec[] = Array.from({ length: layerCount }, (_, layer) => ({
    window: windows[layer] ?? null,
    rope,
    ffn: { kind: "dense", inner: ffn.inner, bias: ffn.bias, activation: "silu", gated: true },
  }));
  return { ...common, attn: attentionOf(common, attn), layers, auxLossCoef: 0 };
}
