/** A plan in words, for `--explain` and dry runs: read off the plan's expressions, not off the recipe. */
import { routerOrder } from "../spec/types.js";
import { factorOf, originOf, type Expr, type Shapes } from "./expr.js";
import { sourceShapes, type PlannedTensor, type SurgeryPlan } from "./plan.js";
import { recipeName } from "./recipe.js";
import type { ExpectedPreservation } from "./expectation.js";
import { formatFactor } from "./scaling.js";

/** Lines without indentation: title, one line per kind of tensor, unused tensors, expectation, warnings. */
export function explainPlan(plan: SurgeryPlan): string[] {
  const { recipe, source, target } = plan;
  const chosen = target.layers.flatMap(({ ffn }, layer) => (ffn.kind === "moe" ? [{ ffn, layer }] : []));
  const { ffn, layer } = chosen[0]!;
  const dense = source.layers[layer]!.ffn.inner;
  const shapes = sourceShapes(source);
  const where = chosen.length === target.layers.length ? "" : ` in ${chosen.length} of ${target.layers.length} layers`;
  return [
    `${recipeName(recipe)}: ${source.family} to ${target.family}, ${ffn.experts} experts of size ${ffn.inner} in place of ` +
      `one FFN of ${dense}${where}, ${ffn.topK} per token, ${routerOrder(ffn.router)} router`,
    ...groupByPart(plan.outputs).map((group) => explainGroup(group, shapes)),
    ...(plan.unused.length === 0 ? [] : [`not used: ${plan.unused.join(", ")}`]),
    explainExpectation(plan.expected),
    ...plan.warnings.map((warning) => `warning: ${warning}`),
  ];
}

/** How well the parent's function is expected to be kept, and why, in one line. */
export function explainExpectation({ kind, why }: ExpectedPreservation): string {
  return `function of the parent: ${kinds[kind]} (${why})`;
}

const kinds = {
  exact: "kept exactly",
  "constant-router": "kept exactly by a constant router, approximately by any other",
  approximate: "kept approximately",
} as const;

/** `embed`, `q`, `experts.gate`, ...: a routed expert's matrices are another kind than a dense layer's. */
function groupByPart(outputs: readonly PlannedTensor[]): [string, PlannedTensor[]][] {
  const groups = new Map<string, PlannedTensor[]>();
  for (const output of outputs) {
    const { part, expert } = output.slot.at;
    const name = expert === undefined ? part : `experts.${part}`;
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [output]);
    else group.push(output);
  }
  return [...groups];
}

function explainGroup([name, group]: [string, PlannedTensor[]], shapes: Shapes): string {
  const count = group.length === 1 ? "" : ` (${group.length} tensors)`;
  const first = group[0]!;
  const distinct = new Set(group.map(({ value }) => describe(value, first.slot.shape[0]!, shapes)));
  const [one, two, ...more] = [...distinct];
  const rest = more.length === 0 ? "" : `; and so on, ${distinct.size} parts in turn`;
  const text = two === undefined ? one : `${one}; ${two}${rest}`;
  return `${name}${count}: ${text}`;
}

function describe(expr: Expr, rowCount: number, shapes: Shapes): string {
  if (expr.op === "normal") {
    const drawn = rowCount / expr.repeat;
    const repeated = expr.repeat === 1 ? "" : `, each ${expr.repeat} times in a row`;
    return `${drawn} row${drawn === 1 ? "" : "s"} drawn from a normal of std ${formatFactor(expr.std)}${repeated}`;
  }
  if (expr.op === "fill") return `filled with ${expr.value}`;
  if (expr.op === "offset") return `${describe(expr.of, rowCount, shapes)}, plus ${formatFactor(expr.by)}`;
  if (expr.op === "permuteRows") return `${describe(expr.of, rowCount, shapes)}, reordered in every ${expr.order.length} rows`;
  if (expr.op === "scale" && originOf(expr, shapes) === null) return `${describe(expr.of, rowCount, shapes)}, times ${formatFactor(expr.by)}`;
  if (expr.op === "pad") return `${describe(expr.of, rowCount, shapes)}, filled with zeros to ${expr.rowCount} x ${expr.columnCount}`;
  if (expr.op === "noise") {
    const on = expr.fraction === 1 ? "" : ` on ${formatFactor(100 * expr.fraction)} % of the elements`;
    return `${describe(expr.of, rowCount, shapes)}, plus noise of std ${formatFactor(expr.std)}${expr.relative ? " times their own" : ""}${on}`;
  }
  if (expr.op === "redraw") return `${describe(expr.of, rowCount, shapes)}, ${expr.count} of its ${expr.axis} drawn afresh with their mean and std`;
  if (expr.op === "shuffle") return `${describe(expr.of, rowCount, shapes)}, ${expr.axis} in an order of its own`;
  if (expr.op === "mean") return `average of ${expr.parts.length}: ${describe(expr.parts[0]!, rowCount, shapes)}, ...`;
  if (expr.op === "concat") return `${expr.parts.length} joined by ${expr.axis}: ${describe(expr.parts[0]!, rowCount, shapes)}, ...`;
  const origin = originOf(expr, shapes)!;
  const part = origin.key.slice(origin.key.lastIndexOf(".") + 1);
  const whole = shapes.get(origin.key)!;
  const times = factorOf(expr) === 1 ? "" : `, times ${formatFactor(factorOf(expr))}`;
  if (origin.rowCount < whole[0]!) {
    return `rows ${origin.rowStart}..${origin.rowStart + origin.rowCount - 1} of the parent's ${part}${times}`;
  }
  if (whole.length > 1 && origin.columnCount < whole[1]!) {
    return `columns ${origin.columnStart}..${origin.columnStart + origin.columnCount - 1} of the parent's ${part}${times}`;
  }
  return `copy of the parent's ${part}${times}`;
}
