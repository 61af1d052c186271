/**
 * Two models too large to hold, compared layer by layer: weights pass by, activations of both stay. `a` and `b` are the
 * residual streams [tokens, hidden size] of parent and child.
 */
import { at } from "../base/at.js";
import type { BatchShape } from "../graph/nn/context.js";
import { isParallel } from "../graph/nn/decoder.js";
import type { FunctionComparison, LayerError } from "../model/results/preservation.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { evalBatches } from "../text/tokens/batches.js";
import { requireOneVocabulary } from "./compare.js";
import { comparer, type Comparer } from "./logit-meter.js";
import { plus, throughLayer, vocabularyRuns, type StreamedModel } from "./streamed-model.js";

/** How two models differ, as a whole and layer by layer. */
export interface StreamedComparison extends FunctionComparison {
  /** What each layer of the child does to the parent's activations; null where the models' layers do not correspond. */
  readonly layers: readonly LayerError[] | null;
}

interface CompareStreamedOptions {
  /** Tokens per sequence. */
  readonly sequence: number;
  /** Predicted tokens to compare on. */
  readonly limitTokens: number;
  /** Activations that may be in memory, in bytes: it decides how many tokens go through the layers at once. */
  readonly activationBytes: number;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/**
 * Like `compareModels`, and each layer's FFN of the child against the parent's on the parent's activations.
 * Throws inputError if the vocabularies differ or there are fewer than two tokens.
 */
export async function compareStreamed(
  parent: StreamedModel,
  child: StreamedModel,
  tokens: Int32Array,
  { sequence, limitTokens, activationBytes, onProgress }: CompareStreamedOptions,
): Promise<StreamedComparison> {
  requireOneVocabulary(parent, child);
  const matched = sameLayers(parent.spec, child.spec);
  const errors = matched ? parent.spec.layers.map(() => layerMeter()) : null;
  const compared = comparer(parent.spec.vocab);
  const predicted = Math.min(limitTokens, tokens.length - 1);
  const batch = sequencesAtOnce(parent.spec, child.spec, sequence, predicted, activationBytes);
  const passes = Math.ceil(predicted / (batch * sequence));
  const layers = Math.max(parent.spec.layers.length, child.spec.layers.length);
  let pass = 0;
  for (const { inputs, targets, count } of evalBatches(tokens, { batch, sequence, limitTokens })) {
    // Only the last pass may have fewer tokens; sequences without any are left out.
    const shape = { batch: Math.ceil(count / sequence), sequence };
    const ids = inputs.subarray(0, shape.batch * sequence);
    let [a, b] = [await parent.embed(ids, shape), await child.embed(ids, shape)];
    for (let layer = 0; layer < layers; layer++) {
      if (errors === null) {
        if (layer < parent.spec.layers.length) a = await throughLayer(parent, layer, a, shape);
        if (layer < child.spec.layers.length) b = await throughLayer(child, layer, b, shape);
      } else {
        [a, b] = await bothThroughLayer(parent, child, layer, a, b, shape, at(errors, layer));
      }
      onProgress?.(pass * layers + layer + 1, passes * layers);
    }
    await compareHeads(parent, child, a, b, targets.subarray(0, shape.batch * sequence), compared);
    pass += 1;
  }
  return { ...compared.result(), layers: errors?.map((meter, layer) => ({ layer, ...meter.result() })) ?? null };
}

/**
 * Layers correspond where both models have the same number of them on residual streams of the same width, read at the
 * same places.
 */
function sameLayers(parent: DecoderSpec, child: DecoderSpec): boolean {
  return (
    parent.layers.length === child.layers.length &&
    parent.hidden === child.hidden &&
    isParallel(parent) === isParallel(child)
  );
}

async function bothThroughLayer(
  parent: StreamedModel,
  child: StreamedModel,
  layer: number,
  a: Float32Array,
  b: Float32Array,
  shape: BatchShape,
  meter: LayerMeter,
): Promise<[Float32Array, Float32Array]> {
  const [attendedA, attendedB] = [await parent.attention(layer, a, shape), await child.attention(layer, b, shape)];
  const [inputA, inputB] = isParallel(parent.spec) ? [a, b] : [attendedA, attendedB];
  const ownA = await parent.ffn(layer, inputA);
  const [ownB, onA] = await onBoth(child, layer, inputB, inputA);
  meter.add(ownA, onA);
  return [plus(attendedA, ownA), plus(attendedB, ownB)];
}

/** The child's FFN on its own activations and on the parent's, in one go: its weights are read once. */
async function onBoth(
  child: StreamedModel,
  layer: number,
  inputB: Float32Array,
  inputA: Float32Array,
): Promise<[Float32Array, Float32Array]> {
  if (inputA.every((value, i) => value === inputB[i])) {
    // The models are equal so far, so one pass serves both. Two passes might also give other bits, because products may
    // depend on the number of rows.
    const y = await child.ffn(layer, inputB);
    return [y, y];
  }
  const both = new Float32Array(inputA.length + inputB.length);
  both.set(inputB);
  both.set(inputA, inputB.length);
  return halves(await child.ffn(layer, both));
}

const halves = (x: Float32Array): [Float32Array, Float32Array] => [
  x.subarray(0, x.length / 2),
  x.subarray(x.length / 2),
];

async function compareHeads(
  parent: StreamedModel,
  child: StreamedModel,
  a: Float32Array,
  b: Float32Array,
  targets: Int32Array,
  compared: Comparer,
): Promise<void> {
  const [hiddenA, hiddenB] = [await parent.final(a), await child.final(b)];
  const meter = compared.open(targets);
  for (const [first, count] of vocabularyRuns(parent.spec)) {
    meter.add(await parent.head(hiddenA, first, count), await child.head(hiddenB, first, count), first, count);
  }
  meter.close();
}

/** Adds up how one layer's outputs differ. */
interface LayerMeter {
  add(parent: Float32Array, child: Float32Array): void;
  result(): Omit<LayerError, "layer">;
}

function layerMeter(): LayerMeter {
  const sum = { difference: 0, parent: 0 };
  const largest = { difference: 0, parent: 0 };
  return {
    add(parent, child) {
      parent.forEach((value, i) => {
        const difference = Math.abs(value - child[i]!);
        sum.difference += difference * difference;
        sum.parent += value * value;
        if (difference > largest.difference) largest.difference = difference;
        if (Math.abs(value) > largest.parent) largest.parent = Math.abs(value);
      });
    },
    result() {
      const broken = Number.isFinite(sum.difference) ? 0 : NaN;
      return {
        relative: ratio(Math.sqrt(sum.difference), Math.sqrt(sum.parent)) + broken,
        largest: ratio(largest.difference, largest.parent) + broken,
      };
    },
  };
}

/** A difference relative to a size; two zeros do not differ. */
const ratio = (difference: number, of: number): number => (difference === 0 ? 0 : difference / of);

/**
 * Float32 values that one token keeps in memory at the widest point of a layer, both models and the thread's copies
 * counted.
 */
function floatsPerToken(parent: DecoderSpec, child: DecoderSpec): number {
  const width = (spec: DecoderSpec): number =>
    Math.max(
      ...spec.layers.map(({ ffn }) =>
        ffn.kind === "dense"
          ? 3 * ffn.ffnDim
          : ffn.topK * (3 * ffn.ffnDim + 2 * spec.hidden) + 3 * (ffn.shared?.ffnDim ?? 0),
      ),
    );
  // The child's FFN sees each token twice; a product's input and output exist here and in the engine's thread.
  return 2 * Math.max(width(parent), 2 * width(child)) + 16 * Math.max(parent.hidden, child.hidden);
}

/** As many sequences as activations of this size in memory allow, at least one. */
function sequencesAtOnce(
  parent: DecoderSpec,
  child: DecoderSpec,
  sequence: number,
  tokens: number,
  bytes: number,
): number {
  const sequences = Math.ceil(tokens / sequence);
  return Math.max(1, Math.min(sequences, Math.floor(bytes / (4 * floatsPerToken(parent, child) * sequence))));
}
