/**
 * DeepSeek-V3 and R1: multi-head latent attention, many small experts chosen by sigmoid scores within groups, a shared
 * expert (DeepSeek-AI 2024, arXiv 2412.19437, section 2.1; transformers:
 * models/deepseek_v3/configuration_deepseek_v3.py and modeling_deepseek_v3.py). Layers for multi-token prediction,
 * which released files have behind the last one, are not read.
 */
import { inputError } from "../../../base/errors.js";
import { rmsNorm } from "../types.js";
import type { DecoderSpec, LatentAttention, Rope } from "../types.js";
import type { Common, Defaults, Dialect } from "./common.js";
import { readBase, refuse, requireAttention, requireKeys } from "./common.js";
import { moeSpec, readAuxLossCoef, readDenseFfnDim, readLeadingDense, writeLeadingDense } from "./experts.js";
import type { ConfigReader } from "./reader.js";
import { readRope, ropeObjects, writeRope, yarnMscale } from "./rope.js";
import { readRoutedExperts, writeRoutedExperts } from "./routed.js";
import type { RoutedDefaults } from "./routed.js";

const ropeDim = (config: ConfigReader): number => config.int("qk_rope_head_dim", 64);

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  readHeadDim: (config) => config.int("qk_nope_head_dim", 128) + ropeDim(config),
  maxPositions: 4096,
  normEps: 1e-6,
  ropeTheta: 10_000,
  bos: 0,
  eos: 1,
};

const routed: RoutedDefaults = {
  experts: 256,
  topK: 8,
  ffnDim: 2048,
  shared: 1,
  groups: 8,
  keptGroups: 4,
  renormalised: true,
  scaling: 2.5,
};

/** `DeepseekV3RMSNorm`'s own default: the latents' norms are made without the config's epsilon. */
const latentEps = 1e-6;

/** The config dialect of DeepSeek-V3 and R1. */
export const deepseekV3: Dialect = {
  family: "deepseek_v3",
  architecture: "DeepseekV3ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    // The biases would lie on the projections into the latents, which a spec cannot say.
    requireKeys(config, { attention_bias: false });
    const base = readBase(config, "deepseek_v3", defaults);
    const { heads, kvHeads, headDim } = base.attn;
    if (kvHeads !== heads)
      throw config.fail("num_key_value_heads", `${heads}, num_attention_heads, because keys come from a latent`);
    const latent: LatentAttention = {
      queryRank: config.intOrNull("q_lora_rank", 1536),
      kvRank: config.int("kv_lora_rank", 512),
      ropeDim: ropeDim(config),
      valueDim: config.int("v_head_dim", 128),
      norm: rmsNorm(latentEps),
    };
    if (latent.ropeDim % 2 !== 0)
      throw config.fail("qk_rope_head_dim", "an even number (rotary embedding turns pairs)");
    const rope = { ...readRope(config, latent.ropeDim, defaults), interleaved: config.bool("rope_interleave", true) };
    const common: Common = {
      ...base,
      rope,
      attn: { ...base.attn, scale: headDim ** -0.5 * readScoreFactor(config, rope), latent },
    };
    const moe = readRoutedExperts(config, routed);
    const sparse = readLeadingDense(config, common.layerCount, 3);
    const attn = { qkNorm: false, qkvBias: false, outBias: false };
    return moeSpec(
      common,
      attn,
      { moe, dense: readDenseFfnDim(config, sparse), sparse },
      [],
      readAuxLossCoef(config, 0),
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    const { latent, heads, kvHeads, headDim } = spec.attn;
    if (latent === null) throw refuse(spec, "attention without latents");
    requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: false });
    if (kvHeads !== heads) throw refuse(spec, `${kvHeads} key heads for ${heads} query heads`);
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    const rope = spec.layers[0]?.rope ?? null;
    if (rope === null) throw refuse(spec, "layers without rope");
    return {
      ...writeRoutedExperts(spec),
      ...writeLeadingDense(spec),
      moe_layer_freq: 1,
      q_lora_rank: latent.queryRank,
      kv_lora_rank: latent.kvRank,
      qk_nope_head_dim: headDim - latent.ropeDim,
      qk_rope_head_dim: latent.ropeDim,
      v_head_dim: latent.valueDim,
      // What transformers calls the head size here is the part that turns.
      head_dim: latent.ropeDim,
      rope_interleave: rope.interleaved,
      ...writeScaledRope(spec, rope),
      attention_bias: false,
      num_nextn_predict_layers: 0,
    };
  },
};

/** Factor on the scores beyond headDim^-0.5: the square of YaRN's mscale for `mscale_all_dim` (`yarn_apply_mscale`). */
function readScoreFactor(config: ConfigReader, { scaling }: Rope): number {
  if (scaling.kind === "none") return 1;
  const { dicts } = ropeObjects(config);
  const factors = dicts.map((keys) => {
    const weight = keys.has("mscale_all_dim") ? keys.positive("mscale_all_dim", undefined, { zero: true }) : 0;
    return weight === 0 ? 1 : yarnMscale("factor" in scaling ? scaling.factor : keys.positive("factor"), weight) ** 2;
  });
  if (new Set(factors).size > 1)
    throw inputError("rope_scaling and rope_parameters disagree", {
      where: config.where,
      hint: "remove the wrong one",
    });
  return factors[0] ?? 1;
}

/**
 * The rope keys with what makes the attention's scale; `mscale` says the same as `attention_factor` for those who read
 * only that (vLLM).
 */
function writeScaledRope(spec: DecoderSpec, rope: Rope): Record<string, unknown> {
  const { scale, headDim } = spec.attn;
  const root = Math.sqrt(scale * Math.sqrt(headDim));
  const scaled = Math.abs(root - 1) > 1e-13;
  const factor = "factor" in rope.scaling ? rope.scaling.factor : 1;
  if (scaled && (factor <= 1 || root < 1)) throw refuse(spec, `an attention scale of ${scale}`);
  const keys = writeRope(rope, null);
  if (factor <= 1) return keys;
  // Twelve digits, so that 1 comes back as 1.
  const weightOf = (mscale: number): number => Number(((mscale - 1) / (0.1 * Math.log(factor))).toPrecision(13));
  const own = {
    ...(scaled ? { mscale_all_dim: weightOf(root) } : {}),
    ...(rope.scaling.kind === "yarn" ? { mscale: weightOf(rope.scaling.attentionFactor * (scaled ? root : 1)) } : {}),
  };
  const extended = (value: unknown): Record<string, unknown> => ({ ...(value as Record<string, unknown>), ...own });
  return { ...keys, rope_scaling: extended(keys["rope_scaling"]), rope_parameters: extended(keys["rope_parameters"]) };
}
