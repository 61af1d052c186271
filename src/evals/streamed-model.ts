/** A model folder run with its weights on disk: activations stay, weights pass by, a piece of one matrix at a time. */
import { openCheckpoint, type ModelSource } from "../files/checkpoint/open.js";
import { isParallel, type BatchShape } from "../graph/nn/decoder.js";
import { blockwiseDecoder } from "../graph/nn/blockwise.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { ArrayData, Backend } from "../engine/runtime/runtime.js";
import { requireIds, type RunnableModel } from "./model.js";
import { evaluateStreamed, pieceElements as defaultPiece } from "./streamed-graph.js";

export interface StreamedModel extends RunnableModel {
  /** ids [N] -> residual stream [N, H]. Throws inputError for an id outside the vocabulary. */
  embed(ids: Int32Array, shape: BatchShape): Promise<Float32Array>;
  /** One layer's attention: x [N, H] -> x plus what it adds. */
  attention(layer: number, x: Float32Array, shape: BatchShape): Promise<Float32Array>;
  /** What one layer's FFN adds to x [rows, H]; rows are independent of each other. */
  ffn(layer: number, x: Float32Array): Promise<Float32Array>;
  /** What one layer's FFN reads of x [rows, H], behind its norm. */
  ffnInput(layer: number, x: Float32Array): Promise<Float32Array>;
  final(x: Float32Array): Promise<Float32Array>;
  /** Logits [rows, count] of tokens `first` to `first + count` of the vocabulary, for hidden states from `final`. */
  head(hidden: Float32Array, first: number, count: number): Promise<Float32Array>;
}

interface StreamedOptions {
  readonly threads: number;
  /** Stops between two pieces of weights with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Most elements of a weight in memory at once, as float32; 2^24 when left out. */
  readonly pieceElements?: number | undefined;
}

/** Throws inputError if the folder is no supported model. */
export async function openStreamedModel(
  source: ModelSource,
  backend: Backend,
  options: StreamedOptions,
): Promise<StreamedModel> {
  const { threads, signal, pieceElements = defaultPiece } = options;
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
  const parts = blockwiseDecoder(spec);
  const stream = {
    weights: checkpoint,
    operations: runtime,
    pieceElements,
    checkpoint: () => signal?.throwIfAborted(),
  };
  const run = (part: ReturnType<typeof parts.final>, ...activations: ArrayData[]): Promise<Float32Array> =>
    evaluateStreamed(part, activations, stream);
  const rowsOf = (x: Float32Array): number => x.length / width;
  const model: StreamedModel = {
    dir,
    spec,
    precision: checkpoint.dtype,
    embed(ids, shape) {
      requireIds(ids, vocab, dir);
      return run(parts.embedding(shape), ids);
    },
    attention: (layer, x, shape) => run(parts.attention(layer, shape), x),
    ffn: (layer, x) => run(parts.ffn(layer, rowsOf(x)), x),
    // Where there is no norm the part has no nodes, and its input is its output.
    ffnInput: async (layer, x) => (await run(parts.ffnInput(layer, rowsOf(x)), x)) ?? x,
    final: (x) => run(parts.final(rowsOf(x)), x),
    async head(hidden, first, count) {
      const weights = await checkpoint.readRows(
        spec.tiedHead ? "embed" : "head",
        first,
        count,
        runtime.memory(4 * count * width),
      );
      const { graph } = parts.head(rowsOf(hidden), count);
      const [logits] = await runtime.run(`head ${rowsOf(hidden)} ${count}`, graph, [hidden, weights], [1]);
      return logits as Float32Array;
    },
    async logits(ids, shape, rows) {
      let x = await model.embed(ids, shape);
      for (let layer = 0; layer < spec.layers.length; layer++) x = await throughLayer(model, layer, x, shape);
      const hidden = await model.final(x);
      const chosen = rows === undefined ? hidden : pickRows(hidden, rows, width);
      const out = new Float32Array(rowsOf(chosen) * vocab);
      for (const [first, count] of vocabularyPieces(spec, pieceElements))
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

/** x [N, H] behind one layer. */
export async function throughLayer(
  model: StreamedModel,
  layer: number,
  x: Float32Array,
  shape: BatchShape,
): Promise<Float32Array> {
  const attended = await model.attention(layer, x, shape);
  return plus(attended, await model.ffn(layer, isParallel(model.spec) ? x : attended));
}

export function plus(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value + b[i]!);
}

/** [first token, count] of the pieces in which the head is applied. */
export function* vocabularyPieces(
  { vocab, hidden }: DecoderSpec,
  most: number = defaultPiece,
): Generator<readonly [number, number]> {
  const step = Math.max(1, Math.floor(most / hidden));
  for (let first = 0; first < vocab; first += step) yield [first, Math.min(step, vocab - first)];
}

function pickRows(x: Float32Array, rows: Int32Array, width: number): Float32Array {
  const out = new Float32Array(rows.length * width);
  rows.forEach((row, i) => out.set(x.subarray(row * width, (row + 1) * width), i * width));
  return out;
}

function putColumns(out: Float32Array, piece: Float32Array, vocab: number, first: number, count: number): void {
  for (let row = 0; row * count < piece.length; row++)
    out.set(piece.subarray(row * count, (row + 1) * count), row * vocab + first);
}
