/**
 * GPT-Neo: GPT-2 with a window on chosen layers, scores that are not scaled, and no biases on queries, keys and values
 * (transformers: models/gpt_neo/configuration_gpt_neo.py and modeling_gpt_neo.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { attentionOf, readBase, refuse, requireAttention, requireKeys, uniformDense } from "./common.js";
import { gptDefaults, learntPositions, requireSquareHeads } from "./learnt.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  ...gptDefaults,
  maxPositions: 2048,
  names: { num_attention_heads: "num_heads", num_hidden_layers: "num_layers" },
};

const defaultWindow = 256;

type AttentionType = readonly [kinds: readonly string[], times: number];

function isAttentionType(value: unknown): value is AttentionType {
  if (!Array.isArray(value) || value.length !== 2) return false;
  const [kinds, times] = value as [unknown, unknown];
  const isKinds = Array.isArray(kinds) && kinds.every((kind) => kind === "global" || kind === "local");
  return isKinds && Number.isSafeInteger(times) && (times as number) >= 0 && (times as number) <= 10_000;
}

/** Lists of kinds, each repeated: `[[["global", "local"], 12]]`. */
function readWindows(config: ConfigReader, layers: number): (number | null)[] {
  const expected = `[kinds, times] pairs of "global" and "local" for ${layers} layers`;
  const types = config.list("attention_types", isAttentionType, expected) ?? [[["global", "local"], 12]];
  const kinds = types.flatMap(([own, times]) => Array.from({ length: times }, () => own).flat());
  if (kinds.length !== layers) throw config.fail("attention_types", `${expected} (found ${kinds.length})`);
  // The kinds once more, layer by layer; transformers gives this key the last word where it is in the file.
  requireKeys(config, { attention_layers: kinds });
  const window = config.int("window_size", defaultWindow);
  return kinds.map((kind) => (kind === "local" ? window : null));
}

function writeWindows(spec: DecoderSpec): Record<string, unknown> {
  const sizes = new Set(spec.layers.flatMap(({ window }) => (window === null ? [] : [window])));
  if (sizes.size > 1) throw refuse(spec, `attention windows of several sizes (${[...sizes].join(", ")})`);
  const kinds = spec.layers.map(({ window }) => (window === null ? "global" : "local"));
  return { window_size: [...sizes][0] ?? defaultWindow, attention_types: [[kinds, 1]], attention_layers: kinds };
}

/** The config dialect of GPT-Neo. */
export const gptNeo: Dialect = {
  family: "gpt_neo",
  architecture: "GPTNeoForCausalLM",
  defaults,
  read(file: ConfigReader): DecoderSpec {
    const config = file.renamed(defaults.names ?? {});
    const base = readBase(config, "gpt_neo", defaults);
    const square = requireSquareHeads(config, base, "num_heads", "hidden_size");
    if (square.kvHeads !== square.heads) throw config.fail("num_key_value_heads", `${square.heads}, like num_heads`);
    const ffnDim = config.has("intermediate_size") ? config.int("intermediate_size") : 4 * base.hidden;
    const attn = attentionOf(
      { ...base, attn: { ...square, scale: 1 } },
      { qkNorm: false, qkvBias: false, outBias: true },
    );
    return learntPositions(base, attn, { ffnDim, bias: true }, readWindows(config, base.layerCount));
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: true });
    if (!spec.learnedPositions) throw refuse(spec, "no learnt positions");
    const { ffnDim, bias, gated, activation } = uniformDense(spec, true);
    if (!bias || gated) throw refuse(spec, "an FFN with a gate or without biases");
    return {
      // The usual name of this activation in this family's files.
      ...(activation === "geluTanh" ? { activation_function: "gelu_new" } : {}),
      intermediate_size: ffnDim === 4 * spec.hidden ? null : ffnDim,
      ...writeWindows(spec),
      embed_dropout: 0,
      resid_dropout: 0,
    };
  },
};
