/** Attention from normed hidden states to what goes into the residual stream. Letters as in `decoder.ts`. */
import { bfloat16 } from "../../base/bfloat16.js";
import type { PrimInputs, ValueId } from "../ir/ir.js";
import type { AttentionSpec, LatentAttention, LayerSpec, Rope } from "../../model/decoder/types.js";
import type { SlotPart } from "../../model/tensors/slots.js";
import { ofPosition, type NetContext } from "./context.js";
import { normalise } from "./norm.js";

/** Attention over normed hidden states x [N, H], output projection included. */
export function attention(ctx: NetContext, x: ValueId, layer: LayerSpec, index: number): ValueId {
  const { b, spec, param, batch, sequence } = ctx;
  const { heads, kvHeads, headDim, outBias, scale, softcap, sinks, latent } = spec.attn;
  const made = latent === null ? projected(ctx, x, layer, index) : fromLatents(ctx, x, latent, layer, index);
  const { q, k, v } = withBiases(ctx, lengthScaled(ctx, made));
  const { window } = layer;
  // A window that no query can leave is no window: the graph stays the same for short sequences.
  const limiting = window !== null && window < sequence ? window : null;
  const shape = { batch, sequence, heads, kvHeads, headDim: keyDim(spec.attn), valueDim: latent?.valueDim ?? headDim };
  const segmentIds = ctx.segmentIds === undefined ? [] : [ctx.segmentIds];
  const inputs: PrimInputs<ValueId>["attention"] = [q, k, v, ...(sinks ? [param("sinks", index)] : []), ...segmentIds];
  const attrs = { ...shape, scale, softcap, sinks, ...(segmentIds.length === 0 ? {} : { segmentIds: true }) };
  const mixed =
    ctx.attend?.(inputs, { ...attrs, window }, index) ?? b.op("attention", inputs, { ...attrs, window: limiting });
  return b.linear(mixed, param("o", index), outBias ? param("oBias", index) : undefined);
}

/** Queries, keys and values [N, heads * D], ready for attention. */
interface Attended {
  readonly q: ValueId;
  readonly k: ValueId;
  readonly v: ValueId;
}

/** Queries times their position's factor. */
function lengthScaled(ctx: NetContext, made: Attended): Attended {
  const { lengthScale } = ctx.spec.attn;
  // Every factor is 1 there.
  if (lengthScale === null || ctx.positionCount <= lengthScale.originalMaxPositions) return made;
  const { beta, originalMaxPositions: whole } = lengthScale;
  const factor = ofPosition(ctx, 1, (position) => [1 + beta * Math.log(1 + Math.floor(position / whole))]);
  return { ...made, q: ctx.b.mul(made.q, factor) };
}

/** Positions are whole multiples of this and a rest, both of which bfloat16 holds exactly. */
const POSITION_UNIT = 256;

/** Elements of a query or key as attention reads it: linear biases are products of some more elements. */
export function keyDim({ headDim, alibi }: AttentionSpec): number {
  return headDim + (alibi === null ? 0 : alibi.rounded ? 1 : 2);
}

/**
 * Queries and keys with more elements, whose products are the linear biases: of a key its position in two parts, of a
 * query its head's slope twice. Where products are rounded they stand in the keys, one for each head.
 */
function withBiases(ctx: NetContext, made: Attended): Attended {
  const { b, spec } = ctx;
  const { heads, kvHeads, headDim, scale, alibi } = spec.attn;
  if (alibi === null) return made;
  const { slopes, rounded, scaled } = alibi;
  // Attention multiplies all products by its scale.
  const unit = scaled ? 1 : 1 / scale;
  const [rows] = b.matrix(made.q);
  /** x [N, heads * D] with the columns [N, heads * C] of each head. */
  const perHead = (x: ValueId, columns: ValueId): ValueId => {
    const size = b.matrix(columns)[1] / heads;
    const each = [b.reshape(x, [rows * heads, headDim]), b.reshape(columns, [rows * heads, size])];
    return b.reshape(b.op("joinHeads", each, { heads: 1 }), [rows, heads * (headDim + size)]);
  };
  const everywhere = (values: readonly number[]): ValueId =>
    b.mul(b.constant([1], [rows, 1]), b.constant(values, [1, values.length]));
  if (rounded) {
    const biases = ofPosition(ctx, heads, (position) =>
      slopes.map((slope) => bfloat16(bfloat16(slope) * bfloat16(position))),
    );
    return { ...made, q: perHead(made.q, everywhere(slopes.map(() => unit))), k: perHead(made.k, biases) };
  }
  const parts = ofPosition(ctx, 2, (position) => [position - (position % POSITION_UNIT), position % POSITION_UNIT]);
  return {
    ...made,
    q: perHead(made.q, everywhere(slopes.flatMap((slope) => [slope * unit, slope * unit]))),
    k: b.op("joinHeads", [made.k, parts], { heads: kvHeads }),
  };
}

