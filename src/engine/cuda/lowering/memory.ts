/**
 * The static plan of a program's memory: each buffer of the arena lives from the first launch that touches it to the
 * last, and buffers whose lives do not overlap share memory.
 */
import { at } from "../../../base/at.js";
import { touched, type Buffer, type BufferId, type Launch } from "./launches.js";

/** Buffers begin at multiples of this, which cuBLASLt's fastest products ask for. */
export const ALIGNMENT = 256;

/** The next multiple of the alignment of buffers, in bytes. */
export const aligned = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/** First and last launch that touch a buffer. */
export interface Life {
  readonly first: number;
  readonly last: number;
}

/** Lives of all buffers that are touched. */
export function livesOf(launches: readonly Launch[]): ReadonlyMap<BufferId, Life> {
  const lives = new Map<BufferId, Life>();
  for (const [index, launch] of launches.entries())
    for (const [buffer] of touched(launch))
      lives.set(buffer, { first: lives.get(buffer)?.first ?? index, last: index });
  return lives;
}

/** Buffers that have a place, sorted by where they begin. A graph may have ten thousand that live at once. */
class Placed {
  private count = 0;
  private readonly begins: Float64Array;
  private readonly ends: Float64Array;
  private readonly firsts: Int32Array;
  private readonly lasts: Int32Array;

  /** `most` are the buffers that will be placed. */
  constructor(most: number) {
    [this.begins, this.ends] = [new Float64Array(most), new Float64Array(most)];
    [this.firsts, this.lasts] = [new Int32Array(most), new Int32Array(most)];
  }

  /** The lowest place of `bytes` bytes beside the buffers that live at the same time; they lie there from now on. */
  place({ first, last }: Life, bytes: number): number {
    const { begins, ends, firsts, lasts, count } = this;
    let place = 0;
    for (let i = 0; i < count && begins[i]! < place + bytes; i++)
      if (firsts[i]! <= last && first <= lasts[i]! && ends[i]! > place) place = ends[i]!;
    const index = this.countUpTo(place);
    for (const [row, value] of [
      [begins, place],
      [ends, place + bytes],
      [firsts, first],
      [lasts, last],
    ] as const) {
      row.copyWithin(index + 1, index, count);
      row[index] = value;
    }
    this.count++;
    return place;
  }

  /** How many begin there or below. */
  private countUpTo(place: number): number {
    let [low, high] = [0, this.count];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.begins[middle]! <= place) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/**
 * Places of the buffers whose home is the arena, the largest first, each as low as it can lie; and the arena's size.
 */
export function planMemory(
  buffers: readonly Buffer[],
  launches: readonly Launch[],
): { readonly places: ReadonlyMap<BufferId, number>; readonly arena: number } {
  const lives = [...livesOf(launches)]
    .filter(([id]) => at(buffers, id).home.kind === "arena")
    .map(([id, life]) => ({ id, life, bytes: aligned(at(buffers, id).bytes) }))
    .sort((a, b) => b.bytes - a.bytes || a.life.first - b.life.first || a.id - b.id);
  const places = new Map<BufferId, number>();
  const placed = new Placed(lives.length);
  let arena = 0;
  for (const { id, life, bytes } of lives) {
    const begin = placed.place(life, bytes);
    places.set(id, begin);
    arena = Math.max(arena, begin + bytes);
  }
  return { places, arena };
}
