/**
 * How large a decoder may be: far beyond every model there is, so that a typing error or a hostile file is refused at
 * once instead of filling memory with descriptions of tensors.
 */
import type { DecoderSpec, Ffn } from "./types.js";

/** Routed experts of one layer. */
export const mostExperts = 65_536;
/** Tensors of all routed experts of one model. */
export const mostTensors = 500_000;

/** Tensors that so many routed experts of one kind are. */
export function expertTensors({
  experts,
  gated,
  bias,
}: Pick<Ffn, "gated" | "bias"> & { readonly experts: number }): number {
  return experts * (gated ? 3 : 2) * (bias ? 2 : 1);
}

/** Of all layers: what makes up nearly all of a large mixture's tensors. */
export function allExpertTensors({ layers }: Pick<DecoderSpec, "layers">): number {
  return layers.reduce((sum, { ffn }) => sum + (ffn.kind === "moe" ? expertTensors(ffn) : 0), 0);
}
