/**
 * The questions of a study answered: what it could detect, what was published, what was measured, and the verdict. The
 * smallest detectable difference comes first, because a study that cannot see the published effect says nothing of it.
 */
import { compact, percent, significant } from "../../base/format.js";
import type { QuestionResult, StudyResult } from "../../model/results/result.js";
import { meanOf } from "../../base/mean.js";
import { holm, pairedTest, pairsNeeded, power, significance, smallestDetectable, type PairedTest } from "./paired.js";
import { plural } from "./wording.js";

/**
 * `reproduced`: a difference in the published direction (`Answer.isOutside` says whether of another size);
 * `contradicted`: in the other. `lower` and `higher` stand where nothing was published. `not powered`: the smallest
 * detectable difference exceeds the published one.
 */
export type AnswerVerdict =
  "reproduced" | "contradicted" | "lower" | "higher" | "not distinguishable" | "not powered" | "too few pairs";

/** A question with its answer. Differences are of the first arm less the second, in the measure's unit. */
export interface Answer {
  readonly question: QuestionResult;
  readonly test: PairedTest;
  /** Mean of the second arm's values. */
  readonly base: number;
  /** Pairs of which a run has diverged. */
  readonly missing: number;
  /** By Holm, over all questions of the study. */
  readonly adjusted: number;
  /** At `power`, with the significance divided among all questions. */
  readonly detectable: number;
  /** The published difference in the measure's unit; null without one. */
  readonly published: number | null;
  /** Whether a difference was published that is outside of the 95 % interval. */
  readonly isOutside: boolean;
  readonly verdict: AnswerVerdict;
  /** Pairs that would decide: for the published effect, or for the difference that was measured. */
  readonly pairsNeeded: number | null;
}

/** Answers to all questions of a study, in their order. */
export function answersOf(questions: readonly QuestionResult[]): Answer[] {
  const tests = questions.map(({ pairs }) => {
    const complete = pairs.flatMap(({ a, b }) => (a === null || b === null ? [] : [{ a, b }]));
    return { test: pairedTest(complete.map(({ a, b }) => a - b)), base: meanOf(complete.map(({ b }) => b)) };
  });
  const adjusted = holm(tests.map(({ test }) => test.p));
  const alpha = significance / Math.max(1, questions.length);
  return questions.map((question, index) => {
    const { test, base } = tests[index] ?? { test: pairedTest([]), base: NaN };
    const published = publishedDifference(question, base);
    const detectable = test.n < 2 ? NaN : test.deviation * smallestDetectable(test.n, alpha);
    const p = adjusted[index] ?? NaN;
    const verdict = verdictOf({ test, adjusted: p, detectable, published, direction: directionOf(question) });
    const wanted = verdict === "not powered" && published !== null ? published : test.mean;
    const isOpen = verdict === "not powered" || verdict === "not distinguishable";
    return {
      question,
      test,
      base,
      missing: question.pairs.length - test.n,
      adjusted: p,
      detectable,
      published,
      isOutside: published !== null && (published < test.low || published > test.high),
      verdict,
      pairsNeeded: isOpen && test.deviation > 0 ? pairsNeeded(wanted / test.deviation, alpha) : null,
    };
  });
}

/** The published difference in the unit of the measure. */
function publishedDifference({ published }: QuestionResult, base: number): number | null {
  if (published?.difference === undefined) return null;
  return published.relative ? published.difference * base : published.difference;
}

/** Sign of what was published; 0 where nothing was. */
function directionOf({ published }: QuestionResult): number {
  if (published?.direction !== undefined) return published.direction === "lower" ? -1 : 1;
  return Math.sign(published?.difference ?? 0);
}

/** The verdict on tested differences, by the published direction: −1, 1, or 0 where nothing is published. */
export function verdictOf({
  test,
  adjusted,
  detectable,
  published,
  direction,
}: Pick<Answer, "test" | "adjusted" | "detectable" | "published"> & { readonly direction: number }): AnswerVerdict {
  if (test.n < 2) return "too few pairs";
  if (published !== null && detectable > Math.abs(published)) return "not powered";
  if (!(adjusted < significance)) return "not distinguishable";
  if (direction === 0) return test.mean < 0 ? "lower" : "higher";
  return Math.sign(test.mean) === direction ? "reproduced" : "contradicted";
}

/** The verdict, and whether the published difference is of another size than the measured one. */
export function verdictWords({ verdict, isOutside }: Pick<Answer, "verdict" | "isOutside">): string {
  if (!isOutside) return verdict;
  if (verdict === "reproduced") return "reproduced in direction, not in size";
  return verdict === "not distinguishable" ? "not distinguishable, and not of the published size" : verdict;
}

/** What was published, for a table: a difference as `of` writes it, a direction, or a dash. */
export function publishedCell({ question, published }: Answer, of: (difference: number) => string): string {
  if (published !== null) return of(published);
  return question.published?.direction ?? "–";
}

