/** Norms with their weights and biases. */
import { at } from "../../base/at.js";
import { GraphBuilder } from "../ir/builder.js";
import type { ValueId } from "../ir/ir.js";
import type { NormSpec } from "../../model/decoder/types.js";
import type { NormPart } from "../../model/tensors/slots.js";
import type { NetContext } from "./context.js";

/** One of the norms on the residual stream or on what a branch adds to it. */
export function norm({ b, spec, param }: NetContext, x: ValueId, part: NormPart, layer?: number): ValueId {
  const weight = spec.norm.weight === "none" ? null : param(part, layer);
  return normalise(b, x, spec.norm, weight, spec.norm.bias ? param(`${part}Bias`, layer) : null);
}

/** A norm over the last axis with its weight and bias as the spec says. */
export function normalise(
  b: GraphBuilder,
  x: ValueId,
  spec: NormSpec,
  weight: ValueId | null,
  bias: ValueId | null,
): ValueId {
  const size = at(b.shape(x).slice(-1), 0);
  const factor = weight !== null && spec.weight === "one-plus" ? b.add(weight, b.constant([1], [])) : weight;
  let y: ValueId;
  if (spec.kind === "rms") {
    y = b.op("rmsNorm", [x, factor ?? b.constant([1], [size])], { eps: spec.eps });
  } else {
    y = b.op("layerNorm", [x], { eps: spec.eps });
    if (factor !== null) y = b.mul(y, factor);
  }
  return bias === null ? y : b.add(y, bias);
}
