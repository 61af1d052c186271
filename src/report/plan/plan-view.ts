/**
 * The parts of a plan's page that change with its sliders: markup by section, and the numbers of its chart. Runs in
 * Node and in the page.
 */
import { at } from "../../base/at.js";
import { compact, duration, fixed, notAvailable, percent, significant } from "../../base/format.js";
import { armNames, lossOf, type ArmId } from "../../laws/planner/arms.js";
import { curvesOf, type Curves } from "../../laws/planner/coefficients.js";
import { curveDraws } from "../../laws/planner/law-draws.js";
import type { CatchUp } from "../../laws/planner/crossing.js";
import type { Plan } from "../../laws/planner/plan.js";
import { intervalOf, type Comparison } from "../../laws/planner/verdict.js";
import type { PlanViews } from "../../laws/planner/views.js";
import { factRows } from "../page/shell.js";
import type { ArmPlan, PlanRequest } from "../../laws/planner/plan-types.js";
import { escapeHtml } from "../page/escape.js";
import { framedTable } from "../page/table.js";
import { tileEntries, type Tile } from "../page/tiles.js";
import { comparisonSources, memorySums, planTables, type PlanTable } from "./plan-tables.js";
import { answerWords, budgetWords, capital, orNone, splitWords, within } from "./plan-words.js";
import { viewSection } from "./view-sections.js";

/** Markup by the name in `data-live`. */
export type PlanSections = Readonly<Record<string, string>>;

/** Loss against further tokens: a line for every kind of model, a dot for every arm of the table. */
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
  /** Every arm at the tokens that the budget buys for it. */
  readonly dots: readonly { readonly x: number; readonly y: number; readonly tone: number; readonly label: string }[];
  /** The budget's tokens and D*. */
  readonly verticals: readonly { readonly value: number; readonly label: string }[];
  /** The fitted range of tokens; null: not known. */
  readonly fitted: readonly [number, number] | null;
}

/** Tables that need no heading, because their section has their title. */
const untitled: readonly string[] = ["arms", "crossings", "backtest"];

