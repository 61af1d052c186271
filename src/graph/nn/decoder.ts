/**
 * DecoderSpec -> forward graph. One function a block; parameters are graph inputs named by slot key.
 *
 * ids [N] -> embedding -> per layer: attention and FFN with norms where the block has them -> norm -> head.
 * Letters: N tokens = B batch x S sequence, H hidden, V vocabulary, D head size, E experts, K top-k, R = N*K routed
 * rows.
 *
 * The file is long because the network reads from top to bottom in it: decoder, block, attention, FFN, router, experts.
 */
import { at, entryOf } from "../../base/at.js";
import { bfloat16 } from "../../base/bfloat16.js";
import { GraphBuilder } from "../ir/builder.js";
import type { AttentionAttrs, PlainActivation, PrimAttrs, PrimInputs, RouteRule, ValueId } from "../ir/ir.js";
import type {
  ActivationKind,
  AttentionSpec,
  ClampedGlu,
  DecoderSpec,
  DenseFfn,
  LatentAttention,
  LayerSpec,
  MoeFfn,
  NormSpec,
  Rope,
  RouterSpec,
} from "../../model/decoder/types.js";
import { normPlaces, slotKey, slotsOf, type NormPart, type Slot, type SlotPart } from "../../model/tensors/slots.js";
import { ropeTables } from "./rope.js";

/** The values of one MoE layer's router in a graph. */
export interface RouterValues {
  readonly layer: number;
  readonly experts: number;
  readonly topK: number;
  readonly rule: RouteRule;
  /** [N, E] */
  readonly logits: ValueId;
  /** [N, K], int */
  readonly chosen: ValueId;
  /** How often each expert was chosen [E], int. */
  readonly counts: ValueId;
  /** How many of those choices a capacity has left [E], int; null without one. */
  readonly kept: ValueId | null;
  /** The input that the router's input is multiplied by [N, H]; null without jitter. */
  readonly jitter: ValueId | null;
}

/** How routers work in training only. */
export interface TrainingRouting {
  /**
   * The router's input is multiplied by numbers from outside (Fedus et al. 2021, section 2.4; they are drawn around 1).
   * What the experts read is not.
   */
  readonly jitter: boolean;
  /**
   * Experts are chosen by Sinkhorn's balanced matrix (Clark et al. 2022, arXiv 2202.01169); their weights are those of
   * the router's rule, as ever.
   */
  readonly sinkhorn: boolean;
  /**
   * Each expert takes ceil(factor * N * K / E) choices of a batch at most, the rest add nothing, and a token's other
   * weights stay as they are; null: dropless.
   */
  readonly capacity: { readonly factor: number; readonly by: "weight" | "position" } | null;
}

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

/** Sizes of a batch, and what ends its documents. */
export interface BatchShape {
  readonly batch: number;
  readonly sequence: number;
  /**
   * Documents end with this token; attention does not look beyond their ends, and positions count from their starts.
   * Left out: rows are one text.
   */
  readonly documentEnd?: number | undefined;
}

/** Angles of one kind of rope as values of the graph. */
interface RopeTables {
  readonly cos: ValueId;
  readonly sin: ValueId;
  /** Angles of each token [N, rotary/2], not of each position [S, rotary/2]. */
  readonly perToken: boolean;
}

/** Where a network is being built. */
export interface NetContext extends BatchShape {
  readonly b: GraphBuilder;
  readonly spec: DecoderSpec;
  readonly param: (part: SlotPart, layer?: number, expert?: number) => ValueId;
  /** Tables of one kind of rope, shared by the layers that use it. */
  readonly rope: (settings: Rope) => RopeTables;
  readonly routers: RouterValues[];
  /** In training; null or left out: the model as it is. */
  readonly routing?: TrainingRouting | null | undefined;
  /** Segment ids [N], int: the document of each token within its row, where documents are kept apart. */
  readonly segmentIds?: ValueId | undefined;
  /** Position of each token [N], int; row by row from 0 if left out. */
  readonly positions?: ValueId | undefined;
  /** Every position lies below it. */
  readonly positionCount: number;
  /** Attention in place of the plain one over `batch` x `sequence`; `attrs.window` is the layer's own. */
  readonly attend?:
    ((inputs: PrimInputs<ValueId>["attention"], attrs: AttentionAttrs, layer: number) => ValueId) | undefined;
}

