/**
 * How much an expert says of a label: mutual information of choices and labels, with a baseline of labels that are
 * dealt out anew. The plain estimate is above 0 by chance, by about (E - 1)(C - 1) / (2 n ln 2) bits for n independent
 * choices; choices of one text are not independent, which a formula does not know and a deal of whole units does.
 *
 * Letters: E experts, C labels, U units that have one label each (tokens, or sequences of a text).
 */
import { at } from "../../base/at.js";
import { meanOf } from "../../base/mean.js";
import { randomStream } from "../../base/random.js";
import type { Specialisation } from "../../model/results/experts.js";

/** Deals of the labels: enough for a p of 0.01. */
const DEALS = 99;

/** The choices of experts in units: which expert each choice is, and where each unit's choices begin. */
interface UnitChoices {
  /** [choices] */
  readonly chosen: Int32Array;
  /** Choices in each unit, the same in all. */
  readonly perUnit: number;
  readonly experts: number;
}

/**
 * Mutual information of experts and labels. `labels` [U] has a number below `count` for each unit. The deals are a
 * function of `seed` and `stream`.
 */
export function specialisation(
  choices: UnitChoices,
  labels: Int32Array,
  count: number,
  { seed, stream }: { readonly seed: number; readonly stream: string },
): Specialisation {
  const bits = mutualInformation(countTable(choices, labels, count));
  const order = new Int32Array(labels.length);
  const dealt = Array.from({ length: DEALS }, (_, deal) => {
    randomStream(seed, `${stream}/deal/${deal}`).permutation(order);
    const anew = order.map((unit) => at(labels, unit));
    return mutualInformation(countTable(choices, anew, count));
  });
  const byChance = meanOf(dealt);
  // Sums of the same table in another order may differ in their last bits.
  const reached = dealt.filter((one) => one >= bits - 1e-12).length;
  return {
    bits,
    byChance,
    excess: bits - byChance,
    p: (1 + reached) / (1 + DEALS),
    most: entropyOfLabels(labels, count),
  };
}

/** How often each expert was chosen under each label [C, E]. */
export function countTable({ chosen, perUnit, experts }: UnitChoices, labels: Int32Array, count: number): number[][] {
  const table = Array.from({ length: count }, () => new Array<number>(experts).fill(0));
  for (let unit = 0; unit < labels.length; unit++) {
    const row = at(table, at(labels, unit));
    for (let i = unit * perUnit; i < (unit + 1) * perUnit; i++) row[at(chosen, i)]! += 1;
  }
  return table;
}

/** Mutual information in bits of the two sides of a table of counts. */
export function mutualInformation(table: readonly (readonly number[])[]): number {
  const rows = table.map(sum);
  const total = sum(rows);
  const columns = (table[0] ?? []).map((_, column) => sum(table.map((row) => at(row, column))));
  let bits = 0;
  table.forEach((row, r) =>
    row.forEach((count, c) => {
      if (count > 0) bits += (count / total) * Math.log2((count * total) / (at(rows, r) * at(columns, c)));
    }),
  );
  return Math.max(0, bits);
}

function entropyOfLabels(labels: Int32Array, count: number): number {
  const counts = new Array<number>(count).fill(0);
  for (const label of labels) counts[label]! += 1;
  return sum(counts.map((one) => (one === 0 ? 0 : (one / labels.length) * Math.log2(labels.length / one))));
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