/** The answers as sentences, the main question first. */
export function answerFindings(result: Pick<StudyResult, "questions" | "arms">): string[] {
  const answers = answersOf(result.questions);
  return answers.map((answer) =>
    answerSentence(answer, labelsOf(answer.question, result.arms), tokensOf(answer, result)),
  );
}

/** Names of both arms as tables call them. */
export function labelsOf(question: QuestionResult, arms: StudyResult["arms"]): readonly [string, string] {
  const label = (name: string): string => {
    const some = arms.filter(({ arm }) => arm === name);
    return some.length === 1 ? (some[0]?.label ?? name) : name;
  };
  return [label(question.compare), label(question.with)];
}

/** Tokens of training of a pair of runs. */
function tokensOf({ question }: Answer, { arms }: Pick<StudyResult, "arms">): number {
  const of = (name: string): number => {
    const run = arms.find(({ arm }) => arm === name)?.runs[0];
    return run?.points.at(-1)?.tokens ?? 0;
  };
  return of(question.compare) + of(question.with);
}

/** What is said of a measure, and its unit behind a number. */
const measureWords: Readonly<Record<QuestionResult["measure"], { readonly name: string; readonly unit: string }>> = {
  loss: { name: "final held-out loss", unit: " nats" },
  "loss-at-equal-flops": { name: "held-out loss at equal FLOPs", unit: " nats" },
  "start-loss": { name: "held-out loss before the first step", unit: " nats" },
  "worst-loss": { name: "highest held-out loss of the training", unit: " nats" },
  "dead-experts": { name: "share of dead experts at the end", unit: "" },
  similarity: { name: "similarity of experts to the parent at the end", unit: "" },
};

/** The words for a measure. */
export const measureName = (measure: QuestionResult["measure"]): string => measureWords[measure].name;

/** A number of a measure with a sign. */
export function signed(value: number): string {
  const digits = significant(Math.abs(value), 3);
  return value === 0 ? "0" : `${value < 0 ? "−" : "+"}${digits}`;
}

function answerSentence(answer: Answer, [first, second]: readonly [string, string], tokensPerPair: number): string {
  const { question, test, detectable, adjusted } = answer;
  const { name, unit } = measureWords[question.measure];
  const gone = answer.missing === 0 ? "" : ` ${plural(answer.missing, "pair")} with a run that diverged left out.`;
  if (test.n < 2)
    return `${question.ask} Not answered: ${plural(test.n, "pair")} of runs, a comparison needs at least two.${gone}`;
  const could =
    `${plural(test.n, "pair")} of runs find a difference of ${significant(detectable, 3)}${unit} in ` +
    `${percent(power)} of cases (two-sided, ${percent(significance)} over all questions)`;
  const measured =
    `${first} less ${second}: ${signed(test.mean)}${unit} in ${name} (95 % interval ${signed(test.low)} to ` +
    `${signed(test.high)}, p ${pWords(test.p)}${adjusted === test.p ? "" : `, by Holm ${pWords(adjusted)}`})`;
  return (
    `${question.ask} ${verdictSentence(answer, first, second)}: ${could}${publishedWords(answer, unit)}; ` +
    `${measured}.${neededWords(answer, tokensPerPair)}${gone}`
  );
}

function pWords(p: number): string {
  return p < 1e-4 ? "< 0.0001" : significant(p, 2);
}

function publishedWords({ published, question }: Answer, unit: string): string {
  if (question.published === null) return "";
  const { relative, difference, direction, source } = question.published;
  if (published === null || difference === undefined) return `; published is ${direction ?? "nothing"} (${source})`;
  const share = relative ? ` (${signed(difference * 100)} %)` : "";
  return `; published is ${signed(published)}${unit}${share} (${source})`;
}

function verdictSentence({ verdict, test, question, isOutside }: Answer, first: string, second: string): string {
  const isLoss = question.measure.includes("loss");
  const better = test.mean < 0 ? "better" : "worse";
  const side = test.mean < 0 ? "lower" : "higher";
  const direction = isLoss ? `${first} is ${better} than ${second}` : `${first} is ${side} than ${second}`;
  switch (verdict) {
    case "reproduced":
      return `Reproduced${isOutside ? " in direction, not in size" : ""}, ${direction}`;
    case "contradicted":
      return `Contradicted, ${direction}`;
    case "lower":
    case "higher":
      return direction;
    case "not distinguishable":
      return `Not distinguishable at this size${isOutside ? ", and not of the published size" : ""}`;
    case "not powered":
      return `Not powered, this study cannot see an effect of the published size`;
    case "too few pairs":
      return "Not answered";
  }
}

function neededWords({ verdict, pairsNeeded: needed }: Answer, tokensPerPair: number): string {
  if (verdict !== "not powered" && verdict !== "not distinguishable") return "";
  const effect = verdict === "not powered" ? "the published one" : "a difference as large as the measured one";
  if (needed === null) return ` No number of seeds that a study has would decide about ${effect}.`;
  const tokens = compact(needed * tokensPerPair);
  return ` About ${plural(needed, "pair")} (${tokens} tokens of training in all) would decide about ${effect}.`;
}