type Context = NetContext;

/** A context over `b`; `input` gives the graph input of a slot, by its key. */
export function netContext(
  b: GraphBuilder,
  spec: DecoderSpec,
  { batch, sequence }: BatchShape,
  input: (slotKey: string) => ValueId,
): NetContext {
  return {
    b,
    spec,
    batch,
    sequence,
    param: (part, layer, expert) => input(slotKey({ part, layer, expert })),
    rope: ropeTablesOf(b, sequence),
    positionCount: sequence,
    routers: [],
  };
}

/** Tables of `length` positions; with `positions` [N], each token's own rows of them. */
export function ropeTablesOf(b: GraphBuilder, length: number, positions?: ValueId): NetContext["rope"] {
  const tables = new Map<string, RopeTables>();
  return (settings) => {
    const key = JSON.stringify(settings);
    const existing = tables.get(key);
    if (existing !== undefined) return existing;
    const { cos, sin } = ropeTables(settings, length);
    const table = (values: Float32Array): ValueId => {
      const whole = b.constant(values, [length, settings.rotary / 2]);
      return positions === undefined ? whole : b.op("embedding", [whole, positions], {});
    };
    const ids = { cos: table(cos), sin: table(sin), perToken: positions !== undefined };
    tables.set(key, ids);
    return ids;
  };
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
): Partial<Pick<Context, "segmentIds" | "positions" | "rope">> {
  if (documentEnd === undefined) return {};
  const segmentIds = b.op("segmentIds", [ids], { batch, sequence, end: documentEnd });
  const positions = b.op("segmentPositions", [segmentIds], { batch, sequence });
  return { segmentIds, positions, rope: ropeTablesOf(b, sequence, positions) };
}

/** ids [N] -> residual stream [N, H]. */
export function embedded(ctx: Context, ids: ValueId): ValueId {
  const { b, spec, param } = ctx;
  const x = b.scale(b.op("embedding", [param("embed"), ids], {}), spec.multipliers.embedding);
  return spec.learnedPositions ? b.add(x, byPosition(ctx, readPositions(ctx))) : x;
}

/** The learnt vectors that are read [maxPositions, H]. */
function readPositions({ b, spec: { positionsOffset: offset, maxPositions }, param }: Context): ValueId {
  const all = param("positions");
  if (offset === 0) return all;
  const rows = Int32Array.from({ length: maxPositions }, (_, row) => offset + row);
  return b.op("embedding", [all, b.constant(rows, [maxPositions], "int")], {});
}

/** Each token's row of a table with a row for each position: [P, C] -> [N, C]. */
function byPosition({ b, batch, sequence, positions }: Context, table: ValueId): ValueId {
  const all = (): ValueId => {
    const rows = Int32Array.from({ length: batch * sequence }, (_, row) => row % sequence);
    return b.constant(rows, [batch * sequence], "int");
  };
  return b.op("embedding", [table, positions ?? all()], {});
}

/** The same of numbers that follow from the position: [N, columns]. */
function ofPosition(ctx: Context, columns: number, row: (position: number) => readonly number[]): ValueId {
  const values = Float32Array.from(Array.from({ length: ctx.positionCount }, (_, position) => row(position)).flat());
  return byPosition(ctx, ctx.b.constant(values, [ctx.positionCount, columns]));
}

/**
 * Residual stream behind the last block -> what the head reads. A constant factor on the logits is one on the hidden
 * states.
 */
