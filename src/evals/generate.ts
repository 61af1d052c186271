/** Text from a model, token by token. */
import { at } from "../base/at.js";
import { inputError } from "../base/errors.js";
import { randomStream } from "../base/random.js";
import { likelihood, type LikelyToken } from "../text/tokens/likelihood.js";
import { sampleToken, type SampleSettings } from "../text/tokens/sample.js";
import { startDecoding, type Decoding, type ReadTokens, type Timings } from "./decoding.js";
import { requireIds, type TextModel } from "./model.js";

/** How tokens are chosen, and when texts end. */
export interface GenerateSettings extends SampleSettings {
  /** Most new tokens of each text. */
  readonly maxNewTokens: number;
  readonly seed: number;
  /** Ids that end a text. */
  readonly stop: readonly number[];
  /** Ends the texts at the next token, or the next 512 of a prompt. */
  readonly signal?: AbortSignal | undefined;
  /** Log-probabilities of each token and of so many of the likeliest ones in its place; none if left out. */
  readonly alternatives?: number | undefined;
  /**
   * Called for every token that the model reads, prompts first, with the experts that it is given to. The last token is
   * read for it alone. Tokens beyond the model's positions are not told.
   */
  readonly onExperts?: ((token: RoutedToken) => void) | undefined;
  /** Called after every token with how long prompts and tokens have taken so far, compiling left out. */
  readonly onTimings?: ((timings: Timings) => void) | undefined;
}

/** A new token of one of the texts. */
export interface GeneratedToken {
  /** Index of the prompt that it continues. */
  readonly row: number;
  readonly id: number;
  /** Natural logarithm of its probability by the model's own distribution, at temperature 1; where it was asked for. */
  readonly logProbability?: number;
  /** The likeliest tokens in its place, the likeliest first; where they were asked for. */
  readonly alternatives?: readonly LikelyToken[];
}

/** The experts that a token of one of the texts was given to. */
export interface RoutedToken {
  readonly row: number;
  /** Its place in the text, the prompt's first token at 0. */
  readonly place: number;
  readonly id: number;
  readonly layers: readonly RoutedLayerChoice[];
}

/** What one layer's router did with a token. */
export interface RoutedLayerChoice {
  readonly layer: number;
  readonly experts: readonly number[];
  /** What each expert's output is multiplied by. */
  readonly weights: readonly number[];
}

/** Shortest compiled context of a sliding window; longer ones double. */
const FIRST_CONTEXT = 32;
/** Room in the cache for new tokens at the start, however many may come. */
const EXPECTED_TOKENS = 256;

/** Yields the new token ids of one text; see `generateBatch`. */
export async function* generate(
  model: TextModel,
  prompt: Int32Array,
  settings: GenerateSettings,
): AsyncGenerator<number> {
  for await (const { id } of generateBatch(model, [prompt], settings)) yield id;
}

/**
 * Continues several prompts at once, of any lengths; tokens come as they are chosen, row by row. Keys and values of the
 * tokens so far are kept. A text longer than the model's positions slides its window, and is then computed anew
 * for every token. Row 0 draws the same numbers as a prompt on its own. Throws inputError for no prompt, an empty one
 * and unknown ids.
 */
