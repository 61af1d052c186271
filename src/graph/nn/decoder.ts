/**
 * DecoderSpec -> forward graph. Parameters are graph inputs named by slot key.
 *
 * ids [N] -> embedding -> per layer: attention and FFN with norms where the block has them -> norm -> head.
 * Letters: N tokens = B batch x S sequence, H hidden, V vocabulary, D head size, E experts, K top-k, R = N*K routed
 * rows, C rows of the head.
 */
import { entryOf } from "../../base/at.js";
import { GraphBuilder } from "../ir/builder.js";
import type { ValueId } from "../ir/ir.js";
import type { DecoderSpec, DenseFfn, LayerSpec } from "../../model/decoder/types.js";
import { normPlaces, slotsOf, type NormPart, type Slot, type SlotPart } from "../../model/tensors/slots.js";
import { attention } from "./attention.js";
import {
  byPosition,
  netContext,
  ropeTablesOf,
  type BatchShape,
  type NetContext,
  type RouterValues,
  type TrainingRouting,
} from "./context.js";
import { moe } from "./experts.js";
import { finalHidden, headOf, type Head } from "./head.js";
import { norm } from "./norm.js";
import { activated, gated } from "./units.js";

/** A network up to its last hidden states, in a graph that can still grow. */
export interface Decoder {
  readonly builder: GraphBuilder;
  readonly ids: ValueId;
  /** One per slot, in slot order. */
  readonly params: readonly { readonly slot: Slot; readonly id: ValueId }[];
  /** Final normalised hidden states [N, H]. */
  readonly hidden: ValueId;
  readonly head: Head;
  readonly routers: readonly RouterValues[];
  /** What goes into each layer, and out of the last one [N, H]. */
  readonly layers: readonly ValueId[];
}

/** Builds the network up to the last hidden states; losses and heads are added by the caller. */
export function buildDecoder(spec: DecoderSpec, shape: BatchShape, routing: TrainingRouting | null = null): Decoder {
  const b = new GraphBuilder();
  const ids = b.input("ids", "int", [shape.batch * shape.sequence]);
  const params = slotsOf(spec).map((slot) => ({ slot, id: b.input(slot.key, "f32", slot.shape) }));
  const byKey = new Map(params.map(({ slot, id }) => [slot.key, id]));
  const ctx = {
    ...netContext(b, spec, shape, (key) => entryOf(byKey, key)),
    ...documentsApart(b, ids, shape),
    routing,
  };
  let x = embedded(ctx, ids);
  const layers = [x];
  spec.layers.forEach((layer, index) => layers.push((x = block(ctx, x, layer, index))));
  return {
    builder: b,
    ids,
    params,
    hidden: finalHidden(ctx, x),
    head: headOf(ctx),
    routers: ctx.routers,
    layers,
  };
}

/**
 * What keeps documents apart where the shape asks for it: each token's document, its position there, and its angles.
 */
function documentsApart(
  b: GraphBuilder,
  ids: ValueId,
  { batch, sequence, documentEnd }: BatchShape,
): Partial<Pick<NetContext, "segmentIds" | "positions" | "rope">> {
  if (documentEnd === undefined) return {};
  const segmentIds = b.op("segmentIds", [ids], { batch, sequence, end: documentEnd });
  const positions = b.op("segmentPositions", [segmentIds], { batch, sequence });
  return { segmentIds, positions, rope: ropeTablesOf(b, sequence, positions) };
}

/** ids [N] -> residual stream [N, H]. */
export function embedded(ctx: NetContext, ids: ValueId): ValueId {
  const { b, spec, param } = ctx;
  const x = b.scale(b.op("embedding", [param("embed"), ids], {}), spec.multipliers.embedding);
  return spec.learnedPositions ? b.add(x, byPosition(ctx, readPositions(ctx))) : x;
}

/** The learnt vectors that are read [maxPositions, H]. */
function readPositions({ b, spec: { positionsOffset: offset, maxPositions }, param }: NetContext): ValueId {
  const all = param("positions");
  if (offset === 0) return all;
  const rows = Int32Array.from({ length: maxPositions }, (_, row) => offset + row);
  return b.op("embedding", [all, b.constant(rows, [maxPositions], "int")], {});
}

/** True if the FFN reads the residual stream in front of attention, not behind it. */
export function isParallel({ block }: DecoderSpec): boolean {
  return block === "parallel" || block === "parallel-shared";
}

function block(ctx: NetContext, x: ValueId, layer: LayerSpec, index: number): ValueId {
  const { b, spec } = ctx;
  const normed = attentionInput(ctx, x, index);
  const attended = b.add(x, attentionBranch(ctx, normed, layer, index));
  return b.add(attended, ffnBranch(ctx, isParallel(spec) ? x : attended, layer, index, normed));
}

/** What attention reads of the residual stream. */
export function attentionInput(ctx: NetContext, x: ValueId, index: number): ValueId {
  return normPlaces(ctx.spec.block).before ? norm(ctx, x, "inputNorm", index) : x;
}

/** What attention adds to the residual stream. */
export function attentionBranch(ctx: NetContext, normed: ValueId, layer: LayerSpec, index: number): ValueId {
  return added(ctx, attention(ctx, normed, layer, index), "postAttentionNorm", index);
}

/**
 * What the FFN adds to the residual stream `x`; `normed` is attention's input, which `parallel-shared` blocks share.
 */
export function ffnBranch(ctx: NetContext, x: ValueId, layer: LayerSpec, index: number, normed: ValueId): ValueId {
  return added(ctx, ffn(ctx, ffnInput(ctx, x, index, normed), layer, index), "postFfnNorm", index);
}

/** What the FFN and its router read; `normed` as in `ffnBranch`. */
export function ffnInput(ctx: NetContext, x: ValueId, index: number, normed: ValueId): ValueId {
  const { before, beforeFfn } = normPlaces(ctx.spec.block);
  if (beforeFfn) return norm(ctx, x, "ffnNorm", index);
  return before ? normed : x;
}

/** What a branch adds to the residual stream: its output, normed where the block norms behind it, and scaled. */
function added(ctx: NetContext, y: ValueId, part: NormPart, index: number): ValueId {
  const { after } = normPlaces(ctx.spec.block);
  return ctx.b.scale(after ? norm(ctx, y, part, index) : y, ctx.spec.multipliers.residual);
}

/** The FFN of a layer, dense or of experts, without the block's norms and factors: x [N, H] -> [N, H]. */
export function ffn(ctx: NetContext, x: ValueId, { ffn: spec }: LayerSpec, layer: number): ValueId {
  if (spec.kind === "moe") return moe(ctx, x, spec, layer);
  const { b, param } = ctx;
  return b.linear(
    ffnUnits(ctx, x, spec, layer),
    param("down", layer),
    spec.bias ? param("downBias", layer) : undefined,
  );
}

/** The activations of a dense FFN's hidden units: x [N, H], which it reads -> [N, F]. */
export function ffnUnits(ctx: NetContext, x: ValueId, spec: DenseFfn, layer: number): ValueId {
  const { b, param } = ctx;
  const bias = (part: SlotPart): ValueId | undefined => (spec.bias ? param(part, layer) : undefined);
  const up = b.linear(x, param("up", layer), bias("upBias"));
  return spec.gated
    ? gated(ctx, b.linear(x, param("gate", layer), bias("gateBias")), up, spec.activation, layer)
    : activated(ctx, up, spec.activation, layer);
}
