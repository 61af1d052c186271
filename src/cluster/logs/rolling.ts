/** The last values of a series, with their median and their spread at hand: a judge of every step must be cheap. */

/**
 * The last values that were given, at most `most` of them. They are kept sorted as they come and go, so that a median
 * is looked up and a spread is one pass over them, where sorting them for every step would cost ten times as much.
 */
export class RollingValues {
  /** In the order in which they came, and in ascending order. */
  readonly #order: number[] = [];
  readonly #sorted: number[] = [];

  constructor(private readonly most: number) {}

  get length(): number {
    return this.#order.length;
  }

  /** Takes a finite number; the oldest goes where there are too many. */
  push(value: number): void {
    this.#order.push(value);
    this.#sorted.splice(this.#placeOf(value), 0, value);
    if (this.#order.length <= this.most) return;
    this.#sorted.splice(this.#placeOf(this.#order.shift()!), 1);
  }

  /** Forgets all. */
  clear(): void {
    this.#order.length = this.#sorted.length = 0;
  }

  /** The upper median; NaN of nothing. */
  get median(): number {
    return this.#sorted[this.#sorted.length >> 1] ?? NaN;
  }

  /** The upper median of the distances from the median; NaN of nothing. */
  get spread(): number {
    const sorted = this.#sorted;
    const middle = sorted.length >> 1;
    const median = this.median;
    // Distances grow to both sides of the median: the two sides are merged as far as their middle.
    let [left, right, distance] = [middle - 1, middle, NaN];
    for (let taken = 0; taken <= middle && taken < sorted.length; taken++) {
      const below = left >= 0 ? median - sorted[left]! : Infinity;
      const above = right < sorted.length ? sorted[right]! - median : Infinity;
      distance = Math.min(below, above);
      if (below < above) left--;
      else right++;
    }
    return distance;
  }

  /** Index of the first sorted value that is not below `value`. */
  #placeOf(value: number): number {
    let [low, high] = [0, this.#sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#sorted[middle]! < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
