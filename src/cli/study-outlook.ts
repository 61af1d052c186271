/** `upcycle study --dry-run`: what would be trained, in words and as JSON. */
import { bytes, compact, duration, flops, folded, significant, table } from "../base/format.js";
import type { PublishedEffect } from "../model/results/result.js";
import { smallestDetectable, significance } from "../report/study/paired.js";
import type { StudyOutlook, StudyRequest } from "../study/run.js";

/** Seeds and parents of a question: its pairs. */
function pairsOf({ plan }: StudyOutlook, { compare, with: other }: StudyRequest["questions"][number]): number {
  const runsOf = (name: string): string[] =>
    plan.runs.flatMap(({ arm, seed }) => (arm.arm === name ? [`${arm.parent} ${seed}`] : []));
  const others = new Set(runsOf(other));
  return runsOf(compare).filter((run) => others.has(run)).length;
}

/** The smallest difference that a question's pairs find in 80 % of cases; null without a pilot's spread. */
function detectableOf(
  outlook: StudyOutlook,
  question: StudyRequest["questions"][number],
  count: number,
): number | null {
  const pairs = pairsOf(outlook, question);
  if (question.spread === undefined || pairs < 2) return null;
  return question.spread * smallestDetectable(pairs, significance / count);
}

/** The keys of `--json`. */
export function outlookFacts(outlook: StudyOutlook, { questions }: StudyRequest): Record<string, unknown> {
  const { runs, flops: left, seconds, bytes: disk } = outlook.schedule;
  return {
    runs: runs.map(({ name, path, steps, doneSteps, tokens, flops: cost, bytes: size }) => ({
      name,
      path,
      steps,
      doneSteps,
      tokens,
      flops: cost,
      bytes: size,
    })),
    tokens: runs.reduce((sum, run) => sum + run.tokens, 0),
    flops: runs.reduce((sum, run) => sum + run.flops, 0),
    flopsLeft: left,
    secondsLeft: seconds,
    diskBytes: disk,
    questions: questions.map((question) => ({
      ask: question.ask,
      pairs: pairsOf(outlook, question),
      published: question.published ?? null,
      smallestDetectable: detectableOf(outlook, question, questions.length),
    })),
  };
}

/** Lines for a terminal of so many columns. */
export function outlookLines(
  outlook: StudyOutlook,
  { config, threads, jobs }: { readonly config: StudyRequest; readonly threads: number; readonly jobs: number },
  columns: number,
): string[] {
  const { runs, flops: left, seconds, bytes: disk } = outlook.schedule;
  const open = runs.filter(({ doneSteps, steps }) => doneSteps < steps);
  const rows = runs.map(({ name, steps, doneSteps, tokens, flops: cost, bytes: size }) => [
    name,
    doneSteps === 0 ? "to do" : doneSteps === steps ? "there" : `${doneSteps} of ${steps} steps`,
    compact(tokens),
    flops(cost).replace("FLOP", ""),
    bytes(size),
  ]);
  const heading = ["training", "state", "tokens", "FLOP", "disk"];
  const alignment = ["left", "left", "right", "right", "right"] as const;
  const measured = runs.some(({ speed }) => speed !== null);
  const tokens = open.reduce((sum, run) => sum + (run.tokens * (run.steps - run.doneSteps)) / run.steps, 0);
  const total =
    `${open.length} of ${runs.length} trainings to do: ${compact(tokens)} tokens, ${flops(left)}, about ` +
    `${duration(seconds)} with ${jobs} at once on ${threads} ${threads === 1 ? "thread" : "threads"} each ` +
    `(${measured ? "by the speed of runs that are there" : "a first guess: half of what a core with AVX2 does"}); ` +
    `${bytes(disk)} of free disk`;
  return [
    ...table([heading, ...rows], alignment, columns),
    "",
    ...folded(total, columns),
    ...config.questions.flatMap((question) => folded(questionLine(outlook, question, config), columns)),
  ];
}

function questionLine(
  outlook: StudyOutlook,
  question: StudyRequest["questions"][number],
  { questions }: StudyRequest,
): string {
  const { ask, compare, with: other, measure, published } = question;
  const pairs = pairsOf(outlook, question);
  const detectable = detectableOf(outlook, question, questions.length);
  const effect = published === undefined ? "nothing published" : publishedEffect(published);
  const power =
    detectable === null
      ? "what it can detect is known once its seeds are trained (or a pilot's spread is in the file)"
      : `smallest detectable difference ${significant(detectable, 3)}`;
  return `${ask} ${compare} against ${other}, ${measure}, ${pairs} pairs; ${power}; ${effect}`;
}

function publishedEffect({ difference, relative, direction, source }: PublishedEffect): string {
  const size = relative ? `${significant((difference ?? NaN) * 100, 3)} %` : difference;
  return `published: ${direction ?? size} (${source})`;
}
