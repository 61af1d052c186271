/**
 * What a backend is asked to run: graphs whose inputs and outputs have meanings.
 * Parameters are inputs of the graph, named by slot key; a backend binds them to state that it owns.
 */
import { backward } from "../grad/backward.js";
import type { Graph, ValueId } from "../graph/ir.js";
import { prune, verify } from "../graph/passes.js";
import type { GraphBuilder } from "../graph/builder.js";
import { buildCachedDecoder, type CachedShape, type KeyValue } from "../net/cached.js";
import { buildDecoder, type Decoder } from "../net/decoder.js";
import { routerEntropy } from "../net/router-entropy.js";
import { balanceLoss, routerZLoss } from "../net/losses.js";
import type { DecoderSpec } from "../spec/types.js";
import { isBuffer } from "../tensors/slots.js";

export interface ParamInfo {
  readonly key: string;
  readonly shape: readonly number[];
}

/** Where each output of a loss graph stands in `graph.outputs`. */
export interface LossOutputs {
  /** Mean next-token cross entropy. */
  readonly loss: number;
  readonly balance: number | null;
  readonly z: number | null;
  /** Tokens per expert [E], one for each MoE layer. */
  readonly counts: readonly number[];
  /** Mean router entropy, one for each MoE layer; none in a graph with gradients. */
  readonly entropy: readonly number[];
}

export interface LossProgram {
  /** Inputs: ids [N], targets [N], then all parameters. */
  readonly graph: Graph;
  readonly params: readonly ParamInfo[];
  readonly outputs: LossOutputs;
}

export interface TrainProgram extends LossProgram {
  /** Output `gradients + i` is the gradient of `trained[i]`. Gradients are of loss + auxCoef * balance + zCoef * z. */
  readonly gradients: number;
  /** Parameters with a gradient, in the order of `params`: all but buffers and frozen ones. */
  readonly trained: readonly ParamInfo[];
  /** The same network without gradients, for evaluation with the same state. */
  readonly evaluation: LossProgram;
}

export interface LogitsProgram {
  /** Inputs: ids [N], then (if `picksRows`) rows [R], then all parameters. Output: logits [N or R, V]. */
  readonly graph: Graph;
  readonly params: readonly ParamInfo[];
  readonly picksRows: boolean;
}

export interface TrainShape {
  /** Sequences per micro-batch. */
  readonly batch: number;
  /** Tokens per sequence. */
  readonly sequence: number;
  /** Coefficient of the load-balancing loss. */
  readonly auxCoef: number;
  /** Coefficient of the router z-loss. */
  readonly zCoef: number;
  /** Keys of parameters that get no gradient; backward nodes that only they need are left out. */
  readonly frozen?: ReadonlySet<string> | undefined;
}

interface Built extends LossOutputs {
  readonly decoder: Decoder;
  readonly targets: ValueId;
  readonly ids: { readonly loss: ValueId; readonly balance: ValueId | null; readonly z: ValueId | null };
  readonly values: readonly ValueId[];
}

function buildLosses(spec: DecoderSpec, shape: { readonly batch: number; readonly sequence: number }): Built {
  const decoder = buildDecoder(spec, shape);
  const { builder: b, routers } = decoder;
  const targets = b.input("targets", "int", [shape.batch * shape.sequence]);
  const loss = b.op("headCrossEntropy", [decoder.hidden, decoder.head, targets], { softcap: spec.logitSoftcap });
  const moe = routers.length > 0;
  const balance = moe ? balanceLoss(b, routers) : null;
  const z = moe ? routerZLoss(b, routers) : null;
  const values = [loss, ...(balance === null ? [] : [balance]), ...(z === null ? [] : [z]), ...routers.map(({ counts }) => counts)];
  const first = values.length - routers.length;
  return {
    decoder, targets, values,
    ids: { loss, balance, z },
    loss: 0,
    balance: moe ? 1 : null,
    z: moe ? 2 : null,
    counts: routers.map((_, i) => first + i),
    entropy: [],
  };
}

const paramsOf = (decoder: Decoder): ParamInfo[] => decoder.params.map(({ slot }) => ({ key: slot.key, shape: slot.shape }));

/** Puts inputs in the promised order, drops dead nodes and proves the result. */
function close(decoder: Decoder, feeds: readonly ValueId[], outputs: readonly ValueId[]): Graph {
  const inputs = [...feeds, ...decoder.params.map(({ id }) => id)];
  const graph = prune({ ...decoder.builder.finish(outputs), inputs });
  verify(graph);
  return graph;
}

