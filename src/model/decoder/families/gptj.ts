/**
 * GPT-J: attention and FFN side by side behind one LayerNorm, rope over neighbouring pairs of a part of each head, no
 * biases in attention, a bias on the logits (transformers: models/gptj/configuration_gptj.py and modeling_gptj.py).
 */
import type { DecoderSpec, Family, Rope } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readBase, refuse, requireAttention, requireKeys, uniformDense } from "./common.js";
import { gptDefaults, requireSquareHeads } from "./learnt.js";
import type { ConfigReader } from "./reader.js";

/** What the class assumes. */
export const gptjDefaults: Defaults = { ...gptDefaults, maxPositions: 2048, tiedHead: false };

/** `create_sinusoidal_positions` */
const THETA = 10_000;

/** The class turns nothing where it is null, but reads angles of another size: such a file does not run. */
function readRope(config: ConfigReader, headDim: number): Rope {
  const rotary = config.int("rotary_dim", 64);
  if (rotary % 2 !== 0 || rotary > headDim) throw config.fail("rotary_dim", `an even number up to ${headDim}`);
  return { theta: THETA, scaling: { kind: "none" }, rotary, interleaved: true };
}

/** A decoder of this kind. Throws inputError for what its class cannot compute. */
export function readGptj(config: ConfigReader, family: Family): DecoderSpec {
  const base = readBase(config, family, gptjDefaults);
  const attn = requireSquareHeads(config, base, "n_head", "n_embd");
  if (attn.kvHeads !== attn.heads) throw config.fail("num_key_value_heads", `${attn.heads}, like n_head`);
  const ffnDim = config.has("intermediate_size") ? config.int("intermediate_size") : 4 * base.hidden;
  const common = { ...base, rope: readRope(config, attn.headDim) };
  const spec = denseSpec(
    common,
    { qkNorm: false, qkvBias: false, outBias: false },
    { ffnDim, bias: true, gated: false },
    [],
  );
  return { ...spec, block: "parallel-shared", headBias: true };
}

/** The keys that `readGptj` reads. Throws inputError for a decoder of another kind. */
export function writeGptj(spec: DecoderSpec): Record<string, unknown> {
  requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: false });
  if (!spec.headBias) throw refuse(spec, "logits without a bias");
  const rope = spec.layers[0]?.rope;
  if (rope === undefined || rope === null) throw refuse(spec, "layers without rope");
  const { ffnDim, bias, gated, activation } = uniformDense(spec, true);
  if (!bias || gated) throw refuse(spec, "an FFN with a gate or without biases");
  return {
    // The usual name of this activation in this family's files.
    ...(activation === "geluTanh" ? { activation_function: "gelu_new" } : {}),
    n_inner: ffnDim === 4 * spec.hidden ? null : ffnDim,
    rotary_dim: rope.rotary,
    // Rope's own keys belong to other classes.
    rope_theta: undefined,
    rope_scaling: undefined,
    rope_parameters: undefined,
    attn_pdrop: 0,
    embd_pdrop: 0,
    resid_pdrop: 0,
  };
}

/** The config dialect of GPT-J. */
export const gptj: Dialect = {
  family: "gptj",
  architecture: "GPTJForCausalLM",
  defaults: gptjDefaults,
  read(file: ConfigReader): DecoderSpec {
    const config = file.renamed(gptjDefaults.names ?? {});
    requireKeys(config, { rotary: true, scale_attn_weights: true });
    return readGptj(config, "gptj");
  },
  write: writeGptj,
};
