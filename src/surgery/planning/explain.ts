/** A plan in words, for `--explain` and dry runs: read off the plan's expressions, not off the recipe. */
import { routerOrder } from "../../model/decoder/types.js";
import { factorOf, originOf, type Expr, type Shapes } from "./expr.js";
import { sourceShapes, type PlannedSlot, type SurgeryPlan } from "./plan.js";
import { recipeName } from "./recipe.js";
import type { ExpectedPreservation } from "./expectation.js";
import { formatFactor } from "./scaling.js";

/**
 * `names`: of several parents, the base first. Lines without indentation: title, one line per kind of tensor, unused
 * tensors, expectation, warnings.
 */
export function explainPlan(plan: SurgeryPlan, names: readonly string[] = []): string[] {
  const { recipe, source, target } = plan;
  const chosen = target.layers.flatMap(({ ffn }, layer) => (ffn.kind === "moe" ? [{ ffn, layer }] : []));
  const { ffn, layer } = chosen[0]!;
  const dense = source.layers[layer]!.ffn.ffnDim;
  const shapes = sourceShapes(source);
  const where = chosen.length === target.layers.length ? "" : ` in ${chosen.length} of ${target.layers.length} layers`;
  return [
    `${recipeName(recipe)}: ${source.family} to ${target.family}, ${ffn.experts} experts of size ${ffn.ffnDim} ` +
      "in place of " +
      `one FFN of ${dense}${where}, ${ffn.topK} per token, ${routerOrder(ffn.router)} router`,
    ...groupByPart(plan.outputs).map((group) =>
      explainGroup(group, {
        shapes,
        nameOf: (index) => (names.length > 1 ? names[index]! : index === 0 ? "the parent" : `parent ${index}`),
      }),
    ),
    ...(plan.unused.length === 0 ? [] : [`not used: ${listed(plan.unused)}`]),
    explainExpectation(plan.expected),
    ...plan.warnings.map((warning) => `warning: ${warning}`),
  ];
}

function listed(keys: readonly string[]): string {
  return keys.length <= 6 ? keys.join(", ") : `${keys.slice(0, 3).join(", ")}, and ${keys.length - 3} more`;
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
function groupByPart(outputs: readonly PlannedSlot[]): [string, PlannedSlot[]][] {
  const groups = new Map<string, PlannedSlot[]>();
  for (const output of outputs) {
    const { part, expert } = output.slot.at;
    const name = expert === undefined ? part : `experts.${part}`;
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [output]);
    else group.push(output);
  }
  return [...groups];
}

interface Words {
  readonly shapes: Shapes;
  /** What to call a parent. */
  readonly nameOf: (source: number) => string;
}

function explainGroup([name, group]: [string, PlannedSlot[]], words: Words): string {
  const count = group.length === 1 ? "" : ` (${group.length} tensors)`;
  const first = group[0]!;
  const distinct = new Set(group.map(({ value }) => describe(value, first.slot.shape[0]!, words)));
  const [one, two, ...more] = [...distinct];
  const rest = more.length === 0 ? "" : `; and so on, ${distinct.size} parts in turn`;
  const text = two === undefined ? one : `${one}; ${two}${rest}`;
  return `${name}${count}: ${text}`;
}

function describe(expr: Expr, rowCount: number, words: Words): string {
  const { shapes, nameOf } = words;
  if (expr.op === "mean") {
    const parts = expr.parts.map((one) => describe(one, rowCount, words).replace(/^copy of /, ""));
    return parts.length <= 3
      ? `mean of ${parts.join(" and ")}`
      : `mean of ${parts.length}: ${parts[0]}, ${parts[1]}, ...`;
  }
  if (expr.op === "data")
    return (
      `${expr.rowCount} rows made from prompts or drawn ` +
      `uniformly${expr.repeat === 1 ? "" : `, each ${expr.repeat} times in a row`}`
    );
  if (expr.op === "normal") {
    const drawn = rowCount / expr.repeat;
    const repeated = expr.repeat === 1 ? "" : `, each ${expr.repeat} times in a row`;
    return `${drawn} row${drawn === 1 ? "" : "s"} drawn from a normal of std ${formatFactor(expr.std)}${repeated}`;
  }
  if (expr.op === "fill") return `filled with ${expr.value}`;
  if (expr.op === "offset") return `${describe(expr.of, rowCount, words)}, plus ${formatFactor(expr.by)}`;
  if (expr.op === "permuteRows")
    return `${describe(expr.of, rowCount, words)}, reordered in every ${expr.order.length} rows`;
  if (expr.op === "scale" && originOf(expr, shapes) === null)
    return `${describe(expr.of, rowCount, words)}, times ${formatFactor(expr.by)}`;
  if (expr.op === "pad")
    return `${describe(expr.of, rowCount, words)}, filled with zeros to ${expr.rowCount} x ${expr.columnCount}`;
  if (expr.op === "noise") {
    const on = expr.fraction === 1 ? "" : ` on ${formatFactor(100 * expr.fraction)} % of the elements`;
    return (
      `${describe(expr.of, rowCount, words)}, plus noise of std ` +
      `${formatFactor(expr.std)}${expr.relative ? " times their own" : ""}${on}`
    );
  }
  if (expr.op === "redraw")
    return (
      `${describe(expr.of, rowCount, words)}, ${expr.count} of its ${expr.axis} drawn afresh with their mean and ` +
      "std"
    );
  if (expr.op === "shuffle") return `${describe(expr.of, rowCount, words)}, ${expr.axis} in an order of its own`;
  if (expr.op === "concat")
    return `${expr.parts.length} joined by ${expr.axis}: ${describe(expr.parts[0]!, rowCount, words)}, ...`;
  const origin = originOf(expr, shapes)!;
  const part = origin.key.slice(origin.key.lastIndexOf(".") + 1);
  const whole = shapes.get(origin.key)!;
  const times = factorOf(expr) === 1 ? "" : `, times ${formatFactor(factorOf(expr))}`;
  if (origin.rowCount < whole[0]!) {
    return (
      `rows ${origin.rowStart}..${origin.rowStart + origin.rowCount - 1} of ${nameOf(origin.source ?? 0)}'s ` +
      `${part}${times}`
    );
  }
  if (whole.length > 1 && origin.columnCount < whole[1]!) {
    return (
      `columns ${origin.columnStart}..${origin.columnStart + origin.columnCount - 1} of ` +
      `${nameOf(origin.source ?? 0)}'s ${part}${times}`
    );
  }
  return `copy of ${nameOf(origin.source ?? 0)}'s ${part}${times}`;
}
