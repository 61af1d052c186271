/**
 * Which arms are told of one by one: a grid of parents and settings has hundreds, of which nobody reads a sentence
 * each.
 */
import type { ArmResult } from "../../model/results/result.js";

/** Most arms of a study with a sentence each. */
export const MOST_TOLD = 12;

/** By what the arms of a grid stand out, and what is said of all of them and of the one that does so most. */
export interface Standing {
  readonly by: (arm: ArmResult) => number;
  readonly all: string;
  readonly most: string;
}

/**
 * The sentences about the arms: of each, or, where there are too many, about the one that stands out most, and of how
 * many arms there would have been one.
 */
export function ofEachArm(
  arms: readonly ArmResult[],
  sentences: (arm: ArmResult) => readonly string[],
  { by, all, most }: Standing,
): string[] {
  const told = arms.filter((arm) => sentences(arm).length > 0);
  const [first, ...others] = told;
  if (first === undefined || arms.length <= MOST_TOLD) return told.flatMap((arm) => sentences(arm));
  const chosen = others.reduce((best, arm) => (by(arm) > by(best) ? arm : best), first);
  const text = sentences(chosen).join(" ");
  if (told.length === 1) return [text];
  return [`${text} ${told.length} of ${arms.length} arms ${all}; this is ${most}.`];
}
