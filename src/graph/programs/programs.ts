/**
 * What a backend is asked to run: graphs whose inputs and outputs have meanings.
 * Parameters are inputs of the graph, named by slot key; a backend binds them to state that it owns.
 *
 * Letters: N tokens (= B batch x S sequence), T new tokens of a row, R chosen rows, V vocabulary, E experts.
 */
import { at } from "../../base/at.js";
import { backward } from "../grad/backward.js";
import { recomputed, type Recompute } from "../grad/recompute.js";
import { elements, type Graph, type ValueId } from "../ir/ir.js";
import { prune, verify } from "../ir/passes.js";
import type { GraphBuilder } from "../ir/builder.js";
import { buildCachedDecoder, type CachedShape, type KeyValue } from "../nn/cached.js";
import { keyDim } from "../nn/attention.js";
import type { BatchShape } from "../nn/context.js";
import { buildDecoder, type Decoder } from "../nn/decoder.js";
import { headLogits, headLoss, headScores } from "../nn/head.js";
import { routerEntropy } from "../nn/router-entropy.js";
import { balanceLoss, layerBalanceLoss, routerZLoss, scoreCounts, type ElsewhereInputs } from "../nn/losses.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { isBuffer } from "../../model/tensors/slots.js";
import { sharesBalance, type RoutingFeed, type RoutingSettings } from "./routing.js";

/** A parameter: its slot key and its shape. */
export interface ParamInfo {
  readonly key: string;
  readonly shape: readonly number[];
}

/** Where each output of a loss graph stands in `graph.outputs`. */
export interface LossOutputs {
  /** Mean next-token cross entropy. */
  readonly loss: number;
  /** The load-balancing loss, and the router z-loss; null without. */
  readonly balance: number | null;
  readonly z: number | null;
  /** How often each expert was chosen [E], one for each MoE layer. */
  readonly counts: readonly number[];
  /** How many of those choices a capacity has left [E], one for each MoE layer, or none. */
  readonly kept: readonly number[];
  /** Mean router entropy, one for each MoE layer. */
  readonly entropy: readonly number[];
  /** The experts of each token [N, K], one for each MoE layer; none in training. */
  readonly chosen: readonly number[];
}

/** A graph that gives losses and routing metrics, without gradients. */
export interface LossProgram {
  /** Inputs: ids [N], targets [N], then all parameters. */
  readonly graph: Graph;
  readonly params: readonly ParamInfo[];
  readonly outputs: LossOutputs;
}

/** A graph that gives losses, routing metrics and gradients of one micro-batch. */
export interface TrainProgram extends LossProgram {
  /** Inputs between targets and parameters. */
  readonly feeds: readonly RoutingFeed[];
  /** Set if the balance loss uses expert shares counted over several micro-batches (`global`, `running`); else null. */
  readonly shares: {
    /** Inputs as of the program; outputs: the counts [1, E] that shares are made of, one for each MoE layer. */
    readonly graph: Graph;
    /** Where those counts stand in the program's own outputs. */
    readonly counts: readonly number[];
    /** True (`global`): the shares of the whole step are needed first. False: those up to this micro-batch. */
    readonly ahead: boolean;
  } | null;
  /** Output `gradients + i` is the gradient of `trained[i]`. Gradients are of loss + auxCoef * balance + zCoef * z. */
  readonly gradients: number;
  /** Parameters with a gradient, in the order of `params`: all but buffers and frozen ones. */
  readonly trained: readonly ParamInfo[];
  /** The same network without gradients, for evaluation with the same state. */
  readonly evaluation: LossProgram;
}

/** A graph with one output, made from token ids alone. */
export interface LogitsProgram {
  /** Inputs: ids [N], then (if `picksRows`) rows [R], then all parameters. Output: logits [N or R, V]. */
  readonly graph: Graph;
  readonly params: readonly ParamInfo[];
  readonly picksRows: boolean;
}

