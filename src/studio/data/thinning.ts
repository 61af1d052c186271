/** Rows of a long log that are kept where all of them are too many: of every few their lowest and their highest. */

/** Rows of one group that become at most `kept` rows. */
const group = 4;

/**
 * Which rows from `from` on to keep, so that about half of them are left: of every four the one with the lowest value,
 * the one with the highest, and the first whose value is no number, in their order. Repeated, the lowest and the
 * highest of all stay. Returns ascending indices.
 */
export function thinned(values: ArrayLike<number>, from: number): number[] {
  const kept: number[] = [];
  for (let start = from; start < values.length; start += group) {
    const end = Math.min(values.length, start + group);
    let [lowest, highest, gap] = [-1, -1, -1];
    for (let i = start; i < end; i++) {
      const value = values[i]!;
      if (!Number.isFinite(value)) gap = gap < 0 ? i : gap;
      else {
        if (lowest < 0 || value < values[lowest]!) lowest = i;
        if (highest < 0 || value > values[highest]!) highest = i;
      }
    }
    const chosen = [lowest, highest, gap].filter((index, at, all) => index >= 0 && all.indexOf(index) === at);
    kept.push(...chosen.sort((a, b) => a - b));
  }
  return kept;
}
