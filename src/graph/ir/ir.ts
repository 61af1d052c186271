/**
 * The graph IR: a list of typed values and a list of nodes in topological order, as plain data.
 *
 * Primitives live at the level of the field (attention, rms_norm, top-k routing, grouped matmul over experts, ...), so
 * that each backend can lower them its own way; the few elementwise ones only glue them. Every primitive has a shape
 * rule (`shapes.ts`), a reference evaluation (`reference.ts`), a gradient rule (`graph/grad/rules.ts`) and a lowering
 * (`graph/onnx/`), each held in a table typed over all primitives, so that a missing entry does not compile.
 *
 * Gradient primitives (`...Grad`) take the forward inputs and the output's gradient only: what a backend keeps from its
 * forward pass (probabilities, 1/rms, sigmoids) is its own business.
 *
 * Dimension letters: N tokens (= B batch x S sequence), H hidden, V vocabulary, E experts, K top-k, R = N*K routed
 * rows, D head size.
 */

import type { ActivationKind } from "../../model/decoder/types.js";

/**
 * Activations without numbers of their own. xIELU is a sum of some: `xieluTail` is expm1(min(x, -1e-6)) - x for x <= 0,
 * else 0; `softplus` is ln(1 + exp(x)).
 */
export type PlainActivation = Exclude<ActivationKind, "xielu"> | "xieluTail" | "softplus";

/** Above it the exponential of xIELU is that of this number (activations.py, XIELUActivation: `eps`). */
export const XIELU_EPS = -1e-6;

/** Element types: float32, or integers for indices and counts. */
export type DType = "f32" | "int";

/** Index of a value in `Graph.values`. */
export type ValueId = number;

