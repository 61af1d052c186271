/**
 * `DecoderSpec` from and to the settings of Megatron-Core, as its `args` name them in a checkpoint: another config
 * dialect beside those of Hugging Face families. What Megatron-Core cannot compute is refused by name. Source:
 * NVIDIA/Megatron-LM@d98e8a64 (core 0.20.0), `training/arguments.py`, `training/argument_utils.py`
 * (core_transformer_config_from_args), `core/transformer/transformer_config.py`, `core/transformer/moe/moe_utils.py`
 * (topk_routing_with_score_function), `core/models/common/embeddings/rotary_pos_embedding.py`. Pure. The file is long
 * because it holds every setting in both directions.
 */
import { inputError } from "../../base/errors.js";
import {
  latentObstacles,
  latentScale,
  latentSettings,
  positionObstacles,
  positionSettings,
  readLatent,
  readRope,
  readWindow,
  unless,
} from "./megatron-positions.js";
import { SettingsReader, type MegatronSettings, type MegatronValue } from "./megatron-settings.js";
import {
  isMoe,
  ownFamily,
  plainBlocks,
  type ActivationKind,
  type AttentionSpec,
  type DecoderSpec,
  type Ffn,
  type LayerSpec,
  type MoeFfn,
  type NormSpec,
  type RouterSpec,
} from "./types.js";

/** What stands in the way of computing a decoder with Megatron-Core, in words; empty: nothing. */
export function megatronObstacles(spec: DecoderSpec): string[] {
  return [
    ...blockObstacles(spec),
    ...attentionObstacles(spec),
    ...positionObstacles(spec),
    ...ffnObstacles(spec),
    ...multiplierObstacles(spec),
  ];
}

/** Arguments that say a factor exist, for models whose learning rates follow their width. */
const onlyMup = "which --use-mup alone could say, and is not written here";

function multiplierObstacles({
  multipliers: { embedding, logits },
  attn: { scale, headDim, latent },
}: DecoderSpec): string[] {
  const usual = headDim ** -0.5;
  return [
    ...unless(latent !== null || Math.abs(scale - usual) <= 1e-12 * usual, `scores are scaled by ${scale}, ${onlyMup}`),
    ...unless(embedding === 1, `embeddings are multiplied by ${embedding}, ${onlyMup}`),
    ...unless(logits === 1, `logits are multiplied by ${logits}, ${onlyMup}`),
  ];
}

function blockObstacles({ block, norm, multipliers, logitSoftcap, headBias }: DecoderSpec): string[] {
  const { residual } = multipliers;
  return [
    ...unless(block === "pre", `it has ${blockWords[block]}, Megatron-Core's GPT has norms before each part alone`),
    ...unless(norm.weight !== "none", "its norms have no weights, Megatron-Core's always have"),
    ...unless(
      (norm.kind === "layer") === norm.bias || norm.weight === "none",
      norm.bias ? "its RMSNorm has a bias" : "its LayerNorm has no bias, Megatron-Core's always has",
    ),
    ...unless(residual === 1, `what layers add is multiplied by ${residual}, which no setting says`),
    ...unless(logitSoftcap === null, "its logits have a soft cap, which no setting says"),
    ...unless(!headBias, "its logits have a bias, which Megatron-Core's GPT has not"),
  ];
}

const blockWords: Readonly<Record<DecoderSpec["block"], string>> = {
  pre: "norms before each part",
  post: "norms behind attention and FFN",
  sandwich: "norms before and behind attention and FFN",
  parallel: "attention and FFN side by side",
  "parallel-shared": "attention and FFN side by side behind one norm",
};