/** Sizes and settings of a train program; `batch` counts sequences per micro-batch. */
interface TrainShape extends BatchShape {
  /** Coefficient of the load-balancing loss. */
  readonly auxCoef: number;
  /** Coefficient of the router z-loss. */
  readonly zCoef: number;
  /** Plain routing and a balance loss over all layers together if left out. */
  readonly routing?: RoutingSettings | undefined;
  /** Keys of parameters that get no gradient; backward nodes that only they need are left out. */
  readonly frozen?: ReadonlySet<string> | undefined;
  /** What the backward pass makes again instead of keeping it; nothing if left out. */
  readonly recompute?: Recompute | undefined;
}

/** Losses and metrics of a network, in a graph that can still grow. */
interface Built {
  readonly decoder: Decoder;
  readonly targets: ValueId;
  readonly ids: { readonly loss: ValueId; readonly balance: ValueId | null; readonly z: ValueId | null };
  readonly values: readonly ValueId[];
  readonly outputs: LossOutputs;
  readonly feeds: readonly FeedInput[];
  /** Counts that shares over several micro-batches are made of. */
  readonly shares: readonly ValueId[];
}

const plainRouting: RoutingSettings = { balance: "model", jitter: false, sinkhorn: false, capacity: null };

/** Builds a network with its losses; the graph's outputs are put in order here, its inputs by `close`. */
function buildLosses(spec: DecoderSpec, shape: BatchShape, routing = plainRouting): Built {
  const decoder = buildDecoder(spec, shape, routing);
  const { builder: b, routers } = decoder;
  const targets = b.input("targets", "int", [shape.batch * shape.sequence]);
  const loss = headLoss(b, spec, decoder.hidden, decoder.head, targets);
  const moe = routers.length > 0;
  const overStep = moe && (routing.balance === "global" || routing.balance === "running");
  const shares = overStep ? routers.map((router) => scoreCounts(b, router, 1)) : [];
  const elsewhere = overStep ? elsewhereInputs(b, routers) : undefined;
  const balanced = (): ValueId =>
    routing.balance === "model"
      ? balanceLoss(b, routers)
      : layerBalanceLoss(b, routers, { blocks: routing.balance === "sequence" ? shape.batch : 1, elsewhere });
  // One balance loss over all layers exists only where their numbers of experts agree.
  const balance = moe && (routing.balance !== "model" || sharesBalance(spec)) ? balanced() : null;
  const z = moe ? routerZLoss(b, routers) : null;
  const values: ValueId[] = [];
  const put = (id: ValueId): number => values.push(id) - 1;
  const putAll = (ids: readonly (ValueId | null)[]): number[] => ids.flatMap((id) => (id === null ? [] : [put(id)]));
  const outputs: LossOutputs = {
    loss: put(loss),
    balance: balance === null ? null : put(balance),
    z: z === null ? null : put(z),
    counts: putAll(routers.map(({ counts }) => counts)),
    kept: putAll(routers.map(({ kept }) => kept)),
    entropy: putAll(routers.map(({ logits }) => routerEntropy(b, logits))),
    chosen: [],
  };
  const feeds = [...jitterFeeds(b, routers), ...(elsewhere === undefined ? [] : elsewhereFeeds(b, elsewhere))];
  return { decoder, targets, values, outputs, ids: { loss, balance, z }, feeds, shares };
}

/** An input of the graph that is fed with numbers about routing. */
interface FeedInput {
  readonly id: ValueId;
  readonly feed: RoutingFeed;
}

function jitterFeeds(b: GraphBuilder, routers: Decoder["routers"]): FeedInput[] {
  return routers.flatMap(({ jitter, layer }): FeedInput[] => {
    if (jitter === null) return [];
    const shape = b.shape(jitter);
    return [{ id: jitter, feed: { kind: "jitter", layer, shape, elements: elements(shape) } }];
  });
}

/** Inputs for what a step's other micro-batches have counted, one for each MoE layer. */
function elsewhereInputs(b: GraphBuilder, routers: Decoder["routers"]): ElsewhereInputs[] {
  const perToken = b.input("shares.perToken", "f32", []);
  return routers.map(({ experts, layer }) => ({ counts: b.input(`shares.${layer}`, "f32", [experts]), perToken }));
}