export function lossProgram(spec: DecoderSpec, shape: { readonly batch: number; readonly sequence: number }): LossProgram {
  const built = buildLosses(spec, shape);
  const { loss, balance, z, counts, decoder, values } = built;
  const entropies = decoder.routers.map(({ logits }) => routerEntropy(decoder.builder, logits));
  const graph = close(decoder, [decoder.ids, built.targets], [...values, ...entropies]);
  return { graph, params: paramsOf(decoder), outputs: { loss, balance, z, counts, entropy: entropies.map((_, i) => values.length + i) } };
}

/** Inputs as of a loss program, the mean cross entropy as the only output. */
export function meanLossProgram(spec: DecoderSpec, shape: { readonly batch: number; readonly sequence: number }): LogitsProgram {
  const { graph, params, outputs } = lossProgram(spec, shape);
  return { graph: prune({ ...graph, outputs: [graph.outputs[outputs.loss]!] }), params, picksRows: false };
}

/** Forward, backward and losses of one micro-batch as one graph. */
export function trainProgram(spec: DecoderSpec, shape: TrainShape): TrainProgram {
  const built = buildLosses(spec, shape);
  const { decoder, ids, loss, balance, z, counts } = built;
  const b = decoder.builder;
  let total = ids.loss;
  if (ids.balance !== null && shape.auxCoef !== 0) total = b.add(total, b.scale(ids.balance, shape.auxCoef));
  if (ids.z !== null && shape.zCoef !== 0) total = b.add(total, b.scale(ids.z, shape.zCoef));
  const trained = decoder.params.filter(({ slot }) => !isBuffer(slot.at) && shape.frozen?.has(slot.key) !== true);
  const gradients = backward(b, total, trained.map(({ id }) => id));
  const graph = close(decoder, [decoder.ids, built.targets], [...built.values, ...gradients]);
  return {
    graph,
    params: paramsOf(decoder),
    outputs: { loss, balance, z, counts, entropy: [] },
    gradients: built.values.length,
    trained: trained.map(({ slot }) => ({ key: slot.key, shape: slot.shape })),
    evaluation: lossProgram(spec, shape),
  };
}

/** Logits of all rows, or only of rows chosen at run time. */
export function logitsProgram(
  spec: DecoderSpec, shape: { readonly batch: number; readonly sequence: number; readonly rows?: number },
): LogitsProgram {
  const decoder = buildDecoder(spec, shape);
  const b = decoder.builder;
  const rows = shape.rows === undefined ? null : b.input("rows", "int", [shape.rows]);
  const logits = logitsOf(b, spec, decoder, rows);
  const graph = close(decoder, rows === null ? [decoder.ids] : [decoder.ids, rows], [logits]);
  return { graph, params: paramsOf(decoder), picksRows: rows !== null };
}

/** Logits of the hidden states [N, H], or of chosen rows of them. */
export function logitsOf(b: GraphBuilder, { logitSoftcap: cap }: DecoderSpec, { hidden, head }: Pick<Decoder, "hidden" | "head">, rows: ValueId | null): ValueId {
  const raw = b.linear(rows === null ? hidden : b.op("embedding", [hidden, rows], {}), head);
  return cap === null ? raw : b.scale(b.op("tanh", [b.scale(raw, 1 / cap)], {}), cap);
}

export interface ExtendProgram {
  /**
   * Inputs: ids [B*T], positions [B*T], lengths [B] (only with a past), rows [B], past keys and values by layer (only with a past), then all parameters.
   * Outputs: logits of the chosen rows [B, V], then keys and values of the new tokens by layer, [B*T, kvHeads * size].
   */
  readonly graph: Graph;
  readonly params: readonly ParamInfo[];
  readonly shape: CachedShape;
  readonly layers: number;
  readonly kvHeads: number;
  readonly keyDim: number;
  readonly valueDim: number;
}

/** T new tokens in each of B rows behind a cache of keys and values. */
export function extendProgram(spec: DecoderSpec, shape: CachedShape): ExtendProgram {
  const decoder = buildCachedDecoder(spec, shape);
  const { builder: b, ids, positions, lengths, past, present, params } = decoder;
  const rows = b.input("rows", "int", [shape.batch]);
  const flat = (pairs: readonly KeyValue[]): ValueId[] => pairs.flatMap(({ k, v }) => [k, v]);
  const inputs = [ids, positions, ...(lengths === null ? [] : [lengths]), rows, ...flat(past), ...params.map(({ id }) => id)];
  const graph = prune({ ...b.finish([logitsOf(b, spec, decoder, rows), ...flat(present)]), inputs });
  verify(graph);
  const { kvHeads, headDim, latent } = spec.attn;
  return {
    graph, shape, kvHeads,
    params: params.map(({ slot }) => ({ key: slot.key, shape: slot.shape })),
    layers: spec.layers.length, keyDim: headDim, valueDim: latent?.valueDim ?? headDim,
  };
}
