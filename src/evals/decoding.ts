/**
 * Several texts that grow token by token: keys and values of their tokens lie in the model's cache.
 *
 * Letters: B rows (texts), V vocabulary.
 */
import { at } from "../base/at.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { Extended } from "../engine/runtime/runtime.js";
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
  readonly timings: Timings;
  /**
   * Continues each row with one token; null where a row has ended. Once the signal is aborted, logits are of no use.
   */
  next(ids: readonly (number | null)[]): Promise<Decoding>;
}

/** Prompt tokens computed at once in each row: scores grow with their square. */
const PIECE = 512;
/** Lengths are rounded up, so that few graphs are compiled. */
const STEP = 32;
const SMALLEST_CACHE = 64;

/**
 * Reads the prompts, all rows side by side; shorter ones are filled up behind their end, where causal attention never
 * sees it. A row may have no token. No text may come to more tokens than the model has positions. `expected` is how
 * many new tokens the cache gets room for at the start. Only one decoding may run at a time, because the model has one
 * cache. Once `signal` is aborted, what has not been read of the prompts is left, and logits
 * are of no use.
 */
export async function startDecoding(
  model: TextModel,
  prompts: readonly (readonly number[])[],
  expected: number,
  signal?: AbortSignal,
): Promise<Decoding> {
  const texts = prompts.map((prompt) => [...prompt]);
  const longest = Math.max(...texts.map(({ length }) => length));
  const { output, room, ms } = await readAll(
    model,
    texts,
    Math.min(longest + expected, model.spec.maxPositions),
    signal,
  );
  const promptTokens = texts.reduce((sum, { length }) => sum + length, 0);
  return decodingOf(model, texts, room, output, signal, { promptTokens, promptMs: ms, newTokens: 0, newMs: 0 });
}

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
): Promise<Extended & { readonly room: Room }> {
  const { spec } = model;
  const batch = texts.length;
  const longest = Math.max(...texts.map(({ length }) => length));
  const room = roomFor(spec, needed);
  const logits = new Float32Array(batch * spec.vocab);
  let ms = 0;
  // Pieces are as long as the cache at most, so that its place for padding is never written beyond.
  for (let first = 0; first < longest && signal?.aborted !== true; first += PIECE) {
    const left = longest - first;
    const tokens = Math.min(PIECE, room.capacity, Math.ceil(left / STEP) * STEP);
    const counts = Int32Array.from(texts, ({ length }) => Math.min(tokens, Math.max(0, length - first)));
    const ids = new Int32Array(batch * tokens);
    texts.forEach((text, row) => ids.set(text.slice(first, first + at(counts, row)), row * tokens));
    const extended = await model.extend(
      { batch, tokens, capacity: first === 0 ? 0 : room.capacity, positions: room.positions },
      {
        ids,
        counts,
        lengths: Int32Array.from(texts, ({ length }) => Math.min(first, length)),
        capacity: room.capacity,
      },
    );
    ms += extended.ms;
    counts.forEach((count, row) => {
      const start = row * spec.vocab;
      if (count > 0) logits.set(extended.output.subarray(start, start + spec.vocab), start);
    });
  }
  return { output: logits, room, ms };
}

function decodingOf(
  model: TextModel,
  texts: readonly number[][],
  room: Room,
  logits: Float32Array,
  signal: AbortSignal | undefined,
  timings: Timings,
): Decoding {
  return {
    logits,
    timings,
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
          : await model.extend(
              { batch: texts.length, tokens: 1, ...grown },
              {
                ids: Int32Array.from(ids, (id) => id ?? 0),
                lengths,
                counts: Int32Array.from(ids, (id) => (id === null ? 0 : 1)),
                capacity: grown.capacity,
              },
            );
      return decodingOf(model, texts, grown, extended.output, signal, {
        ...timings,
        newTokens: timings.newTokens + added,
        newMs: timings.newMs + extended.ms,
      });
    },
  };
}

const hasLongRope = ({ layers }: DecoderSpec): boolean => layers.some(({ rope }) => rope?.scaling.kind === "longrope");
