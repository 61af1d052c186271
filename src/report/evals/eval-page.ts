/**
 * Models on evaluation tasks as a report and as one HTML file: scores, differences with their intervals, and the
 * samples behind them.
 */
import { at } from "../../base/at.js";
import { fixed, grouped, significant } from "../../base/format.js";
import { differencesOf, type TaskDifferences } from "../../evals/suite/differences.js";
import type { ModelOutcome, TaskOutcome } from "../../evals/suite/evaluate.js";
import type { PairedDifference } from "../../evals/tasks/paired.js";
import { inGroups, type Group } from "../../evals/tasks/select.js";
import type { Request } from "../../evals/tasks/prompt.js";
import type { Response } from "../../evals/tasks/sample-results.js";
import type { MetricResult } from "../../evals/tasks/task-results.js";
import { escapeHtml } from "../page/escape.js";
import { factsAndCommand, pageSection, renderPage, type ReportAssets, type ReportBody } from "../page/shell.js";
import { framedTable } from "../page/table.js";

/** A model with what came of it. */
export interface PageModel {
  readonly name: string;
  readonly maxLength: number;
  readonly device: string;
  readonly outcome: ModelOutcome;
}

/** What a page shows; the first model is the one that the others are compared with. */
export interface EvaluationPage {
  readonly models: readonly PageModel[];
  /** Groups of the tasks, each behind those that it holds. */
  readonly groups: readonly Group[];
  readonly command: string;
  /** Day of the evaluation, as text. */
  readonly date: string;
  readonly version: string;
}

/** Samples of one task that are shown of two models. */
export const MOST_SAMPLES = 40;
/** Characters of a prompt's end that are shown. */
export const PROMPT_END = 600;

/** A metric of a task as its row shows it. */
interface ScoreRow {
  readonly task: string;
  /** How deep the task lies in groups. */
  readonly level: number;
  /** Null in the row of a group that has no score of its own. */
  readonly metric: { readonly name: string; readonly higherIsBetter: boolean; readonly samples: number } | null;
  /** By model, in the order of the models. */
  readonly values: readonly Pick<MetricResult, "value" | "stderr">[];
}

/** A sample on which two models differ. */
export interface SampleView {
  /** Number of the document, from 0. */
  readonly id: number;
  readonly isLearnt: boolean;
  /** End of the prompt; empty where there is none. */
  readonly prompt: string;
  /** What would have been right, where no answer below is marked so. */
  readonly target: string | null;
  readonly answers: readonly {
    readonly text: string;
    readonly isRight: boolean;
    readonly first: AnswerView;
    readonly second: AnswerView;
  }[];
}

/** A model's answer, as text or as a log-likelihood. */
interface AnswerView {
  readonly words: string;
  readonly isChosen: boolean;
}

/** A model against the first. */
interface ComparisonView {
  readonly name: string;
  readonly differences: readonly TaskDifferences[];
  readonly samples: readonly { readonly task: string; readonly shown: readonly SampleView[]; readonly more: number }[];
}

/** An evaluation as plain data: all that its report is made of. */
export interface EvaluationSource {
  readonly models: readonly {
    readonly name: string;
    readonly maxLength: number;
    readonly device: string;
    readonly seconds: number;
    readonly warnings: readonly { readonly task: string; readonly text: string }[];
  }[];
  readonly tasks: number;
  readonly samples: number;
  readonly scores: readonly ScoreRow[];
  readonly comparisons: readonly ComparisonView[];
  readonly command: string;
  readonly date: string;
}

/** The plain data of an evaluation. */
export function evaluationSource({ models, groups, command, date }: EvaluationPage): EvaluationSource {
  const [first, ...others] = models;
  if (first === undefined) throw new Error("there is no model to show");
  return {
    models: models.map(({ name, maxLength, device, outcome }) => ({
      name,
      maxLength,
      device,
      seconds: outcome.seconds,
      warnings: outcome.tasks.flatMap(({ result, warnings }) => warnings.map((text) => ({ task: result.name, text }))),
    })),
    tasks: first.outcome.tasks.length,
    samples: first.outcome.tasks.reduce((sum, { records }) => sum + records.length, 0),
    scores: scoreRows(models, groups),
    comparisons: others.map((other) => ({
      name: other.name,
      differences: differencesOf(first.outcome, other.outcome, groups),
      samples: first.outcome.tasks.flatMap((task, i) => {
        const differing = differingSamples(task, at(other.outcome.tasks, i));
        const shown = differing.slice(0, MOST_SAMPLES).map(sampleView);
        return shown.length === 0 ? [] : [{ task: task.result.name, shown, more: differing.length - shown.length }];
      }),
    })),
    command,
    date,
  };
}

