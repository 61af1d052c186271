/**
 * DecoderSpec -> forward graph. One function a block; parameters are graph inputs named by slot key.
 *
 * ids [N] -> embedding -> per layer: x += attention(rmsNorm(x)); x += ffn(rmsNorm(x)) -> rmsNorm -> head.
 * Letters: N tokens = B batch x S sequence, H hidden, E experts, K top-k.
 */
import { GraphBuilder } from "../graph/builder.js";
import type { ValueId } from "../graph/ir.js";
import type { DecoderSpec, LayerSpec, MoeFfn } from "../spec/types.js";
import { slotKey, slotsOf, type Slot, type SlotPart } from "../tensors/slots.js";
import { ropeTables } from "./rope.js";

export interface RouterValues {
  readonly layer: number;
  readonly experts: number;
  /** [N, E] */
  readonly logits: ValueId;
  /** Tokens per expert [E], int. */
  readonly counts: ValueId;
}

export interface Decoder {
  readonly builder: GraphBuilder;
  readonly ids: ValueId;
  /** One per slot, in slot order. */
  readonly params: readonly { readonly slot: Slot; readonly id: ValueId }[];
  /** Final normalised hidden states [N, H]. */
  readonly hidden: ValueId;
  /** [V, H]: the embedding where tied. */
  readonly head: ValueId;
  readonly routers: readonly RouterValues[];
}

interface Shape {
  readonly batch: number;
  readonly sequence: number;
}

interface Context extends Shape {
  readonly b: GraphBuilder;
  readonly spec: DecoderSpec;
  readonly param: (part: SlotPart, layer?: number, expert?: number) => ValueId;
  readonly cos: ValueId;
  readonly sin: ValueId;
  readonly routers: RouterValues[];
}

/** Builds the network up to the last hidden states; losses and heads are added by the caller. */
export function buildDecoder(spec: DecoderSpec, { batch, sequence }: Shape): Decoder {
  const b = new GraphBuilder();
  const ids = b.input("ids", "int", [batch * sequence]);
  const params = slotsOf(spec).map((slot) => ({ slot, id: b.input(slot.key, "f32", slot.shape) }));
  const byKey = new Map(params.map(({ slot, id }) => [slot.key, id]));
  const tables = ropeTables(spec.attn.rope, spec.attn.headDim, sequence);
  const tableShape = [sequence, spec.attn.headDim / 2];
  const ctx: Context = {
    b, spec, batch, sequence,
    param: (part, layer, expert) => byKey.get(slotKey({ part, layer, expert }))!,
    cos: b.constant(tables.cos, tableShape),
    sin: b.constant(tables.sin, tableShape),
    routers: [],
  };
  let x = b.op("embedding", [ctx.param("embed"), ids], {});
  spec.layers.forEach((layer, index) => {
    x = b.add(x, attention(ctx, norm(ctx, x, "inputNorm", index), layer, index));
    x = b.add(x, ffn(ctx, norm(ctx, x, "ffnNorm", index), layer, index));
  });
  const hidden = b.op("rmsNorm", [x, ctx.param("finalNorm")], { eps: spec.normEps });
  return { builder: b, ids, params, hidden, head: ctx.param(spec.tiedHead ? "embed" : "head"), routers: ctx.routers };
}

function norm({ b, spec, param }: Context, x: ValueId, part: SlotPart, layer: number): ValueId {
  return b.op("rmsNorm", [x, param(part, layer)], { eps: spec.normEps });
}

function attention(ctx: Context, x: ValueId, { window }: LayerSpec, layer: number): ValueId {
  const { b, spec, param, batch, sequence, cos, sin } = ctx;
  const { heads, kvHeads, headDim, qkNorm, qkvBias, outBias } = spec.attn;
  const project = (weight: SlotPart, bias: SlotPart): ValueId => b.linear(x, param(weight, layer), qkvBias ? param(bias, layer) : undefined);
  const turn = (projected: ValueId, count: number, weight: SlotPart): ValueId => {
    let y = projected;
    if (qkNorm) {
      const split = b.reshape(y, [batch * sequence * count, headDim]);
      y = b.reshape(b.op("rmsNorm", [split, param(weight, layer)], { eps: spec.normEps }), [batch * sequence, count * headDim]);
    }
    return b.op("rope", [y, cos, sin], { batch, sequence, heads: count, headDim, rotary: headDim, interleaved: false, inverse: false });
  };
  const q = turn(project("q", "qBias"), heads, "qNorm");
  const k = turn(project("k", "kBias"), kvHeads, "kNorm");
  const v = project("v", "vBias");
  // A window that no query can leave is no window: the graph stays the same for short sequences.
  const seen = window !== null && window < sequence ? window : null;
  const shape = { batch, sequence, heads, kvHeads, headDim };
  const mixed = b.op("attention", [q, k, v], { ...shape, scale: headDim ** -0.5, window: seen, softcap: null, sinks: false });
  return b.linear(mixed, param("o", layer), outBias ? param("oBias", layer) : undefined);
}

function ffn(ctx: Context, x: ValueId, { ffn: spec }: LayerSpec, layer: number): ValueId {
  if (spec.kind === "moe") return moe(ctx, x, spec, layer);
  const { b, param } = ctx;
  const bias = (part: SlotPart): ValueId | undefined => (spec.bias ? param(part, layer) : undefined);
  const gate = b.linear(x, param("gate", layer), bias("gateBias"));
  const up = b.linear(x, param("up", layer), bias("upBias"));
  return b.linear(b.op("swiglu", [gate, up], {}), param("down", layer), bias("downBias"));
}

function moe(ctx: Context, x: ValueId, ffn: MoeFfn, layer: number): ValueId {
  const { b, param, routers } = ctx;
  const logits = b.linear(x, param("router", layer));
  const [weights, chosen] = b.apply("routeTopK", [logits], { k: ffn.topK, order: ffn.order }) as [ValueId, ValueId];
  const [order, inverse, counts] = b.apply("expertSort", [chosen], { experts: ffn.experts }) as [ValueId, ValueId, ValueId];
  routers.push({ layer, experts: ffn.experts, logits, counts });

  const each = (part: SlotPart): ValueId[] => Array.from({ length: ffn.experts }, (_, expert) => param(part, layer, expert));
  const rows = b.op("dispatch", [x, order, inverse], { k: ffn.topK });
  const grouped = (input: ValueId, part: SlotPart): ValueId => b.op("groupedMatmul", [input, counts, ...each(part)], { transB: true });
  const inner = b.op("swiglu", [grouped(rows, "gate"), grouped(rows, "up")], {});
  const routed = b.op("combine", [grouped(inner, "down"), weights, order, inverse], {});
  if (ffn.shared === null) return routed;

  const sharedInner = b.op("swiglu", [b.linear(x, param("sharedGate", layer)), b.linear(x, param("sharedUp", layer))], {});
  let shared = b.linear(sharedInner, param("sharedDown", layer));
  if (ffn.shared.gated) shared = b.mul(shared, b.op("sigmoid", [b.linear(x, param("sharedRouter", layer))], {}));
  return b.add(routed, shared);
}
