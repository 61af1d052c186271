/**
 * Predictions and derivatives of a sum of terms, each exp of a form linear in the parameters, or a constant. The inner
 * loop of every fit of such a law.
 *
 * Dimensions: `n` places, `p` parameters. A term has a row for each place that it applies to.
 */
import { addScaled, dot } from "../../base/vectors.js";
import type { Evaluator } from "./types.js";

/** An exponent laid out for evaluation. */
export interface PowerData {
  /** Index of the exponent among the parameters. */
  readonly parameter: number;
  /** sign * product of centred logs, one value per row of the term. */
  readonly feature: Float64Array;
}

/** A term laid out for evaluation, on the rows of the places it applies to. */
export interface TermData {
  /** Index of the coefficient among the parameters. */
  readonly coefficient: number;
  /** The coefficient stands for itself, not for its logarithm. */
  readonly isConstant: boolean;
  readonly rows: Int32Array;
  readonly powers: readonly PowerData[];
}

/** A term with its working memory, one value per row. */
interface WorkingTerm extends TermData {
  /** The term's values, of a constant its slope, 1. */
  readonly values: Float64Array;
  /** The term's part in a pullback or a derivative. */
  readonly shares: Float64Array;
}

/** Evaluates the terms at `n` places: [n] predictions and slopes, [p][n] derivatives. */
export class PowerSumEvaluator implements Evaluator {
  /** Sum of the terms at each place. */
  private readonly total: Float64Array;
  private readonly scaled: Float64Array;
  private readonly terms: readonly WorkingTerm[];

  constructor(
    readonly n: number,
    terms: readonly TermData[],
  ) {
    this.total = new Float64Array(n);
    this.scaled = new Float64Array(n);
    this.terms = terms.map((term) => ({
      ...term,
      values: new Float64Array(term.rows.length).fill(1),
      shares: new Float64Array(term.rows.length),
    }));
  }

  evaluate(theta: Float64Array, out: Float64Array): void {
    const { total } = this;
    total.fill(0);
    for (const { coefficient, isConstant, rows, powers, values } of this.terms) {
      const start = theta[coefficient]!;
      if (isConstant) {
        for (let i = 0; i < rows.length; i++) total[rows[i]!]! += start;
        continue;
      }
      values.fill(start);
      for (const { parameter, feature } of powers) addScaled(values, theta[parameter]!, feature);
      for (let i = 0; i < values.length; i++) {
        const value = Math.exp(values[i]!);
        values[i] = value;
        total[rows[i]!]! += value;
      }
    }
    for (let i = 0; i < total.length; i++) out[i] = Math.log(total[i]!);
  }

  pullback(slopes: Float64Array, gradient: Float64Array): void {
    const { total, scaled } = this;
    gradient.fill(0);
    for (let i = 0; i < total.length; i++) scaled[i] = slopes[i]! / total[i]!;
    for (const { coefficient, rows, powers, values, shares } of this.terms) {
      let sum = 0;
      for (let i = 0; i < values.length; i++) {
        const share = scaled[rows[i]!]! * values[i]!;
        shares[i] = share;
        sum += share;
      }
      gradient[coefficient]! += sum;
      for (const { parameter, feature } of powers) gradient[parameter]! += dot(shares, feature);
    }
  }

  jacobian(out: Float64Array): void {
    const { n, total } = this;
    out.fill(0);
    for (const { coefficient, rows, powers, values, shares } of this.terms) {
      for (let i = 0; i < values.length; i++) {
        const row = rows[i]!;
        const share = values[i]! / total[row]!;
        shares[i] = share;
        out[coefficient * n + row]! += share;
      }
      for (const { parameter, feature } of powers)
        for (let i = 0; i < shares.length; i++) out[parameter * n + rows[i]!]! += shares[i]! * feature[i]!;
    }
  }
}
