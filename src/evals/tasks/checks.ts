/**
 * What makes a result worthless without showing in it: a model that answers nothing, always the same, or by chance, and
 * prompts that were cut off. Each is said on top of the result.
 */
import type { Sample } from "./prompt.js";
import type { Judge, Response } from "./sample-results.js";
import type { LoadedTask } from "./prompt.js";

/** One sample with its answers. */
export interface CheckedSample {
  readonly sample: Sample;
  readonly responses: readonly Response[];
  /** Requests whose context was cut off in front. */
  readonly truncated: number;
}

/** Fewer samples than this say nothing about how a model answers. */
const FEWEST = 10;
/** A choice that is taken so often is no choice. */
const ALWAYS = 0.98;
/** Standard errors around chance within which a score is no better than guessing. */
const Z = 1.96;

const share = (count: number, total: number): string => `${count} of ${total}`;

/**
 * Warnings about a task's answers, in words; none where there is nothing to say. `changes` are settings of the model's
 * generation_config.json that its texts were made without.
 */
export function warningsOf(
  task: LoadedTask,
  judge: Judge,
  samples: readonly CheckedSample[],
  changes: readonly string[] = [],
): readonly string[] {
  return [
    ...brokenNumbers(samples),
    ...cutContexts(samples),
    ...(task.config.outputType === "multiple_choice" ? choiceWarnings(task, judge, samples) : []),
    ...(task.config.outputType === "generate_until" ? [...changedTexts(changes), ...textWarnings(samples)] : []),
  ];
}

const changedTexts = (changes: readonly string[]): string[] =>
  changes.length === 0
    ? []
    : [
        `the texts are the likeliest ones, without ${changes.join(", ")} of the model's generation_config.json, ` +
          "with which transformers would write others",
      ];

const numbersOf = (responses: readonly Response[]): number[] =>
  responses.flatMap((response) => (response.kind === "generate" ? [] : [response.logLikelihood]));

function brokenNumbers(samples: readonly CheckedSample[]): string[] {
  const broken = samples.filter(({ responses }) => numbersOf(responses).some((ll) => !Number.isFinite(ll))).length;
  return broken === 0
    ? []
    : [`${share(broken, samples.length)} samples have log-likelihoods that are NaN or infinite: the model is broken`];
}

function cutContexts(samples: readonly CheckedSample[]): string[] {
  const cut = samples.filter(({ truncated }) => truncated > 0).length;
  return cut === 0
    ? []
    : [
        `${share(cut, samples.length)} prompts were cut off in front, because the model has too few positions: ` +
          "give fewer examples (--num-fewshot)",
      ];
}

function choiceWarnings(task: LoadedTask, judge: Judge, samples: readonly CheckedSample[]): string[] {
  const equal = samples.filter(({ responses }) => {
    const numbers = numbersOf(responses);
    return numbers.length > 1 && numbers.every((ll) => ll === numbers[0]);
  }).length;
  const answers = samples.flatMap(({ sample, responses }) => judge.chosen(sample, responses) ?? []);
  const lost = answers.filter(({ gold }) => gold < 0).length;
  const warnings = [
    ...(lost === 0
      ? []
      : [
          `${share(lost, samples.length)} samples have a right answer that is none of their choices: see doc_to_target`,
        ]),
    ...(equal === 0
      ? []
      : [`${share(equal, samples.length)} samples have the same log-likelihood for all choices: none was preferred`]),
  ];
  if (samples.length < FEWEST) return warnings;
  return [...warnings, ...oneAnswer(answers, samples.length), ...byChance(task, samples, answers)];
}

interface Answer {
  readonly chosen: number;
  /** Negative where it is none of the choices. */
  readonly gold: number;
}

/** The same place is chosen every time although other places are right. */
function oneAnswer(answers: readonly Answer[], total: number): string[] {
  const counts = new Map<number, number>();
  for (const { chosen } of answers) counts.set(chosen, (counts.get(chosen) ?? 0) + 1);
  const [most] = [...counts].sort(([, a], [, b]) => b - a);
  if (most === undefined || new Set(answers.map(({ gold }) => gold)).size < 2) return [];
  const [place, count] = most;
  return count < ALWAYS * answers.length
    ? []
    : [`choice ${place + 1} was taken in ${share(count, total)} samples, whatever was asked`];
}

/** Accuracy within the spread that guessing has. */
function byChance(task: LoadedTask, samples: readonly CheckedSample[], answers: readonly Answer[]): string[] {
  if (answers.length < FEWEST) return [];
  const chances = samples.map(({ sample }) => 1 / task.choices(sample.doc).length);
  const chance = chances.reduce((sum, one) => sum + one, 0) / chances.length;
  const right = answers.filter(({ chosen, gold }) => chosen === gold).length / answers.length;
  const spread = Math.sqrt(chances.reduce((sum, one) => sum + one * (1 - one), 0)) / chances.length;
  return Math.abs(right - chance) > Z * spread
    ? []
    : [
        `acc ${right.toFixed(4)} is not distinguishable from guessing (${chance.toFixed(4)} ± ` +
          `${(Z * spread).toFixed(4)}, 95 % of guesses of ${answers.length} samples)`,
      ];
}

function textWarnings(samples: readonly CheckedSample[]): string[] {
  const texts = samples.flatMap(({ responses }) =>
    responses.flatMap((response) => (response.kind === "generate" ? [response.text.trim()] : [])),
  );
  const empty = texts.filter((text) => text === "").length;
  const [first] = texts;
  const same = samples.length >= FEWEST && first !== "" && texts.every((text) => text === first);
  return [
    ...(empty > 0 ? [`${share(empty, samples.length)} answers are empty`] : []),
    ...(same ? ["every answer is the same text"] : []),
  ];
}
