/** What stands between an FFN's projections: activation functions and gated units. */
import { GraphBuilder } from "../ir/builder.js";
import type { PlainActivation, ValueId } from "../ir/ir.js";
import type { ActivationKind, ClampedGlu } from "../../model/decoder/types.js";
import type { SlotPart } from "../../model/tensors/slots.js";
import type { NetContext } from "./context.js";

/** A gated unit act(gate) * up; SiLU's has a primitive of its own. */
export function gated(ctx: NetContext, gate: ValueId, up: ValueId, kind: ActivationKind, layer: number): ValueId {
  const { b } = ctx;
  return kind === "silu" ? b.op("swiglu", [gate, up], {}) : b.mul(activated(ctx, gate, kind, layer), up);
}

/** act(x) of a layer. */
export function activated(ctx: NetContext, x: ValueId, kind: ActivationKind, layer: number): ValueId {
  return kind === "xielu" ? xielu(ctx, x, layer) : ctx.b.op("activation", [x], { kind });
}

/** See `ActivationKind` (activations.py, XIELUActivation). */
function xielu({ b, param }: NetContext, x: ValueId, layer: number): ValueId {
  const beta = param("activationBeta", layer);
  const softplus = (part: SlotPart): ValueId => b.op("activation", [param(part, layer)], { kind: "softplus" });
  const term = (kind: PlainActivation, factor: ValueId): ValueId => b.mul(b.op("activation", [x], { kind }), factor);
  const bent = b.add(term("relu2", softplus("activationP")), term("xieluTail", b.add(beta, softplus("activationN"))));
  return b.add(bent, b.mul(x, beta));
}

/** gpt-oss's gated unit: see `ClampedGlu` (modeling_gpt_oss.py, GptOssExperts). */
export function clampedGlu(b: GraphBuilder, gate: ValueId, up: ValueId, { alpha, limit }: ClampedGlu): ValueId {
  const low = b.op("clamp", [gate], { low: -3e38, high: limit });
  const one = b.add(b.op("clamp", [up], { low: -limit, high: limit }), b.constant([1], []));
  return b.mul(b.mul(low, b.op("sigmoid", [b.scale(low, alpha)], {})), one);
}
