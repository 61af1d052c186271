/** Perplexity of long text by a sliding window. */
import { inputError } from "../base/errors.js";
import { IGNORED_TARGET } from "../text/tokens/batches.js";
import type { TextModel } from "./model.js";

/** Sizes of the sliding window. */
export interface PerplexitySettings {
  /** Tokens that the model sees at once. */
  readonly sequence: number;
  /** Tokens by which the window moves on, at most `sequence`. */
  readonly stride: number;
  readonly signal?: AbortSignal | undefined;
}

/** The loss over the windows so far. */
export interface Perplexity {
  /** Mean loss per predicted token, in nats; its exponential is the perplexity. */
  readonly loss: number;
  /** Predicted tokens: all but the first. */
  readonly tokens: number;
}

/**
 * Windows of `sequence` tokens that begin `stride` apart; each token counts once, in the first window that holds it, so
 * it sees at least sequence - stride tokens before it (the text's beginning apart). transformers' guide to perplexity
 * of fixed-length models does the same. Yields the state after each window. Throws inputError for less than two tokens
 * and for sizes that do not fit.
 */
export async function* slidingPerplexity(
  model: TextModel,
  tokens: Int32Array,
  { sequence, stride, signal }: PerplexitySettings,
): AsyncGenerator<Perplexity, Perplexity> {
  const { maxPositions } = model.spec;
  if (sequence < 2 || sequence > maxPositions)
    throw inputError(`a window of ${sequence} tokens, expected 2 to the model's ${maxPositions} positions`, {
      where: model.dir,
    });
  if (stride < 1 || stride >= sequence)
    throw inputError(`a stride of ${stride}, expected 1 to ${sequence - 1}: a token must see one before it`);
  if (tokens.length < 2)
    throw inputError(`the text has ${tokens.length} tokens, needed at least 2`, { hint: "give more text" });
  let sum = 0;
  let counted = 0;
  // `done` tokens are predicted, the first by nothing.
  for (let begin = 0, done = 1; done < tokens.length && signal?.aborted !== true; begin += stride) {
    const end = Math.min(begin + sequence, tokens.length);
    const ids = new Int32Array(sequence);
    const targets = new Int32Array(sequence).fill(IGNORED_TARGET);
    ids.set(tokens.subarray(begin, end));
    // Position p predicts token p + 1; those that an earlier window has predicted are ignored.
    targets.set(tokens.subarray(done, end), done - begin - 1);
    const loss = await model.loss(ids, targets, { batch: 1, sequence });
    sum += loss * (end - done);
    counted += end - done;
    done = end;
    yield { loss: sum / counted, tokens: counted };
  }
  return { loss: sum / counted, tokens: counted };
}
