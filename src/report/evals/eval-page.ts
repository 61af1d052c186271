/**
 * Models on evaluation tasks as one HTML file: scores, differences with their intervals, and the samples behind them.
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
import { css } from "../page/css.js";
import { escapeHtml } from "../page/escape.js";
import { factsAndCommand, pageSection, renderPage, type ReportAssets } from "../page/shell.js";
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
const MOST_SAMPLES = 40;
/** Characters of a prompt's end that are shown. */
const PROMPT_END = 600;

/** The page as the text of an HTML file. */
export function renderEvaluationHtml(page: EvaluationPage, assets: ReportAssets): string {
  const { models, version } = page;
  const [first, ...others] = models;
  if (first === undefined) throw new Error("there is no model to show");
  return renderPage(
    {
      title: `${models.map(({ name }) => name).join(", ")} · evaluation`,
      version,
      footer: ". Nothing on this page is loaded from a network.",
      body: [
        header(page),
        warningSection(models),
        scoreSection(page),
        ...others.flatMap((other, i) => [
          differenceSection(first, other, page.groups, i),
          sampleSection(first, other, i),
        ]),
        provenance(page),
      ],
      data: null,
      script: "",
      style: pageStyle,
    },
    assets,
  );
}

const pageStyle = css`
  .better {
    font-weight: 600;
  }
  .worse {
    font-weight: 600;
    text-decoration: underline;
  }
  .level-1 {
    padding-left: 1rem;
    font-weight: 400;
  }
  .level-2,
  .level-3 {
    padding-left: 2rem;
    font-weight: 400;
  }
  .right {
    color: var(--accent);
    font-size: 0.8rem;
  }
  .interval {
    display: block;
    width: 9rem;
    height: 1.1rem;
    fill: var(--muted);
    stroke: var(--muted);
  }
  .interval .zero {
    stroke: var(--cue);
  }
  .interval.changed {
    fill: var(--accent);
    stroke: var(--accent);
  }
  details pre {
    overflow-wrap: anywhere;
    white-space: pre-wrap;
  }
`;

function header({ models }: EvaluationPage): string {
  const [first] = models;
  const tasks = first?.outcome.tasks ?? [];
  const samples = tasks.reduce((sum, { records }) => sum + records.length, 0);
  const names = models.map(({ name }) => escapeHtml(name)).join(" and ");
  return (
    `<header><p class="kicker">evaluation</p><h1>${names}</h1>` +
    `<p class="lead">${grouped(tasks.length)} tasks with ${grouped(samples)} samples, by the prompts and metrics of ` +
    "the LM Evaluation Harness.</p></header>"
  );
}

function warningSection(models: readonly PageModel[]): string {
  const items = models.flatMap(({ name, outcome }) =>
    outcome.tasks.flatMap(({ result, warnings }) =>
      warnings.map((warning) => `<li><b>${escapeHtml(`${name}, ${result.name}`)}</b>: ${escapeHtml(warning)}</li>`),
    ),
  );
  return items.length === 0
    ? ""
    : pageSection("warnings", "Before you read on", `<ul class="findings">${items.join("")}</ul>`);
}

function scoreSection({ models, groups }: EvaluationPage): string {
  const all = models.map(
    ({ outcome }) =>
      new Map([...outcome.groups, ...outcome.tasks.map(({ result }) => result)].map((one) => [one.name, one])),
  );
  const tasks = (models[0]?.outcome.tasks ?? []).map(({ result }) => result.name);
  const rows = inGroups(groups, tasks).flatMap(({ name, level }) => {
    const task = all[0]?.get(name);
    const heading = `<span class="level-${Math.min(level, 3)}">${escapeHtml(task?.alias ?? name)}</span>`;
    if (task === undefined || task.metrics.length === 0) return [[heading, "", ...models.map(() => ""), ""]];
    return task.metrics.map(({ metric, filter, higherIsBetter }, m) => [
      heading,
      escapeHtml(filter === "none" ? metric : `${metric}, ${filter}`) + (higherIsBetter ? " ↑" : " ↓"),
      ...all.map((results) => valueWords(at(results.get(name)!.metrics, m))),
      grouped(task.size),
    ]);
  });
  const heads = ["task", "metric", ...models.map(({ name }) => escapeHtml(name)), "samples"];
  return pageSection(
    "scores",
    "Scores",
    `${framedTable(heads, rows, (column) => column > 1, "scores")}<p class="note">Behind ± stands one standard ` +
      "error. An arrow says which direction is better.</p>",
  );
}

