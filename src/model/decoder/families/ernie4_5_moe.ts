/**
 * ERNIE 4.5: rope over neighbouring pairs, experts chosen by softmax probability plus a correction bias, shared experts
 * (transformers, configuration_ernie4_5_moe.py and modeling_ernie4_5_moe.py).
 */
import { at } from "../../../base/at.js";
import { plainExperts } from "../types.js";
import type { DecoderSpec, RouterSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention } from "./common.js";
import { moeSpec, readAuxLossCoef, readDenseFfnDim, readTopK, requirePlainExperts, uniformFfns } from "./experts.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: 4,
  headDim: "derived",
  maxPositions: 131_072,
  normEps: 1e-5,
  activation: "silu",
  ropeTheta: 500_000,
  interleavedRope: true,
  bos: 1,
  eos: 2,
  pad: 0,
  tiedHead: true,
};

const router = (atLeast: number): RouterSpec => ({
  score: "softmax",
  jitter: 0,
  renormalise: { plus: 0, atLeast },
  groups: null,
  correctionBias: true,
  scaling: 1,
  bias: false,
});

/** From `moe_layer_start_index` to `moe_layer_end_index`, and (layer + 1) a multiple of `moe_layer_interval`. */
function readSparse(config: ConfigReader, layers: number): boolean[] {
  const start = config.int("moe_layer_start_index", 1, { min: 0 });
  const endKey = config.int("moe_layer_end_index", -1, { min: -1 });
  const end = endKey === -1 ? layers - 1 : endKey;
  const interval = config.int("moe_layer_interval", 1);
  const sparse = Array.from(
    { length: layers },
    (_, layer) => (layer + 1) % interval === 0 && layer >= start && layer <= end,
  );
  if (!sparse.includes(true))
    throw config.fail("moe_layer_start_index", `a layer number that leaves one of ${layers} layers with experts`);
  return sparse;
}

function writeSparse(spec: DecoderSpec): Record<string, unknown> {
  const sparse = spec.layers.flatMap(({ ffn }, layer) => (ffn.kind === "moe" ? [layer] : []));
  const start = at(sparse, 0);
  const end = at(sparse, sparse.length - 1);
  const interval = (sparse[1] ?? start + 1) - start;
  const isSparse = (layer: number): boolean => (layer + 1) % interval === 0 && layer >= start && layer <= end;
  if (spec.layers.some(({ ffn }, layer) => (ffn.kind === "moe") !== isSparse(layer))) {
    throw refuse(spec, "mixtures of experts other than at every n-th layer from a first to a last one");
  }
  return { moe_layer_start_index: start, moe_layer_end_index: end, moe_layer_interval: interval };
}

/** The config dialect of ERNIE 4.5. */
export const ernie45Moe: Dialect = {
  family: "ernie4_5_moe",
  architecture: "Ernie4_5_MoeForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "ernie4_5_moe", defaults);
    const experts = config.int("moe_num_experts", 64);
    const ffnDim = config.int("moe_intermediate_size", 1536);
    const count = config.int("moe_num_shared_experts", 2, { min: 0 });
    const moe = {
      kind: "moe",
      ffnDim,
      experts,
      topK: readTopK(config, experts, 6, "moe_k"),
      router: router(config.positive("moe_norm_min", 1e-12, { zero: true })),
      ...plainExperts,
      // n shared experts are stored as one FFN n times as wide.
      shared: count === 0 ? null : { ffnDim: ffnDim * count, gated: false },
    } as const;
    if (config.bool("use_bias", false))
      throw config.fail("use_bias", "false (the output head would have a bias too, which cannot be said)");
    const sparse = readSparse(config, common.layerCount);
    const ffns = { moe, dense: readDenseFfnDim(config, sparse), sparse };
    return moeSpec(common, { qkNorm: false, qkvBias: false, outBias: false }, ffns, [], readAuxLossCoef(config));
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: false });
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    const { moe, dense } = uniformFfns(spec);
    requirePlainExperts(spec, moe);
    const {
      router: { score, renormalise },
      shared,
    } = moe;
    if (score !== "softmax") throw refuse(spec, `a ${score} router`);
    if (renormalise === null) throw refuse(spec, "router weights that are not renormalised (softmax-topk)");
    if (shared?.gated) throw refuse(spec, "a shared expert behind a gate");
    if (shared !== null && shared.ffnDim % moe.ffnDim !== 0)
      throw refuse(spec, `a shared expert of ${shared.ffnDim}, not a multiple of an expert's ${moe.ffnDim}`);
    return {
      intermediate_size: dense?.ffnDim ?? moe.ffnDim * moe.topK,
      moe_intermediate_size: moe.ffnDim,
      moe_num_experts: moe.experts,
      moe_k: moe.topK,
      moe_num_shared_experts: shared === null ? 0 : shared.ffnDim / moe.ffnDim,
      moe_norm_min: renormalise.atLeast,
      use_bias: false,
      ...writeSparse(spec),
      output_router_logits: false,
      router_aux_loss_coef: spec.auxLossCoef,
    };
  },
};