/** The page as the text of an HTML file. */
export function renderEvaluationHtml(page: EvaluationPage, assets: ReportAssets): string {
  const source = evaluationSource(page);
  return renderPage({ body: evaluationBody(source), version: page.version, source }, assets);
}

/** The report of an evaluation. */
export function evaluationBody(source: EvaluationSource): ReportBody {
  const { models, comparisons } = source;
  const first = at(models, 0).name;
  return {
    kind: "evaluation",
    title: `${models.map(({ name }) => name).join(", ")} · evaluation`,
    sections: [
      header(source),
      warningSection(source),
      scoreSection(source),
      ...comparisons.flatMap((comparison, i) => [
        differenceSection(first, comparison, i),
        sampleSection(first, comparison, i),
      ]),
      provenance(source),
    ],
    data: null,
  };
}

function header({ models, tasks, samples, comparisons }: EvaluationSource): string {
  const names = models.map(({ name }) => name).join(" and ");
  const counts = `${grouped(tasks)} ${tasks === 1 ? "task" : "tasks"} with ${grouped(samples)} samples`;
  const headline = comparisons.length === 0 ? names : comparisons.map(outcomeWords).join("; ");
  const lead = `${counts}, by the prompts and metrics of the LM Evaluation Harness.`;
  return (
    `<header><p class="kicker">Evaluation <span>${escapeHtml(names)}</span></p>` +
    `<h1>${escapeHtml(headline)}</h1>` +
    `<p class="answer">${lead}</p></header>`
  );
}

/** How a model stands to the first, in a few words. */
function outcomeWords({ name, differences }: ComparisonView): string {
  const count = (verdict: "better" | "worse"): number =>
    differences.filter((one) => one.differences.some((difference) => verdictOf(difference) === verdict)).length;
  const [better, worse] = [count("better"), count("worse")];
  if (better === 0 && worse === 0) return `${name} cannot be told apart`;
  return `${name}: better on ${better}, worse on ${worse} of ${differences.length}`;
}

/** Warnings that are shown at once: scores come behind them. */
const mostWarnings = 5;

function warningSection({ models }: EvaluationSource): string {
  const items = models.flatMap(({ name, warnings }) =>
    warnings.map(({ task, text }) => `<li><b>${escapeHtml(`${name}, ${task}`)}</b>: ${escapeHtml(text)}</li>`),
  );
  if (items.length === 0) return "";
  const list = (some: readonly string[]): string => `<ul class="findings">${some.join("")}</ul>`;
  const rest = items.slice(mostWarnings);
  const more =
    rest.length === 0 ? "" : `<details><summary>${rest.length} more warnings</summary>${list(rest)}</details>`;
  return pageSection("warnings", "Before you read on", list(items.slice(0, mostWarnings)) + more);
}

function scoreRows(models: readonly PageModel[], groups: readonly Group[]): ScoreRow[] {
  const all = models.map(
    ({ outcome }) =>
      new Map([...outcome.groups, ...outcome.tasks.map(({ result }) => result)].map((one) => [one.name, one])),
  );
  const tasks = (models[0]?.outcome.tasks ?? []).map(({ result }) => result.name);
  return inGroups(groups, tasks).flatMap(({ name, level }): ScoreRow[] => {
    const task = all[0]?.get(name);
    if (task === undefined || task.metrics.length === 0)
      return [{ task: task?.alias ?? name, level, metric: null, values: [] }];
    return task.metrics.map(({ metric, filter, higherIsBetter }, m) => ({
      task: task.alias,
      level,
      metric: {
        name: filter === "none" ? metric : `${metric}, ${filter}`,
        higherIsBetter,
        samples: task.size,
      },
      values: all.map((results) => {
        const { value, stderr } = at(results.get(name)!.metrics, m);
        return { value, stderr };
      }),
    }));
  });
}

