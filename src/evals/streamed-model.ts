/**
 * A model folder run with its weights on disk: activations stay, weights pass by, some rows of one matrix at a time.
 *
 * Letters: N tokens (= batch x sequence), H hidden size.
 */
import { openCheckpoint, type ModelSource } from "../files/checkpoint/open.js";
import type { BatchShape } from "../graph/nn/context.js";
import { isParallel } from "../graph/nn/decoder.js";
import { blockwiseDecoder, type DecoderBlock } from "../graph/nn/blockwise.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { at } from "../base/at.js";
import type { ArrayData, Backend, OperationRuntime } from "../engine/runtime/runtime.js";
import { watchedWeights } from "./finite-weights.js";
import { mergedExperts, unchangedFfn, type FfnChange } from "./ffn-change.js";
import { requireIds, type RunnableModel } from "./model.js";
import { defaultWeightElements, evaluateStreamed } from "./streamed-graph.js";
import type { WeightSource } from "./weight-rows.js";

/** A model whose weights stay on disk, run as a whole or layer by layer. */
export interface StreamedModel extends RunnableModel {
  /** ids [N] -> residual stream [N, H]. Throws inputError for an id outside the vocabulary. */
  embed(ids: Int32Array, shape: BatchShape): Promise<Float32Array>;
  /** One layer's attention: x [N, H] -> x plus what it adds. */
  attention(layer: number, x: Float32Array, shape: BatchShape): Promise<Float32Array>;
  /** What one layer's FFN adds to x [rows, H]; rows are independent of each other. */
  ffn(layer: number, x: Float32Array, change?: FfnChange): Promise<Float32Array>;
  /** What one layer's FFN reads of x [rows, H], behind its norm. */
  ffnInput(layer: number, x: Float32Array): Promise<Float32Array>;
  /** The activations [rows, F] of a dense FFN's hidden units, for what it reads [rows, H]. */
  units(layer: number, inputs: Float32Array): Promise<Float32Array>;
  /** What the router of a layer of experts makes of `input` [rows, H], which `ffnInput` gives. */
  router(layer: number, input: Float32Array): Promise<Routed>;
  /**
   * What one expert makes of `input` [rows, H], whatever its weight; null: what the layer's FFN makes of it, without
   * the block's norms and factors.
   */
  unit(layer: number, expert: number | null, input: Float32Array): Promise<Float32Array>;
  /** The weights as they are read, for measures of the weights themselves. */
  readonly weights: WeightSource;
  /** What computes. */
  readonly operations: OperationRuntime;
  /** x [rows, H] -> what the head reads [rows, H]. */
  final(x: Float32Array): Promise<Float32Array>;
  /** Logits [rows, count] of tokens `first` to `first + count` of the vocabulary, for hidden states from `final`. */
  head(hidden: Float32Array, first: number, count: number): Promise<Float32Array>;
}

/** What a router says of rows of tokens. Letters: E experts, K experts per token. */
export interface Routed {
  /** [rows, E] */
  readonly logits: Float32Array;
  /** [rows, K] */
  readonly weights: Float32Array;
  /** [rows, K], the best first */
  readonly chosen: Int32Array;
}

interface StreamedOptions {
  readonly threads: number;
  /** Stops between two reads of weights with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Most elements of a weight in memory at once, as float32; 2^24 when left out. */
  readonly weightElements?: number | undefined;
}

