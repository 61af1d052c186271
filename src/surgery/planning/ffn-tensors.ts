/**
 * The tensors of a feed-forward network, and how its hidden units lie in them. F is the number of hidden units, H the
 * model's hidden size: gate and up are [F, H], their biases [F], down is [H, F], and its bias [H].
 */
import type { DecoderSpec, Ffn, MoeFfn } from "../../model/decoder/types.js";
import type { SlotPart } from "../../model/tensors/slots.js";
import { at } from "../../base/at.js";
import type { MatrixAxis } from "./expr.js";
import type { Factors } from "./scaling.js";

/** A tensor of a dense FFN, or of one routed expert. */
export type FfnPart = Extract<SlotPart, "gate" | "gateBias" | "up" | "upBias" | "down" | "downBias">;

/** A factor for each tensor of an expert. */
export type PartFactors = Omit<Factors, "output">;

interface FfnTensor {
  /** The axis along which hidden units lie; null for the bias behind down, which belongs to no unit. */
  readonly axis: MatrixAxis | null;
  /** Which of a layer's factors the tensor takes. */
  readonly factor: keyof PartFactors;
  readonly isBias: boolean;
}

/** What is to be known of each tensor of an FFN. */
export const ffnTensors: Readonly<Record<FfnPart, FfnTensor>> = {
  gate: { axis: "rows", factor: "gate", isBias: false },
  gateBias: { axis: "rows", factor: "gate", isBias: true },
  up: { axis: "rows", factor: "up", isBias: false },
  upBias: { axis: "rows", factor: "up", isBias: true },
  down: { axis: "columns", factor: "down", isBias: false },
  downBias: { axis: null, factor: "downBias", isBias: true },
};

/** Whether a tensor is one of an FFN's. */
export const isFfnPart = (part: SlotPart): part is FfnPart => Object.hasOwn(ffnTensors, part);

/** Whether a tensor multiplies or shifts the output of an FFN, so that a factor on the output is a factor on it. */
export const isOutputPart = (part: FfnPart): boolean => part === "down" || part === "downBias";

/** The FFN of a layer. Throws RangeError for a layer that the decoder does not have. */
export function ffnOf({ layers }: Pick<DecoderSpec, "layers">, layer: number): Ffn {
  return at(layers, layer).ffn;
}

/** The experts of a layer. Throws a plain error (a defect of the caller) for a layer that is dense. */
export function moeFfnOf(spec: Pick<DecoderSpec, "layers">, layer: number): MoeFfn {
  const ffn = ffnOf(spec, layer);
  if (ffn.kind !== "moe") throw new Error(`layer ${layer} has no experts`);
  return ffn;
}

/** The experts of the first layer that has any; undefined for a dense model. */
export function firstMoeFfn({ layers }: Pick<DecoderSpec, "layers">): MoeFfn | undefined {
  return layers.map(({ ffn }) => ffn).find((ffn) => ffn.kind === "moe");
}
