/**
 * Differences of two models' logits, taken up piece by piece of the vocabulary: nothing but a few numbers per token is
 * kept.
 */
import type { FunctionComparison } from "../model/results/preservation.js";

interface LogitMeter {
  /**
   * Logits [rows, count] of both for tokens `first` to `first + count` of the vocabulary; pieces in order, each once.
   */
  add(parent: Float32Array, child: Float32Array, first: number, count: number): void;
  /** Ends these rows. */
  close(): void;
}

export interface Comparer {
  /** For rows with these targets; rows with a negative target are ignored. */
  open(targets: Int32Array): LogitMeter;
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

export function comparer(vocab: number): Comparer {
  const total = { count: 0, parent: 0, child: 0, largestDifference: 0, difference: 0, largest: 0, kl: 0, agreed: 0 };
  return {
    open(targets) {
      // `cross`: sum of exp(parent - max) * (parent - child), the divergence before it is normalised.
      const rows = Array.from(targets, () => ({ parent: emptyRow(), child: emptyRow(), cross: 0 }));
      return {
        add(parent, child, first, count) {
          rows.forEach((row, index) => {
            const target = targets[index]!;
            if (target < 0) return;
            const start = index * count;
            const before = row.parent.max;
            takeMax(row.parent, parent, start, count, first);
            takeMax(row.child, child, start, count, first);
            if (before > -Infinity) row.cross *= Math.exp(before - row.parent.max);
            for (let i = start; i < start + count; i++) {
              const [a, b] = [parent[i]!, child[i]!];
              const weight = Math.exp(a - row.parent.max);
              row.parent.sum += weight;
              row.child.sum += Math.exp(b - row.child.max);
              row.cross += weight * (a - b);
              const difference = Math.abs(a - b);
              total.difference += difference;
              if (difference > total.largestDifference) total.largestDifference = difference;
              const size = Math.abs(a);
              if (size > total.largest) total.largest = size;
            }
            if (target >= first && target < first + count) {
              row.parent.target = parent[start + target - first]!;
              row.child.target = child[start + target - first]!;
            }
          });
        },
        close() {
          rows.forEach(({ parent, child, cross }, index) => {
            if (targets[index]! < 0) return;
            const [a, b] = [parent.max + Math.log(parent.sum), child.max + Math.log(child.sum)];
            total.count += 1;
            total.parent += a - parent.target;
            total.child += b - child.target;
            total.kl += Math.max(0, cross / parent.sum - a + b);
            total.agreed += Number(parent.best === child.best);
          });
        },
      };
    },
    result() {
      // The sums keep a NaN, which comparisons pass over.
      const broken = Number.isFinite(total.difference) ? 0 : NaN;
      return {
        tokens: total.count,
        parentLoss: total.parent / total.count,
        childLoss: total.child / total.count,
        maxAbsLogitDiff: total.largestDifference + broken,
        meanAbsLogitDiff: total.difference / (total.count * vocab),
        maxAbsLogit: total.largest,
        klDivergence: total.kl / total.count,
        topAgreement: total.agreed / total.count,
      };
    },
  };
}

/** The row's largest logit with this piece; the sum so far follows it. */
function takeMax(row: Row, logits: Float32Array, start: number, count: number, first: number): void {
  const before = row.max;
  for (let i = start; i < start + count; i++) {
    if (logits[i]! > row.max) {
      row.max = logits[i]!;
      row.best = first + i - start;
    }
  }
  if (before > -Infinity) row.sum *= Math.exp(before - row.max);
}
