/**
 * Runs text through a model, its weights streamed, and shows what every layer's FFN reads: what calibrated scaling,
 * routers of centroids, splits by activation and the experts' load are measured on. Activations stay in memory.
 *
 * Letters: S tokens of a sequence, H hidden size.
 */
import { inputError } from "../../base/errors.js";
import { requireFiniteWeights } from "../../evals/finite-weights.js";
import { sampleTokens } from "../../evals/sample-tokens.js";
import { plus, type StreamedModel } from "../../evals/streamed-model.js";
import { isParallel } from "../../graph/nn/decoder.js";
import { inTurn } from "./in-turn.js";

/** Text as the model's tokens. */
export interface EncodedText {
  readonly ids: Int32Array;
  /** What it is, in words. */
  readonly source: string;
}

/** Which text is read, and how much of it. */
export interface TextChoice {
  /** Text files or folders; none: built-in text, or random ids for a model without tokenizer. */
  readonly text?: readonly string[] | undefined;
  /** Tokens to measure on; 4096 when left out. */
  readonly tokens?: number | undefined;
  /** Text that is tokens already, in place of `text`. */
  readonly encoded?: EncodedText | undefined;
  /** Tokens per sequence, at most the model's positions; 256 when left out. */
  readonly sequence?: number | undefined;
}

/** Text that a model has read. */
export interface ReadText {
  readonly tokens: number;
  /** What the tokens are, in words. */
  readonly source: string;
}

/** Sequences of equal length, and what they are. */
export interface SampledText extends ReadText {
  readonly sequences: readonly Int32Array[];
}

/** Tokens of a text in sequences of equal length; what is left over is dropped. Throws like `sampleTokens`. */
export async function sampledText(
  { dir, spec }: Pick<StreamedModel, "dir" | "spec">,
  { text = [], tokens: limit = 4096, sequence = 256, encoded }: TextChoice,
  signal: AbortSignal | undefined,
): Promise<SampledText> {
  const { tokens, source } =
    encoded === undefined
      ? await sampleTokens({ dir, spec, files: text, limit, signal })
      : { tokens: encoded.ids.subarray(0, limit), source: encoded.source };
  const length = Math.min(sequence, spec.maxPositions, tokens.length);
  const sequences = Array.from({ length: Math.floor(tokens.length / length) }, (_, i) =>
    tokens.slice(i * length, (i + 1) * length),
  );
  return { sequences, source, tokens: sequences.length * length };
}

/** What is looked at while text passes through the layers. */
export interface LayerVisitor {
  /** Whether anything of this layer is wanted. */
  readonly wants: (layer: number) => boolean;
  /** What the FFN reads of one sequence [S, H], behind its norm; the sequences in order. */
  readonly inputs: (layer: number, inputs: Float32Array) => void | Promise<void>;
  /** All sequences have passed this layer. */
  readonly passed?: ((layer: number) => void | Promise<void>) | undefined;
}

/**
 * Runs all sequences through all layers, one layer after the other, so that weights pass by once. Throws stopError for
 * weights that are NaN or infinite, inputError for other weights with which an FFN reads such values.
 */
export async function visitFfnInputs(
  model: StreamedModel,
  { sequences }: SampledText,
  { wants, inputs, passed }: LayerVisitor,
): Promise<void> {
  const { spec } = model;
  const shapeOf = (ids: Int32Array): { batch: number; sequence: number } => ({ batch: 1, sequence: ids.length });
  let streams = await inTurn(sequences, (ids) => model.embed(ids, shapeOf(ids)));
  for (const layer of spec.layers.keys()) {
    streams = await inTurn(streams, async (x, i) => {
      const attended = await model.attention(layer, x, shapeOf(sequences[i]!));
      const into = isParallel(spec) ? x : attended;
      if (wants(layer)) {
        const seen = await model.ffnInput(layer, into);
        requireFinite(seen, layer, model);
        await inputs(layer, seen);
      }
      // Nobody reads what leaves the last layer.
      return layer + 1 < spec.layers.length ? plus(attended, await model.ffn(layer, into)) : attended;
    });
    requireFiniteWeights(model);
    await passed?.(layer);
  }
}

function requireFinite(values: Float32Array, layer: number, model: StreamedModel): void {
  if (values.every(Number.isFinite)) return;
  requireFiniteWeights(model);
  throw inputError(`the FFN of layer ${layer} reads values that are NaN or infinite, nothing can be measured on them`, {
    where: model.dir,
    hint: "evaluate the model first: upcycle perplexity",
  });
}
