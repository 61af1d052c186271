/**
 * Which experts serve the same tokens, as a training's log holds it.
 *
 * Letters: E experts, K experts per token.
 */
import { at } from "../base/at.js";
import type { ExpertPair } from "./records.js";

/** Tokens of one measurement whose pairs are counted: shares of these are known to a hundredth and better. */
const mostTokens = 16_384;
/**
 * Pairs of a layer in the log, those of the largest shares: all of up to 16 experts. With more experts their number
 * grows with the square, and the log with it.
 */
export const mostPairs = 128;

/** Shares of tokens that were given to both experts of a pair, in one MoE layer. */
export interface PairShares {
  readonly experts: number;
  /** By a * E + b for experts a < b; empty where a token is given to one expert only. */
  readonly shares: Float64Array;
}

/** Counts the pairs of one measurement. */
export class PairCounter {
  #layers: { readonly experts: number; readonly counts: Float64Array }[] = [];
  #tokens = 0;

  /** Counts those of a batch: `chosen` are the experts of each token [tokens * K], by MoE layer. */
  add(chosen: readonly (readonly number[])[], experts: readonly number[], tokens: number): void {
    if (this.#tokens >= mostTokens) return;
    this.#tokens += tokens;
    if (this.#layers.length === 0)
      this.#layers = chosen.map((choices, layer) => {
        const count = at(experts, layer);
        return { experts: count, counts: new Float64Array(choices.length > tokens ? count * count : 0) };
      });
    for (const [layer, choices] of chosen.entries()) countPairs(at(this.#layers, layer), choices, tokens);
  }

  /** Shares of all tokens that were counted, by MoE layer. */
  get shares(): PairShares[] {
    return this.#layers.map(({ experts, counts }) => ({
      experts,
      shares: counts.map((count) => count / this.#tokens),
    }));
  }
}

function countPairs(
  { experts, counts }: { readonly experts: number; readonly counts: Float64Array },
  chosen: readonly number[],
  tokens: number,
): void {
  if (counts.length === 0) return;
  const k = chosen.length / tokens;
  for (let first = 0; first < chosen.length; first += k)
    for (let i = first; i < first + k; i++)
      for (let j = i + 1; j < first + k; j++) {
        const [a, b] = [chosen[i]!, chosen[j]!];
        counts[a < b ? a * experts + b : b * experts + a]! += 1;
      }
}

/** `share` of a layer's shares, beside those that there are already. */
export function weighted({ experts, shares }: PairShares, share: number, before: PairShares | undefined): PairShares {
  return { experts, shares: shares.map((value, i) => share * value + (before?.shares[i] ?? 0)) };
}

/** The pairs of a layer that the log holds, those of the largest shares first. */
export function strongestPairs({ experts, shares }: PairShares): ExpertPair[] {
  if (shares.length === 0) return [];
  // Of thousands of pairs a few are kept: the least share of these comes first.
  const upper: number[] = [];
  for (let a = 0; a < experts; a++) for (let b = a + 1; b < experts; b++) upper.push(a * experts + b);
  const least =
    Float64Array.from(upper, (place) => shares[place]!)
      .sort()
      .at(-mostPairs) ?? -1;
  return (
    upper
      .filter((place) => shares[place]! >= least)
      // Equal ones stay in their order, so that equal measurements give equal lines.
      .sort((first, second) => shares[second]! - shares[first]!)
      .slice(0, mostPairs)
      .map((place) => [Math.floor(place / experts), place % experts, Number(shares[place]!.toPrecision(4))] as const)
  );
}
