/**
 * Runs the observed sequences through a model layer by layer and notes what its routers do. Weights are streamed; the
 * residual streams of all sequences stay in memory, and of each layer its routing while it is in hand.
 *
 * Letters: N tokens, S tokens of a sequence, H hidden size, E experts, K experts per token.
 */
import { at } from "../base/at.js";
import { plus, type StreamedModel } from "../evals/streamed-model.js";
import { isParallel } from "../graph/nn/decoder.js";
import type { MoeFfn } from "../model/decoder/types.js";
import type { Sequence } from "./texts.js";

/** What one layer's router did with all observed tokens. */
export interface LayerRouting {
  readonly layer: number;
  readonly ffn: MoeFfn;
  /** [N, E] of each batch in turn. */
  readonly logits: readonly Float32Array[];
  /** [N, K] */
  readonly weights: Float32Array;
  /** [N, K] */
  readonly chosen: Int32Array;
  /** What the layer's FFN read of tokens that lie evenly apart [inputs, H]. */
  readonly inputs: Float32Array;
}

/** Most tokens that pass through a layer at once. */
const MOST_TOKENS = 2048;
/** Inputs of a layer that are kept, and the most numbers that their outputs of all experts may take up. */
const KEPT = { inputs: 256, numbers: 1 << 26 };

/** Sequences of one length as batches that pass through a layer at once. */
export function batchesOf(sequences: readonly Sequence[]): readonly (readonly Sequence[])[] {
  const size = Math.max(1, Math.floor(MOST_TOKENS / at(sequences, 0).ids.length));
  const batches: Sequence[][] = [];
  for (let start = 0; start < sequences.length; start += size) batches.push(sequences.slice(start, start + size));
  return batches;
}

/** The ids of a batch, one sequence behind the other. */
export const idsOf = (batch: readonly Sequence[]): Int32Array =>
  joined(
    Int32Array,
    batch.map(({ ids }) => ids),
  );

/** Arrays one behind the other. */
export function joined<T extends Int32Array | Float32Array>(kind: new (length: number) => T, parts: readonly T[]): T {
  const whole = new kind(parts.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}

/** Yields the routing of each layer of experts in turn; `onLayer` hears of every layer. */
export async function* observe(
  model: StreamedModel,
  sequences: readonly Sequence[],
  onLayer: (done: number) => void,
): AsyncGenerator<LayerRouting> {
  const { spec } = model;
  const batches = batchesOf(sequences);
  const shapes = batches.map((batch) => ({ batch: batch.length, sequence: at(sequences, 0).ids.length }));
  const streams: Float32Array[] = [];
  for (const [i, batch] of batches.entries()) streams.push(await model.embed(idsOf(batch), at(shapes, i)));
  for (const [layer, { ffn }] of spec.layers.entries()) {
    const parts: { logits: Float32Array; weights: Float32Array; chosen: Int32Array }[] = [];
    const inputs: Float32Array[] = [];
    for (const [i, x] of streams.entries()) {
      const attended = await model.attention(layer, x, at(shapes, i));
      const into = isParallel(spec) ? x : attended;
      if (ffn.kind === "moe") {
        const input = await model.ffnInput(layer, into);
        parts.push(await model.router(layer, input));
        inputs.push(input);
      }
      streams[i] = plus(attended, await model.ffn(layer, into));
    }
    if (ffn.kind === "moe")
      yield {
        layer,
        ffn,
        logits: parts.map(({ logits }) => logits),
        weights: joined(
          Float32Array,
          parts.map(({ weights }) => weights),
        ),
        chosen: joined(
          Int32Array,
          parts.map(({ chosen }) => chosen),
        ),
        inputs: evenly(inputs, spec.hidden, ffn.experts),
      };
    onLayer(layer + 1);
  }
}

/** Rows of `parts` that lie evenly apart: as many as are kept. */
function evenly(parts: readonly Float32Array[], hidden: number, experts: number): Float32Array {
  const rows = parts.reduce((sum, part) => sum + part.length, 0) / hidden;
  const count = Math.max(1, Math.min(KEPT.inputs, rows, Math.floor(KEPT.numbers / ((experts + 1) * hidden))));
  const out = new Float32Array(count * hidden);
  for (let i = 0; i < count; i++) out.set(rowOf(parts, Math.floor((i * rows) / count), hidden), i * hidden);
  return out;
}

function rowOf(parts: readonly Float32Array[], row: number, hidden: number): Float32Array {
  let first = 0;
  for (const part of parts) {
    const rows = part.length / hidden;
    if (row < first + rows) return part.subarray((row - first) * hidden, (row - first + 1) * hidden);
    first += rows;
  }
  throw new RangeError(`there is no row ${row} among ${first}`);
}