function elsewhereFeeds(b: GraphBuilder, elsewhere: readonly ElsewhereInputs[]): FeedInput[] {
  const counts = elsewhere.map(({ counts: id }, index): FeedInput => {
    return { id, feed: { kind: "elsewhere", index, shape: b.shape(id) } };
  });
  return [...counts, { id: at(elsewhere, 0).perToken, feed: { kind: "perToken", shape: [] } }];
}

const paramsOf = (decoder: Decoder): ParamInfo[] =>
  decoder.params.map(({ slot }) => ({ key: slot.key, shape: slot.shape }));

/** Puts inputs in the promised order, drops dead nodes and verifies the graph. */
function close(
  decoder: Decoder,
  feeds: readonly ValueId[],
  outputs: readonly ValueId[],
  change: (graph: Graph) => Graph = (graph) => graph,
): Graph {
  const inputs = [...feeds, ...decoder.params.map(({ id }) => id)];
  const graph = prune(change({ ...decoder.builder.finish(outputs), inputs }));
  verify(graph);
  return graph;
}

/** Forward pass and losses of one micro-batch. */
export function lossProgram(spec: DecoderSpec, shape: BatchShape): LossProgram {
  const { decoder, targets, values, outputs } = buildLosses(spec, shape);
  const choices = decoder.routers.map(({ chosen }) => chosen);
  return {
    graph: close(decoder, [decoder.ids, targets], [...values, ...choices]),
    params: paramsOf(decoder),
    outputs: { ...outputs, chosen: choices.map((_, i) => values.length + i) },
  };
}

/** Inputs as of a loss program, the mean cross entropy as the only output. */
export function meanLossProgram(spec: DecoderSpec, shape: BatchShape): LogitsProgram {
  const { graph, params, outputs } = lossProgram(spec, shape);
  return { graph: prune({ ...graph, outputs: [at(graph.outputs, outputs.loss)] }), params, picksRows: false };
}

/** Forward, backward and losses of one micro-batch as one graph. */
export function trainProgram(spec: DecoderSpec, shape: TrainShape): TrainProgram {
  const { decoder, targets, values, outputs, ids, feeds, shares } = buildLosses(spec, shape, shape.routing);
  const b = decoder.builder;
  if (shape.auxCoef !== 0 && ids.z !== null && ids.balance === null)
    throw new Error("layers with different numbers of experts share no balance loss");
  let total = ids.loss;
  if (ids.balance !== null && shape.auxCoef !== 0) total = b.add(total, b.scale(ids.balance, shape.auxCoef));
  if (ids.z !== null && shape.zCoef !== 0) total = b.add(total, b.scale(ids.z, shape.zCoef));
  const trained = decoder.params.filter(({ slot }) => !isBuffer(slot.at) && shape.frozen?.has(slot.key) !== true);
  const forward = b.nodes.length;
  const gradients = backward(
    b,
    total,
    trained.map(({ id }) => id),
  );
  const inputs = [decoder.ids, targets, ...feeds.map(({ id }) => id)];
  return {
    graph: close(decoder, inputs, [...values, ...shares, ...gradients], (graph) =>
      recomputed(graph, shape.recompute ?? "none", {
        forward,
        layers: decoder.layers,
        kept: decoder.routers.flatMap(({ logits, chosen, counts, kept }) => [
          logits,
          chosen,
          counts,
          ...(kept === null ? [] : [kept]),
        ]),
      }),
    ),
    params: paramsOf(decoder),
    outputs,
    feeds: feeds.map(({ feed }) => feed),
    shares:
      shares.length === 0
        ? null
        : {
            graph: close(decoder, inputs, shares),
            counts: shares.map((_, i) => values.length + i),
            ahead: shape.routing?.balance === "global",
          },
    gradients: values.length + shares.length,
    trained: trained.map(({ slot }) => ({ key: slot.key, shape: slot.shape })),
    evaluation: lossProgram(spec, shape),
  };
}

/** Logits of all rows, or only of rows chosen at run time. */
export function logitsProgram(spec: DecoderSpec, shape: BatchShape & { readonly rows?: number }): LogitsProgram {
  const decoder = buildDecoder(spec, shape);
  const b = decoder.builder;
  const rows = shape.rows === undefined ? null : b.input("rows", "int", [shape.rows]);
  const logits = logitsOf(b, spec, decoder, rows);
  const graph = close(decoder, rows === null ? [decoder.ids] : [decoder.ids, rows], [logits]);
  return { graph, params: paramsOf(decoder), picksRows: rows !== null };
}

