/** A plan as one page of text, at most `columns` wide. */
import { at } from "../../base/at.js";
import { compact, grouped, labelled, table, wrap } from "../../base/format.js";
import type { Plan } from "../../laws/planner/plan.js";
import { comparisonSources, memorySums, planTables, type PlanTable } from "./plan-tables.js";
import { budgetWords, planAnswer, splitWords } from "./plan-words.js";

const labelWidth = 14;

/** Width of the labels of advice that is explained. */
const adviceWidth = 20;

/** Tables of the short form. */
const shortTables: readonly string[] = ["arms", "crossings", "backtest", "models", "layout", "memory"];

const moreHint =
  "--full shows FLOPs, seconds, the sums, sources and what the answer hangs on; --html FILE writes a page with " +
  "sliders; --json has the views too.";

/**
 * A plan as text; `shape` is the dense model's shape in words. With `full` it has every table, sum and reason; else
 * about one screen of what decides.
 */
export function planText(plan: Plan, shape: string, full: boolean, columns = 80): string {
  const row = (label: string, text: string): string[] => labelled(label, text, labelWidth, columns);
  const lines = [
    ...planFacts(plan, shape).flatMap(([label, text]) => row(label, text)),
    "",
    ...planAnswer(plan).flatMap((text, i) => row(i === 0 ? "answer" : "", text)),
    ...planTables(plan)
      .filter(({ id, rows }) => rows.length > 0 && (full || shortTables.includes(id)))
      .flatMap((planTable) => ["", ...section(planTable, plan, full, columns)]),
    "",
    ...(plan.advice.length === 0 ? [] : [...adviceLines(plan, full, columns), ""]),
    ...plan.notes.flatMap(({ text }) => row("note", text)),
    ...(full ? [] : ["", ...wrap(moreHint, columns)]),
  ];
  return lines.join("\n");
}

/** What the plan is about: model, hardware, budget and coefficients. */
function planFacts(plan: Plan, shape: string): readonly (readonly [label: string, text: string])[] {
  const { models, gpu, gpus, currency, coefficients, precision } = plan;
  const format = precision === "bf16" ? "" : ", products in FP8";
  return [
    ["model", `${plan.name}: ${compact(at(models, 0).params.total)} parameters, ${shape}`],
    [
      "seen",
      `D1 = ${compact(plan.seen)} tokens` +
        (plan.parentLoss === null ? "" : `; loss as it is ${plan.parentLoss.toFixed(4)} by the dense law`),
    ],
    [
      "hardware",
      `${gpus} x ${gpu.title}${format}, ${gpu.price} ${currency} a GPU hour, sequence ${grouped(plan.sequence)}`,
    ],
    ["budget", budgetWords(plan.budget, currency)],
    ...(plan.moeParent ? [] : [["coefficients", coefficients.source] as const]),
  ];
}

function adviceLines({ advice }: Plan, full: boolean, columns: number): string[] {
  if (full) return advice.flatMap(({ what, value, why }) => labelled(what, `${value}: ${why}`, adviceWidth, columns));
  const settings = advice.map(({ what, value }) => `${what} ${value}`);
  return labelled("train with", settings.join("; "), labelWidth, columns);
}

function section(planTable: PlanTable, plan: Plan, full: boolean, columns: number): string[] {
  const { id, title, note, head, rows, words } = planTable;
  const alignment = head.map((_, i) => (i === 0 || words.includes(i) ? ("left" as const) : ("right" as const)));
  return [
    title.toUpperCase(),
    ...wrap(note, columns),
    ...table([head, ...rows], alignment, columns),
    ...(full ? furtherWords(id, plan).flatMap((text) => wrap(text, columns)) : []),
  ];
}

/** What the full form says below a table. */
function furtherWords(id: string, plan: Plan): readonly string[] {
  if (id === "memory") return memorySums(plan);
  if (id === "backtest-laws") return comparisonSources(plan).map(([name, text]) => `${name}: ${text}`);
  return id === "crossings" ? splitWords(plan) : [];
}
