/** What Nemotron, AFM and Jais 2 have in common: llama's blocks whose FFN has no gate, with biases by two keys. */
import type { DecoderSpec, Family } from "../types.js";
import type { Defaults } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

/**
 * Reads such a decoder; `bias` is what absent `attention_bias` and `mlp_bias` mean. Throws inputError like
 * `readCommon`.
 */
export function readUngated(config: ConfigReader, family: Family, defaults: Defaults, bias: boolean): DecoderSpec {
  const common = readCommon(config, family, defaults);
  const attnBias = config.bool("attention_bias", bias);
  const ffn = { ffnDim: config.int("intermediate_size"), bias: config.bool("mlp_bias", bias), gated: false };
  return denseSpec(common, { qkNorm: false, qkvBias: attnBias, outBias: attnBias }, ffn, []);
}

/** The keys of such a decoder. Throws what `refuse` makes for a spec that the classes cannot hold. */
export function writeUngated(spec: DecoderSpec): Record<string, unknown> {
  requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
  const ffn = uniformDense(spec, true);
  if (ffn.gated) throw refuse(spec, "an FFN with a gate");
  return { intermediate_size: ffn.ffnDim, attention_bias: sharedAttentionBias(spec), mlp_bias: ffn.bias };
}

/** The same where transformers 5 validates the hidden size by the heads even though head_dim is given. */
export function writeUngatedSquare(spec: DecoderSpec): Record<string, unknown> {
  if (spec.hidden % spec.attn.heads !== 0)
    throw refuse(spec, `hidden size ${spec.hidden} with ${spec.attn.heads} heads (not a multiple)`);
  return writeUngated(spec);
}