/** Logits of the hidden states [N, H], or of chosen rows of them. */
export function logitsOf(
  b: GraphBuilder,
  spec: DecoderSpec,
  { hidden, head }: Pick<Decoder, "hidden" | "head">,
  rows: ValueId | null,
): ValueId {
  return headLogits(b, spec, rows === null ? hidden : b.op("embedding", [hidden, rows], {}), head);
}

/** A graph of new tokens behind a cache of keys and values. */
export interface ExtendProgram {
  /**
   * Inputs: ids [B*T], positions [B*T], lengths [B] (only with a past), starts [B*T] (only with branches), rows [R],
   * targets [R] (only of `scored`), past keys and values by layer (only with a past), then all parameters. Outputs:
   * logits of the chosen rows [R, V] or their scores [R, 2], then for each of `routers` the chosen experts and their
   * weights [B*T, K], then keys and values of the new tokens by layer, [B*T, kvHeads * size].
   */
  readonly graph: Graph;
  readonly params: readonly ParamInfo[];
  readonly shape: CachedShape;
  /** Whether the program gives scores of targets as of the primitive `headScores`, and not logits. */
  readonly scored: boolean;
  /** Layers whose routing is among the outputs; empty where it was not asked for. */
  readonly routers: readonly RoutedLayer[];
  readonly layers: number;
  readonly kvHeads: number;
  readonly keyDim: number;
  readonly valueDim: number;
}

/** A layer of experts. */
export interface RoutedLayer {
  readonly layer: number;
  readonly experts: number;
  /** K */
  readonly topK: number;
}

/** What a graph of new tokens is asked for. */
export interface ExtendAnswers {
  /** R, of how many of the B*T tokens; one for each row when left out. */
  readonly chosen?: number | undefined;
  /** Scores of targets, and not logits. */
  readonly scored?: boolean | undefined;
  /** Which experts each new token is given to, too. */
  readonly routed?: boolean | undefined;
  /** What the last layer makes of tokens that are not chosen is left out, which `routed` excludes. */
  readonly narrowed?: boolean | undefined;
}

/** T new tokens in each of B rows behind a cache of keys and values. */
export function extendProgram(
  spec: DecoderSpec,
  shape: CachedShape,
  { chosen = shape.batch, scored = false, routed = false, narrowed = false }: ExtendAnswers = {},
): ExtendProgram {
  const isNarrowed = narrowed && !routed;
  const decoder = buildCachedDecoder(spec, shape, isNarrowed ? chosen : null);
  const { builder: b, ids, positions, lengths, starts, past, present, params } = decoder;
  const rows = decoder.rows ?? b.input("rows", "int", [chosen]);
  const targets = scored ? b.input("targets", "int", [chosen]) : null;
  const flat = (pairs: readonly KeyValue[]): ValueId[] => pairs.flatMap(({ k, v }) => [k, v]);
  const inputs = [
    ...[ids, positions, lengths, starts, rows, targets].filter((id) => id !== null),
    ...flat(past),
    ...params.map(({ id }) => id),
  ];
  const hidden = isNarrowed ? decoder.hidden : b.op("embedding", [decoder.hidden, rows], {});
  const answers =
    targets === null ? headLogits(b, spec, hidden, decoder.head) : headScores(b, spec, hidden, decoder.head, targets);
  const routers = routed ? decoder.routers : [];
  const routing = routers.flatMap((router) => [router.chosen, router.weights]);
  const graph = prune({ ...b.finish([answers, ...routing, ...flat(present)]), inputs });
  verify(graph);
  const { kvHeads, headDim, latent } = spec.attn;
  return {
    graph,
    shape,
    scored,
    routers: routers.map(({ layer, experts, topK }) => ({ layer, experts, topK })),
    kvHeads,
    params: params.map(({ slot }) => ({ key: slot.key, shape: slot.shape })),
    layers: spec.layers.length,
    keyDim: keyDim(spec.attn),
    valueDim: latent?.valueDim ?? headDim,
  };
}
