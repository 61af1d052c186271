/**
 * Code World Model: llama with a sliding window on three layers of four (transformers: models/cwm/modular_cwm.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";
import { readLayerWindows, writeLayerTypesSized } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 8,
  headDim: 128,
  maxPositions: 131_072,
  normEps: 1e-5,
  activation: "silu",
  ropeTheta: 1_000_000,
  bos: 128_000,
  // The class lists three tokens.
  eos: null,
};

const eosTokens = [128_001, 128_008, 128_009] as const;
const defaultWindow = 8192;

/** What the class takes where a file has no rope of its own, whatever `rope_theta` says. */
const defaultRope = {
  rope_type: "llama3",
  rope_theta: 1_000_000,
  factor: 16,
  original_max_position_embeddings: 8192,
  low_freq_factor: 1,
  high_freq_factor: 4,
};

/** The config dialect of Code World Model. */
export const cwm: Dialect = {
  family: "cwm",
  architecture: "CwmForCausalLM",
  defaults,
  read(file: ConfigReader): DecoderSpec {
    const hasRope = file.has("rope_parameters") || file.has("rope_scaling");
    const config = hasRope ? file : file.with({ rope_parameters: defaultRope });
    const common = readCommon(config, "cwm", defaults);
    // The class takes a window of 0 for none.
    const window = config.get("sliding_window") === 0 ? null : config.intOrNull("sliding_window", defaultWindow);
    const windows = readLayerWindows(config, common.layerCount, (layer) => layer % 4 !== 0, window);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: config.bool("mlp_bias", false) };
    const spec = denseSpec(common, { qkNorm: false, qkvBias: false, outBias: false }, ffn, windows);
    return config.has("eos_token_id") ? spec : { ...spec, tokens: { ...spec.tokens, eos: [...eosTokens] } };
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: false });
    const ffn = uniformDense(spec, true);
    // transformers 5 validates this even though head_dim is given.
    if (spec.hidden % spec.attn.heads !== 0)
      throw refuse(spec, `hidden size ${spec.hidden} with ${spec.attn.heads} heads (not a multiple)`);
    return {
      intermediate_size: ffn.ffnDim,
      mlp_bias: ffn.bias,
      ...writeLayerTypesSized(spec, defaultWindow),
      // Null would be read as the class's own three.
      ...(spec.tokens.eos.length === 0 ? { eos_token_id: [] } : {}),
    };
  },
};