/** Queries, keys and values straight from the hidden states. */
function projected(ctx: NetContext, x: ValueId, { rope }: LayerSpec, layer: number): Attended {
  const { b, spec, param } = ctx;
  const { heads, kvHeads, headDim, qkNorm, qkvBias, clip } = spec.attn;
  const project = (weight: SlotPart, bias: SlotPart): ValueId =>
    b.linear(x, param(weight, layer), qkvBias ? param(bias, layer) : undefined);
  const limited = (y: ValueId): ValueId => (clip === null ? y : b.op("clamp", [y], { low: -clip, high: clip }));
  const turn = (y: ValueId, count: number, weight: SlotPart): ValueId => {
    const normed = (z: ValueId, behindRope: boolean): ValueId =>
      qkNorm === null || qkNorm.afterRope !== behindRope ? z : headNorm(ctx, z, count, qkNorm, param(weight, layer));
    const ready = limited(normed(y, false));
    return normed(rope === null ? ready : rotate(ctx, ready, rope, count, headDim, 0), true);
  };
  return {
    q: turn(project("q", "qBias"), heads, "qNorm"),
    k: turn(project("k", "kBias"), kvHeads, "kNorm"),
    v: limited(project("v", "vBias")),
  };
}

/** Multi-head latent attention: see `LatentAttention`. */
function fromLatents(
  ctx: NetContext,
  x: ValueId,
  { queryRank, norm: latentNorm, ropeDim }: LatentAttention,
  { rope }: LayerSpec,
  layer: number,
): Attended {
  const { b, spec, param } = ctx;
  const { heads, headDim } = spec.attn;
  const latent = (down: SlotPart, weight: SlotPart): ValueId =>
    normalise(b, b.linear(x, param(down, layer)), latentNorm, param(weight, layer), null);
  const turn = (y: ValueId, count: number, size: number): ValueId =>
    rope === null ? y : rotate(ctx, y, rope, count, size, size - ropeDim);
  const q = b.linear(queryRank === null ? x : latent("qDown", "qLatentNorm"), param("q", layer));
  const kv = latent("kvDown", "kvLatentNorm");
  const shared = turn(b.linear(x, param("kRope", layer)), 1, ropeDim);
  return {
    q: turn(q, heads, headDim),
    k: b.op("joinHeads", [b.linear(kv, param("k", layer)), shared], { heads }),
    v: b.linear(kv, param("v", layer)),
  };
}

/** Norm on queries or keys [N, count * D]. */
function headNorm(
  { b, spec, batch, sequence }: NetContext,
  y: ValueId,
  count: number,
  { span, norm: of }: NonNullable<AttentionSpec["qkNorm"]>,
  weight: ValueId,
): ValueId {
  const whole = b.shape(y);
  if (span === "full") return normalise(b, y, of, weight, null);
  const { headDim } = spec.attn;
  const rows = batch * sequence;
  if (span === "head") return b.reshape(normalise(b, b.reshape(y, [rows * count, headDim]), of, weight, null), whole);
  // Heads have weights of their own: normalise without one, then multiply.
  const plain = normalise(b, b.reshape(y, [rows * count, headDim]), { ...of, weight: "none" }, null, null);
  return b.mul(b.reshape(plain, whole), of.weight === "one-plus" ? b.add(weight, b.constant([1], [])) : weight);
}

/** Rope on [N, count * size], from element `offset` of each head. */
function rotate(ctx: NetContext, y: ValueId, rope: Rope, heads: number, headDim: number, offset: number): ValueId {
  const { cos, sin, perToken } = ctx.rope(rope);
  const { rotary, interleaved } = rope;
  const grid = perToken
    ? { batch: 1, sequence: ctx.batch * ctx.sequence }
    : { batch: ctx.batch, sequence: ctx.sequence };
  return ctx.b.op("rope", [y, cos, sin], { ...grid, heads, headDim, offset, rotary, interleaved, inverse: false });
}
