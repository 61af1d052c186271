/**
 * LFM2 MoE, where every layer is attention (transformers, configuration_lfm2_moe.py and modeling_lfm2_moe.py): qwen3
 * attention, sigmoid routing with a bias for the choice, leading dense layers. The released models' convolution layers
 * are refused.
 */
import { plainExperts } from "../types.js";
import type { DecoderSpec, RouterSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention } from "./common.js";
import {
  moeSpec,
  readAuxLossCoef,
  readDenseFfnDim,
  readExpertCount,
  readTopK,
  requirePlainExperts,
  uniformFfns,
  writeLeadingDense,
} from "./experts.js";
import type { ConfigReader } from "./reader.js";
import { isString } from "./reader.js";

const defaults: Defaults = {
  kvHeads: 8,
  headDim: "derived",
  maxPositions: 128_000,
  normEps: 1e-5,
  normKey: "norm_eps",
  ropeTheta: 1_000_000,
  bos: 1,
  eos: 2,
  pad: 0,
  tiedHead: true,
};

/** The class adds 1e-6 to the sum of the kept weights. */
const router = (renormalised: boolean, correctionBias: boolean, scaling: number): RouterSpec => ({
  score: "sigmoid",
  jitter: 0,
  renormalise: renormalised ? { plus: 1e-6, atLeast: 0 } : null,
  groups: null,
  correctionBias,
  scaling,
  bias: false,
});

function requireAttentionLayers(config: ConfigReader, layers: number): void {
  const types = config.list("layer_types", isString, "a list of layer types, one per layer");
  if (types?.length !== layers) throw config.fail("layer_types", `${layers} entries, one per layer`);
  if (types.some((type) => type !== "full_attention"))
    throw config.fail("layer_types", 'only "full_attention" (convolution layers are not supported)');
}

/** The config dialect of LFM2-MoE. */
export const lfm2Moe: Dialect = {
  family: "lfm2_moe",
  architecture: "Lfm2MoeForCausalLM",
  defaults,
  read(file: ConfigReader): DecoderSpec {
    // The class gives the older spelling the last word.
    const config = file.has("tie_embedding") ? file.renamed({ tie_word_embeddings: "tie_embedding" }) : file;
    const common = readCommon(config, "lfm2_moe", defaults);
    requireAttentionLayers(config, common.layerCount);
    const experts = readExpertCount(config, 32);
    const scaling = config.positive("routed_scaling_factor", 1);
    const moe = {
      kind: "moe",
      ffnDim: config.int("moe_intermediate_size", 1792),
      experts,
      topK: readTopK(config, experts, 4),
      router: router(config.bool("norm_topk_prob", true), config.bool("use_expert_bias", true), scaling),
      ...plainExperts,
      shared: null,
    } as const;
    const leading = config.int("num_dense_layers", 2, { min: 0 });
    if (leading >= common.layerCount)
      throw config.fail("num_dense_layers", `fewer dense layers than the ${common.layerCount} there are`);
    const sparse = Array.from({ length: common.layerCount }, (_, layer) => layer >= leading);
    const ffns = { moe, dense: readDenseFfnDim(config, sparse), sparse };
    // Not a key of the class, which has no such loss; ours is kept there.
    return moeSpec(common, { qkNorm: true, qkvBias: false, outBias: false }, ffns, [], readAuxLossCoef(config, 0));
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: true, qkvBias: false, outBias: false });
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    const { moe, dense } = uniformFfns(spec);
    requirePlainExperts(spec, moe);
    if (moe.shared !== null) throw refuse(spec, "a shared expert");
    if (moe.router.score !== "sigmoid") throw refuse(spec, `a ${moe.router.score} router`);
    return {
      layer_types: spec.layers.map(() => "full_attention"),
      num_dense_layers: writeLeadingDense(spec)["first_k_dense_replace"],
      intermediate_size: dense?.ffnDim ?? moe.ffnDim * moe.topK,
      moe_intermediate_size: moe.ffnDim,
      num_experts: moe.experts,
      num_experts_per_tok: moe.topK,
      norm_topk_prob: moe.router.renormalise !== null,
      use_expert_bias: moe.router.correctionBias,
      routed_scaling_factor: moe.router.scaling,
      ...(spec.auxLossCoef === 0 ? {} : { router_aux_loss_coef: spec.auxLossCoef }),
    };
  },
};
