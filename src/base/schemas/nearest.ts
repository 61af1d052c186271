/** Which known word a mistyped one was probably meant to be. */
import { at } from "../at.js";

/** Levenshtein distance, a swap of neighbours counted as one edit. */
export function editDistance(a: string, b: string): number {
  const width = b.length + 1;
  const costs = new Array<number>((a.length + 1) * width).fill(0);
  const cost = (i: number, j: number): number => at(costs, i * width + j);
  for (let i = 0; i <= a.length; i++) {
    for (let j = 0; j <= b.length; j++) {
      if (i === 0 || j === 0) {
        costs[i * width + j] = i + j;
        continue;
      }
      const replacement = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min(cost(i - 1, j) + 1, cost(i, j - 1) + 1, cost(i - 1, j - 1) + replacement);
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (isSwap) best = Math.min(best, cost(i - 2, j - 2) + 1);
      costs[i * width + j] = best;
    }
  }
  return cost(a.length, b.length);
}

/** The closest candidate, case and separators aside, if it is close enough to be a typing mistake; else undefined. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const plain = (text: string): string => text.toLowerCase().replace(/[-_ .]/g, "");
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(plain(word), plain(candidate));
    if (distance < bestDistance && distance < plain(candidate).length) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}
