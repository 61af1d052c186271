/**
 * Falcon 7B, 40B, 11B and RW: LayerNorm, an FFN without a gate; attention and FFN side by side behind one norm or one
 * each, or one after the other; rope or linear biases (transformers: models/falcon/configuration_falcon.py and
 * modeling_falcon.py).
 */
import type { DecoderSpec } from "../types.js";
import { falconAlibi } from "./alibi.js";
import type { Defaults, Dialect } from "./common.js";
import {
  denseSpec,
  readBase,
  refuse,
  requireAttention,
  requireKeys,
  sharedAttentionBias,
  uniformDense,
} from "./common.js";
import { requireSquareHeads } from "./learnt.js";
import type { ConfigReader } from "./reader.js";
import { readRope } from "./rope.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 2048,
  normEps: 1e-5,
  normKey: "layer_norm_epsilon",
  norm: { kind: "layer", weight: "scale", bias: true },
  activation: "gelu",
  activationKeys: ["activation"],
  ropeTheta: 10_000,
  bos: 11,
  eos: 11,
  tiedHead: true,
  names: { num_key_value_heads: "num_kv_heads", intermediate_size: "ffn_hidden_size" },
};

/** Which of the class's three block forms a file asks for. */
function readBlock(config: ConfigReader, isNew: boolean): DecoderSpec["block"] {
  if (isNew) {
    requireKeys(config, { parallel_attn: true });
    const norms = config.intOrNull("num_ln_in_parallel_attn", null, { max: 2 }) ?? 2;
    return norms === 2 ? "parallel" : "parallel-shared";
  }
  requireKeys(config, { num_ln_in_parallel_attn: 1 });
  return config.bool("parallel_attn", true) ? "parallel-shared" : "pre";
}

/** The config dialect of Falcon. */
export const falcon: Dialect = {
  family: "falcon",
  architecture: "FalconForCausalLM",
  defaults,
  read(file: ConfigReader): DecoderSpec {
    const config = file.renamed(defaults.names ?? {});
    requireKeys(config, { apply_residual_connection_post_layernorm: false });
    const isNew = config.bool("new_decoder_architecture", false);
    // Only the new architecture reads the number.
    const ownHeads = config.bool("multi_query", true) ? 1 : null;
    const counted = isNew ? config : config.with({ num_kv_heads: ownHeads });
    const base = readBase(counted, "falcon", defaults);
    // An older name of hidden_size, which the class gives the last word.
    requireKeys(config, { n_embed: base.hidden });
    requireSquareHeads(config, base, "num_attention_heads", "hidden_size");
    const bias = config.bool("bias", false);
    const hasAlibi = config.bool("alibi", false);
    const { heads, kvHeads, headDim } = base.attn;
    if (hasAlibi && kvHeads !== heads)
      throw config.fail("alibi", "false where several heads of queries share a key (multi_query, num_kv_heads)");
    const attn = { ...base.attn, alibi: hasAlibi ? falconAlibi(heads) : null };
    const ffnDim = config.has("intermediate_size") ? config.int("intermediate_size") : 4 * base.hidden;
    const spec = denseSpec(
      { ...base, attn, rope: readRope(config, headDim, defaults) },
      { qkNorm: false, qkvBias: bias, outBias: bias },
      { ffnDim, bias, gated: false },
      [],
      hasAlibi ? Array<null>(base.layerCount).fill(null) : undefined,
    );
    return { ...spec, block: readBlock(config, isNew) };
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const { heads, kvHeads, alibi } = spec.attn;
    const ffn = uniformDense(spec, true);
    const bias = sharedAttentionBias(spec);
    if (ffn.gated) throw refuse(spec, "an FFN with a gate");
    if (ffn.bias !== bias) throw refuse(spec, "biases in only one of attention and FFN");
    if (spec.block === "post" || spec.block === "sandwich") throw refuse(spec, `${spec.block} blocks`);
    // The old architecture has one key head, or one for each head, and never two norms side by side.
    const isNew = spec.block === "parallel" || (kvHeads !== 1 && kvHeads !== heads);
    if (isNew && spec.block === "pre")
      throw refuse(spec, `${kvHeads} key heads for ${heads} heads and blocks in sequence`);
    return {
      intermediate_size: undefined,
      // The class computes it, and fails where a file has it.
      head_dim: undefined,
      ffn_hidden_size: ffn.ffnDim,
      bias,
      alibi: alibi !== null,
      new_decoder_architecture: isNew,
      num_ln_in_parallel_attn: isNew ? (spec.block === "parallel" ? 2 : 1) : null,
      multi_query: !isNew && kvHeads === 1,
      parallel_attn: spec.block !== "pre",
      hidden_dropout: 0,
    };
  },
};
