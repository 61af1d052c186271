/**
 * OPT and Galactica: learnt positions that begin at the third row, LayerNorm in front of each part, a ReLU FFN without
 * a gate, biases everywhere or nowhere (transformers: models/opt/configuration_opt.py and modeling_opt.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import {
  attentionOf,
  readBase,
  refuse,
  requireAttention,
  requireKeys,
  sharedAttentionBias,
  uniformDense,
} from "./common.js";
import { learntPositions, requireSquareHeads } from "./learnt.js";
import type { ConfigReader } from "./reader.js";

/** `OPTLearnedPositionalEmbedding.offset` */
const OFFSET = 2;

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 2048,
  normEps: 1e-5,
  // The class leaves it to PyTorch's LayerNorm.
  normKey: null,
  norm: { kind: "layer", weight: "scale", bias: true },
  activation: "relu",
  activationKeys: ["activation_function"],
  ropeTheta: null,
  bos: 2,
  eos: 2,
  pad: 1,
  tiedHead: true,
  names: { intermediate_size: "ffn_dim", initializer_range: "init_std" },
};

/** The config dialect of OPT. */
export const opt: Dialect = {
  family: "opt",
  architecture: "OPTForCausalLM",
  defaults,
  read(file: ConfigReader): DecoderSpec {
    const config = file.renamed(defaults.names ?? {});
    // OPT 350M: norms behind each part alone, and embeddings of another size.
    requireKeys(config, { do_layer_norm_before: true, _remove_final_layer_norm: false });
    const base = readBase(config, "opt", defaults);
    requireKeys(config, { word_embed_proj_dim: base.hidden });
    const bias = config.bool("enable_bias", true);
    const affine = config.bool("layer_norm_elementwise_affine", true);
    const attn = requireSquareHeads(config, base, "num_attention_heads", "hidden_size");
    const common = {
      ...base,
      norm: { ...base.norm, ...(affine ? {} : ({ weight: "none", bias: false } as const)) },
      positionsOffset: OFFSET,
    };
    return learntPositions(
      common,
      attentionOf({ ...common, attn }, { qkNorm: false, qkvBias: bias, outBias: bias }),
      { ffnDim: config.int("intermediate_size"), bias },
      [],
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    if (!spec.learnedPositions) throw refuse(spec, "no learnt positions");
    if (spec.positionsOffset !== OFFSET)
      throw refuse(spec, `learnt positions that begin at row ${spec.positionsOffset}`);
    const { ffnDim, bias, gated } = uniformDense(spec, true);
    if (gated) throw refuse(spec, "an FFN with a gate");
    if (sharedAttentionBias(spec) !== bias) throw refuse(spec, "biases in only one of attention and FFN");
    return {
      intermediate_size: undefined,
      ffn_dim: ffnDim,
      enable_bias: bias,
      layer_norm_elementwise_affine: spec.norm.weight !== "none",
      word_embed_proj_dim: spec.hidden,
      do_layer_norm_before: true,
      dropout: 0,
    };
  },
};
