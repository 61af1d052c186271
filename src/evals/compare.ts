/**
 * How far a child's function is from its parent's, measured on tokens.
 *
 * Letters: V vocabulary.
 */
import { at } from "../base/at.js";
import { inputError } from "../base/errors.js";
import type { FunctionComparison } from "../model/results/preservation.js";
import { evalBatches } from "../text/tokens/batches.js";
import { comparer } from "./logit-meter.js";
import type { RunnableModel } from "./model.js";

/** On which of the tokens models are measured. */
interface OnTokens {
  /** Tokens per sequence. */
  readonly sequence: number;
  /** Predicted tokens to measure on. */
  readonly limitTokens: number;
  /** Stops between two batches with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Logits of one model held at once, unless a single sequence needs more: 64 MB of floats. */
const MOST_LOGITS = 1 << 24;

/**
 * Losses of both models and the differences of their logits over the first `limitTokens` predicted tokens.
 * Throws inputError if the vocabularies differ or there are fewer than two tokens.
 */
export async function compareModels(
  parent: RunnableModel,
  child: RunnableModel,
  tokens: Int32Array,
  { sequence, limitTokens, signal }: OnTokens,
): Promise<FunctionComparison> {
  const { vocab } = parent.spec;
  requireOneVocabulary(parent, child);
  const batch = batchFor(sequence, limitTokens, vocab);
  const compared = comparer(vocab);
  for (const { inputs, targets } of evalBatches(tokens, { batch, sequence, limitTokens })) {
    signal?.throwIfAborted();
    const [a, b] = await Promise.all([
      parent.logits(inputs, { batch, sequence }),
      child.logits(inputs, { batch, sequence }),
    ]);
    const meter = compared.open(targets);
    meter.add(a, b, 0, vocab);
    meter.close();
  }
  return compared.result();
}

type NamedDecoder = Pick<RunnableModel, "spec" | "dir">;

/** Throws inputError if the vocabularies of two models differ in size. */
export function requireOneVocabulary(parent: NamedDecoder, child: NamedDecoder): void {
  if (child.spec.vocab === parent.spec.vocab) return;
  throw inputError(`its vocabulary has ${child.spec.vocab} tokens, that of ${parent.dir} ${parent.spec.vocab}`, {
    where: child.dir,
  });
}

/**
 * Mean next-token loss of one model in nats over the first `limitTokens` predicted tokens, and how many those were.
 * Throws inputError for fewer than two tokens.
 */
export async function meanLoss(
  model: RunnableModel,
  tokens: Int32Array,
  { sequence, limitTokens, signal }: OnTokens,
): Promise<{ readonly loss: number; readonly tokens: number }> {
  const vocab = model.spec.vocab;
  const batch = batchFor(sequence, limitTokens, vocab);
  let sum = 0;
  let counted = 0;
  for (const { inputs, targets, count } of evalBatches(tokens, { batch, sequence, limitTokens })) {
    signal?.throwIfAborted();
    const logits = await model.logits(inputs, { batch, sequence });
    for (const [row, target] of targets.entries())
      if (target >= 0) sum += tokenLoss(logits.subarray(row * vocab, (row + 1) * vocab), target);
    counted += count;
  }
  return { loss: sum / counted, tokens: counted };
}

/** Sequences per batch; one batch of at most 1024 tokens is enough to keep the engine busy. */
function batchFor(sequence: number, limitTokens: number, vocab: number): number {
  return Math.max(1, Math.floor(Math.min(1024, limitTokens, MOST_LOGITS / vocab) / sequence));
}

/** -log softmax(logits)[target] of one token's logits [V] and `zeros` further logits of 0, in float64. */
export function tokenLoss(logits: Float32Array, target: number, zeros = 0): number {
  // Loops by index: iterators over typed arrays take three times as long.
  let max = zeros > 0 ? 0 : -Infinity;
  for (let i = 0; i < logits.length; i++) max = Math.max(max, logits[i]!);
  let sum = zeros > 0 ? zeros * Math.exp(-max) : 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - max);
  return max + Math.log(sum) - at(logits, target);
}
