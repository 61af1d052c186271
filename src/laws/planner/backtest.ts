/** Published comparisons beside what the planner says for each, and what every form of its laws says. */
import { lossOf } from "./arms.js";
import { reuseShare, formNames } from "./alternative-forms.js";
import { curvesOf, upcyclingParams, type Coefficients, type Curves } from "./coefficients.js";
import { orderOf } from "./evidence.js";
import { formsOf, withForm } from "./law-draws.js";
import { publishedComparisons, type PublishedComparison } from "./published-comparisons.js";
import { compare, type Comparison, type Ground } from "./verdict.js";

/** One published comparison, and what is said about it here. Differences are shares of the other model's loss. */
export interface BacktestRow {
  readonly comparison: PublishedComparison;
  /** The plan's answer, computed without the comparison itself and others of its group. */
  readonly answer: Pick<Comparison, "basis" | "verdict" | "difference" | "interval">;
  /** What each form of the laws says as it stands, also where it does not reach. */
  readonly laws: readonly { readonly name: string; readonly difference: number }[];
  /**
   * `holds`: the measured loss lies in the answer's interval, or the verdict has the measured order. `open`: an order
   * was measured, and the answer leaves it open. `fails`: the answer excludes what was measured.
   */
  readonly outcome: "holds" | "open" | "fails";
}

interface BacktestOptions {
  readonly coefficients: Coefficients;
  readonly draws: readonly Curves[];
  readonly level: number;
}

/** All published comparisons; each is left out of the evidence that answers it. */
export function backtest({ coefficients, draws, level }: BacktestOptions): readonly BacktestRow[] {
  const curves = curvesOf(coefficients.arms);
  const forms = lawForms(coefficients, curves);
  return publishedComparisons.map((comparison) => {
    const { size, seen, tokens, against, group } = comparison;
    const ground: Ground = { size, seen, coefficients, curves, draws, level };
    const other = against === "parent" ? { id: "dense" as const, tokens: 0 } : { id: against, tokens };
    const { basis, verdict, difference, interval, loss } = compare(ground, { id: "upcycled", tokens }, other, group);
    const share = (value: number): number => value / loss;
    const answer = {
      basis,
      verdict,
      difference: share(difference),
      interval: interval === null ? null : { low: share(interval.low), high: share(interval.high) },
    };
    return {
      comparison,
      answer,
      laws: forms.map((form) => ({
        name: form.name,
        difference:
          lossOf("upcycled", form.curves, size, seen, tokens) /
            lossOf(other.id, form.curves, size, seen, other.tokens) -
          1,
      })),
      outcome: outcomeOf(comparison, answer),
    };
  });
}

interface LawForm {
  readonly name: string;
  readonly curves: Curves;
}

/** The laws as they are, with each other form of the upcycled one, and with a dense model whose gains saturate. */
function lawForms(coefficients: Coefficients, curves: Curves): readonly LawForm[] {
  const forms = formsOf(coefficients).map((form): LawForm => ({
    name: formNames[form],
    curves: withForm(curves, coefficients, coefficients.arms.upcycled.params, form),
  }));
  const saturating = saturatingReuse(coefficients, curves);
  return saturating === null ? forms : [...forms, { name: "reuse saturates", curves: saturating }];
}

/**
 * The curves with a dense model whose gains from further tokens saturate, the second model of the dense arm; null where
 * the laws do not say how.
 */
export function saturatingReuse({ arms, ranges }: Coefficients, curves: Curves): Curves | null {
  const params = upcyclingParams(arms.upcycled, arms.upcycled.params);
  if (params === null || ranges.tokens === null) return null;
  const [smallest] = ranges.tokens;
  return {
    ...curves,
    continued: (size, seen, tokens) => {
      const parent = curves.dense(size, seen);
      return parent - reuseShare(params, smallest, seen) * (parent - curves.dense(size, seen + tokens));
    },
  };
}

function outcomeOf(comparison: PublishedComparison, answer: BacktestRow["answer"]): BacktestRow["outcome"] {
  const { measured } = comparison;
  const { interval, verdict } = answer;
  if (measured.kind === "loss") {
    if (interval === null) return "open";
    const { difference, rounding } = measured;
    return difference + rounding >= interval.low && difference - rounding <= interval.high ? "holds" : "fails";
  }
  const order = orderOf(comparison);
  const said = { lower: -1, higher: 1, tie: 0, open: null }[verdict];
  if (said === null) return "open";
  if (said === order) return "holds";
  // A tie and an order do not exclude each other: the interval reaches to both sides.
  return said === 0 || order === 0 ? "open" : "fails";
}