function attentionObstacles({ attn, norm, layers }: DecoderSpec): string[] {
  const { qkNorm, softcap, clip, latent, alibi, lengthScale } = attn;
  const rope = layers.find((layer) => layer.rope !== null)?.rope ?? null;
  return [
    ...(latent === null ? [] : latentObstacles(attn, latent, norm, rope)),
    ...unless(softcap === null, "its attention scores have a soft cap"),
    ...unless(clip === null, "queries, keys and values are clipped"),
    ...unless(alibi === null, "its attention has linear biases (ALiBi), which Megatron-Core has not"),
    ...unless(lengthScale === null, "queries are scaled by their position, which no setting says"),
    ...unless(qkNorm === null || qkNorm.span === "head", "the norm of queries and keys is not one for each head alike"),
    ...unless(qkNorm === null || !qkNorm.afterRope, "the norm of queries and keys stands behind rope"),
    ...unless(
      qkNorm === null || (["kind", "weight", "eps", "bias"] as const).every((part) => qkNorm.norm[part] === norm[part]),
      "the norm of queries and keys is of another kind than the others",
    ),
  ];
}

/** What arguments can ask for. Tanh GELU is what the fused kernel computes; it needs biases, and experts have none. */
const activations: ReadonlySet<ActivationKind> = new Set(["silu", "relu2", "gelu", "geluTanh"]);

function ffnObstacles({ layers, attn }: DecoderSpec): string[] {
  const ffns = layers.map(({ ffn }) => ffn);
  const kinds = new Set(ffns.map(({ activation, gated }) => `${gated} ${activation}`));
  const moes = distinct(ffns.filter((ffn) => ffn.kind === "moe"));
  const dense = new Set(ffns.flatMap((ffn) => (ffn.kind === "dense" ? [ffn.ffnDim] : [])));
  const [first] = ffns;
  const { gated = true, activation = "silu" } = first ?? {};
  return [
    ...unless(kinds.size <= 1, "layers have different activations"),
    ...unless(gated === (activation === "silu") && activations.has(activation), activationWords(ffns)),
    ...unless(
      activation !== "geluTanh" || ffns.every(({ kind, bias }) => kind === "dense" && bias),
      "its tanh GELU is computed by a fused kernel alone, which wants biases and no experts",
    ),
    ...unless(moes.length <= 1, "its MoE layers differ"),
    ...unless(dense.size <= 1, "its dense layers have FFNs of different sizes"),
    ...clampObstacles(ffns),
    ...biasObstacles(attn, ffns),
    ...moes.slice(0, 1).flatMap((ffn) => routerObstacles(ffn)),
  ];
}

/** `quick_gelu` of core/fusions/fused_bias_geglu.py. */
const quickAlpha = 1.702;

/** Clamped gated units are one setting for all FFNs of a model. */
function clampObstacles(ffns: readonly Ffn[]): string[] {
  const clamps = ffns.map((ffn) => (ffn.kind === "moe" ? ffn.clampedGlu : null));
  const [first = null] = clamps;
  const all = clamps.every((clamp) => clamp?.alpha === first?.alpha && clamp?.limit === first?.limit);
  const withShared = ffns.some((ffn) => ffn.kind === "moe" && ffn.shared !== null);
  return [
    ...unless(all, "the gated unit of some of its layers is clamped"),
    ...unless(
      first === null || first.alpha === quickAlpha,
      `its clamped unit has alpha ${first?.alpha}, not ${quickAlpha}`,
    ),
    ...unless(first === null || !withShared, "the gated unit of its experts is clamped, its shared expert's is not"),
  ];
}

const distinct = (ffns: readonly MoeFfn[]): MoeFfn[] => [
  ...new Map(ffns.map((ffn) => [JSON.stringify(ffn), ffn])).values(),
];

const activationWords = ([first]: readonly Ffn[]): string =>
  `its FFN is ${first!.gated ? "a gated unit" : "not gated"} with ${first!.activation}, Megatron-Core's arguments ` +
  "know SwiGLU gated, and GELU, tanh GELU and squared ReLU not gated";

