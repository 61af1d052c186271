/** Curves that grow: a page that has them asks for what is new. */
import type { CurveAnswer, RunCurve } from "./types.js";

/** Longest address by which curves are asked for; servers read 16,384 characters. */
const longest = 12_000;

/**
 * The address that asks for what curves have got since an answer; null where all is to be asked for, because the points
 * that came one by one are more than a screen of `columns` needs, or the address would be too long.
 */
export function growthAddress(address: string, { curves }: CurveAnswer, columns: number): string | null {
  if (curves.some(({ x }) => x.length > 6 * columns)) return null;
  const more = curves.map(({ generation, total }) => `&have=${generation}:${total}`).join("");
  return address.length + more.length > longest ? null : address + more;
}

/** An answer with what has come since. */
export function grown(before: CurveAnswer, { curves, ...head }: CurveAnswer): CurveAnswer {
  const known = new Map(before.curves.map((curve) => [curve.run, curve]));
  return { ...head, curves: curves.map((curve) => joined(known.get(curve.run), curve)) };
}

function joined(before: RunCurve | undefined, curve: RunCurve): RunCurve {
  if (before === undefined || curve.first === 0) return curve;
  return { ...curve, x: [...before.x, ...curve.x], y: [...before.y, ...curve.y], first: 0 };
}
