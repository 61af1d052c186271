/**
 * Several texts that grow token by token: keys and values of their tokens lie in the model's cache.
 *
 * Letters: B rows (texts), V vocabulary.
 */
import { at } from "../base/at.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { TextModel } from "./model.js";

/** How many tokens were computed, and how long that took in milliseconds. */
export interface Timings {
  readonly promptTokens: number;
  readonly promptMs: number;
  /** Tokens computed one by one. */
  readonly newTokens: number;
  readonly newMs: number;
}

/** Texts as far as they have grown. */
export interface Decoding {
  /** Logits [B, V] of each row's next token; only rows that had a token in `next`, or in the prompts, are of use. */
  readonly logits: Float32Array;
  /** The likeliest token of each row [B] in place of logits, where it was wanted and the model could choose it. */
  readonly likely: readonly number[] | null;
  readonly timings: Timings;
  /**
   * Continues each row with one token; null where a row has ended. Once the signal is aborted, logits are of no use.
   */
  next(ids: readonly (number | null)[]): Promise<Decoding>;
  /**
   * Continues each row with one token, and with the likeliest one behind it, and so on: up to `most` of these, at least
   * one. Null where the model gives its logits alone, or has no room: then `next` is left. What comes of it has no
   * logits.
   */
  nextLikeliest(ids: readonly (number | null)[], most: number): Promise<Likeliest | null>;
}

/** Texts that have grown by their likeliest tokens. */
export interface Likeliest {
  /** Tokens of each row [B], by step; the last of them is not part of the text yet. All can be chosen by `argmax`. */
  readonly steps: readonly (readonly number[])[];
  readonly after: Decoding;
}

/** Prompt tokens computed at once in each row where scores grow with their square. */
const PIECE = 512;
/** Lengths are rounded up, so that few graphs are compiled: to this, and long ones to an eighth of their size. */
const STEP = 32;
const roundedLength = (tokens: number): number => {
  const step = Math.max(STEP, 2 ** Math.floor(Math.log2(tokens)) / 8);
  return Math.ceil(tokens / step) * step;
};
const SMALLEST_CACHE = 64;

/**
 * Reads the prompts, all rows side by side; shorter ones are filled up behind their end, where causal attention never
 * sees it. A row may have no token. No text may come to more tokens than the model has positions. `expected` is how
 * many new tokens the cache gets room for at the start. With `likeliest`, only the likeliest tokens are wanted. Only
 * one decoding may run at a time, because the model has one cache. Once `signal` is aborted, what has not been read of
 * the prompts is left, and logits are of no use.
 */
export async function startDecoding(
  model: TextModel,
  prompts: readonly (readonly number[])[],
  expected: number,
  signal?: AbortSignal,
  likeliest = false,
): Promise<Decoding> {
  const texts = prompts.map((prompt) => [...prompt]);
  const longest = Math.max(...texts.map(({ length }) => length));
  const needed = Math.min(longest + expected, model.spec.maxPositions);
  const read = await readAll(model, texts, needed, signal, likeliest && model.likeliest !== undefined);
  // What cannot be chosen is asked for again, for the error that says why.
  const unusable = read.likely?.some((id, row) => id < 0 && at(texts, row).length > 0) === true;
  const { likely, logits, room, ms } = unusable ? await readAll(model, texts, needed, signal) : read;
  const promptTokens = texts.reduce((sum, { length }) => sum + length, 0);
  return decodingOf(model, texts, room, { logits, likely }, signal, {
    promptTokens,
    promptMs: ms,
    newTokens: 0,
    newMs: 0,
  });
}

/** What a model says behind the texts: see `Decoding`. */
type Answers = Pick<Decoding, "logits" | "likely">;

/** Sizes of the cache and of the tables of positions. */
interface Room {
  /** Keys of each row that the cache has room for. */
  readonly capacity: number;
  /** Length of the rope tables. */
  readonly positions: number;
}

/** Room for `needed` tokens. Rope whose frequencies change with the text's length changes where it must, not before. */
function roomFor(spec: DecoderSpec, needed: number): Room {
  const original = Math.min(
    ...spec.layers.map(({ rope }) =>
      rope?.scaling.kind === "longrope" ? rope.scaling.originalMaxPositions : Infinity,
    ),
  );
  let capacity = SMALLEST_CACHE;
  while (capacity < needed) capacity *= 2;
  if (original === Infinity) return { capacity, positions: Math.min(capacity, spec.maxPositions) };
  return needed <= original
    ? { capacity: Math.min(capacity, original), positions: original }
    : { capacity, positions: spec.maxPositions };
}