/** The sections of a plan. */
export function planSections(plan: Plan, views: PlanViews | null): PlanSections {
  const tables = Object.fromEntries(
    planTables(plan).map((table) => [table.id, htmlTable(table, !untitled.includes(table.id))]),
  );
  const paragraphs = (texts: readonly string[]): string =>
    texts.map((text) => `<p class="note">${escapeHtml(text)}</p>`).join("");
  const { headline, sentences } = answerWords(plan);
  const [first = "", ...because] = sentences;
  return {
    ...tables,
    name: escapeHtml(plan.name),
    headline: escapeHtml(headline),
    answer: escapeHtml(capital(first)),
    because: because.map((text) => `<li>${escapeHtml(text)}</li>`).join(""),
    facts: facts(plan)
      .map((text) => `<em>${escapeHtml(text)}</em>`)
      .join(' <span aria-hidden="true">·</span> '),
    tiles: tiles(plan),
    split: paragraphs(splitWords(plan)),
    views: viewSection(views, plan),
    comparisons: factRows(comparisonSources(plan)),
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

function facts({ models, seen, gpus, gpu, precision, budget, currency }: Plan): readonly string[] {
  return [
    `${compact(at(models, 0).params.total)} parameters`,
    `D1 = ${compact(seen)} tokens`,
    `budget ${budgetWords(budget, currency)}`,
    `${gpus} x ${gpu.title}${precision === "bf16" ? "" : ", products in FP8"}`,
    `${significant(gpu.price)} ${currency} a GPU hour`,
  ];
}

/** The key numbers of a plan as markup. */
function tiles(plan: Plan): string {
  const { arms, main, recipes, moeParent } = plan;
  const upcycled = arms.find(({ id, recipe }) => id === "upcycled" && recipe === main);
  const items: readonly Tile[] = moeParent
    ? arms.map((arm) => costTile(plan, arm, arm.label))
    : [
        verdictTile(plan),
        comparisonTile("Equal tokens, against dense", plan.answer?.equalTokens),
        comparisonTile("Equal FLOPs, against dense", plan.answer?.equalFlops),
        comparisonTile("Against from scratch", plan.answer?.scratch),
        {
          name: "D*, parent sunk",
          value: catchUpWords(recipes.find(({ name }) => name === main)?.sunk),
          note:
            plan.answer?.verdict === "open"
              ? "by laws that do not reach here"
              : "tokens until scratch catches up, by the laws",
        },
        costTile(plan, upcycled, "Cost"),
      ];
  return tileEntries(items);
}

function verdictTile({ answer, level }: Plan): Tile {
  if (answer === null) return { name: "Verdict", value: notAvailable, note: "an arm does not fit" };
  const words = answer.ahead.map((id) => armNames[id]).join(" = ");
  if (answer.verdict === "open") return { name: "Verdict", value: "none", note: "no law answers here" };
  const note = answer.verdict === "tie" ? "too close to be told apart" : `clear in the ${percent(level)} interval`;
  return { name: "Verdict", value: words, note };
}

/** How far the upcycled model is from another: the interval is what counts. */
function comparisonTile(name: string, comparison: Comparison | undefined): Tile {
  if (comparison === undefined) return { name, value: notAvailable, note: "" };
  const { basis, difference, interval, verdict } = comparison;
  const signed = (nats: number): string => `${nats < 0 ? "−" : "+"}${fixed(Math.abs(nats), 3)}`;
  const ends = interval === null ? "" : `${signed(interval.low)} to ${signed(interval.high)}`;
  if (basis === "published") return { name, value: ends, note: "nats, from published comparisons" };
  // What is said of a tie has no sign: which of the two is lower is not known.
  if (verdict === "tie") return { name, value: "a tie", note: `equal within ${within(difference)} nats` };
  const word = verdict === "open" ? ", too close to call" : "";
  return { name, value: signed(difference), note: `nats${ends === "" ? "" : `, ${ends}`}${word}` };
}

function costTile({ currency, gpus }: Plan, arm: ArmPlan | undefined, name: string): Tile {
  if (arm?.money == null || arm.seconds === null) return { name, value: notAvailable, note: "does not fit" };
  const { low, high } = arm.secondsInterval ?? { low: arm.seconds, high: arm.seconds };
  const time = low === high ? duration(arm.seconds) : `${duration(low)} to ${duration(high)}`;
  return { name, value: `${compact(arm.money)} ${currency}`, note: `${time} on ${gpus} GPUs` };
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
  const isNumber = (column: number): boolean => column > 0 && !words.includes(column);
  const table = framedTable(head.map(escapeHtml), cells, isNumber, title);
  return `${withTitle ? `<h3>${escapeHtml(title)}</h3>` : ""}<p class="note">${escapeHtml(note)}</p>${table}`;
}

const chartSteps = 49;
const chartDraws = 60;
const tones: Readonly<Record<ArmId, number>> = { dense: 0, scratch: 1, upcycled: 2 };

/** Loss against D2 around the budget and D*, with intervals; null where there are no losses. */
export function planChart({ coefficients, seed, level }: PlanRequest, plan: Plan): PlanChart | null {
  if (plan.parentLoss === null) return null;
  const parentLoss = plan.parentLoss;
  const curves = curvesOf(coefficients.arms);
  const draws = curveDraws(coefficients, chartDraws, seed);
  const bought = plan.arms.flatMap(({ tokens }) => (tokens === null ? [] : [tokens]));
  const middle =
    plan.arms.find(({ id, recipe, tokens }) => id === "upcycled" && recipe === plan.main && tokens !== null)?.tokens ??
    plan.seen / 10;
  const star = plan.recipes.find(({ name }) => name === plan.main)?.sunk.tokens ?? null;
  const around = [middle, star ?? middle, ...bought];
  const [low, high] = [Math.min(...around) / 30, Math.max(...around) * 10];
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
      label: armNames[id],
      tone: tones[id],
      values: losses(curves).map(round),
      low: hasIntervals ? intervals.map((interval) => round(interval.low)) : null,
      high: hasIntervals ? intervals.map((interval) => round(interval.high)) : null,
    };
  });
  const dots = armDots(plan).map((dot) => ({ ...dot, y: round(dot.y) }));
  const bottom = Math.min(...lines.flatMap(({ low: lows, values }) => lows ?? values));
  // A mixture from scratch starts far above the others: its beginning may lie above the picture, its dots do not.
  const started = lines.filter((_, i) => i !== tones.scratch).flatMap(({ high: highs, values }) => highs ?? values);
  const needed = Math.max(...started, ...dots.map(({ y }) => y));
  const top = Math.max(parentLoss + 0.45 * (parentLoss - bottom), needed + 0.2 * (needed - bottom));
  return {
    x,
    parent: round(parentLoss),
    low: round(bottom - 0.05 * (top - bottom)),
    high: round(top),
    lines,
    dots,
    verticals: [{ value: middle, label: "budget" }, ...(star === null ? [] : [{ value: star, label: "D*" }])],
    fitted: coefficients.ranges.tokens,
  };
}

/**
 * A dot for every arm with a loss, named by its recipe, because its line says its kind; arms of one kind that lie on
 * each other share a dot.
 */
function armDots({ arms }: Plan): PlanChart["dots"] {
  const dots: { x: number; y: number; tone: number; label: string }[] = [];
  for (const { id, recipe, tokens, loss } of arms) {
    if (tokens === null || loss === null) continue;
    const same = dots.find(({ x, y, tone }) => x === tokens && y === loss && tone === tones[id]);
    if (same === undefined) dots.push({ x: tokens, y: loss, tone: tones[id], label: recipe ?? "" });
    else same.label += `, ${recipe ?? ""}`;
  }
  return dots;
}
