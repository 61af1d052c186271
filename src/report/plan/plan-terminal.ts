/** A plan as one page of text, at most `columns` wide. */
import { at } from "../../base/at.js";
import { compact, grouped, labelled, table, wrap } from "../../base/format.js";
import type { Plan } from "../../laws/planner/plan.js";
import { budgetWords, memorySums, planAnswer, planTables, splitWords, type PlanTable } from "./plan-words.js";

const labelWidth = 14;

/** Tables of the short form. */
const short: readonly string[] = ["arms", "crossings", "models", "layout", "memory"];

/** `full`: every table, sum and reason; else about one screen's worth of what decides. */
export function planText(plan: Plan, shape: string, full: boolean, columns = 80): string {
  const row = (label: string, text: string, width = labelWidth): string[] => labelled(label, text, width, columns);
  const { models, gpu, gpus, currency, coefficients } = plan;
  const lines = [
    ...row("model", `${plan.name}: ${compact(at(models, 0).params.total)} parameters, ${shape}`),
    ...row("seen", `D1 = ${compact(plan.seen)} tokens; loss as it is ${plan.parentLoss.toFixed(4)} by the dense law`),
    ...row(
      "hardware",
      `${gpus} x ${gpu.title}, ${gpu.price} ${currency} a GPU hour, sequence ${grouped(plan.sequence)}`,
    ),
    ...row("budget", budgetWords(plan.budget, currency)),
    ...row("coefficients", coefficients.source),
    "",
    ...planAnswer(plan).flatMap((text, i) => row(i === 0 ? "answer" : "", text)),
    ...planTables(plan)
      .filter(({ id, rows }) => rows.length > 0 && (full || short.includes(id)))
      .flatMap((one) => ["", ...section(one, plan, full, columns)]),
    "",
    ...(full
      ? plan.advice.flatMap(({ what, value, why }) => row(what, `${value}: ${why}`, 20))
      : row("train with", plan.advice.map(({ what, value }) => `${what} ${value}`).join("; "))),
    "",
    ...plan.notes.flatMap(({ text }) => row("note", text)),
    ...(full
      ? []
      : [
          "",
          ...wrap(
            "--full shows FLOPs, seconds, the sums and what the answer hangs on; --html FILE writes a page " +
              "with sliders.",
            columns,
          ),
        ]),
  ];
  return lines.join("\n");
}

function section(one: PlanTable, plan: Plan, full: boolean, columns: number): string[] {
  const alignment = one.head.map((_, i) => (i === 0 || one.words.includes(i) ? ("left" as const) : ("right" as const)));
  const more = !full ? [] : one.id === "memory" ? memorySums(plan) : one.id === "crossings" ? splitWords(plan) : [];
  return [
    one.title.toUpperCase(),
    ...wrap(one.note, columns),
    ...table([one.head, ...one.rows], alignment, columns),
    ...more.flatMap((text) => wrap(text, columns)),
  ];
}