/** Computes whole texts into an empty cache, or as much of them as there is time for. */
async function readAll(
  model: TextModel,
  texts: readonly (readonly number[])[],
  needed: number,
  signal: AbortSignal | undefined,
  likeliest = false,
): Promise<Answers & { readonly room: Room; readonly ms: number }> {
  const { spec } = model;
  const batch = texts.length;
  const longest = Math.max(...texts.map(({ length }) => length));
  const room = roomFor(spec, needed);
  const piece = Math.max(PIECE, Math.floor((model.tokensAtOnce ?? 0) / batch / STEP) * STEP);
  const likely = likeliest ? texts.map(() => -1) : null;
  let logits: Float32Array = new Float32Array();
  let ms = 0;
  // Pieces are as long as the cache at most, so that its place for padding is never written beyond.
  for (let first = 0; first < longest && signal?.aborted !== true; first += piece) {
    const left = longest - first;
    const tokens = Math.min(piece, room.capacity, roundedLength(left));
    const counts = Int32Array.from(texts, ({ length }) => Math.min(tokens, Math.max(0, length - first)));
    const ids = new Int32Array(batch * tokens);
    texts.forEach((text, row) => ids.set(text.slice(first, first + at(counts, row)), row * tokens));
    const shape = { batch, tokens, capacity: first === 0 ? 0 : room.capacity, positions: room.positions };
    const lengths = Int32Array.from(texts, ({ length }) => Math.min(first, length));
    const feeds = { ids, counts, lengths, capacity: room.capacity };
    if (likely !== null && model.likeliest !== undefined) {
      const found = await model.likeliest(shape, feeds, 1);
      ms += found.ms;
      for (const [row, count] of counts.entries()) if (count > 0) likely[row] = at(found.ids, row);
      continue;
    }
    const extended = await model.extend(shape, feeds);
    ms += extended.ms;
    if (first === 0) {
      logits = extended.output;
      continue;
    }
    counts.forEach((count, row) => {
      const start = row * spec.vocab;
      if (count > 0) logits.set(extended.output.subarray(start, start + spec.vocab), start);
    });
  }
  return { logits, likely, room, ms };
}

function decodingOf(
  model: TextModel,
  texts: readonly number[][],
  room: Room,
  answers: Answers,
  signal: AbortSignal | undefined,
  timings: Timings,
): Decoding {
  return {
    ...answers,
    timings,
    async nextLikeliest(ids, most) {
      const { likeliest } = model;
      const lengths = Int32Array.from(texts, ({ length }) => length);
      const left = Math.min(room.capacity, model.spec.maxPositions) - Math.max(...lengths);
      const rows = ids.filter((id) => id !== null).length;
      const steps = Math.min(left, stepsFor(timings, rows, most));
      if (likeliest === undefined || steps < 1 || signal?.aborted === true) return null;
      const found = await likeliest(
        { batch: texts.length, tokens: 1, ...room },
        {
          ids: Int32Array.from(ids, (id) => id ?? 0),
          lengths,
          counts: Int32Array.from(ids, (id) => (id === null ? 0 : 1)),
          capacity: room.capacity,
        },
        steps,
      );
      const lines = Array.from({ length: steps }, (_, step) =>
        Array.from(found.ids.subarray(step * texts.length, (step + 1) * texts.length)),
      );
      // What cannot be chosen is asked for again, for the error that says why.
      const usable = lines.findIndex((line) => line.some((id, row) => id < 0 && ids[row] !== null));
      const kept = usable < 0 ? lines : lines.slice(0, usable);
      if (kept.length === 0) return null;
      for (const [row, id] of ids.entries())
        if (id !== null) at(texts, row).push(id, ...kept.slice(0, -1).map((line) => at(line, row)));
      const after = decodingOf(model, texts, room, { logits: new Float32Array(), likely: null }, signal, {
        ...timings,
        newTokens: timings.newTokens + rows * kept.length,
        newMs: timings.newMs + found.ms,
      });
      return { steps: kept, after };
    },
    async next(ids) {
      const lengths = Int32Array.from(texts, ({ length }) => length);
      for (const [row, id] of ids.entries()) if (id !== null) at(texts, row).push(id);
      const added = ids.filter((id) => id !== null).length;
      const needed = Math.max(...texts.map(({ length }) => length));
      const grown = needed <= room.capacity ? room : roomFor(model.spec, needed);
      // Keys that were turned at the old frequencies are of no use at the new ones.
      const extended =
        grown.positions !== room.positions && hasLongRope(model.spec)
          ? await readAll(model, texts, needed, signal)
          : await model
              .extend(
                { batch: texts.length, tokens: 1, ...grown },
                {
                  ids: Int32Array.from(ids, (id) => id ?? 0),
                  lengths,
                  counts: Int32Array.from(ids, (id) => (id === null ? 0 : 1)),
                  capacity: grown.capacity,
                },
              )
              .then(({ output, ms }) => ({ logits: output, ms }));
      return decodingOf(model, texts, grown, { logits: extended.logits, likely: null }, signal, {
        ...timings,
        newTokens: timings.newTokens + added,
        newMs: timings.newMs + extended.ms,
      });
    },
  };
}

/** Steps that are asked for at once at most, and the milliseconds that they should take together. */
const MOST_STEPS = 32;
const WAIT = 30;

/** Steps that take about as long as a reader may wait, by how long tokens have taken so far. */
function stepsFor({ newTokens, newMs }: Timings, rows: number, most: number): number {
  const each = newTokens === 0 ? WAIT / 4 : (newMs / newTokens) * rows;
  return Math.max(1, Math.min(most, MOST_STEPS, Math.floor(WAIT / Math.max(each, 1e-3))));
}

const hasLongRope = ({ layers }: DecoderSpec): boolean => layers.some(({ rope }) => rope?.scaling.kind === "longrope");
