/**
 * The parts of a plan's page that change with its sliders: markup by section, and the numbers of its chart. Runs in
 * Node and in the page.
 */
import { at } from "../../base/at.js";
import { compact, fixed, notAvailable, significant } from "../../base/format.js";
import { lossOf, type ArmId } from "../../laws/planner/arms.js";
import { curvesOf, type Curves } from "../../laws/planner/coefficients.js";
import { curveDraws } from "../../laws/planner/law-draws.js";
import type { CatchUp } from "../../laws/planner/crossing.js";
import { intervalOf, type Plan } from "../../laws/planner/plan.js";
import type { ArmPlan, PlanRequest } from "../../laws/planner/plan-types.js";
import { escapeHtml } from "../page/escape.js";
import { framedTable } from "../page/table.js";
import { memorySums, planTables, type PlanTable } from "./plan-tables.js";
import { armNames, budgetWords, orNone, planAnswer, splitWords } from "./plan-words.js";

/** Markup by the name in `data-live`. */
export type PlanSections = Readonly<Record<string, string>>;

/** Loss against further tokens, for every kind of model. */
export interface PlanChart {
  /** Further tokens. */
  readonly x: readonly number[];
  /** Loss of the parent. */
  readonly parent: number;
  /** Lowest and highest loss of the picture. */
  readonly low: number;
  readonly high: number;
  readonly lines: readonly {
    readonly label: string;
    /** Index into `armTones`. */
    readonly tone: number;
    readonly values: readonly number[];
    /** Ends of the interval; null where the coefficients have no draws. */
    readonly low: readonly number[] | null;
    readonly high: readonly number[] | null;
  }[];
}

/** Tables that need no heading, because their section has their title. */
const untitled: readonly string[] = ["arms", "crossings"];

/** The sections of a plan. */
export function planSections(plan: Plan): PlanSections {
  const tables = Object.fromEntries(
    planTables(plan).map((table) => [table.id, htmlTable(table, !untitled.includes(table.id))]),
  );
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

type Tile = readonly [name: string, value: string, note: string];

/** The key numbers of a plan as markup. */
function tiles(plan: Plan): string {
  const { arms, main, recipes } = plan;
  const arm = (kind: ArmId): ArmPlan | undefined =>
    arms.find(({ id, recipe }) => id === kind && (recipe === null || recipe === main));
  const [dense, upcycled] = [arm("dense"), arm("upcycled")];
  const items: readonly Tile[] = [
    furthestTile(plan),
    lossTile(plan, upcycled),
    gainTile(dense, upcycled),
    [
      "D*, parent sunk",
      catchUpWords(recipes.find(({ name }) => name === main)?.sunk),
      "tokens until scratch catches up",
    ],
    costTile(plan, upcycled),
  ];
  return items
    .map(
      ([name, value, note]) =>
        `<div><dt>${escapeHtml(name)}</dt><dd><b>${escapeHtml(value)}</b><span>${escapeHtml(note)}</span></dd></div>`,
    )
    .join("");
}

function furthestTile({ arms, best }: Plan): Tile {
  const name = best === null ? notAvailable : armNames[at(arms, best.arm).id];
  return ["Furthest", name, best?.share == null ? "" : `in ${Math.round(100 * best.share)} % of draws`];
}

function lossTile({ main, parentLoss, level }: Plan, upcycled: ArmPlan | undefined): Tile {
  const interval = upcycled?.interval;
  const note =
    interval == null
      ? `the parent's: ${fixed(parentLoss, 3)}`
      : `${fixed(interval.low, 3)}-${fixed(interval.high, 3)} (${Math.round(100 * level)} %)`;
  return [`Loss of ${main ?? "the mixture"}`, upcycled?.loss == null ? notAvailable : fixed(upcycled.loss, 3), note];
}

function gainTile(dense: ArmPlan | undefined, upcycled: ArmPlan | undefined): Tile {
  const gain = dense?.loss == null || upcycled?.loss == null ? null : dense.loss - upcycled.loss;
  const difference = gain === null ? notAvailable : `${gain >= 0 ? "-" : "+"}${fixed(Math.abs(gain), 3)}`;
  return ["Over continued dense", difference, "nats per token"];
}

function costTile({ currency }: Plan, upcycled: ArmPlan | undefined): Tile {
  return [
    "Cost",
    upcycled?.money == null ? notAvailable : `${compact(upcycled.money)} ${currency}`,
    upcycled?.gpuHours == null ? "does not fit" : `${compact(upcycled.gpuHours)} GPU hours`,
  ];
}

/** When scratch catches up with the upcycled model. */
function catchUpWords(sunk: CatchUp | undefined): string {
  switch (sunk?.outcome) {
    case undefined:
      return notAvailable;
    case "at":
      return orNone(sunk?.tokens ?? null, compact);
    case "always-ahead":
      return "never";
    default:
      return "at once";
  }
}

function htmlTable({ title, note, head, rows, words }: PlanTable, withTitle: boolean): string {
  if (rows.length === 0) return "";
  const cells = rows.map((row) => row.map(escapeHtml));
  const table = framedTable(head.map(escapeHtml), cells, (column) => column > 0 && !words.includes(column));
  return `${withTitle ? `<h3>${escapeHtml(title)}</h3>` : ""}<p class="note">${escapeHtml(note)}</p>${table}`;
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
    const losses = (one: Curves): number[] => x.map((tokens) => lossOf(id, one, plan.size, plan.seen, tokens));
    const lossesOfDraws = draws.map(losses);
    // Either all places have an interval, or the coefficients have too few draws and none has.
    const intervals = x.flatMap(
      (_, i) =>
        intervalOf(
          lossesOfDraws.map((values) => at(values, i)),
          level,
        ) ?? [],
    );
    const hasIntervals = intervals.length === x.length;
    return {
      label: id === "dense" ? armNames.dense : `${armNames[id]} ${plan.main ?? ""}`.trim(),
      tone: tones[id],
      values: losses(curves).map(round),
      low: hasIntervals ? intervals.map((interval) => round(interval.low)) : null,
      high: hasIntervals ? intervals.map((interval) => round(interval.high)) : null,
    };
  });
  const bottom = Math.min(...lines.flatMap(({ low: lows, values }) => lows ?? values));
  // A mixture from scratch starts far above the others: its beginning may lie above the picture.
  const top = plan.parentLoss + 0.45 * (plan.parentLoss - bottom);
  return { x, parent: round(plan.parentLoss), low: round(bottom - 0.05 * (top - bottom)), high: round(top), lines };
}
