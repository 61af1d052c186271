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

interface Placed extends Life {
  readonly begin: number;
  readonly end: number;
}

const overlap = (a: Life, b: Life): boolean => a.first <= b.last && b.first <= a.last;

/** The lowest place of `bytes` bytes between neighbours, which are sorted by where they begin. */
function lowestGap(neighbours: readonly Placed[], bytes: number): number {
  let place = 0;
  for (const { begin, end } of neighbours) {
    if (place + bytes <= begin) return place;
    place = Math.max(place, end);
  }
  return place;
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
  const placed: Placed[] = [];
  let arena = 0;
  for (const { id, life, bytes } of lives) {
    const begin = lowestGap(
      placed.filter((other) => overlap(life, other)),
      bytes,
    );
    places.set(id, begin);
    arena = Math.max(arena, begin + bytes);
    const after = placed.findIndex((other) => other.begin > begin);
    placed.splice(after < 0 ? placed.length : after, 0, { ...life, begin, end: begin + bytes });
  }
  return { places, arena };
}
