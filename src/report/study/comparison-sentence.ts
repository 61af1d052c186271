/** One comparison of two arms as a sentence that claims no more than the seeds show. */
import { percent } from "../../base/format.js";
import type { ArmComparison } from "./comparisons.js";
import { seedsNeeded, testWords, type Judgement } from "./judgement.js";
import { amount, lossWithRange, nats, signedNats } from "./wording.js";

/** The sentence: which arm did better, where, by how much, and whether that may be chance. */
export function comparisonSentence(nameA: string, nameB: string, comparison: ArmComparison): string {
  return `${claim(nameA, nameB, comparison, placeOf(comparison))}: ${numbers(comparison)}.`;
}

/**
 * Both comparisons of two arms in one sentence, after equal tokens and after equal FLOPs, because one alone may hide
 * the other; then the losses of each.
 */
export function bothComparisons(nameA: string, nameB: string, tokens: ArmComparison, flops: ArmComparison): string {
  // Arms that cost the same per token are read at one place.
  if (tokens.a.mean === flops.a.mean && tokens.b.mean === flops.b.mean) {
    return `${claim(nameA, nameB, tokens, "at equal tokens and at equal FLOPs")}: ${numbers(tokens)}.`;
  }
  const first = `${outcome(nameA, nameB, tokens)} ${placeOf(tokens)}`;
  const second = secondOutcome(tokens, flops);
  const losses = (comparison: ArmComparison): string =>
    `${lossWithRange(comparison.a)} against ${lossWithRange(comparison.b)}`;
  const [ofTokens, ofFlops] = [evidence(tokens), evidence(flops)];
  const mayBoth = mayBeChance(tokens) && mayBeChance(flops);
  const apart = (comparison: ArmComparison): string =>
    `${distance(comparison)}${mayBeChance(comparison) && !mayBoth ? "; may be chance" : ""}`;
  return (
    `${first} (${apart(tokens)}), and ${second} ${placeOf(flops)} (${apart(flops)})` +
    `${mayBoth ? "; both may be chance" : ""}: ` +
    `held-out loss ${losses(tokens)} after ${amount(tokens)}${ofTokens === ofFlops ? "" : ofTokens}; ` +
    `${losses(flops)} at ${amount(flops)}${ofFlops}.`
  );
}

const placeOf = ({ axis }: ArmComparison): string => (axis === "tokens" ? "at equal tokens" : "at equal FLOPs");

/** What the comparison came to, at one place; what may be chance is said to be so. */
function claim(nameA: string, nameB: string, comparison: ArmComparison, place: string): string {
  return `${outcome(nameA, nameB, comparison)} ${place}${mayBeChance(comparison) ? ", which may be chance" : ""}`;
}

const mayBeChance = ({ difference, judgement }: ArmComparison): boolean =>
  judgement.verdict === "chance" && difference !== 0;

const isSure = ({ judgement }: ArmComparison): boolean => judgement.verdict === "beyond";

const betterOrWorse = ({ difference }: ArmComparison): string => (difference < 0 ? "better" : "worse");

function side({ difference }: ArmComparison): string {
  return difference === 0 ? "equal to" : difference < 0 ? "below" : "above";
}

/** Better or worse where that is more than chance explains, else on which side the first came out. */
function outcome(nameA: string, nameB: string, comparison: ArmComparison): string {
  return isSure(comparison)
    ? `${nameA} did ${betterOrWorse(comparison)} than ${nameB}`
    : `${nameA} came out ${side(comparison)} ${nameB}`;
}

/** The second outcome of a sentence that has named both arms; its verb is left out where it is that of the first. */
function secondOutcome(first: ArmComparison, second: ArmComparison): string {
  const isSameVerb = isSure(first) === isSure(second);
  if (isSure(second)) return `${isSameVerb ? "" : "did "}${betterOrWorse(second)}`;
  return `${isSameVerb ? "" : "came out "}${side(second)} it`;
}

/** The losses, where they were read, how far they are apart, and what speaks for or against chance. */
function numbers(comparison: ArmComparison): string {
  const place = comparison.axis === "tokens" ? `after ${amount(comparison)}` : `at ${amount(comparison)}`;
  const losses = `${lossWithRange(comparison.a)} against ${lossWithRange(comparison.b)} ${place}`;
  return `held-out loss ${losses}, ${size(comparison)}${evidence(comparison)}`;
}

/** How far two arms are apart, for brackets. */
function distance({ difference, relative }: ArmComparison): string {
  if (difference === 0) return "no difference";
  return `${nats(difference)}, ${percent(Math.abs(relative))} ${difference < 0 ? "lower" : "higher"}`;
}

function size({ difference, relative }: ArmComparison): string {
  if (difference === 0) return "no difference";
  const direction = difference < 0 ? "lower" : "higher";
  return `${nats(difference)} (${percent(Math.abs(relative))}) ${direction}`;
}

/** The interval and the test, and how many seeds would decide where it is open. */
function evidence({ a, b, judgement }: ArmComparison): string {
  if (judgement.n < 2) {
    const seeds = judgement.n === 1 || (a.n === 1 && b.n === 1) ? "with one seed" : "without a seed in common";
    return `; ${seeds} nothing says whether this is more than chance`;
  }
  const { mean, deviation, low, high } = judgement;
  if (mean === 0 && deviation === 0) return "";
  // It may leave 0 out where the p-value, which is corrected for all pairs of arms, does not rule chance out.
  const whose = judgement.tests > 1 ? "95 % interval of this pair alone" : "95 % interval";
  return `, ${whose} ${signedNats(low)} to ${signedNats(high)} (${testWords(judgement)})${wanted(judgement)}`;
}

/** More seeds than anybody trains. */
const manySeeds = 100;

/** How many seeds would decide, where it is open. */
function wanted(judgement: Judgement): string {
  const needed = seedsNeeded(judgement);
  if (needed === null) return "";
  return needed > manySeeds
    ? `; a difference of this size would take more than ${manySeeds} seeds`
    : `; about ${needed} seeds would show a difference of this size`;
}
