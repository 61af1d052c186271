/** One comparison of two arms as a sentence that claims no more than the seeds show. */
import { percent } from "../../base/format.js";
import type { ArmComparison } from "./statistics.js";
import { amount, lossWithRange, nats, signedNats } from "./wording.js";

/** What the words of `comparisonSentence` mean; the findings say it once. */
export const verdictWords =
  '"Clearly" means that the ranges of the seeds do not overlap and the difference is at least twice the wider range; ' +
  '"slightly", that they do not overlap but the difference is smaller than that';

/** The sentence: which arm did better, where, by how much, and how much of that may be chance. */
export function comparisonSentence(nameA: string, nameB: string, comparison: ArmComparison): string {
  return `${claim(nameA, nameB, comparison)}: ${numbers(comparison)}.`;
}

/** The losses, where they were read, how far they are apart, and what speaks for or against chance. */
function numbers(comparison: ArmComparison): string {
  const place = comparison.axis === "tokens" ? `after ${amount(comparison)}` : `at ${amount(comparison)}`;
  const losses = `${lossWithRange(comparison.a)} against ${lossWithRange(comparison.b)} ${place}`;
  return `held-out loss ${losses}, ${size(comparison)}${evidence(comparison)}`;
}

/**
 * Both comparisons of two arms in one sentence, after equal tokens and after equal FLOPs, because one alone may hide
 * the other; then the losses of each.
 */
export function bothComparisons(nameA: string, nameB: string, tokens: ArmComparison, flops: ArmComparison): string {
  // Arms that cost the same per token are read at one place.
  if (tokens.a.mean === flops.a.mean && tokens.b.mean === flops.b.mean) {
    const place = "at equal tokens and at equal FLOPs";
    return `${claim(nameA, nameB, tokens, place)}: ${numbers(tokens)}.`;
  }
  const both = `${claim(nameA, nameB, tokens)} (${apart(tokens)}), and ${secondClaim(flops)} (${apart(flops)})`;
  const losses = (comparison: ArmComparison): string =>
    `${lossWithRange(comparison.a)} against ${lossWithRange(comparison.b)}`;
  const [first, second] = [evidence(tokens), evidence(flops)];
  return (
    `${both}: held-out loss ${losses(tokens)} after ${amount(tokens)}${first === second ? "" : first}; ` +
    `${losses(flops)} at ${amount(flops)}${second}.`
  );
}

/** The claim of the second comparison, where the arms are already named. */
function secondClaim({ difference, verdict }: ArmComparison): string {
  const better = difference < 0;
  switch (verdict) {
    case "within":
      return "not distinguishable at equal FLOPs";
    case "narrow":
      return `slightly ${better ? "better" : "worse"} at equal FLOPs`;
    case "clear":
      return `clearly ${better ? "better" : "worse"} at equal FLOPs`;
    case "unknown":
      return difference === 0 ? "equal at equal FLOPs" : `${better ? "below" : "above"} it at equal FLOPs`;
  }
}

function claim(
  nameA: string,
  nameB: string,
  comparison: ArmComparison,
  place = comparison.axis === "tokens" ? "at equal tokens" : "at equal FLOPs",
): string {
  const better = comparison.difference < 0;
  switch (comparison.verdict) {
    case "within":
      return `${nameA} and ${nameB} are not distinguishable ${place}`;
    case "narrow":
      return `${nameA} did slightly ${better ? "better" : "worse"} than ${nameB} ${place}`;
    case "clear":
      return `${nameA} did clearly ${better ? "better" : "worse"} than ${nameB} ${place}`;
    case "unknown":
      if (comparison.difference === 0) return `${nameA} came out equal to ${nameB} ${place}`;
      return `${nameA} came out ${better ? "below" : "above"} ${nameB} ${place}`;
  }
}

/** How far two arms are apart, for brackets. */
function apart(comparison: ArmComparison): string {
  if (comparison.difference === 0) return "no difference";
  const direction = comparison.difference < 0 ? "lower" : "higher";
  return `${nats(comparison.difference)}, ${percent(Math.abs(comparison.relative))} ${direction}`;
}

function size(comparison: ArmComparison): string {
  if (comparison.difference === 0) return "no difference";
  const direction = comparison.difference < 0 ? "lower" : "higher";
  return `${nats(comparison.difference)} (${percent(Math.abs(comparison.relative))}) ${direction}`;
}

function evidence(comparison: ArmComparison): string {
  const widest = Math.max(comparison.a.max - comparison.a.min, comparison.b.max - comparison.b.min);
  switch (comparison.verdict) {
    case "within":
      return `, ${interval(comparison)}; the ranges of the seeds overlap`;
    case "narrow":
      return `, ${interval(comparison)}; the seeds of one arm differ by up to ${nats(widest)}`;
    case "clear":
      return widest === 0
        ? "; the seeds of each arm agree exactly"
        : `; the seeds of one arm differ by up to ${nats(widest)}`;
    case "unknown":
      return "; with one seed nothing says whether this is more than chance";
  }
}

/** From the pair of seeds that favours one arm most to the pair that favours the other. */
function interval({ a, b }: ArmComparison): string {
  return `between ${signedNats(a.min - b.max)} and ${signedNats(a.max - b.min)} over all pairs of seeds`;
}