/** Element type and sizes of the axes. */
export interface ValueType {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** A value of a graph; inputs have names. */
export interface Value extends ValueType {
  readonly name?: string;
}

/** Causal attention of B sequences of S tokens, with grouped query heads. */
export interface AttentionAttrs {
  readonly batch: number;
  readonly sequence: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Size of a head's value, usually headDim. */
  readonly valueDim: number;
  /** Factor on the scores, usually headDim^-0.5. */
  readonly scale: number;
  /** A query at position i sees positions j with i - window < j <= i; null: all j <= i. */
  readonly window: number | null;
  /** Scores become softcap * tanh(score / softcap) before the mask; null: they stay. */
  readonly softcap: number | null;
  /**
   * A further input, sinks [heads]: each head's softmax has one more logit, whose share of the probability is dropped.
   */
  readonly sinks: boolean;
  /** A last input, segment ids [N] int: queries see only keys of the same document. */
  readonly segmentIds?: boolean | undefined;
}

/** How N tokens are rows of a batch. */
export interface SegmentAttrs {
  readonly batch: number;
  readonly sequence: number;
}

/** Attention of new tokens behind a cache of past ones; `sequence` counts the new ones. */
export interface CachedAttentionAttrs extends AttentionAttrs {
  /** Keys that each cache has room for. */
  readonly capacity: number;
  /** A last input, starts [N] int: the new tokens of a row are several texts that go on from its past. */
  readonly branches?: boolean | undefined;
}

/** Rotary position embedding of some elements of each head (Su et al. 2021). */
export interface RopeAttrs {
  readonly batch: number;
  readonly sequence: number;
  readonly heads: number;
  readonly headDim: number;
  /** First element of a head that turns. */
  readonly offset: number;
  /** How many elements from there turn; the rest pass through. */
  readonly rotary: number;
  /** Pairs are (2i, 2i + 1) instead of (i, i + rotary / 2), from `offset`. */
  readonly interleaved: boolean;
  /** Rotate backwards (the gradient of the rotation). */
  readonly inverse: boolean;
}

/**
 * From logits to weights, see `RouterSpec`: scores -> choice by score + correction within the best groups -> weights =
 * scores of the chosen, renormalised by max(sum + plus, atLeast), times scaling.
 */
export interface RouteRule {
  readonly score: "softmax" | "sigmoid" | "sparsemixer";
  /**
   * Only `sparsemixer` reads it: experts whose logit l lies below the largest, m, by more than 2 * jitter * max(|l|, m)
   * are left out of the softmax.
   */
  readonly jitter: number;
  readonly renormalise: { readonly plus: number; readonly atLeast: number } | null;
  readonly groups: { readonly count: number; readonly kept: number } | null;
  /** A second input, [E], is added to the scores for the choice. */
  readonly corrected: boolean;
  readonly scaling: number;
}

/**
 * Added to column sums, so that an expert that no token's logits reach keeps a finite factor
 * (megatron/core/transformer/moe/moe_utils.py, sinkhorn).
 */
export const SINKHORN_EPS = 1e-8;

type None = Record<string, never>;

/** Attributes of each primitive. The comments give inputs -> outputs. */
export interface PrimAttrs {
  /** -> any shape; `values` holds one number for all elements or one per element. */
  constant: {
    readonly dtype: DType;
    readonly shape: readonly number[];
    readonly values: readonly number[] | Float32Array | Int32Array;
  };
  /** (a, b) -> broadcast as in NumPy. */
  add: None;
  sub: None;
  mul: None;
  /** (x) -> x * by */
  scale: { readonly by: number };
  sigmoid: None;
  tanh: None;
  /**
   * `silu` is x * sigmoid(x); `gelu` x * Phi(x); `geluTanh` its tanh approximation (Hendrycks & Gimpel 2016); `relu2`
   * relu(x)^2 (So et al. 2021).
   */
  activation: { readonly kind: PlainActivation };
  /** (x, dy) -> dx */
  activationGrad: { readonly kind: PlainActivation };
  /** (x) -> x limited to [low, high] */
  clamp: { readonly low: number; readonly high: number };
  /** (x, dy) -> dy where low <= x <= high, else 0 */
  clampGrad: { readonly low: number; readonly high: number };
  /** (int) -> f32 */
  toFloat: None;
  /** (x) -> same elements, other shape */
  reshape: { readonly shape: readonly number[] };
  /** (x) -> summed over `axes` */
  reduceSum: { readonly axes: readonly number[]; readonly keepDims: boolean };
  /** (x [..., n]) -> same shape, over the last axis */
  softmax: None;
  /** (y = softmax(x), dy) -> dx */
  softmaxGrad: None;
  /** (x [..., n]) -> [...] */
  logSumExp: None;
  /** (a [M, K] or [K, M] if transA, b [K, N] or [N, K] if transB) -> [M, N] */
  matmul: { readonly transA: boolean; readonly transB: boolean };
  /** (table [V, H], ids [N]) -> [N, H] */
  embedding: None;
  /**
   * (ids [N]) -> [N] int: to which document of its row a token belongs, that is how many tokens `end` stand before it
   */
  segmentIds: SegmentAttrs & { readonly end: number };
  /** (segment ids [N]) -> [N] int: each token's place within its document */
  segmentPositions: SegmentAttrs;
  /** (ids [N], dy [N, H]) -> [V, H] */
  embeddingGrad: { readonly vocab: number };
  /** (x [..., H], weight [H]) -> x / sqrt(mean(x^2) + eps) * weight (Zhang & Sennrich 2019, eq. 4) */
  rmsNorm: { readonly eps: number };
  /** (x, weight, dy) -> (dx, dweight) */
  rmsNormGrad: { readonly eps: number };
  /** (x [..., H]) -> (x - mean) / sqrt(var + eps) over the last axis, without weight and bias (Ba et al. 2016) */
  layerNorm: { readonly eps: number };
  /** (x, dy) -> dx */
  layerNormGrad: { readonly eps: number };
  /** (x [N, heads*D], cos [S, rotary/2], sin [S, rotary/2]) -> [N, heads*D] (RoFormer, Su et al. 2021) */
  rope: RopeAttrs;
  /** (own [N, heads*A], shared [N, B]) -> [N, heads*(A+B)]: each head's own elements, then the shared ones */
  joinHeads: { readonly heads: number };
  /** (own, shared, dy) -> (down, dshared) */
  joinHeadsGrad: { readonly heads: number };
  /**
   * (q [N, heads*D], k [N, kvHeads*D], v [N, kvHeads*valueDim], sinks [heads] and segment ids [N] if asked for) -> [N,
   * heads*valueDim], causal; query head h reads key head floor(h * kvHeads / heads)
   */
  attention: AttentionAttrs;
  /** (q, k, v, sinks and segment ids if asked for, dout) -> (dq, dk, dv, dsinks if asked for) */
  attentionGrad: AttentionAttrs;
  /**
   * (q, k, v of S new tokens in each of B rows as for attention, past keys [B, kvHeads, C, D], past values [B, kvHeads,
   * C, valueDim], lengths [B] int, sinks and starts [N] if asked for) -> [N, heads*valueDim]; new token i of row b
   * stands at position lengths[b] + i - start and sees the row's first lengths[b] past keys and the new ones from its
   * start up to its own, as far as the window goes. `starts` are places among the row's new tokens, 0 if left out.
   */
  cachedAttention: CachedAttentionAttrs;
  /** (gate, up) -> silu(gate) * up (Shazeer 2020) */
  swiglu: None;
  /** (gate, up, dh) -> (dgate, dup) */
  swigluGrad: None;
  /**
   * (x [N, H], head [V, H], targets [N]) -> [] mean of -log softmax(logits)[target] over targets >= 0, logits = x
   * headᵀ, through softcap * tanh(logits / softcap) if softcap is given; negative targets are ignored
   */
  headCrossEntropy: { readonly softcap: number | null };
  /** (x, head, targets, dloss []) -> (dx, dhead) */
  headCrossEntropyGrad: { readonly softcap: number | null };
  /**
   * (x [N, H], head [V, H], targets [N], bias [V] if asked for) -> [N, 2]: log softmax(logits)[target], and 1 where the
   * target's logit is the first of the largest ones, else 0; logits as of `headCrossEntropy`, plus the bias
   */
  headScores: { readonly softcap: number | null; readonly bias: boolean };
  /**
   * (logits [N, E], correction [E] if asked for) -> (weights [N, K], experts [N, K] int), best choice first, ties to
   * the lowest index
   */
  routeTopK: { readonly k: number; readonly rule: RouteRule };
  /** (logits [N, E], experts [N, K], dweights [N, K]) -> dlogits */
  routeTopKGrad: { readonly rule: RouteRule };
  /**
   * (logits [N, E], experts [N, K]) -> [N, K]: the weights that `rule` gives to choices made elsewhere; not of
   * `sparsemixer`
   */
  routeWeights: { readonly rule: RouteRule };
  /**
   * (logits [N, E]) -> v [E], the column factors of Sinkhorn's iteration on exp(logits) with equal row sums and equal
   * column sums (Clark et al. 2022, arXiv 2202.01169, appendix B): from v = 1, v_e <- (1/E) / (sum_n r_n exp(l_ne))
   * with r_n = (1/N) / (sum_e v_e exp(l_ne)), until v moves by `tolerance` or less in the mean, at most `iterations`
   * times. Within a row, softmax(logits) * v stands in the order of the balanced matrix. Columns that are equal have
   * equal factors.
   */
  sinkhorn: { readonly iterations: number; readonly tolerance: number };
  /**
   * (weights [N, K], experts [N, K]) -> experts [N, K], with `experts` in place of a dropped choice: of the choices of
   * one expert the `rows` best stay; best by weight, or by position, the first ones; ties to the first
   */
  expertCapacity: { readonly experts: number; readonly rows: number; readonly by: "weight" | "position" };
  /** (experts [N, K]) -> [blocks, E] int: how often each expert was chosen, in each of `blocks` equal runs of tokens */
  expertCounts: { readonly experts: number; readonly blocks: number };
  /**
   * (experts [N, K]) -> (order [R]: slot n*K + k at each sorted place, inverse [R]: place of each slot, counts [E]);
   * stable by slot. With `drops` a slot may say E: it sorts last and is counted nowhere, and the rows behind the last
   * expert's are nobody's: grouped products make zeros of them, there and back, and gradients of weights pass them
   * over, so that a dropped choice adds nothing and moves nothing.
   */
  expertSort: { readonly experts: number; readonly drops: boolean };
  /** (x [N, H], order [R], inverse [R]) -> [R, H]: each token once per chosen expert, sorted by expert */
  dispatch: { readonly k: number };
  /** (y [R, H], order [R], inverse [R]) -> [N, H]: sum over each token's experts; the transpose of `dispatch` */
  combine: { readonly k: number };
  /** (y [R, H], weights [N, K], order, inverse) -> [R, H]: each row times the weight of its slot */
  scaleRows: None;
  /** (y, weights, order, inverse, dout [R, H]) -> (dy [R, H], dweights [N, K]) */
  scaleRowsGrad: None;
  /** (x [R, A], counts [E], w_0 .. w_{E-1}) -> [R, B]: rows of expert e times w_e ([B, A] if transB, else [A, B]) */
  groupedMatmul: { readonly transB: boolean };
  /**
   * (y [R, B], counts [E], b_0 .. b_{E-1} [B]) -> y with b_e added to the rows of expert e, nobody's rows as they are
   */
  groupedBias: None;
  /** (dy [R, B], counts [E]) -> E times [B]: sums over each expert's rows */
  groupedBiasGrad: None;
  /** (x [R, A], dy [R, B], counts [E]) -> E times [B, A]: dy_eᵀ x_e, zeros for an empty expert */
  groupedMatmulGradW: None;
}

/** Name of a primitive. */
export type Prim = keyof PrimAttrs;

/** What each primitive reads, a `T` for each input; the names are those of `PrimAttrs`. */
export interface PrimInputs<T> {
  constant: readonly T[];
  add: readonly [a: T, b: T];
  sub: readonly [a: T, b: T];
  mul: readonly [a: T, b: T];
  scale: readonly [x: T];
  sigmoid: readonly [x: T];
  tanh: readonly [x: T];
  activation: readonly [x: T];
  activationGrad: readonly [x: T, dy: T];
  clamp: readonly [x: T];
  clampGrad: readonly [x: T, dy: T];
  toFloat: readonly [x: T];
  reshape: readonly [x: T];
  reduceSum: readonly [x: T];
  softmax: readonly [x: T];
  softmaxGrad: readonly [y: T, dy: T];
  logSumExp: readonly [x: T];
  matmul: readonly [a: T, b: T];
  embedding: readonly [table: T, ids: T];
  segmentIds: readonly [ids: T];
  segmentPositions: readonly [segmentIds: T];
  embeddingGrad: readonly [ids: T, dy: T];
  rmsNorm: readonly [x: T, weight: T];
  rmsNormGrad: readonly [x: T, weight: T, dy: T];
  layerNorm: readonly [x: T];
  layerNormGrad: readonly [x: T, dy: T];
  rope: readonly [x: T, cos: T, sin: T];
  joinHeads: readonly [own: T, shared: T];
  joinHeadsGrad: readonly [own: T, shared: T, dy: T];
  /** `sinksAndSegmentIds`: those that the attributes ask for, see `attentionExtras`. */
  attention: readonly [q: T, k: T, v: T, ...sinksAndSegmentIds: T[]];
  attentionGrad: readonly [q: T, k: T, v: T, ...sinksAndSegmentIds: T[], dout: T];
  cachedAttention: readonly [q: T, k: T, v: T, pastKeys: T, pastValues: T, lengths: T, ...sinksAndStarts: T[]];
  swiglu: readonly [gate: T, up: T];
  swigluGrad: readonly [gate: T, up: T, dh: T];
  headCrossEntropy: readonly [x: T, head: T, targets: T];
  headCrossEntropyGrad: readonly [x: T, head: T, targets: T, dloss: T];
  headScores: readonly [x: T, head: T, targets: T, ...bias: T[]];
  routeTopK: readonly [logits: T, ...correction: T[]];
  routeTopKGrad: readonly [logits: T, experts: T, dweights: T];
  routeWeights: readonly [logits: T, experts: T];
  sinkhorn: readonly [logits: T];
  expertCapacity: readonly [weights: T, experts: T];
  expertCounts: readonly [experts: T];
  expertSort: readonly [experts: T];
  dispatch: readonly [x: T, order: T, inverse: T];
  combine: readonly [y: T, order: T, inverse: T];
  scaleRows: readonly [y: T, weights: T, order: T, inverse: T];
  scaleRowsGrad: readonly [y: T, weights: T, order: T, inverse: T, dout: T];
  groupedMatmul: readonly [x: T, counts: T, ...weights: T[]];
  groupedBias: readonly [y: T, counts: T, ...biases: T[]];
  groupedBiasGrad: readonly [dy: T, counts: T];
  groupedMatmulGradW: readonly [x: T, dy: T, counts: T];
}

/** What those primitives give that have several outputs, a `T` for each; all others have one. */
interface SeveralOutputs<T> {
  rmsNormGrad: readonly [dx: T, dweight: T];
  joinHeadsGrad: readonly [down: T, dshared: T];
  attentionGrad: readonly [dq: T, dk: T, dv: T, ...dsinks: T[]];
  swigluGrad: readonly [dgate: T, dup: T];
  headCrossEntropyGrad: readonly [dx: T, dhead: T];
  routeTopK: readonly [weights: T, experts: T];
  expertSort: readonly [order: T, inverse: T, counts: T];
  scaleRowsGrad: readonly [dy: T, dweights: T];
  groupedBiasGrad: readonly T[];
  groupedMatmulGradW: readonly T[];
}

/** What a primitive gives, a `T` for each output. */
export type PrimOutputs<P extends Prim, T> = P extends keyof SeveralOutputs<T> ? SeveralOutputs<T>[P] : readonly [y: T];

/** Primitives that always have just one output. */
export type OneOutputPrim = Exclude<Prim, keyof SeveralOutputs<unknown>>;

/** One use of a primitive: what it reads and gives, by value. */
export type Node = {
  [P in Prim]: {
    readonly prim: P;
    readonly in: PrimInputs<ValueId>[P];
    readonly out: PrimOutputs<P, ValueId>;
    readonly attrs: PrimAttrs[P];
  };
}[Prim];

/** The node of one primitive. */
export type NodeOf<P extends Prim> = Extract<Node, { prim: P }>;

/** Optional inputs of attention, among those behind q, k and v; null where the attributes do not ask for one. */
export function attentionExtras<T>(
  { sinks, segmentIds }: Pick<AttentionAttrs, "sinks" | "segmentIds">,
  [, , , ...extras]: readonly [T, T, T, ...T[]],
): { readonly sinks: T | null; readonly segmentIds: T | null } {
  const at = (place: number): T | null => extras[place] ?? null;
  return {
    sinks: sinks ? at(0) : null,
    segmentIds: segmentIds === true ? at(sinks ? 1 : 0) : null,
  };
}

/** Optional inputs of attention behind a cache; null where the attributes do not ask for one. */
export function cachedExtras<T>(
  { sinks, branches }: Pick<CachedAttentionAttrs, "sinks" | "branches">,
  [, , , , , , ...extras]: PrimInputs<T>["cachedAttention"],
): { readonly sinks: T | null; readonly starts: T | null } {
  const at = (place: number): T | null => extras[place] ?? null;
  return { sinks: sinks ? at(0) : null, starts: branches === true ? at(sinks ? 1 : 0) : null };
}

/** A program as plain data. */
export interface Graph {
  /** Indexed by `ValueId`. */
  readonly values: readonly Value[];
  /** Topological order; `verify` proves it. */
  readonly nodes: readonly Node[];
  readonly inputs: readonly ValueId[];
  readonly outputs: readonly ValueId[];
}

/** Type of a value. Throws an Error for one that the graph does not have. */
export function typeOf({ values }: Pick<Graph, "values">, id: ValueId): Value {
  const value = values[id];
  if (value === undefined) throw new Error(`value %${id} has no type`);
  return value;
}

/** Both sizes of a value with two axes. Throws an Error for any other. */
export function matrixSizes({ shape }: Pick<ValueType, "shape">): readonly [rows: number, columns: number] {
  const [rows, columns, ...more] = shape;
  if (rows === undefined || columns === undefined || more.length > 0)
    throw new Error(`a matrix has two axes, got [${shape}]`);
  return [rows, columns];
}

/** Size of the last axis. Throws an Error for a scalar. */
export function lastSize({ shape }: Pick<ValueType, "shape">): number {
  const size = shape.at(-1);
  if (size === undefined) throw new Error("a scalar has no last axis");
  return size;
}

export { elements } from "../../base/shapes.js";
