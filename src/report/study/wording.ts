/** Phrases that findings, terminal and page share, so that one number is never worded in two ways. */
import { bytes, compact, fixed, flops, significant } from "../../base/format.js";
import type { ArmResult } from "../../model/results/result.js";
import type { ArmComparison } from "./comparisons.js";
import type { Spread } from "./statistics.js";

/** The label, with the recipe behind it unless the label already names it. */
export function armName(arm: ArmResult): string {
  return arm.recipe === null || arm.label.includes(arm.recipe) ? arm.label : `${arm.label} (${arm.recipe})`;
}

/** `3.412 (3.405 to 3.419)`: mean and range over the seeds. */
export function lossWithRange(loss: Spread): string {
  return loss.n === 1 ? fixed(loss.mean) : `${fixed(loss.mean)} (${fixed(loss.min)} to ${fixed(loss.max)})`;
}

/** Most memory that a run of the arm took; "unknown" where no run says it, as a log of Megatron-LM may not. */
export function peakMemory({ runs }: ArmResult): string {
  const most = Math.max(0, ...runs.map(({ peakRssBytes }) => peakRssBytes ?? 0));
  return most === 0 ? "unknown" : bytes(most);
}

/** A difference of losses: three decimals, more where that would print as nothing. */
export function nats(difference: number): string {
  const size = Math.abs(difference);
  return `${size < 0.01 ? significant(size, 2) : fixed(size)} nats`;
}

/** A difference of losses with its sign. */
export function signedNats(difference: number): string {
  return `${difference < 0 ? "−" : "+"}${nats(difference)}`;
}

/** The tokens or FLOPs at which two arms are compared. */
export function amount(comparison: ArmComparison): string {
  return comparison.axis === "tokens" ? `${compact(comparison.at)} tokens` : flops(comparison.at);
}

/** A count with its noun in singular or plural: `1 seed`, `3 seeds`. */
export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** Several words as one phrase: "a", "a and b", "a, b and c". */
export function joinedByAnd(words: readonly string[]): string {
  const last = words.at(-1) ?? "";
  return words.length < 2 ? last : `${words.slice(0, -1).join(", ")} and ${last}`;
}
