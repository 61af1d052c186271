/**
 * The parts of a plan's page that change with its sliders: markup by section, and the numbers of its chart. Runs in
 * Node and in the page.
 */
import { at } from "../../base/at.js";
import { compact, fixed, significant } from "../../base/format.js";
import { lossOf, type ArmId } from "../../laws/planner/arms.js";
import { curveDraws, curvesOf } from "../../laws/planner/coefficients.js";
import { intervalOf, type Plan } from "../../laws/planner/plan.js";
import type { PlanRequest } from "../../laws/planner/plan-types.js";
import { escapeHtml } from "../page/escape.js";
import { framedTable } from "../page/table.js";
import { armNames, budgetWords, memorySums, planAnswer, planTables, splitWords, type PlanTable } from "./plan-words.js";

/** Markup by the name in `data-live`. */
export type PlanSections = Readonly<Record<string, string>>;

export interface PlanChart {
  readonly x: readonly number[];
  readonly parent: number;
  readonly low: number;
  readonly high: number;
  readonly lines: readonly {
    readonly label: string;
    readonly tone: number;
    readonly values: readonly number[];
    readonly low: readonly number[] | null;
    readonly high: readonly number[] | null;
  }[];
}

/** Tables whose section has their title. */
const alone: readonly string[] = ["arms", "crossings"];

export function planSections(plan: Plan): PlanSections {
  const tables = Object.fromEntries(planTables(plan).map((one) => [one.id, htmlTable(one, !alone.includes(one.id))]));
  const paragraphs = (texts: readonly string[]): string =>
    texts.map((text) => `<p class="note">${escapeHtml(text)}</p>`).join("");
  return {
    ...tables,
    name: escapeHtml(plan.name),
    answer: planAnswer(plan)
      .map((text, i) => (i === 0 ? escapeHtml(text) : `<span class="muted">${escapeHtml(text)}</span>`))
      .join(" "),
    facts: facts(plan)
      .map((text) => `<em>${escapeHtml(text)}</em>`)
      .join(' <span aria-hidden="true">·</span> '),
    tiles: tiles(plan),
    split: paragraphs(splitWords(plan)),
    sums: paragraphs(memorySums(plan)),
    advice: plan.advice
      .map(
        ({ what, value, why }) =>
          `<div><dt>${escapeHtml(what)}</dt><dd><b>${escapeHtml(value)}</b>: ${escapeHtml(why)}</dd></div>`,
      )
      .join(""),
    notes: plan.notes.map(({ text }) => `<li>${escapeHtml(text)}</li>`).join(""),
  };
}

function facts({ models, seen, gpus, gpu, budget, currency }: Plan): readonly string[] {
  return [
    `${compact(at(models, 0).params.total)} parameters`,
    `D1 = ${compact(seen)} tokens`,
    `budget ${budgetWords(budget, currency)}`,
    `${gpus} x ${gpu.title}`,
    `${significant(gpu.price)} ${currency} a GPU hour`,
  ];
}

function tiles({ arms, best, main, recipes, currency, parentLoss, level }: Plan): string {
  const mine = arms.filter(({ recipe }) => recipe === null || recipe === main);
  const [dense, upcycled] = [mine.find(({ id }) => id === "dense"), mine.find(({ id }) => id === "upcycled")];
  const sunk = recipes.find(({ name }) => name === main)?.sunk;
  const winner = best === null ? null : at(arms, best.arm);
  const gain = dense?.loss == null || upcycled?.loss == null ? null : dense.loss - upcycled.loss;
  const items: [string, string, string][] = [
    [
      "Furthest",
      winner === null ? "n/a" : armNames[winner.id],
      best?.share == null ? "" : `in ${Math.round(100 * best.share)} % of draws`,
    ],
    [
      `Loss of ${main ?? "the mixture"}`,
      upcycled?.loss == null ? "n/a" : fixed(upcycled.loss, 3),
      upcycled?.interval == null
        ? `the parent's: ${fixed(parentLoss, 3)}`
        : `${fixed(upcycled.interval.low, 3)}-${fixed(upcycled.interval.high, 3)} (${Math.round(100 * level)} %)`,
    ],
    [
      "Over continued dense",
      gain === null ? "n/a" : `${gain >= 0 ? "-" : "+"}${fixed(Math.abs(gain), 3)}`,
      "nats per token",
    ],
    [
      "D*, parent sunk",
      sunk === undefined
        ? "n/a"
        : sunk.outcome === "at"
          ? compact(sunk.tokens!)
          : sunk.outcome === "always-ahead"
            ? "never"
            : "at once",
      "tokens until scratch catches up",
    ],
    [
      "Cost",
      upcycled?.money == null ? "n/a" : `${compact(upcycled.money)} ${currency}`,
      upcycled?.gpuHours == null ? "does not fit" : `${compact(upcycled.gpuHours)} GPU hours`,
    ],
  ];
  return items
    .map(
      ([name, value, note]) =>
        `<div><dt>${escapeHtml(name)}</dt><dd><b>${escapeHtml(value)}</b><span>${escapeHtml(note)}</span></dd></div>`,
    )
    .join("");
}

function htmlTable({ title, note, head, rows, words }: PlanTable, headed: boolean): string {
  if (rows.length === 0) return "";
  const escaped = rows.map((row) => row.map(escapeHtml));
  const table = framedTable(head.map(escapeHtml), escaped, (column) => column > 0 && !words.includes(column));
  return `${headed ? `<h3>${escapeHtml(title)}</h3>` : ""}<p class="note">${escapeHtml(note)}</p>${table}`;
}

const chartSteps = 49;
const chartDraws = 60;
const tones: Readonly<Record<ArmId, number>> = { dense: 0, scratch: 1, upcycled: 2 };

/** Loss against D2 around the budget and D*, with intervals. */
export function planChart({ coefficients, seed, level }: PlanRequest, plan: Plan): PlanChart {
  const curves = curvesOf(coefficients.arms);
  const draws = curveDraws(coefficients, chartDraws, seed);
  const middle =
    plan.arms.find(({ id, recipe, tokens }) => id === "upcycled" && recipe === plan.main && tokens !== null)?.tokens ??
    plan.seen / 10;
  const star = plan.recipes.find(({ name }) => name === plan.main)?.sunk.tokens ?? middle;
  const [low, high] = [Math.min(middle, star) / 30, Math.max(middle, star) * 10];
  const x = Array.from({ length: chartSteps }, (_, i) =>
    Number((low * (high / low) ** (i / (chartSteps - 1))).toPrecision(4)),
  );
  const round = (value: number): number => Number(value.toFixed(5));
  const lines = (["dense", "scratch", "upcycled"] as const).map((id) => {
    const bands = x.map((tokens) =>
      intervalOf(
        draws.map((one) => lossOf(id, one, plan.size, plan.seen, tokens)),
        level,
      ),
    );
    return {
      label: id === "dense" ? armNames.dense : `${armNames[id]} ${plan.main ?? ""}`.trim(),
      tone: tones[id],
      values: x.map((tokens) => round(lossOf(id, curves, plan.size, plan.seen, tokens))),
      low: bands[0] === null ? null : bands.map((band) => round(band!.low)),
      high: bands[0] === null ? null : bands.map((band) => round(band!.high)),
    };
  });
  const bottom = Math.min(...lines.flatMap(({ low: lows, values }) => lows ?? values));
  // A mixture from scratch starts far above: its beginning may leave the picture.
  const top = plan.parentLoss + 0.45 * (plan.parentLoss - bottom);
  return { x, parent: round(plan.parentLoss), low: round(bottom - 0.05 * (top - bottom)), high: round(top), lines };
}
