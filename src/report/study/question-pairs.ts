/** The numbers that a question of a study compares: one pair for each parent and seed that both arms have. */
import type { Measure, Question } from "../../base/schemas/index.js";
import type { ArmResult, ArmRun, QuestionResult } from "../../model/results/result.js";
import { meanOf } from "../../base/mean.js";
import { finalBalance, lossAt } from "./statistics.js";

/** The questions of a study with the numbers of its runs. */
export function questionResults(questions: readonly Question[], arms: readonly ArmResult[]): QuestionResult[] {
  return questions.map((question) => {
    const { ask, compare, measure, published } = question;
    const of = (name: string): readonly ArmResult[] => arms.filter(({ arm }) => arm === name);
    const pairs = of(compare).flatMap((a) =>
      of(question.with)
        .filter(({ parent }) => parent === a.parent)
        .flatMap((b) => pairsOf(a, b, measure)),
    );
    return { ask, compare, with: question.with, measure, published: published ?? null, pairs };
  });
}

function pairsOf(a: ArmResult, b: ArmResult, measure: Measure): QuestionResult["pairs"] {
  return a.runs.flatMap((run) => {
    const other = b.runs.find(({ seed }) => seed === run.seed);
    if (other === undefined) return [];
    return [
      {
        parent: a.parent,
        seed: run.seed,
        a: finite(valueOf(run, other, measure)),
        b: finite(valueOf(other, run, measure)),
      },
    ];
  });
}

const finite = (value: number | null | undefined): number | null =>
  value !== null && value !== undefined && Number.isFinite(value) ? value : null;

/** A run as the one number that is compared; `other` is the run that it is paired with. */
function valueOf(run: ArmRun, other: ArmRun, measure: Measure): number | null | undefined {
  // A run that diverged has no end, and its losses before say nothing of it.
  if (run.diverged !== undefined) return null;
  switch (measure) {
    case "loss":
      return run.finalLoss;
    case "loss-at-equal-flops": {
      const ends = [run, other].map(({ points }) => points.at(-1)?.flops ?? 0);
      return lossAt(run.points, "flops", Math.min(...ends));
    }
    case "start-loss":
      return run.points[0]?.loss;
    case "worst-loss":
      return Math.max(...run.points.map(({ loss }) => loss));
    case "dead-experts": {
      const balance = finalBalance(run);
      return balance === null ? null : balance.dead / balance.experts;
    }
    case "similarity": {
      const last = run.similarity.at(-1);
      return last === undefined ? null : meanOf(last.layers);
    }
  }
}
