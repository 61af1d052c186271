/**
 * HunYuan-A13B: norms on queries and keys behind rope, every layer a mixture of experts with a plain shared expert of
 * the experts' own size (transformers: models/hunyuan_v1_moe/configuration_hunyuan_v1_moe.py and
 * modeling_hunyuan_v1_moe.py).
 */
import { inputError } from "../../../base/errors.js";
import { plainRope } from "../plain.js";
import { plainExperts, softmaxRouter } from "../types.js";
import type { DecoderSpec, Rope } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readBase, refuse, requireAttention, requireKeys, sharedAttentionBias } from "./common.js";
import {
  everyLayerMoe,
  moeSpec,
  readAuxLossCoef,
  readExpertCount,
  readTopK,
  requirePlainExperts,
  requireSoftmaxRouter,
} from "./experts.js";
import type { ConfigReader } from "./reader.js";
import { isInteger } from "./reader.js";
import { readOneOf, readRope, ropeObjects } from "./rope.js";
import { writeOwnAuxLoss } from "./routed.js";

const defaultTheta = 10_000;

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 2048,
  normEps: 1e-5,
  ropeTheta: defaultTheta,
  bos: 1,
  eos: 2,
  pad: 0,
};

/**
 * Keys of released files that the class does not look at: it has the norms, one shared expert and experts on every
 * layer.
 */
const fixed = {
  use_qk_norm: true,
  use_mixed_mlp_moe: true,
  use_cla: false,
  moe_layer_num_skipped: 0,
  norm_topk_prob: true,
};

/** The config dialect of Hunyuan-Large and its kin. */
export const hunyuanV1Moe: Dialect = {
  family: "hunyuan_v1_moe",
  architecture: "HunYuanMoEV1ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    requireKeys(config, fixed);
    const base = readBase(config, "hunyuan_v1_moe", defaults);
    const experts = readExpertCount(config, 1);
    const ffnDim = config.int("intermediate_size");
    requireEverywhere(config, "moe_intermediate_size", ffnDim);
    requireEverywhere(config, "num_shared_expert", 1);
    const moe = {
      kind: "moe",
      ffnDim,
      experts,
      topK: readChosen(config, experts),
      router: softmaxRouter("topk-softmax"),
      ...plainExperts,
      shared: { ffnDim, gated: false },
    } as const;
    const sparse = Array<boolean>(base.layerCount).fill(true);
    const bias = config.bool("attention_bias", false);
    const common = { ...base, rope: readAlphaRope(config, base.attn.headDim, defaults) };
    const spec = moeSpec(
      common,
      { qkNorm: true, qkvBias: bias, outBias: bias },
      { moe, dense: null, sparse },
      [],
      readAuxLossCoef(config, 0),
    );
    return { ...spec, attn: { ...spec.attn, qkNorm: { span: "head", norm: base.norm, afterRope: true } } };
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: true, qkvBias: "any", outBias: "any" });
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    const moe = everyLayerMoe(spec);
    requirePlainExperts(spec, moe);
    if (requireSoftmaxRouter(spec, moe) !== "topk-softmax")
      throw refuse(spec, "router weights that are not renormalised (softmax-topk)");
    const { shared } = moe;
    if (shared === null) throw refuse(spec, "no shared expert");
    if (shared.gated) throw refuse(spec, "a shared expert behind a gate");
    if (shared.ffnDim !== moe.ffnDim)
      throw refuse(spec, `a shared expert of ${shared.ffnDim} beside experts of ${moe.ffnDim}`);
    return {
      num_experts: moe.experts,
      moe_topk: moe.topK,
      intermediate_size: moe.ffnDim,
      num_shared_expert: 1,
      use_mixed_mlp_moe: true,
      use_qk_norm: true,
      attention_bias: sharedAttentionBias(spec),
      ...writeOwnAuxLoss(spec),
    };
  },
};

/** Throws inputError unless the key is absent, or `expected`, or a list of that for each layer. */
function requireEverywhere(config: ConfigReader, key: string, expected: number): void {
  if (!config.has(key)) return;
  const value = config.get(key);
  const all: readonly unknown[] = Array.isArray(value) ? value : [value];
  if (all.some((one) => one !== expected)) throw config.fail(key, `${expected} on every layer`);
}

/** `moe_topk` may list one number per layer. */
function readChosen(config: ConfigReader, experts: number): number {
  if (!Array.isArray(config.get("moe_topk")))
    return readTopK(config, experts, 1, config.has("moe_topk") ? "moe_topk" : "num_experts_per_tok");
  const [first, ...others] = config.list("moe_topk", isInteger, "a number of experts, or one per layer") ?? [];
  if (first === undefined || first < 1 || others.some((other) => other !== first))
    throw config.fail("moe_topk", "the same number of experts on every layer");
  if (first > experts) throw config.fail("moe_topk", `at most the number of experts (${experts})`);
  return first;
}

/**
 * `dynamic` rope with an `alpha` is plain rope with the base theta * alpha^(d / (d - 2)), up to
 * `max_position_embeddings` tokens (`HunYuanMoEV1RotaryEmbedding`, `HunYuanDenseV1RotaryEmbedding`); it is written as
 * such.
 */
export function readAlphaRope(config: ConfigReader, headDim: number, own: Defaults): Rope {
  const { dicts } = ropeObjects(config);
  const isAlpha = (keys: ConfigReader): boolean =>
    (keys.get("rope_type") ?? keys.get("type")) === "dynamic" && keys.has("alpha");
  const alphas = dicts.map((keys) => (isAlpha(keys) ? keys.positive("alpha") : null));
  const alpha = alphas.find((one) => one !== null);
  if (alpha === undefined) return readRope(config, headDim, own);
  if (new Set(alphas).size > 1) {
    throw inputError("rope_scaling and rope_parameters disagree", {
      where: config.where,
      hint: "remove the wrong one",
    });
  }
  if (headDim <= 2) throw config.fail("head_dim", "more than 2, because rope has an alpha");
  const theta = readOneOf(config, "rope_theta") ?? defaultTheta;
  return plainRope(theta * alpha ** (headDim / (headDim - 2)), headDim);
}