/** Biases are in all linear layers, in queries, keys and values alone, or nowhere. */
function biasObstacles({ qkvBias, outBias }: AttentionSpec, ffns: readonly Ffn[]): string[] {
  const inFfn = ffns.some(({ bias }) => bias);
  const all = ffns.every(({ bias }) => bias) && qkvBias && outBias;
  const router = ffns.every((ffn) => ffn.kind === "dense" || (ffn.router.bias && ffn.shared === null));
  return [
    ...unless((!inFfn && !outBias) || all, "some of its linear layers have biases and others have none"),
    ...unless(!all || router, "its experts have biases, its router or shared expert has none"),
    ...unless(all || ffns.every((ffn) => ffn.kind === "dense" || !ffn.router.bias), "its router alone has a bias"),
  ];
}

function routerObstacles({ router, topK, experts, shared }: MoeFfn): string[] {
  const { score, renormalise, correctionBias, groups } = router;
  return [
    ...unless(score !== "sparsemixer", "its router is a sparsemixer"),
    ...unless(score !== "softmax" || !correctionBias, "softmax scores have no expert bias in Megatron-Core"),
    ...unless(groups === null || groups.kept < groups.count, "its groups of experts limit nothing"),
    ...unless(
      groups === null || ranked(topK, groups.kept) === 2,
      "its groups are ranked by their best two experts, Megatron-Core's by their best " +
        `${groups === null ? 0 : ranked(topK, groups.kept)}, which is the number of experts over that of groups`,
    ),
    ...unless(
      score !== "softmax" || renormalisation(router, topK, experts) !== "other",
      `its router divides by the sum of weights in a way of its own (${JSON.stringify(renormalise)})`,
    ),
    ...unless(
      score !== "sigmoid" || sigmoidAgrees(router, topK),
      topK === 1
        ? "Megatron-Core never divides the weight of a single sigmoid expert by itself"
        : "Megatron-Core always divides sigmoid weights by their sum plus 1e-20",
    ),
    ...unless(shared === null || shared.ffnDim > 0, "its shared expert is empty"),
  ];
}

/** So many experts of a group are summed to rank it (`group_limited_topk`). */
const ranked = (topK: number, kept: number): number => Math.floor(topK / kept);

const sigmoidAgrees = ({ renormalise }: RouterSpec, topK: number): boolean =>
  topK === 1 ? renormalise === null : renormalise !== null && renormalise.plus <= 1e-20 && renormalise.atLeast === 0;

/**
 * What dividing by max(sum + plus, atLeast) comes to: the k largest of E softmax scores sum to k / E at least and 1 at
 * most.
 */
function renormalisation({ renormalise }: RouterSpec, topK: number, experts: number): "none" | "whole" | "other" {
  if (renormalise === null) return "none";
  if (renormalise.plus > 1e-20) return "other";
  if (renormalise.atLeast >= 1) return renormalise.atLeast === 1 ? "none" : "other";
  return renormalise.atLeast <= topK / experts ? "whole" : "other";
}

/** What `args` of a checkpoint says of a decoder. Throws inputError, naming the reason, for what cannot be said. */
export function megatronSettings(spec: DecoderSpec): MegatronSettings {
  const [obstacle] = megatronObstacles(spec);
  if (obstacle !== undefined)
    throw inputError(`Megatron-Core cannot hold this ${spec.family} model: ${obstacle}`, {
      hint: "docs/cluster.md lists the families that it can",
    });
  return { ...sizes(spec), ...positionSettings(spec), ...ffnSettings(spec), ...(isMoe(spec) ? moeSettings(spec) : {}) };
}

