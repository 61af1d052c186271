/** Says a plan in words, for dry runs and model cards. The words come from the expressions, not from the recipe. */
import { at, entryOf } from "../../base/at.js";
import type { SourceRectangle } from "../../files/numeric/rectangles.js";
import { routerOrder } from "../../model/decoder/types.js";
import { factorOf, originOf, printExpr, type Expr, type Shapes } from "./expr.js";
import { ffnOf } from "./ffn-tensors.js";
import { sourceShapes, type PlannedSlot, type SurgeryPlan } from "./plan.js";
import { recipeName } from "./recipe.js";
import type { ExpectedPreservation } from "./expectation.js";
import { formatFactor } from "./scaling.js";

/**
 * A plan in lines without indentation: title, one line for each kind of tensor, unused tensors, expectation, warnings.
 * `names` says what to call several parents, the base first.
 */
export function explainPlan(plan: SurgeryPlan, names: readonly string[] = []): string[] {
  const shapes = sourceShapes(plan.source);
  const nameOf = (index: number): string => {
    if (names.length > 1) return at(names, index);
    return index === 0 ? "the parent" : `parent ${index}`;
  };
  return [
    explainTitle(plan),
    ...groupByPart(plan.outputs).map((group) => explainGroup(group, { shapes, nameOf })),
    ...(plan.unused.length === 0 ? [] : [`not used: ${listed(plan.unused)}`]),
    explainExpectation(plan.expected),
    ...plan.warnings.map((warning) => `warning: ${warning}`),
  ];
}

/** The first line of a plan: what becomes of the FFNs. */
export function explainTitle({ recipe, source, target }: Pick<SurgeryPlan, "recipe" | "source" | "target">): string {
  const moes = target.layers.flatMap(({ ffn }, layer) => (ffn.kind === "moe" ? [{ ffn, layer }] : []));
  const { ffn, layer } = at(moes, 0);
  const where = moes.length === target.layers.length ? "" : ` in ${moes.length} of ${target.layers.length} layers`;
  return (
    `${recipeName(recipe)}: ${source.family} to ${target.family}, ${ffn.experts} experts of size ${ffn.ffnDim} in ` +
    `place of one FFN of ${ffnOf(source, layer).ffnDim}${where}, ${ffn.topK} per token, ` +
    `${routerOrder(ffn.router)} router`
  );
}

function listed(keys: readonly string[]): string {
  return keys.length <= 6 ? keys.join(", ") : `${keys.slice(0, 3).join(", ")}, and ${keys.length - 3} more`;
}

/** How well the parent's function is expected to be kept, and why, in one line. */
export function explainExpectation({ kind, why, rounded = [] }: ExpectedPreservation): string {
  const words = rounded.length === 0 ? kinds[kind] : roundedKinds[kind];
  return [`function of the parent: ${words} (${why})`, ...rounded].join("; ");
}

const kinds = {
  exact: "kept exactly",
  "constant-router": "kept exactly by a constant router, approximately by any other",
  approximate: "kept approximately",
} as const;

const roundedKinds = {
  exact: "kept up to rounding",
  "constant-router": "kept up to rounding by a constant router, approximately by any other",
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
  /** What to call a parent: 0 is the base. */
  readonly nameOf: (source: number) => string;
}

function explainGroup([name, group]: [string, PlannedSlot[]], words: Words): string {
  const count = group.length === 1 ? "" : ` (${group.length} tensors)`;
  const rowCount = at(at(group, 0).slot.shape, 0);
  const distinct = new Set(group.map(({ value }) => describe(value, rowCount, words)));
  const [one, two, ...more] = [...distinct];
  const rest = more.length === 0 ? "" : `; and so on, ${distinct.size} parts in turn`;
  const text = two === undefined ? one : `${one}; ${two}${rest}`;
  return `${name}${count}: ${text}`;
}

/** One expression in words; `rowCount` is that of the tensor it gives. */
function describe(expr: Expr, rowCount: number, words: Words): string {
  const inner = (of: Expr): string => describe(of, rowCount, words);
  switch (expr.op) {
    case "mean":
      return describeMean(expr.parts.map((part) => inner(part).replace(/^copy of /, "")));
    case "data":
      return `${expr.rowCount} rows made from prompts or from text, or drawn uniformly${repeats(expr.repeat)}`;
    case "normal": {
      const drawn = rowCount / expr.repeat;
      const rows = `${drawn} row${drawn === 1 ? "" : "s"}`;
      return `${rows} drawn from a normal of std ${formatFactor(expr.std)}${repeats(expr.repeat)}`;
    }
    case "fill":
      return `filled with ${expr.value}`;
    case "offset":
      return `${inner(expr.of)}, plus ${formatFactor(expr.by)}`;
    case "permuteRows":
      return `${inner(expr.of)}, reordered in every ${expr.order.length} rows`;
    case "pad":
      return `${inner(expr.of)}, filled with zeros to ${expr.rowCount} x ${expr.columnCount}`;
    case "pick":
      return `${expr.count} ${expr.axis} of ${inner(expr.of).replace(/^copy of /, "")}, picked by activation`;
    case "noise":
      return `${inner(expr.of)}, plus ${describeNoise(expr)}`;
    case "redraw":
      return `${inner(expr.of)}, ${expr.count} of its ${expr.axis} drawn afresh with their mean and std`;
    case "shuffle":
      return `${inner(expr.of)}, ${expr.axis} in an order of its own`;
    case "concat":
      return `${expr.parts.length} joined by ${expr.axis}: ${inner(at(expr.parts, 0))}, ...`;
    case "scale": {
      const origin = originOf(expr, words.shapes);
      return origin === null
        ? `${inner(expr.of)}, times ${formatFactor(expr.by)}`
        : describeOrigin(origin, factorOf(expr), words);
    }
    case "read":
    case "rows":
    case "columns": {
      const origin = originOf(expr, words.shapes);
      if (origin === null) throw new Error(`the plan takes a part of computed values: ${printExpr(expr)}`);
      return describeOrigin(origin, factorOf(expr), words);
    }
  }
}

const repeats = (repeat: number): string => (repeat === 1 ? "" : `, each ${repeat} times in a row`);

function describeMean(parts: readonly string[]): string {
  const [first, second] = parts;
  return parts.length <= 3 ? `mean of ${parts.join(" and ")}` : `mean of ${parts.length}: ${first}, ${second}, ...`;
}

function describeNoise({ std, relative, fraction }: Extract<Expr, { readonly op: "noise" }>): string {
  const share = fraction === 1 ? "" : ` on ${formatFactor(100 * fraction)} % of the elements`;
  return `noise of std ${formatFactor(std)}${relative ? " times their own" : ""}${share}`;
}

/** Which rows, columns or whole of a parent's tensor is copied, and the factor on it. */
function describeOrigin(origin: SourceRectangle, factor: number, { shapes, nameOf }: Words): string {
  const { key, source = 0, rowStart, rowCount, columnStart, columnCount } = origin;
  const part = key.slice(key.lastIndexOf(".") + 1);
  const times = factor === 1 ? "" : `, times ${formatFactor(factor)}`;
  const tensor = `${nameOf(source)}'s ${part}${times}`;
  const [rows = 1, columns = 1] = entryOf(shapes, key);
  if (rowCount < rows) return `rows ${rowStart}..${rowStart + rowCount - 1} of ${tensor}`;
  if (columnCount < columns) return `columns ${columnStart}..${columnStart + columnCount - 1} of ${tensor}`;
  return `copy of ${tensor}`;
}