export function finalHidden(ctx: Context, x: ValueId): ValueId {
  return ctx.b.scale(norm(ctx, x, "finalNorm"), ctx.spec.multipliers.logits);
}

/** Mean cross entropy of the logits of hidden states [N, H] at targets [N], where those are not negative. */
export function headLoss(
  b: GraphBuilder,
  { logitSoftcap: softcap }: Pick<DecoderSpec, "logitSoftcap">,
  hidden: ValueId,
  { head, headBias }: Head,
  targets: ValueId,
): ValueId {
  if (headBias === null) return b.op("headCrossEntropy", [hidden, head, targets], { softcap });
  // One more column of the head, which a 1 in the hidden states reads; zeros behind it keep rows aligned in memory.
  const one = Array.from({ length: HEAD_PADDING }, (_, i) => (i === 0 ? 1 : 0));
  const row = b.constant(one, [1, HEAD_PADDING]);
  const all = (rows: number, factor: ValueId): ValueId => b.mul(b.reshape(factor, [rows, 1]), row);
  const [tokens] = b.matrix(hidden);
  const [vocab] = b.matrix(head);
  const wider = (x: ValueId, columns: ValueId): ValueId => b.op("joinHeads", [x, columns], { heads: 1 });
  const inputs = [
    wider(hidden, all(tokens, b.constant([1], [tokens]))),
    wider(head, all(vocab, headBias)),
    targets,
  ] as const;
  return b.op("headCrossEntropy", inputs, { softcap });
}

/** Columns that a head's bias takes in {@link headLoss}. */
export const HEAD_PADDING = 8;

/** The output head of a graph, or rows of it. */
export interface Head {
  /** [C, H] */
  readonly head: ValueId;
  /** [C] */
  readonly headBias: ValueId | null;
}

/** The output head, which may be the embedding. */
export function headOf({ spec, param }: Pick<NetContext, "spec" | "param">): Head {
  return {
    head: param(spec.tiedHead ? "embed" : "head"),
    headBias: spec.headBias ? param("headBias") : null,
  };
}

/** Logits [N, C] of hidden states [N, H] by C rows of the head [C, H], behind the soft cap where there is one. */
export function headLogits(
  b: GraphBuilder,
  { logitSoftcap: cap }: Pick<DecoderSpec, "logitSoftcap">,
  hidden: ValueId,
  { head, headBias }: Head,
): ValueId {
  const raw = b.linear(hidden, head, headBias ?? undefined);
  return cap === null ? raw : b.scale(b.op("tanh", [b.scale(raw, 1 / cap)], {}), cap);
}

/** True if the FFN reads the residual stream in front of attention, not behind it. */
export function isParallel({ block }: DecoderSpec): boolean {
  return block === "parallel" || block === "parallel-shared";
}

function block(ctx: Context, x: ValueId, layer: LayerSpec, index: number): ValueId {
  const { b, spec } = ctx;
  const normed = attentionInput(ctx, x, index);
  const attended = b.add(x, attentionBranch(ctx, normed, layer, index));
  return b.add(attended, ffnBranch(ctx, isParallel(spec) ? x : attended, layer, index, normed));
}

/** What attention reads of the residual stream. */
export function attentionInput(ctx: Context, x: ValueId, index: number): ValueId {
  return normPlaces(ctx.spec.block).before ? norm(ctx, x, "inputNorm", index) : x;
}

/** What attention adds to the residual stream. */
export function attentionBranch(ctx: Context, normed: ValueId, layer: LayerSpec, index: number): ValueId {
  return added(ctx, attention(ctx, normed, layer, index), "postAttentionNorm", index);
}

/**
 * What the FFN adds to the residual stream `x`; `normed` is attention's input, which `parallel-shared` blocks share.
 */
export function ffnBranch(ctx: Context, x: ValueId, layer: LayerSpec, index: number, normed: ValueId): ValueId {
  return added(ctx, ffn(ctx, ffnInput(ctx, x, index, normed), layer, index), "postFfnNorm", index);
}