/** Opens a model without reading its weights. Throws inputError if the folder is no supported model. */
export async function openStreamedModel(
  source: ModelSource,
  backend: Backend,
  options: StreamedOptions,
): Promise<StreamedModel> {
  const { threads, signal, weightElements = defaultWeightElements } = options;
  const checkpoint = await openCheckpoint(source);
  let operations;
  try {
    operations = await backend.openOperations({ threads });
  } catch (cause) {
    await checkpoint.close();
    throw cause;
  }
  const runtime = operations;
  const { dir, spec } = checkpoint;
  const { hidden: width, vocab } = spec;
  const blocks = blockwiseDecoder(spec);
  const weights = watchedWeights(checkpoint);
  const stream = {
    weights,
    operations: runtime,
    weightElements,
    checkpoint: () => signal?.throwIfAborted(),
  };
  const run = async (block: DecoderBlock, ...activations: ArrayData[]): Promise<Float32Array> =>
    at(await evaluateStreamed(block, activations, stream), 0) as Float32Array;
  const rowsOf = (x: Float32Array): number => x.length / width;
  const model: StreamedModel = {
    dir,
    spec,
    precision: checkpoint.dtype,
    nonFinite: weights.nonFinite,
    embed(ids, shape) {
      requireIds(ids, vocab, dir);
      return run(blocks.embedding(shape), ids);
    },
    attention: (layer, x, shape) => run(blocks.attention(layer, shape), x),
    async ffn(layer, x, change = unchangedFfn) {
      const block = blocks.ffn(layer, rowsOf(x), change.without);
      const changed = { ...stream, weights: mergedExperts(weights, layer, change.merged) };
      return at(await evaluateStreamed(block, [x], changed), 0) as Float32Array;
    },
    ffnInput: (layer, x) => run(blocks.ffnInput(layer, rowsOf(x)), x),
    async router(layer, input) {
      const outputs = await evaluateStreamed(blocks.router(layer, rowsOf(input)), [input], stream);
      const [logits, gates, chosen] = outputs as readonly [Float32Array, Float32Array, Int32Array];
      return { logits, weights: gates, chosen };
    },
    unit: (layer, expert, input) => run(blocks.unit(layer, expert, rowsOf(input)), input),
    units: (layer, inputs) => run(blocks.units(layer, rowsOf(inputs)), inputs),
    weights,
    operations: runtime,
    final: (x) => run(blocks.final(rowsOf(x)), x),
    async head(hidden, first, count) {
      const rows = await weights.readRows(
        spec.tiedHead ? "embed" : "head",
        first,
        count,
        runtime.memory(4 * count * width),
      );
      const { graph } = blocks.head(rowsOf(hidden), count);
      const biases = spec.headBias ? [await weights.readRows("headBias", first, count, runtime.memory(4 * count))] : [];
      const head = [rows, ...biases];
      const [logits] = await runtime.run(
        `head ${rowsOf(hidden)} ${count}`,
        graph,
        [hidden, ...head],
        head.map((_, i) => i + 1),
      );
      return logits as Float32Array;
    },
    async logits(ids, shape, rows) {
      let x = await model.embed(ids, shape);
      for (let layer = 0; layer < spec.layers.length; layer++) x = await throughLayer(model, layer, x, shape);
      const hidden = await model.final(x);
      const chosen = rows === undefined ? hidden : pickRows(hidden, rows, width);
      const out = new Float32Array(rowsOf(chosen) * vocab);
      for (const [first, count] of vocabularyRuns(spec, weightElements))
        putColumns(out, await model.head(chosen, first, count), vocab, first, count);
      return out;
    },
    async close() {
      await runtime.close();
      await checkpoint.close();
    },
  };
  return model;
}

/** x [N, H] behind one layer, whose FFN may be changed. */
export async function throughLayer(
  model: StreamedModel,
  layer: number,
  x: Float32Array,
  shape: BatchShape,
  change?: FfnChange,
): Promise<Float32Array> {
  const attended = await model.attention(layer, x, shape);
  return plus(attended, await model.ffn(layer, isParallel(model.spec) ? x : attended, change));
}

/** Sum of two arrays of one length. */
export function plus(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value + b[i]!);
}

/** [first token, count] of the runs of the vocabulary for which the head is applied at once. */
export function* vocabularyRuns(
  { vocab, hidden }: DecoderSpec,
  mostElements: number = defaultWeightElements,
): Generator<readonly [number, number]> {
  const step = Math.max(1, Math.floor(mostElements / hidden));
  for (let first = 0; first < vocab; first += step) yield [first, Math.min(step, vocab - first)];
}

function pickRows(x: Float32Array, rows: Int32Array, width: number): Float32Array {
  const out = new Float32Array(rows.length * width);
  rows.forEach((row, i) => out.set(x.subarray(row * width, (row + 1) * width), i * width));
  return out;
}

/** Puts logits [rows, count] of a run of the vocabulary into those of the whole [rows, vocab]. */
function putColumns(out: Float32Array, run: Float32Array, vocab: number, first: number, count: number): void {
  for (let row = 0; row * count < run.length; row++)
    out.set(run.subarray(row * count, (row + 1) * count), row * vocab + first);
}