const valueWords = ({ value, stderr }: MetricResult): string =>
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

function differenceSection(first: PageModel, other: PageModel, groups: readonly Group[], index: number): string {
  const all = differencesOf(first.outcome, other.outcome, groups);
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
  const [a, b] = [escapeHtml(first.name), escapeHtml(other.name)];
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
function sampleSection(first: PageModel, other: PageModel, index: number): string {
  const parts = first.outcome.tasks.flatMap((task, i) => {
    const rows = samplesOf(task, at(other.outcome.tasks, i), first.name, other.name);
    return rows === "" ? [] : [`<details><summary>${escapeHtml(task.result.name)}</summary>${rows}</details>`];
  });
  return parts.length === 0
    ? ""
    : pageSection(
        `samples-${index}`,
        `Samples on which ${escapeHtml(first.name)} and ${escapeHtml(other.name)} differ`,
        parts.join("") + '<p class="note">In bold: the answer that a model takes.</p>',
      );
}

function samplesOf(task: TaskOutcome, other: TaskOutcome, firstName: string, otherName: string): string {
  const [metric] = task.task.config.metrics;
  const differing = task.records.flatMap((record, i) => {
    const [before, after] = [record, at(other.records, i)].map(
      ({ results }) => results[0]?.metrics[metric?.name ?? "acc"],
    );
    const isPair = typeof before === "number" && typeof after === "number" && before !== after;
    return isPair ? [{ record, other: at(other.records, i), gained: after > before }] : [];
  });
  const shown = differing.slice(0, MOST_SAMPLES).map(({ record, other: second, gained }) => {
    const { requests, target, id } = record.sample;
    const prompt = promptOf(at(requests, 0));
    const end = prompt.length > PROMPT_END ? `…${prompt.slice(-PROMPT_END)}` : prompt;
    const [own, others] = [record, second].map(({ sample, responses }) => task.judge.chosen(sample, responses));
    const answers = requests.map((request, i) => [
      escapeHtml(request.kind === "loglikelihood" ? request.continuation : "answer") +
        (own?.gold === i ? ' <span class="right">right</span>' : ""),
      answerCell(at(record.responses, i), own?.chosen === i),
      answerCell(at(second.responses, i), others?.chosen === i),
    ]);
    const right =
      own === null || own === undefined ? `<p class="note">right: ${escapeHtml(JSON.stringify(target))}</p>` : "";
    return (
      `<h3>document ${id + 1}: ${gained ? "learnt" : "forgotten"}</h3>` +
      (end === "" ? "" : `<pre>${escapeHtml(end)}</pre>`) +
      right +
      framedTable(
        ["continuation", escapeHtml(firstName), escapeHtml(otherName)],
        answers,
        (column) => column > 0,
        "answers",
      )
    );
  });
  const more = differing.length - shown.length;
  return (
    shown.join("") + (more > 0 ? `<p class="note">and ${grouped(more)} more, which the sample files have</p>` : "")
  );
}

const promptOf = (request: Request): string => (request.kind === "rolling" ? request.text : request.context);

/** A model's answer; the choice that it takes stands out. */
function answerCell(response: Response, isChosen: boolean): string {
  const words = escapeHtml(response.kind === "generate" ? response.text : fixed(response.logLikelihood, 3));
  return isChosen ? `<b>${words}</b>` : words;
}

function provenance({ models, command, date }: EvaluationPage): string {
  return pageSection(
    "provenance",
    "Where this is from",
    factsAndCommand(
      [
        ["date", date],
        ...models.flatMap(({ name, maxLength, device, outcome }): [string, string][] => [
          [name, `${device}, ${grouped(maxLength)} tokens at most, ${significant(outcome.seconds)} s`],
        ]),
      ],
      command,
    ),
  );
}