function sizes({ attn, norm, ...spec }: DecoderSpec): MegatronSettings {
  const onePlus = norm.weight === "one-plus";
  return {
    num_layers: spec.layers.length,
    hidden_size: spec.hidden,
    num_attention_heads: attn.heads,
    // The local modules take it for the size of a head's output.
    kv_channels: attn.latent?.valueDim ?? attn.headDim,
    group_query_attention: attn.kvHeads !== attn.heads,
    num_query_groups: attn.kvHeads,
    seq_length: spec.maxPositions,
    max_position_embeddings: spec.maxPositions,
    normalization: norm.kind === "rms" ? "RMSNorm" : "LayerNorm",
    // Core 0.19 renamed the first; each version reads its own.
    norm_epsilon: norm.eps,
    layernorm_epsilon: norm.eps,
    apply_layernorm_1p: onePlus,
    layernorm_zero_centered_gamma: onePlus,
    qk_layernorm: attn.qkNorm !== null,
    ...(attn.sinks ? { softmax_type: "learnable" } : {}),
    add_bias_linear: attn.outBias,
    add_qkv_bias: attn.qkvBias && !attn.outBias,
    untie_embeddings_and_output_weights: !spec.tiedHead,
    vocab_size: spec.vocab,
    padded_vocab_size: spec.vocab,
    init_method_std: spec.initStd,
    attention_dropout: 0,
    hidden_dropout: 0,
    apply_query_key_layer_scaling: false,
    ...latentSettings(attn),
    heterogeneous_layers_config_path: null,
  };
}

function ffnSettings({ layers }: DecoderSpec): MegatronSettings {
  const ffns = layers.map(({ ffn }) => ffn);
  const [first] = ffns as [Ffn, ...Ffn[]];
  const { ffnDim } = ffns.find(({ kind }) => kind === "dense") ?? first;
  const clamp = first.kind === "moe" ? first.clampedGlu : null;
  return {
    ffn_hidden_size: ffnDim,
    swiglu: first.gated && clamp === null,
    squared_relu: first.activation === "relu2",
    quick_geglu: clamp !== null,
    ...(clamp === null ? {} : { activation_func_clamp_value: clamp.limit, glu_linear_offset: 1 }),
    bias_gelu_fusion: first.activation === "geluTanh",
  };
}

function moeSettings({ layers, auxLossCoef }: DecoderSpec): MegatronSettings {
  const ffn = layers.map((layer) => layer.ffn).find((found) => found.kind === "moe")!;
  const { router, topK, experts, shared } = ffn;
  const everywhere = layers.every((layer) => layer.ffn.kind === "moe");
  const scaled = router.scaling !== 1;
  return {
    num_experts: experts,
    moe_router_topk: topK,
    moe_ffn_hidden_size: ffn.ffnDim,
    moe_layer_freq: everywhere ? 1 : layers.map((layer) => (layer.ffn.kind === "moe" ? 1 : 0)),
    moe_router_score_function: router.score,
    moe_router_pre_softmax: router.score === "softmax" && renormalisation(router, topK, experts) === "none",
    moe_router_enable_expert_bias: router.correctionBias,
    moe_router_topk_scaling_factor: scaled ? router.scaling : null,
    moe_router_num_groups: router.groups?.count ?? null,
    moe_router_group_topk: router.groups?.kept ?? null,
    moe_router_load_balancing_type: auxLossCoef > 0 ? "aux_loss" : "none",
    moe_aux_loss_coeff: auxLossCoef,
    moe_grouped_gemm: false,
    moe_shared_expert_intermediate_size: shared?.ffnDim ?? null,
    moe_shared_expert_gate: shared?.gated ?? false,
  };
}

/** Settings that change the network and that no decoder description says, with the values that do not. */
const unknownSettings: Readonly<Record<string, readonly MegatronValue[]>> = {
  experimental_attention_variant: [],
  heterogeneous_layers_config_path: [],
  attention_output_gate: [],
  qk_l2_norm: [],
  softmax_type: ["vanilla", "learnable"],
  apply_residual_connection_post_layernorm: [],
  moe_latent_size: [],
  linear_attention_freq: [],
  hybrid_layer_pattern: [],
  hybrid_override_pattern: [],
  mup_embedding_mult: [1],
  mup_output_mult: [1],
  use_mup: [],
  enable_mhc_connections: [],
  moe_apply_probs_on_input: [],
};

/**
 * The decoder that settings describe, in our own format's family, since Megatron-Core has no families; `vocab`: words
 * of the vocabulary, where the settings do not say. Throws inputError for settings that are missing, wrong, or ask for
 * what a description cannot say.
 */