function scoreSection({ models, scores }: EvaluationSource): string {
  const rows = scores.map(({ task, level, metric, values }) => {
    const heading = `<span class="level-${Math.min(level, 3)}">${escapeHtml(task)}</span>`;
    if (metric === null) return [heading, "", ...models.map(() => ""), ""];
    const name = escapeHtml(metric.name) + (metric.higherIsBetter ? " ↑" : " ↓");
    return [heading, name, ...values.map(valueWords), grouped(metric.samples)];
  });
  const heads = ["task", "metric", ...models.map(({ name }) => escapeHtml(name)), "samples"];
  return pageSection(
    "scores",
    "Scores",
    `${framedTable(heads, rows, (column) => column > 1, "scores")}<p class="note">Behind ± stands one standard ` +
      "error. An arrow says which direction is better.</p>",
  );
}

const valueWords = ({ value, stderr }: Pick<MetricResult, "value" | "stderr">): string =>
  stderr === null ? fixed(value, 4) : `${fixed(value, 4)} ± ${fixed(stderr, 4)}`;

/** What a difference comes to, in one word or two. */
export function verdictOf({ interval: [low, high], higherIsBetter }: PairedDifference): "better" | "worse" | "same" {
  if (low <= 0 && high >= 0) return "same";
  return low > 0 === higherIsBetter ? "better" : "worse";
}

const verdictWords = {
  better: '<span class="better">better</span>',
  worse: '<span class="worse">worse</span>',
  same: "not distinguishable",
} as const;

/** A difference and its interval on a line around 0 that reaches as far as `reach` to either side; better is right. */
function intervalPicture(one: PairedDifference, reach: number): string {
  const direction = one.higherIsBetter ? 1 : -1;
  const place = (value: number): string => fixed(100 + (reach === 0 ? 0 : (96 * direction * value) / reach), 1);
  const [low, high] = one.interval.map(place);
  const changed = verdictOf(one) === "same" ? "" : " changed";
  return (
    `<svg class="interval${changed}" viewBox="0 0 200 20" aria-hidden="true">` +
    `<line class="zero" x1="100" x2="100" y1="1" y2="19"/><line x1="${low}" x2="${high}" y1="10" y2="10"/>` +
    `<circle cx="${place(one.difference)}" cy="10" r="4" stroke="none"/></svg>`
  );
}

/** The farthest end of the intervals of one unit, so that pictures of one unit can be compared. */
function reachOf(all: readonly TaskDifferences[]): (one: PairedDifference) => number {
  const reaches = new Map<string, number>();
  for (const { unit, interval } of all.flatMap(({ differences }) => differences))
    reaches.set(unit, Math.max(reaches.get(unit) ?? 0, ...interval.map(Math.abs)));
  return ({ unit }) => reaches.get(unit) ?? 0;
}

function differenceSection(first: string, { name: other, differences: all }: ComparisonView, index: number): string {
  const reach = reachOf(all);
  const rows = all.flatMap(({ task, differences }) =>
    differences.map((one) => [
      escapeHtml(task),
      escapeHtml(one.filter === "none" ? one.metric : `${one.metric}, ${one.filter}`),
      intervalPicture(one, reach(one)),
      `${signed(one.difference)} [${signed(one.interval[0])}, ${signed(one.interval[1])}]`,
      escapeHtml(one.unit),
      `${grouped(one.better)} : ${grouped(one.worse)}`,
      significant(one.p, 2),
      verdictWords[verdictOf(one)],
    ]),
  );
  const named = (verdict: "better" | "worse"): string => {
    const tasks = all.filter(({ differences }) => differences.some((one) => verdictOf(one) === verdict));
    return tasks.length === 0 ? "none" : tasks.map(({ task }) => escapeHtml(task)).join(", ");
  };
  const [a, b] = [escapeHtml(first), escapeHtml(other)];
  return pageSection(
    `differences-${index}`,
    `What ${b} has learnt and forgotten, against ${a}`,
    `<dl class="facts-list"><div><dt>better on</dt><dd>${named("better")}</dd></div>` +
      `<div><dt>worse on (forgotten)</dt><dd>${named("worse")}</dd></div></dl>` +
      framedTable(
        ["task", "metric", "worse · better", "difference [95 %]", "unit", "better : worse", "p (sign test)", ""],
        rows,
        (column) => column === 3 || column === 5 || column === 6,
        "differences",
      ) +
      `<p class="note">${b} minus ${a} on the same samples. The interval is that of the mean of paired differences; ` +
      "better : worse counts samples, and p is the exact sign test of that count (McNemar's, where answers are right " +
      "or wrong). Many tasks are looked at, so that one in twenty intervals leaves 0 out by chance.</p>",
  );
}

