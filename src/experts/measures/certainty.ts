/** How sure a router is of its choices: entropy, selected mass and margin, token by token. */
import { at } from "../../base/at.js";
import { meanOf } from "../../base/mean.js";
import { routerScores } from "../../graph/ir/reference-route.js";
import type { RouteRule } from "../../graph/ir/ir.js";
import type { RouterCertainty } from "../../model/results/experts.js";

/** Adds up the certainty of one layer's router. Letters: E experts, K experts per token. */
interface CertaintyMeter {
  /** Logits [rows, E] and choices [rows, K] of some tokens. */
  add(logits: Float32Array, chosen: Int32Array): void;
  result(): RouterCertainty;
}

/** A meter for a router of `experts` experts; `correction` [E] is null where nothing corrects its choice. */
export function certaintyMeter(
  experts: number,
  topK: number,
  rule: RouteRule,
  correction: Float32Array | null,
): CertaintyMeter {
  const shift = correction === null ? undefined : Float64Array.from(correction);
  let [tokens, entropy, mass] = [0, 0, 0];
  const margins: number[] = [];
  return {
    add(logits, chosen) {
      for (let row = 0; row * experts < logits.length; row++) {
        const own = Float64Array.from(logits.subarray(row * experts, (row + 1) * experts));
        const { probabilities, scores, choice } = routerScores(own, shift, rule);
        const taken = chosen.subarray(row * topK, (row + 1) * topK);
        tokens += 1;
        for (const p of probabilities) if (p > 0) entropy -= p * Math.log(p);
        mass += sumAt(scores, taken) / scores.reduce((total, score) => total + score, 0);
        margins.push(marginOf(choice, taken));
      }
    },
    result() {
      margins.sort((a, b) => a - b);
      const decile = (tenth: number): number =>
        at(margins, Math.min(margins.length - 1, Math.floor((tenth / 10) * margins.length)));
      return {
        entropy: entropy / tokens,
        relativeEntropy: experts === 1 ? 0 : entropy / tokens / Math.log(experts),
        mass: mass / tokens,
        margin: meanOf(margins),
        margins: [decile(1), decile(5), decile(9)],
      };
    },
  };
}

const sumAt = (values: Float64Array, places: Int32Array): number =>
  places.reduce((total, place) => total + at(values, place), 0);

/** The least choice value among the taken less the largest among the others that could be chosen; 0 without others. */
function marginOf(choice: Float64Array, taken: Int32Array): number {
  let [least, next] = [Infinity, -Infinity];
  choice.forEach((value, expert) => {
    if (taken.includes(expert)) least = Math.min(least, value);
    else next = Math.max(next, value);
  });
  return Number.isFinite(next) ? Math.max(0, least - next) : 0;
}