export async function* generateBatch(
  model: TextModel,
  prompts: readonly Int32Array[],
  settings: GenerateSettings,
): AsyncGenerator<GeneratedToken> {
  if (prompts.length === 0) throw inputError("there is no prompt");
  prompts.forEach((prompt, row) => {
    if (prompt.length > 0) return;
    const which = prompts.length === 1 ? "the prompt" : `prompt ${row + 1}`;
    throw inputError(`${which} has no tokens`, { hint: "give some text to go on from" });
  });
  for (const prompt of prompts) requireIds(prompt, model.spec.vocab, model.dir);
  const { maxPositions, vocab } = model.spec;
  const { maxNewTokens, stop, signal, seed } = settings;
  const stopped = (): boolean => signal?.aborted === true;
  const rows = prompts.map((prompt, row) => ({
    text: Array.from(prompt),
    stream: randomStream(seed, row === 0 ? "generate" : `generate/${row}`),
  }));
  const open = new Set(prompts.keys());
  const { alternatives, onExperts } = settings;
  const told = prompts.map(() => 0);
  const tell = (read: Decoding["read"]): void => {
    if (onExperts === undefined) return;
    for (const part of read)
      for (const [row, { text }] of rows.entries())
        for (const token of routedTokens(part, row, text)) {
          // Where the angles of positions change, all is read again.
          if (token.place < at(told, row)) continue;
          told[row] = token.place + 1;
          onExperts(token);
        }
  };
  let decoding: Decoding | undefined;
  // The likeliest tokens of all rows that the model has chosen ahead, by step.
  let ahead: readonly (readonly number[])[] = [];
  for (let i = 0; i < maxNewTokens && open.size > 0; i++) {
    const chosen: (number | null)[] = rows.map(() => null);
    const [likeliest, ...later] = ahead;
    ahead = later;
    for (const [row, { text, stream }] of rows.entries()) {
      if (stopped()) return;
      if (!open.has(row)) continue;
      const uniform = stream.uniformAt(i);
      let next = likeliest?.[row];
      let logits: Float32Array | undefined;
      if (next === undefined) {
        if (text.length > maxPositions) {
          logits = await slidingLogits(model, text);
          next = sampleToken(logits, settings, uniform);
        } else {
          if (decoding === undefined) {
            decoding = await startDecoding(
              model,
              rows.map(({ text: tokens }) => (tokens.length > maxPositions ? [] : tokens)),
              {
                expected: Math.min(maxNewTokens, EXPECTED_TOKENS),
                signal,
                likeliest: settings.temperature === 0 && alternatives === undefined,
                routed: onExperts !== undefined,
              },
            );
            tell(decoding.read);
          }
          if (stopped()) return;
          logits = decoding.logits.subarray(row * vocab, (row + 1) * vocab);
          next = decoding.likely?.[row] ?? sampleToken(logits, settings, uniform);
        }
      }
      if (decoding !== undefined) settings.onTimings?.(decoding.timings);
      if (stop.includes(next)) {
        open.delete(row);
        continue;
      }
      text.push(next);
      if (text.length <= maxPositions) chosen[row] = next;
      yield alternatives === undefined || logits === undefined
        ? { row, id: next }
        : { row, id: next, ...likelihood(logits, next, alternatives) };
    }
    const left = maxNewTokens - i - 1;
    const isWanted = left > 0 || onExperts !== undefined;
    const goesOn = isWanted && !stopped() && ahead.length === 0 && chosen.some((id) => id !== null);
    if (decoding === undefined || !goesOn) continue;
    // Rows that have slid out of the cache have no likeliest token there.
    const inCache = rows.every(({ text }, row) => !open.has(row) || text.length <= maxPositions);
    const looksAhead =
      settings.temperature === 0 && inCache && alternatives === undefined && onExperts === undefined && left > 0;
    const found = looksAhead ? await decoding.nextLikeliest(chosen, left) : null;
    decoding = found?.after ?? (await decoding.next(chosen));
    tell(decoding.read);
    ahead = found?.steps ?? [];
  }
}

/** The tokens of one row among those that were read. */
function* routedTokens(
  { first, counts, tokens, routing }: ReadTokens,
  row: number,
  text: readonly number[],
): Generator<RoutedToken> {
  for (let token = 0; token < at(counts, row); token++) {
    const place = at(first, row) + token;
    const layers = routing.map(({ layer, chosen, weights }) => {
      const k = chosen.length / (counts.length * tokens);
      const from = (row * tokens + token) * k;
      return {
        layer,
        experts: Array.from(chosen.subarray(from, from + k)),
        weights: Array.from(weights.subarray(from, from + k)),
      };
    });
    yield { row, place, id: at(text, place), layers };
  }
}

/**
 * Logits behind the last tokens that the model has positions for, computed from scratch, padded on the right to the
 * compiled length.
 */
async function slidingLogits(model: TextModel, text: readonly number[]): Promise<Float32Array> {
  const longest = model.spec.maxPositions;
  const context = text.slice(-longest);
  let sequence = FIRST_CONTEXT;
  while (sequence < context.length) sequence *= 2;
  sequence = Math.min(sequence, longest);
  const ids = new Int32Array(sequence);
  ids.set(context);
  return model.logits(ids, { batch: 1, sequence }, Int32Array.of(context.length - 1));
}
