/** What families with learnt positions have in common: no rope, heads that together are as wide as the model. */
import type { AttentionSpec, DecoderSpec, DenseFfn } from "../types.js";
import type { Common } from "./common.js";
import type { ConfigReader } from "./reader.js";

/** Throws inputError unless the heads are hidden size / heads, as classes take them whatever `head_dim` says. */
export function requireSquareHeads<T extends Pick<Common, "attn" | "hidden">>(
  config: ConfigReader,
  { attn, hidden }: T,
  headsKey: string,
  hiddenKey: string,
): T["attn"] {
  if (attn.heads * attn.headDim !== hidden)
    throw config.fail("head_dim", `${hidden / attn.heads}, ${hiddenKey} / ${headsKey}`);
  return attn;
}

/** Assembles a dense model without gates whose positions are learnt. */
export function learntPositions(
  { layerCount, activation, ...common }: Omit<Common, "rope">,
  attn: AttentionSpec,
  { ffnDim, bias }: Pick<DenseFfn, "ffnDim" | "bias">,
  windows: readonly (number | null)[],
): DecoderSpec {
  const ffn: DenseFfn = { kind: "dense", ffnDim, bias, activation, gated: false };
  const layers = Array.from({ length: layerCount }, (_, layer) => ({
    window: windows[layer] ?? null,
    rope: null,
    ffn: { ...ffn },
  }));
  return { ...common, learnedPositions: true, attn, layers, auxLossCoef: 0 };
}
