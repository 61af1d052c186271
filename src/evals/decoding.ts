/**
 * Several texts that grow token by token: keys and values of their tokens lie in the model's cache.
 *
 * Letters: B rows (texts), V vocabulary.
 */
import { at } from "../base/at.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { ChosenExperts } from "../engine/runtime/runtime.js";
import type { TextModel } from "./model.js";

/** How many tokens were computed, and how long that took in milliseconds. */
export interface Timings {
  readonly promptTokens: number;
  readonly promptMs: number;
  /** Tokens computed one by one. */
  readonly newTokens: number;
  readonly newMs: number;
}

/** Tokens that were read into the cache in one go, and which experts they were given to. */
export interface ReadTokens {
  /** Place of each row's first of them in its text [B]. */
  readonly first: Int32Array;
  /** How many of each row's they are [B]. */
  readonly counts: Int32Array;
  /** T; token j of row b is number b * T + j of the routing. */
  readonly tokens: number;
  readonly routing: readonly ChosenExperts[];
}

/** Texts as far as they have grown. */
export interface Decoding {
  /** Logits [B, V] of each row's next token; only rows that had a token in `next`, or in the prompts, are of use. */
  readonly logits: Float32Array;
  /** The likeliest token of each row [B] in place of logits, where it was wanted and the model could choose it. */
  readonly likely: readonly number[] | null;
  readonly timings: Timings;
  /** Tokens that were read since the decoding before, where their experts were asked for; otherwise none. */
  readonly read: readonly ReadTokens[];
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

/** How prompts are read. */
export interface DecodingOptions {
  /** New tokens that the cache gets room for at the start. */
  readonly expected: number;
  /** Once it is aborted, what has not been read of the prompts is left, and logits are of no use. */
  readonly signal?: AbortSignal | undefined;
  /** Only the likeliest tokens are wanted. */
  readonly likeliest?: boolean | undefined;
  /** Which experts each token is given to is wanted too. */
  readonly routed?: boolean | undefined;
}

/**
 * Reads the prompts, all rows side by side; shorter ones are filled up behind their end, where causal attention never
 * sees it. A row may have no token. No text may come to more tokens than the model has positions. Only one decoding may
 * run at a time, because the model has one cache.
 */
export async function startDecoding(
  model: TextModel,
  prompts: readonly (readonly number[])[],
  { expected, signal, likeliest = false, routed = false }: DecodingOptions,
): Promise<Decoding> {
  const texts = prompts.map((prompt) => [...prompt]);
  const longest = Math.max(...texts.map(({ length }) => length));
  const needed = Math.min(longest + expected, model.spec.maxPositions);
  const isLikeliest = likeliest && !routed && model.likeliest !== undefined;
  const first = await readAll(model, texts, { needed, signal, likeliest: isLikeliest, routed });
  // What cannot be chosen is asked for again, for the error that says why.
  const unusable = first.likely?.some((id, row) => id < 0 && at(texts, row).length > 0) === true;
  const { likely, logits, read, room, ms } = unusable ? await readAll(model, texts, { needed, signal, routed }) : first;
  const promptTokens = texts.reduce((sum, { length }) => sum + length, 0);
  return decodingOf(
    model,
    texts,
    room,
    { logits, likely, read },
    { signal, routed },
    {
      promptTokens,
      promptMs: ms,
      newTokens: 0,
      newMs: 0,
    },
  );
}

/** What a model says behind the texts: see `Decoding`. */
type Answers = Pick<Decoding, "logits" | "likely" | "read">;

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

/** Computes whole texts into an empty cache with room for `needed` tokens, or as much as there is time for. */
async function readAll(
  model: TextModel,
  texts: readonly (readonly number[])[],
  {
    needed,
    signal,
    likeliest = false,
    routed = false,
  }: Omit<DecodingOptions, "expected"> & { readonly needed: number },
): Promise<Answers & { readonly room: Room; readonly ms: number }> {
  const { spec } = model;
  const batch = texts.length;
  const longest = Math.max(...texts.map(({ length }) => length));
  const room = roomFor(spec, needed);
  const piece = Math.max(PIECE, Math.floor((model.tokensAtOnce ?? 0) / batch / STEP) * STEP);
  const likely = likeliest ? texts.map(() => -1) : null;
  const read: ReadTokens[] = [];
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
    const extended = await model.extend(shape, feeds, { routed });
    ms += extended.ms;
    if (routed) read.push({ first: lengths, counts, tokens, routing: extended.routing });
    if (first === 0) {
      logits = extended.output;
      continue;
    }
    counts.forEach((count, row) => {
      const start = row * spec.vocab;
      if (count > 0) logits.set(extended.output.subarray(start, start + spec.vocab), start);
    });
  }
  return { logits, likely, read, room, ms };
}

function decodingOf(
  model: TextModel,
  texts: readonly number[][],
  room: Room,
  answers: Answers,
  asked: Pick<DecodingOptions, "signal" | "routed">,
  timings: Timings,
): Decoding {
  const { signal, routed = false } = asked;
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
      const after = decodingOf(model, texts, room, { logits: new Float32Array(), likely: null, read: [] }, asked, {
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
          ? await readAll(model, texts, { needed, signal, routed })
          : await oneMore(model, ids, lengths, grown, routed);
      return decodingOf(model, texts, grown, { logits: extended.logits, likely: null, read: extended.read }, asked, {
        ...timings,
        newTokens: timings.newTokens + added,
        newMs: timings.newMs + extended.ms,
      });
    },
  };
}

/** Reads one token of each row that goes on, behind those that the cache holds. */
async function oneMore(
  model: TextModel,
  ids: readonly (number | null)[],
  lengths: Int32Array,
  room: Room,
  routed: boolean,
): Promise<Pick<Answers, "logits" | "read"> & { readonly ms: number }> {
  const counts = Int32Array.from(ids, (id) => (id === null ? 0 : 1));
  const { output, routing, ms } = await model.extend(
    { batch: ids.length, tokens: 1, ...room },
    { ids: Int32Array.from(ids, (id) => id ?? 0), lengths, counts, capacity: room.capacity },
    { routed },
  );
  return { logits: output, read: routed ? [{ first: lengths, counts, tokens: 1, routing }] : [], ms };
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