export function specFromMegatron(settings: MegatronSettings, where: string, vocab?: number): DecoderSpec {
  const read = new SettingsReader(settings, where);
  read.refuse(unknownSettings);
  const norm = readNorm(read);
  const attn = readAttention(read, norm);
  const kind = read.word("position_embedding_type", ["learned_absolute", "rope", "yarn", "none"], "learned_absolute");
  const learnedPositions = kind === "learned_absolute" && !read.flag("use_rotary_position_embeddings");
  return {
    ...plainBlocks,
    family: ownFamily,
    vocab: vocab ?? read.count("padded_vocab_size"),
    hidden: read.count("hidden_size"),
    tiedHead: !read.flag("untie_embeddings_and_output_weights"),
    norm,
    maxPositions: read.count("max_position_embeddings"),
    learnedPositions,
    attn,
    layers: readLayers(read, attn, attn.latent === null && (kind === "none" || learnedPositions)),
    tokens: { bos: null, eos: [], pad: null },
    initStd: read.number(["init_method_std"], 0.02),
    auxLossCoef: read.get("num_experts") === null ? 0 : Number(read.get("moe_aux_loss_coeff") ?? 0) || 0,
  };
}

function readNorm(read: SettingsReader): NormSpec {
  const kind = read.word("normalization", ["LayerNorm", "RMSNorm"], "LayerNorm");
  const eps = read.number(["layernorm_epsilon", "norm_epsilon"], 1e-5);
  const weight = read.flag("apply_layernorm_1p", "layernorm_zero_centered_gamma") ? "one-plus" : "scale";
  return { kind: kind === "RMSNorm" ? "rms" : "layer", weight, bias: kind === "LayerNorm", eps };
}

function readAttention(read: SettingsReader, norm: NormSpec): AttentionSpec {
  const heads = read.count("num_attention_heads");
  const latent = readLatent(read, norm);
  const headDim = latent === null ? readHeadDim(read, heads) : read.count("qk_head_dim", 128) + latent.ropeDim;
  const kvHeads = read.flag("group_query_attention") ? read.count("num_query_groups", 1) : heads;
  if (heads % kvHeads !== 0) throw read.fail("num_query_groups", `a divisor of ${heads} heads`);
  const biases = biasesOf(read);
  if (latent !== null && (biases || read.flag("add_qkv_bias")))
    throw read.fail("add_bias_linear", "false with latent attention");
  // Its bias is a tensor that no description has a word for.
  if (read.flag("qk_layernorm") && norm.kind === "layer") throw read.fail("qk_layernorm", "none with LayerNorm");
  return {
    heads,
    kvHeads,
    headDim,
    qkNorm: latent === null && read.flag("qk_layernorm") ? { span: "head", norm, afterRope: false } : null,
    qkvBias: biases || read.flag("add_qkv_bias"),
    outBias: biases,
    scale: latent === null ? headDim ** -0.5 : latentScale(read, headDim),
    softcap: null,
    clip: null,
    sinks: read.get("softmax_type") === "learnable",
    latent,
    alibi: null,
    lengthScale: null,
  };
}

const readHeadDim = (read: SettingsReader, heads: number): number =>
  read.count("kv_channels", Math.floor(read.count("hidden_size") / heads));

function readLayers(read: SettingsReader, attn: AttentionSpec, hasNoRope: boolean): LayerSpec[] {
  const count = read.count("num_layers");
  if (count > 10_000) throw read.fail("num_layers", "at most 10000");
  const rope = hasNoRope ? null : readRope(read, attn);
  const unroped = read.pattern("no_rope_freq", count, (layer, every) => every !== 0 && (layer + 1) % every === 0);
  const windowed = read.pattern("window_attn_skip_freq", count, (layer, every) => (layer + 1) % every !== 0);
  const window = readWindow(read);
  const experts = read.get("num_experts") === null ? null : readMoe(read);
  const moe = read.pattern("moe_layer_freq", count, (layer, every) => layer % every === 0);
  const isDense = (layer: number): boolean => experts === null || (moe !== null && !moe[layer]);
  const dense = Array.from({ length: count }, (_, layer) => layer).some(isDense) ? readDense(read) : null;
  return Array.from({ length: count }, (_, layer) => ({
    window: windowed === null || windowed[layer] ? window : null,
    rope: unroped?.[layer] === true ? null : rope,
    ffn: isDense(layer) ? dense! : experts!,
  }));
}

