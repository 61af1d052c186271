/**
 * Differences of two models' logits, added up one run of the vocabulary after the other: nothing but a few numbers per
 * token is kept.
 */
import { at } from "../base/at.js";
import type { FunctionComparison } from "../model/results/preservation.js";

/** Adds up the logits of one batch of rows. */
interface LogitMeter {
  /**
   * Takes logits [rows, count] of both for tokens `first` to `first + count` of the vocabulary. Runs come in order,
   * each once.
   */
  add(parent: Float32Array, child: Float32Array, first: number, count: number): void;
  /** Ends these rows. */
  close(): void;
}

/** Compares two models over any number of batches. */
export interface Comparer {
  /** Begins a batch of rows with these targets; rows with a negative target are ignored. */
  open(targets: Int32Array): LogitMeter;
  /** The comparison over all batches so far. */
  result(): FunctionComparison;
}

/** log-sum-exp of a row so far, its largest logit and where that stands, and the target's logit. */
interface Row {
  max: number;
  sum: number;
  best: number;
  target: number;
}

const emptyRow = (): Row => ({ max: -Infinity, sum: 0, best: -1, target: NaN });

/** One token's row of both models; `cross` is the sum of exp(parent - max) * (parent - child), not yet normalised. */
interface RowPair {
  readonly parent: Row;
  readonly child: Row;
  cross: number;
}

/** Sums and largest values over all rows so far. */
const emptyTotals = () => ({
  count: 0,
  parent: 0,
  child: 0,
  largestDifference: 0,
  difference: 0,
  largest: 0,
  kl: 0,
  agreed: 0,
});
type Totals = ReturnType<typeof emptyTotals>;

/** Begins a comparison of two models over a vocabulary of so many tokens. */
export function comparer(vocab: number): Comparer {
  const totals = emptyTotals();
  return {
    open(targets) {
      const rows = Array.from(targets, (): RowPair => ({ parent: emptyRow(), child: emptyRow(), cross: 0 }));
      return {
        add(parent, child, first, count) {
          for (const [index, row] of rows.entries()) {
            const target = at(targets, index);
            if (target < 0) continue;
            const [start, end] = [index * count, (index + 1) * count];
            const [a, b] = [parent.subarray(start, end), child.subarray(start, end)];
            addRun(totals, row, a, b, first);
            if (target < first || target >= first + count) continue;
            row.parent.target = at(a, target - first);
            row.child.target = at(b, target - first);
          }
        },
        close() {
          for (const [index, row] of rows.entries()) if (at(targets, index) >= 0) addRow(totals, row);
        },
      };
    },
    result: () => comparisonOf(totals, vocab),
  };
}

/** Takes up one row's logits of both models for the tokens of the vocabulary from `first` on. */
function addRun(totals: Totals, row: RowPair, parent: Float32Array, child: Float32Array, first: number): void {
  const before = row.parent.max;
  takeMax(row.parent, parent, first);
  takeMax(row.child, child, first);
  if (before > -Infinity) row.cross *= Math.exp(before - row.parent.max);
  for (let i = 0; i < parent.length; i++) {
    const [a, b] = [parent[i]!, child[i]!];
    const weight = Math.exp(a - row.parent.max);
    row.parent.sum += weight;
    row.child.sum += Math.exp(b - row.child.max);
    row.cross += weight * (a - b);
    const difference = Math.abs(a - b);
    totals.difference += difference;
    if (difference > totals.largestDifference) totals.largestDifference = difference;
    const size = Math.abs(a);
    if (size > totals.largest) totals.largest = size;
  }
}

/** The row's largest logit with this run; the sum so far follows it. */
function takeMax(row: Row, logits: Float32Array, first: number): void {
  const before = row.max;
  for (let i = 0; i < logits.length; i++) {
    const logit = logits[i]!;
    if (logit > row.max) {
      row.max = logit;
      row.best = first + i;
    }
  }
  if (before > -Infinity) row.sum *= Math.exp(before - row.max);
}

/** Adds a whole row's losses, divergence and agreement. */
function addRow(totals: Totals, { parent, child, cross }: RowPair): void {
  const [a, b] = [parent.max + Math.log(parent.sum), child.max + Math.log(child.sum)];
  totals.count += 1;
  totals.parent += a - parent.target;
  totals.child += b - child.target;
  totals.kl += Math.max(0, cross / parent.sum - a + b);
  totals.agreed += Number(parent.best === child.best);
}

function comparisonOf(totals: Totals, vocab: number): FunctionComparison {
  // The sums keep a NaN, which comparisons pass over.
  const broken = Number.isFinite(totals.difference) ? 0 : NaN;
  return {
    tokens: totals.count,
    parentLoss: totals.parent / totals.count,
    childLoss: totals.child / totals.count,
    maxAbsLogitDiff: totals.largestDifference + broken,
    meanAbsLogitDiff: totals.difference / (totals.count * vocab),
    maxAbsLogit: totals.largest,
    klDivergence: totals.kl / totals.count,
    topAgreement: totals.agreed / totals.count,
  };
}
