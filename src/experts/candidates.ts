/** Which experts are worth a measurement: those that are expected to move least of what their layer adds. */
import { at } from "../base/at.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { leftOutProblem } from "./measures/changes.js";
import type { AskedChange } from "./costs.js";

/** What is known of one layer's experts before anything is run without them. */
export interface ExpertSizes {
  readonly layer: number;
  /** Mean weight over all tokens, 0 where an expert is not chosen [E]. */
  readonly weights: readonly number[];
  /** Inner products of the experts' outputs, as means over inputs [E, E]. */
  readonly products: readonly (readonly number[])[];
}

/**
 * Each expert's part of what the routed experts add: mean weight times root mean square size of its output, as a share
 * of all [E] (Lasby et al. 2025, arXiv 2510.13999, rank experts by the mean of the same product over their own tokens).
 */
export function contributions({ weights, products }: ExpertSizes): number[] {
  const sizes = weights.map((weight, expert) => weight * Math.sqrt(at(at(products, expert), expert)));
  const total = sizes.reduce((sum, size) => sum + size, 0);
  return sizes.map((size) => (total === 0 ? 0 : size / total));
}

/**
 * The `count` experts that are expected to be cheapest to leave out, and the `count` pairs that are expected to be
 * cheapest to merge, over all layers. Merging moves each of two experts' outputs by half of their distance.
 */
export function candidates(spec: DecoderSpec, layers: readonly ExpertSizes[], count: number): AskedChange[] {
  const [drops, merges]: [AskedChange[], AskedChange[]] = [[], []];
  for (const sizes of layers) {
    const { layer, weights, products } = sizes;
    const shares = contributions(sizes);
    const total = weights.reduce((sum, weight, e) => sum + weight * Math.sqrt(at(at(products, e), e)), 0);
    for (const [expert, expected] of shares.entries())
      if (leftOutProblem(spec, layer, [expert]) === null) drops.push(change("without", layer, [expert], expected));
    for (let a = 0; a < weights.length; a++)
      for (let b = a + 1; b < weights.length; b++) {
        const squared = at(at(products, a), a) + at(at(products, b), b) - 2 * at(at(products, a), b);
        const moved = (Math.sqrt(Math.max(0, squared)) / 2) * (at(weights, a) + at(weights, b));
        merges.push(change("merged", layer, [a, b], total === 0 ? 0 : moved / total));
      }
  }
  return [...least(drops, count), ...least(merges, count)];
}

const change = (
  kind: AskedChange["kind"],
  layer: number,
  experts: readonly number[],
  expected: number,
): AskedChange => ({ kind, groups: [{ layer, experts }], asked: false, expected });

/** Ties keep their order, which is that of layers and experts. */
const least = (changes: readonly AskedChange[], count: number): AskedChange[] =>
  changes.toSorted((a, b) => (a.expected ?? 0) - (b.expected ?? 0)).slice(0, count);
