/**
 * HY 3: qwen3 attention, sigmoid routing with a bias per expert, a plain shared expert; the first layer is dense unless
 * the config says otherwise (transformers: models/hy_v3/configuration_hy_v3.py and modeling_hy_v3.py).
 * `enable_moe_fp32_combine` is a matter of precision.
 */
import { plainExperts, sigmoidRouter } from "../types.js";
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention, requireKeys, sharedAttentionBias } from "./common.js";
import {
  moeSpec,
  readAuxLossCoef,
  readDenseFfnDim,
  readExpertCount,
  readMlpLayerTypes,
  readTopK,
  requirePlainExperts,
  uniformFfns,
  writeMlpLayerTypes,
} from "./experts.js";
import type { ConfigReader } from "./reader.js";
import { requireSigmoidRouter, sharedCount, writeOwnAuxLoss } from "./routed.js";

const defaults: Defaults = {
  kvHeads: 8,
  headDim: 128,
  maxPositions: 131_072,
  normEps: 1e-5,
  ropeTheta: 11_158_840,
  bos: null,
  eos: null,
  initStd: 0.006,
};

/** The config dialect of Hunyuan V3. */
export const hyV3: Dialect = {
  family: "hy_v3",
  architecture: "HYV3ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    // The shared expert would have biases too, which a spec cannot say.
    requireKeys(config, { mlp_bias: false });
    const common = readCommon(config, "hy_v3", defaults);
    const experts = readExpertCount(config, 192);
    const ffnDim = config.int("moe_intermediate_size", 1536);
    const scaling = config.positive("router_scaling_factor", 2.826);
    const moe = {
      kind: "moe",
      ffnDim,
      experts,
      topK: readTopK(config, experts, 8),
      router: sigmoidRouter({ groups: null, renormalised: true, scaling }),
      ...plainExperts,
      // With 0 the class would make a shared expert as wide as a dense layer.
      shared: { ffnDim: ffnDim * config.int("num_shared_experts", 1, { max: 1024 }), gated: false },
    } as const;
    const sparse = readMlpLayerTypes(config, common.layerCount, (layer) => layer > 0);
    const bias = config.bool("attention_bias", false);
    const attn = { qkNorm: true, qkvBias: bias, outBias: bias };
    return moeSpec(
      common,
      attn,
      { moe, dense: readDenseFfnDim(config, sparse), sparse },
      [],
      readAuxLossCoef(config, 0),
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: true, qkvBias: "any", outBias: "any" });
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    const { moe, dense } = uniformFfns(spec);
    requirePlainExperts(spec, moe);
    const { groups, renormalise, scaling } = requireSigmoidRouter(spec, moe);
    if (groups !== null) throw refuse(spec, "a choice of experts limited to groups");
    if (renormalise === null) throw refuse(spec, "router weights that are not renormalised");
    if (moe.shared === null) throw refuse(spec, "no shared expert");
    return {
      num_experts: moe.experts,
      num_experts_per_tok: moe.topK,
      moe_intermediate_size: moe.ffnDim,
      num_shared_experts: sharedCount(spec, moe),
      intermediate_size: dense?.ffnDim ?? moe.ffnDim * moe.topK,
      router_scaling_factor: scaling,
      ...writeMlpLayerTypes(spec),
      attention_bias: sharedAttentionBias(spec),
      mlp_bias: false,
      output_router_logits: false,
      ...writeOwnAuxLoss(spec),
    };
  },
};
