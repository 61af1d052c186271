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
  const place = comparison.axis === "tokens" ? `after ${amount(comparison)}` : `at ${amount(comparison)}`;
  const losses = `${lossWithRange(comparison.a)} against ${lossWithRange(comparison.b)} ${place}`;
  return `${claim(nameA, nameB, comparison)}: held-out loss ${losses}, ${size(comparison)}${evidence(comparison)}.`;
}

function claim(nameA: string, nameB: string, comparison: ArmComparison): string {
  const place = comparison.axis === "tokens" ? "at equal tokens" : "at equal FLOPs";
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