const signed = (value: number): string => `${value > 0 ? "+" : ""}${fixed(value, 4)}`;

/** Samples that one model answers rightly and the other does not. */
function sampleSection(first: string, { name: other, samples }: ComparisonView, index: number): string {
  const parts = samples.map(({ task, shown, more }) => {
    const rest = more === 0 ? "" : `<p class="note">and ${grouped(more)} more, which the sample files have</p>`;
    const rows = shown.map((sample) => sampleMarkup(sample, first, other)).join("");
    return `<details><summary>${escapeHtml(task)}</summary>${rows}${rest}</details>`;
  });
  const title = `Samples on which ${escapeHtml(first)} and ${escapeHtml(other)} differ`;
  const note = '<p class="note">In bold: the answer that a model takes.</p>';
  return parts.length === 0 ? "" : pageSection(`samples-${index}`, title, parts.join("") + note);
}

function sampleMarkup({ id, isLearnt, prompt, target, answers }: SampleView, first: string, other: string): string {
  const rows = answers.map(({ text, isRight, first: own, second }) => [
    escapeHtml(text) + (isRight ? ' <span class="right">right</span>' : ""),
    answerCell(own),
    answerCell(second),
  ]);
  return (
    `<h3>document ${id + 1}: ${isLearnt ? "learnt" : "forgotten"}</h3>` +
    (prompt === "" ? "" : `<pre tabindex="0">${escapeHtml(prompt)}</pre>`) +
    (target === null ? "" : `<p class="note">right: ${escapeHtml(target)}</p>`) +
    framedTable(
      ["continuation", escapeHtml(first), escapeHtml(other)],
      rows,
      (column) => column > 0,
      `answers to document ${id + 1}`,
    )
  );
}

/** A model's answer; the choice that it takes stands out. */
const answerCell = ({ words, isChosen }: AnswerView): string =>
  isChosen ? `<b>${escapeHtml(words)}</b>` : escapeHtml(words);

interface DifferingSample {
  readonly task: TaskOutcome;
  readonly record: TaskOutcome["records"][number];
  readonly other: TaskOutcome["records"][number];
  readonly isLearnt: boolean;
}

function differingSamples(task: TaskOutcome, other: TaskOutcome): DifferingSample[] {
  const [metric] = task.task.config.metrics;
  return task.records.flatMap((record, i) => {
    const [before, after] = [record, at(other.records, i)].map(
      ({ results }) => results[0]?.metrics[metric?.name ?? "acc"],
    );
    const isPair = typeof before === "number" && typeof after === "number" && before !== after;
    return isPair ? [{ task, record, other: at(other.records, i), isLearnt: after > before }] : [];
  });
}

function sampleView({ task, record, other, isLearnt }: DifferingSample): SampleView {
  const { requests, target, id } = record.sample;
  const prompt = promptOf(at(requests, 0));
  const [own, others] = [record, other].map(({ sample, responses }) => task.judge.chosen(sample, responses));
  return {
    id,
    isLearnt,
    prompt: prompt.length > PROMPT_END ? `…${prompt.slice(-PROMPT_END)}` : prompt,
    target: own === null || own === undefined ? JSON.stringify(target) : null,
    answers: requests.map((request, i) => ({
      text: request.kind === "loglikelihood" ? request.continuation : "answer",
      isRight: own?.gold === i,
      first: { words: answerWords(at(record.responses, i)), isChosen: own?.chosen === i },
      second: { words: answerWords(at(other.responses, i)), isChosen: others?.chosen === i },
    })),
  };
}

const promptOf = (request: Request): string => (request.kind === "rolling" ? request.text : request.context);

const answerWords = (response: Response): string =>
  response.kind === "generate" ? response.text : fixed(response.logLikelihood, 3);

function provenance({ models, command, date }: EvaluationSource): string {
  return pageSection(
    "provenance",
    "Where this is from",
    factsAndCommand(
      [
        ["date", date],
        ...models.flatMap(({ name, maxLength, device, seconds }): [string, string][] => [
          [name, `${device}, ${grouped(maxLength)} tokens at most, ${significant(seconds)} s`],
        ]),
      ],
      command,
    ),
  );
}