function readActivation(read: SettingsReader): { readonly activation: ActivationKind; readonly gated: boolean } {
  if (read.flag("swiglu") || read.flag("quick_geglu")) return { activation: "silu", gated: true };
  if (read.flag("squared_relu")) return { activation: "relu2", gated: false };
  // The fused kernel, which is the default, computes the tanh form.
  const isTanh = read.get("bias_gelu_fusion") !== false && biasesOf(read);
  return { activation: isTanh ? "geluTanh" : "gelu", gated: false };
}

const biasesOf = (read: SettingsReader): boolean => read.get("add_bias_linear") !== false;

/** The clamped unit of experts. Throws inputError for parts of it that a description cannot say. */
function readClamp(read: SettingsReader): MoeFfn["clampedGlu"] {
  const [limit, offset] = [read.get("activation_func_clamp_value"), read.number(["glu_linear_offset"], 0)];
  if (!read.flag("quick_geglu")) {
    if (limit !== null) throw read.fail("activation_func_clamp_value", "none without quick_geglu");
    return null;
  }
  if (typeof limit !== "number" || !(limit > 0)) throw read.fail("activation_func_clamp_value", "a number above 0");
  if (offset !== 1) throw read.fail("glu_linear_offset", "1 with quick_geglu");
  return { alpha: quickAlpha, limit };
}

function readDense(read: SettingsReader): Ffn {
  const ffnDim = read.count("ffn_hidden_size", 4 * read.count("hidden_size"));
  if (read.flag("quick_geglu")) throw read.fail("quick_geglu", "false in layers without experts");
  return { kind: "dense", ffnDim, bias: biasesOf(read), ...readActivation(read) };
}

function readMoe(read: SettingsReader): MoeFfn {
  const shared = read.get("moe_shared_expert_intermediate_size");
  return {
    kind: "moe",
    ffnDim: read.count("moe_ffn_hidden_size", read.count("ffn_hidden_size", 4 * read.count("hidden_size"))),
    ...readActivation(read),
    bias: biasesOf(read),
    clampedGlu: readClamp(read),
    experts: read.count("num_experts"),
    topK: read.count("moe_router_topk", 2),
    router: readRouter(read),
    shared:
      shared === null
        ? null
        : { ffnDim: read.count("moe_shared_expert_intermediate_size"), gated: read.flag("moe_shared_expert_gate") },
  };
}

function readRouter(read: SettingsReader): RouterSpec {
  const score = read.word("moe_router_score_function", ["softmax", "sigmoid"], "softmax");
  const topK = read.count("moe_router_topk", 2);
  const groups = read.get("moe_router_num_groups", "moe_router_group_topk");
  if (groups !== null && ranked(topK, read.count("moe_router_group_topk")) !== 2)
    throw read.fail("moe_router_group_topk", "half of moe_router_topk, since groups are ranked by two experts here");
  const divides = score === "sigmoid" ? topK > 1 : !read.flag("moe_router_pre_softmax");
  return {
    score,
    jitter: 0,
    renormalise: divides ? { plus: score === "sigmoid" ? 1e-20 : 0, atLeast: 0 } : null,
    groups:
      groups === null
        ? null
        : { count: read.count("moe_router_num_groups"), kept: read.count("moe_router_group_topk") },
    correctionBias: read.flag("moe_router_enable_expert_bias"),
    scaling: read.number(["moe_router_topk_scaling_factor"], 1) || 1,
    bias: biasesOf(read),
  };
}