/** What the FFN and its router read; `normed` as in `ffnBranch`. */
export function ffnInput(ctx: Context, x: ValueId, index: number, normed: ValueId): ValueId {
  const { before, beforeFfn } = normPlaces(ctx.spec.block);
  if (beforeFfn) return norm(ctx, x, "ffnNorm", index);
  return before ? normed : x;
}

/** What a branch adds to the residual stream: its output, normed where the block norms behind it, and scaled. */
function added(ctx: Context, y: ValueId, part: NormPart, index: number): ValueId {
  const { after } = normPlaces(ctx.spec.block);
  return ctx.b.scale(after ? norm(ctx, y, part, index) : y, ctx.spec.multipliers.residual);
}

function norm({ b, spec, param }: Context, x: ValueId, part: NormPart, layer?: number): ValueId {
  const weight = spec.norm.weight === "none" ? null : param(part, layer);
  return normalise(b, x, spec.norm, weight, spec.norm.bias ? param(`${part}Bias`, layer) : null);
}

/** A norm over the last axis with its weight and bias as the spec says. */
function normalise(b: GraphBuilder, x: ValueId, spec: NormSpec, weight: ValueId | null, bias: ValueId | null): ValueId {
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

/** Attention over normed hidden states x [N, H], output projection included. */
function attention(ctx: Context, x: ValueId, layer: LayerSpec, index: number): ValueId {
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
function lengthScaled(ctx: Context, made: Attended): Attended {
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
function withBiases(ctx: Context, made: Attended): Attended {
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
function projected(ctx: Context, x: ValueId, { rope }: LayerSpec, layer: number): Attended {
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
  ctx: Context,
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
  { b, spec, batch, sequence }: Context,
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
function rotate(ctx: Context, y: ValueId, rope: Rope, heads: number, headDim: number, offset: number): ValueId {
  const { cos, sin, perToken } = ctx.rope(rope);
  const { rotary, interleaved } = rope;
  const grid = perToken
    ? { batch: 1, sequence: ctx.batch * ctx.sequence }
    : { batch: ctx.batch, sequence: ctx.sequence };
  return ctx.b.op("rope", [y, cos, sin], { ...grid, heads, headDim, offset, rotary, interleaved, inverse: false });
}

/** The FFN of a layer, dense or of experts: x [N, H] -> [N, H]. */
function ffn(ctx: Context, x: ValueId, { ffn: spec }: LayerSpec, layer: number): ValueId {
  if (spec.kind === "moe") return moe(ctx, x, spec, layer);
  const { b, param } = ctx;
  return b.linear(
    ffnUnits(ctx, x, spec, layer),
    param("down", layer),
    spec.bias ? param("downBias", layer) : undefined,
  );
}

/** The activations of a dense FFN's hidden units: x [N, H], which it reads -> [N, F]. */
export function ffnUnits(ctx: Context, x: ValueId, spec: DenseFfn, layer: number): ValueId {
  const { b, param } = ctx;
  const bias = (part: SlotPart): ValueId | undefined => (spec.bias ? param(part, layer) : undefined);
  const up = b.linear(x, param("up", layer), bias("upBias"));
  return spec.gated
    ? gated(ctx, b.linear(x, param("gate", layer), bias("gateBias")), up, spec.activation, layer)
    : activated(ctx, up, spec.activation, layer);
}

/** A gated unit act(gate) * up; SiLU's has a primitive of its own. */
function gated(ctx: Context, gate: ValueId, up: ValueId, kind: ActivationKind, layer: number): ValueId {
  const { b } = ctx;
  return kind === "silu" ? b.op("swiglu", [gate, up], {}) : b.mul(activated(ctx, gate, kind, layer), up);
}

/** act(x) of a layer. */
function activated(ctx: Context, x: ValueId, kind: ActivationKind, layer: number): ValueId {
  return kind === "xielu" ? xielu(ctx, x, layer) : ctx.b.op("activation", [x], { kind });
}

/** See `ActivationKind` (activations.py, XIELUActivation). */
function xielu({ b, param }: Context, x: ValueId, layer: number): ValueId {
  const beta = param("activationBeta", layer);
  const softplus = (part: SlotPart): ValueId => b.op("activation", [param(part, layer)], { kind: "softplus" });
  const term = (kind: PlainActivation, factor: ValueId): ValueId => b.mul(b.op("activation", [x], { kind }), factor);
  const bent = b.add(term("relu2", softplus("activationP")), term("xieluTail", b.add(beta, softplus("activationN"))));
  return b.add(bent, b.mul(x, beta));
}

/** gpt-oss's gated unit: see `ClampedGlu` (modeling_gpt_oss.py, GptOssExperts). */
function clampedGlu(b: GraphBuilder, gate: ValueId, up: ValueId, { alpha, limit }: ClampedGlu): ValueId {
  const low = b.op("clamp", [gate], { low: -3e38, high: limit });
  const one = b.add(b.op("clamp", [up], { low: -limit, high: limit }), b.constant([1], []));
  return b.mul(b.mul(low, b.op("sigmoid", [b.scale(low, alpha)], {})), one);
}

/** A spec's router as the routing primitive wants it. */
export function routeRule({
  score,
  jitter,
  renormalise,
  groups,
  correctionBias: corrected,
  scaling,
}: RouterSpec): RouteRule {
  return { score, jitter, renormalise, groups, corrected, scaling };
}

/** A layer of routed experts, and its shared expert: x [N, H] -> [N, H]. */
function moe(ctx: Context, x: ValueId, ffn: MoeFfn, layer: number): ValueId {
  const routed = routedExperts(ctx, x, ffn, layer, route(ctx, x, ffn, layer));
  return ffn.shared === null ? routed : ctx.b.add(routed, sharedExpert(ctx, x, ffn, ffn.shared, layer));
}

/** Which experts serve each token and with which weights, and where the rows of each expert stand. */
interface Routing {
  /** [N, K] */
  readonly weights: ValueId;
  /** Order and inverse [R] and rows of each expert [E], see the primitive `expertSort`. */
  readonly order: ValueId;
  readonly inverse: ValueId;
  readonly counts: ValueId;
}

/** Chooses each token's experts, and notes the router's values for losses and metrics. */
function route(ctx: Context, x: ValueId, { router, experts, topK }: MoeFfn, layer: number): Routing {
  const { b, param, routing } = ctx;
  const jitter = routing?.jitter === true ? b.input(`jitter.${layer}`, "f32", b.shape(x)) : null;
  const read = jitter === null ? x : b.mul(x, jitter);
  const logits = b.linear(read, param("router", layer), router.bias ? param("routerBias", layer) : undefined);
  const rule = routeRule(router);
  const correction = rule.corrected ? [param("routerCorrection", layer)] : [];
  const [weights, chosen] =
    routing?.sinkhorn === true
      ? balancedChoice(b, logits, topK, rule)
      : b.apply("routeTopK", [logits, ...correction], { k: topK, rule });
  const limit = capacityOf(b.matrix(chosen), experts, routing?.capacity ?? null);
  const served = limit === null ? chosen : b.op("expertCapacity", [weights, chosen], limit);
  const [order, inverse, counts] = b.apply("expertSort", [served], { experts, drops: limit !== null });
  const allCounts =
    limit === null ? counts : b.reshape(b.op("expertCounts", [chosen], { experts, blocks: 1 }), [experts]);
  const kept = (routing?.capacity ?? null) === null ? null : counts;
  ctx.routers.push({ layer, experts, topK, rule, logits, chosen, jitter, counts: allCounts, kept });
  return { weights, order, inverse, counts };
}

/** What the routed experts of a layer make of x [N, H], weighted and summed for each token: [N, H]. */
function routedExperts(
  ctx: Context,
  x: ValueId,
  ffn: MoeFfn,
  layer: number,
  { weights, order, inverse, counts }: Routing,
): ValueId {
  const { b, spec, param } = ctx;
  const each = (part: SlotPart): ValueId[] =>
    Array.from({ length: ffn.experts }, (_, expert) => param(part, layer, expert));
  const dispatched = b.op("dispatch", [x, order, inverse], { k: ffn.topK });
  const grouped = (input: ValueId, part: "gate" | "up" | "down"): ValueId => {
    const y = b.op("groupedMatmul", [input, counts, ...each(part)], { transB: true });
    return ffn.bias ? b.op("groupedBias", [y, counts, ...each(`${part}Bias`)], {}) : y;
  };
  const inner = (): ValueId => {
    if (!ffn.gated) return activated(ctx, grouped(dispatched, "up"), ffn.activation, layer);
    const [gate, up] = [grouped(dispatched, "gate"), grouped(dispatched, "up")];
    return ffn.clampedGlu === null
      ? gated(ctx, gate, up, ffn.activation, layer)
      : clampedGlu(b, gate, up, ffn.clampedGlu);
  };
  const weightedRows = (y: ValueId): ValueId => b.op("scaleRows", [y, weights, order, inverse], {});
  // The weights commute with the down projection unless that has a bias, so they go where rows are narrower.
  const early = ffn.ffnDim < spec.hidden && !ffn.bias;
  const out = early ? grouped(weightedRows(inner()), "down") : weightedRows(grouped(inner(), "down"));
  return b.op("combine", [out, order, inverse], { k: ffn.topK });
}

/** Sinkhorn's iteration on a router's logits settles long before so many iterations; one that has not ends there. */
const SINKHORN = { iterations: 32, tolerance: 1e-4 };
/** A rule for the choice alone: the top k by the values themselves. */
const byLogit: RouteRule = {
  score: "softmax",
  jitter: 0,
  renormalise: null,
  groups: null,
  corrected: false,
  scaling: 1,
};

/** Weights and choices [N, K]: the top k of the balanced matrix. */
function balancedChoice(b: GraphBuilder, logits: ValueId, k: number, rule: RouteRule): readonly [ValueId, ValueId] {
  const balanced = b.mul(b.op("softmax", [logits], {}), b.op("sinkhorn", [logits], SINKHORN));
  const chosen = b.apply("routeTopK", [balanced], { k, rule: byLogit })[1];
  return [b.op("routeWeights", [logits, chosen], { rule }), chosen];
}

/**
 * Attributes of the capacity's primitive, or null where every choice fits (megatron/core/transformer/moe/moe_utils.py,
 * get_capacity).
 */
function capacityOf(
  [tokens, k]: readonly [number, number],
  experts: number,
  capacity: TrainingRouting["capacity"],
): PrimAttrs["expertCapacity"] | null {
  if (capacity === null) return null;
  // No expert is chosen twice by a token.
  const rows = Math.ceil(((tokens * k) / experts) * capacity.factor);
  return rows >= tokens ? null : { experts, rows, by: capacity.by };
}

/** What the expert that every token uses makes of x [N, H]. */
function sharedExpert(
  ctx: Context,
  x: ValueId,
  ffn: MoeFfn,
  shared: NonNullable<MoeFfn["shared"]>,
  layer: number,
): ValueId {
  const { b, param } = ctx;
  const up = b.linear(x, param("sharedUp", layer));
  const inner = ffn.gated
    ? gated(ctx, b.linear(x, param("sharedGate", layer)), up, ffn.activation, layer)
    : activated(ctx, up, ffn.activation, layer);
  const out = b.linear(inner, param("sharedDown", layer));
  return shared.gated ? b.mul(out, b.op("sigmoid", [b.linear(x, param("sharedRouter", layer))], {})) : out;
}
