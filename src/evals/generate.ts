/** Text from a model, token by token. */
import { inputError } from "../base/errors.js";
import { randomStream } from "../base/random.js";
import { sampleToken, type SampleSettings } from "../text/tokens/sample.js";
import { startDecoding, type Decoding, type Timings } from "./decoding.js";
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
  /** Called after every token with how long prompts and tokens have taken so far, compiling left out. */
  readonly onTimings?: ((timings: Timings) => void) | undefined;
}

/** A new token of one of the texts. */
export interface GeneratedToken {
  /** Index of the prompt that it continues. */
  readonly row: number;
  readonly id: number;
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
      if (next === undefined) {
        if (text.length > maxPositions) next = sampleToken(await slidingLogits(model, text), settings, uniform);
        else {
          decoding ??= await startDecoding(
            model,
            rows.map(({ text: tokens }) => (tokens.length > maxPositions ? [] : tokens)),
            Math.min(maxNewTokens, EXPECTED_TOKENS),
            signal,
            settings.temperature === 0,
          );
          if (stopped()) return;
          const logits = decoding.logits.subarray(row * vocab, (row + 1) * vocab);
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
      yield { row, id: next };
    }
    const left = maxNewTokens - i - 1;
    const goesOn = left > 0 && !stopped() && ahead.length === 0 && chosen.some((id) => id !== null);
    if (decoding === undefined || !goesOn) continue;
    // Rows that have slid out of the cache have no likeliest token there.
    const inCache = rows.every(({ text }, row) => !open.has(row) || text.length <= maxPositions);
    const found = settings.temperature === 0 && inCache ? await decoding.nextLikeliest(chosen, left) : null;
    decoding = found?.after ?? (await decoding.next(chosen));
    ahead = found?.steps ?? [];
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
