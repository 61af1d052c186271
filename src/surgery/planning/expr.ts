/**
 * `Expr`: how one output tensor is made, as data. A new trick is a new op, never a callback, so that a plan can be
 * printed, checked and written to a file. Matrices are [rows, columns] = [out, in].
 */
import { at } from "../../base/at.js";
import type { SourceRectangle } from "../../files/numeric/rectangles.js";

/** How the values of one tensor are made out of tensors of the parents. */
export type Expr =
  /** A source tensor, unchanged. `source` says which of several parents it belongs to; left out, the first. */
  | { readonly op: "read"; readonly key: string; readonly source?: number }
  /**
   * A matrix of `rowCount` rows that the plan carries under `name`, each row `repeat` times in a row: router rows that
   * were made for this model.
   */
  | {
      readonly op: "data";
      readonly name: string;
      readonly rowCount: number;
      readonly columnCount: number;
      readonly repeat: number;
    }
  /** `count` rows (or columns) from `start` on. */
  | { readonly op: "rows"; readonly of: Expr; readonly start: number; readonly count: number }
  | { readonly op: "columns"; readonly of: Expr; readonly start: number; readonly count: number }
  /**
   * `count` rows (or columns) that the plan's list `name` names from its place `start` on: the hidden units of an FFN
   * that was split by activation.
   */
  | {
      readonly op: "pick";
      readonly of: Expr;
      readonly axis: MatrixAxis;
      readonly name: string;
      readonly start: number;
      readonly count: number;
    }
  /** Every element times `by`. */
  | { readonly op: "scale"; readonly of: Expr; readonly by: number }
  /** `by` added to every element. */
  | { readonly op: "offset"; readonly of: Expr; readonly by: number }
  /** Rows reordered alike in every run of `order.length` rows: row i of a run is its row `order[i]` before. */
  | { readonly op: "permuteRows"; readonly of: Expr; readonly order: readonly number[] }
  /**
   * Normal deviates of mean 0 from the random stream `stream` (the output tensor's key, so that neither order nor
   * threads matter). Every drawn row appears `repeat` times in a row: the virtual groups of a fine-grained router.
   */
  | { readonly op: "normal"; readonly std: number; readonly stream: string; readonly repeat: number }
  /** One value in every element. */
  | { readonly op: "fill"; readonly value: number }
  /** Zeros behind the last row and the last column, up to `rowCount` x `columnCount`. */
  | { readonly op: "pad"; readonly of: Expr; readonly rowCount: number; readonly columnCount: number }
  /**
   * Normal deviates of mean 0 added to a share `fraction` of the elements. Their std is `std`, times that of `of`'s own
   * elements if `relative`.
   */
  | {
      readonly op: "noise";
      readonly of: Expr;
      readonly std: number;
      readonly relative: boolean;
      readonly fraction: number;
      readonly stream: string;
    }
  /**
   * `count` rows (or columns), chosen by the random stream `choice`, are drawn afresh from a normal with the mean and
   * the standard deviation of the elements that they had (Drop-Upcycling, arXiv 2502.19261, section 3). Expressions
   * with one `choice` lose the same units.
   */
  | {
      readonly op: "redraw";
      readonly of: Expr;
      readonly axis: MatrixAxis;
      readonly count: number;
      readonly choice: string;
      readonly stream: string;
    }
  /**
   * Rows (or columns) in a random order; expressions with one `stream` get the same order. `undo`: that order is taken
   * back.
   */
  | {
      readonly op: "shuffle";
      readonly of: Expr;
      readonly axis: MatrixAxis;
      readonly stream: string;
      readonly undo?: true;
    }
  /**
   * Weighted average of operands of one shape: sum of weight * operand over the sum of the weights, one positive or
   * zero weight each.
   */
  | { readonly op: "mean"; readonly parts: readonly Expr[]; readonly weights: readonly number[] }
  /** Operands one below the other (`rows`) or side by side (`columns`). */
  | { readonly op: "concat"; readonly parts: readonly Expr[]; readonly axis: MatrixAxis };

/** An axis of a matrix [rows, columns]. */
export type MatrixAxis = "rows" | "columns";

/** A tensor of one parent, the first if `source` is left out, unchanged. */
export const read = (key: string, source = 0): Expr =>
  source === 0 ? { op: "read", key } : { op: "read", key, source };
/** `count` rows from `start` on. */
export const rowsOf = (of: Expr, start: number, count: number): Expr => ({ op: "rows", of, start, count });
/** `count` columns from `start` on. */
export const columnsOf = (of: Expr, start: number, count: number): Expr => ({ op: "columns", of, start, count });
/** Every element times `by`. Scaling by 1 is no operation: the bytes stay a copy. */
export const scale = (of: Expr, by: number): Expr => (by === 1 ? of : { op: "scale", of, by });
/** Every element plus `by`. */
export const offset = (of: Expr, by: number): Expr => ({ op: "offset", of, by });
/** Rows reordered alike in every run of `order.length` rows: row i of a run was its row `order[i]`. */
export const permuteRows = (of: Expr, order: readonly number[]): Expr => ({ op: "permuteRows", of, order });
/** Normal deviates of mean 0 from a random stream, each drawn row `repeat` times in a row. */
export const normal = (std: number, stream: string, repeat = 1): Expr => ({ op: "normal", std, stream, repeat });
/** One value in every element. */
export const fill = (value: number): Expr => ({ op: "fill", value });
/** The weighted average of operands of one shape. The average of one operand is no operation: it stays a copy. */
export function meanExpr(parts: readonly Expr[], weights: readonly number[]): Expr {
  const [first, ...others] = parts;
  return first !== undefined && others.length === 0 ? first : { op: "mean", parts, weights };
}

/** Operands one below the other (`rows`) or side by side (`columns`). One operand alone stays a copy. */
export function concat(parts: readonly Expr[], axis: MatrixAxis): Expr {
  const [first, ...others] = parts;
  return first !== undefined && others.length === 0 ? first : { op: "concat", parts, axis };
}

/** Zeros behind the last row and the last column, up to `rowCount` x `columnCount`. */
export const pad = (of: Expr, rowCount: number, columnCount: number): Expr => ({
  op: "pad",
  of,
  rowCount,
  columnCount,
});

/** Shapes of the source's tensors by slot key. */
export type Shapes = ReadonlyMap<string, readonly number[]>;

/** The rectangle that is all of a source tensor. Throws a plain error (a defect of the plan) for an unknown key. */
export function wholeOf({ key, source }: Extract<Expr, { readonly op: "read" }>, shapes: Shapes): SourceRectangle {
  const shape = shapes.get(key);
  if (shape === undefined) throw new Error(`plan reads ${key}, which the source does not have`);
  const [rowCount = 1, stride = 1] = shape;
  const all = { rowStart: 0, rowCount, columnStart: 0, columnCount: stride, stride };
  return source === undefined ? { key, ...all } : { key, source, ...all };
}

/**
 * The rectangle that an expression copies, or null if the expression computes anything.
 * Throws a plain error (a defect of the plan) for an unknown key or a rectangle outside the tensor.
 */
export function rectangleOf(expr: Expr, shapes: Shapes): SourceRectangle | null {
  switch (expr.op) {
    case "read":
      return wholeOf(expr, shapes);
    case "rows": {
      const of = rectangleOf(expr.of, shapes);
      if (of === null) return null;
      checkRange(expr.start, expr.count, of.rowCount, `rows of ${of.key}`);
      return { ...of, rowStart: of.rowStart + expr.start, rowCount: expr.count };
    }
    case "columns": {
      const of = rectangleOf(expr.of, shapes);
      if (of === null) return null;
      checkRange(expr.start, expr.count, of.columnCount, `columns of ${of.key}`);
      return { ...of, columnStart: of.columnStart + expr.start, columnCount: expr.count };
    }
    case "data":
    case "scale":
    case "offset":
    case "permuteRows":
    case "normal":
    case "fill":
    case "pad":
    case "pick":
    case "noise":
    case "redraw":
    case "shuffle":
    case "mean":
    case "concat":
      return null;
  }
}

function checkRange(start: number, count: number, size: number, what: string): void {
  if (!(Number.isInteger(start) && Number.isInteger(count) && start >= 0 && count > 0 && start + count <= size)) {
    throw new Error(`plan takes ${what} ${start}..${start + count - 1} of ${size}`);
  }
}

/** The rectangle that an expression's values come from, scaling set aside; null if they come from no source tensor. */
export function originOf(expr: Expr, shapes: Shapes): SourceRectangle | null {
  return rectangleOf(unscaled(expr), shapes);
}

/** Scaling commutes with taking rows or columns, so it can be set aside and applied last. */
function unscaled(expr: Expr): Expr {
  if (expr.op === "scale") return unscaled(expr.of);
  return expr.op === "rows" || expr.op === "columns" ? { ...expr, of: unscaled(expr.of) } : expr;
}

/** The product of all scales in an expression. */
export function factorOf(expr: Expr): number {
  switch (expr.op) {
    case "scale":
      return expr.by * factorOf(expr.of);
    case "rows":
    case "columns":
      return factorOf(expr.of);
    default:
      return 1;
  }
}

/** The tensors of one parent, the first if left out, that an expression reads. */
export function sourceKeys(expr: Expr, source = 0): readonly string[] {
  if (expr.op === "read") return (expr.source ?? 0) === source ? [expr.key] : [];
  if ("parts" in expr) return expr.parts.flatMap((part) => sourceKeys(part, source));
  return "of" in expr ? sourceKeys(expr.of, source) : [];
}

/**
 * Rows and columns of an expression's whole, a vector being one column; null for `normal` and `fill`, which take any
 * shape. Throws a plain error (a defect of the plan) for an unknown key or a part outside its tensor.
 */
export function sizeOf(expr: Expr, shapes: Shapes): readonly [rows: number, columns: number] | null {
  switch (expr.op) {
    case "read": {
      const { rowCount, columnCount } = wholeOf(expr, shapes);
      return [rowCount, columnCount];
    }
    case "rows":
    case "columns": {
      const of = sizeOf(expr.of, shapes);
      if (of === null) throw new Error(`plan takes a part of drawn values: ${printExpr(expr)}`);
      const [whole, other] = expr.op === "rows" ? of : [of[1], of[0]];
      checkRange(expr.start, expr.count, whole, `${expr.op} of ${printExpr(expr.of)}`);
      return expr.op === "rows" ? [expr.count, other] : [other, expr.count];
    }
    case "pad":
      return [expr.rowCount, expr.columnCount];
    case "pick": {
      const of = sizeOf(expr.of, shapes);
      if (of === null) throw new Error(`plan takes a part of drawn values: ${printExpr(expr)}`);
      return expr.axis === "rows" ? [expr.count, of[1]] : [of[0], expr.count];
    }
    case "data":
      return [expr.rowCount * expr.repeat, expr.columnCount];
    case "mean":
      return equalSize(expr.parts, expr, shapes);
    case "concat":
      return joinedSize(expr, shapes);
    case "normal":
    case "fill":
      return null;
    default:
      return sizeOf(expr.of, shapes);
  }
}

function joinedSize(
  expr: Extract<Expr, { readonly op: "concat" }>,
  shapes: Shapes,
): readonly [rows: number, columns: number] {
  const sizes = expr.parts.map((part) => sizeOf(part, shapes)).filter((size) => size !== null);
  const [first] = sizes;
  const [along, across] = expr.axis === "rows" ? ([0, 1] as const) : ([1, 0] as const);
  if (first === undefined || sizes.length < expr.parts.length || sizes.some((size) => size[across] !== first[across]))
    throw new Error(`plan joins what does not fit together: ${printExpr(expr)}`);
  const sum = sizes.reduce((total, size) => total + size[along], 0);
  return expr.axis === "rows" ? [sum, first[1]] : [first[0], sum];
}

function equalSize(parts: readonly Expr[], whole: Expr, shapes: Shapes): readonly [rows: number, columns: number] {
  const [first, ...others] = parts.map((part) => sizeOf(part, shapes));
  if (first == null || others.some((size) => size === null || size[0] !== first[0] || size[1] !== first[1])) {
    throw new Error(`plan averages what has different sizes: ${printExpr(whole)}`);
  }
  return first;
}

/** Whether an expression gives a tensor of `shape`; `normal` and `fill` take any shape that their rows fit. */
export function givesShape(expr: Expr, shape: readonly number[], shapes: Shapes): boolean {
  if (expr.op === "normal") return at(shape, 0) % expr.repeat === 0;
  if (expr.op === "permuteRows") return at(shape, 0) % expr.order.length === 0 && givesShape(expr.of, shape, shapes);
  const size = sizeOf(expr, shapes);
  if (size === null) return true;
  return size[0] === shape[0] && size[1] === shape.slice(1).reduce((a, b) => a * b, 1);
}

/** `scale(columns(layers.0.down, 0..703), 2)`: one line, equal for equal expressions. */
export function printExpr(expr: Expr): string {
  switch (expr.op) {
    case "read":
      return expr.source === undefined ? expr.key : `${expr.key} of parent ${expr.source}`;
    case "data":
      return `data(${expr.name}, ${expr.rowCount} x ${expr.columnCount}, each row ${expr.repeat}x)`;
    case "rows":
    case "columns":
      return `${expr.op}(${printExpr(expr.of)}, ${expr.start}..${expr.start + expr.count - 1})`;
    case "scale":
      return `scale(${printExpr(expr.of)}, ${expr.by})`;
    case "offset":
      return `offset(${printExpr(expr.of)}, ${expr.by})`;
    case "permuteRows":
      return `permuteRows(${printExpr(expr.of)}, ${expr.order.join(" ")})`;
    case "normal":
      return `normal(std ${expr.std}, stream ${expr.stream}, each row ${expr.repeat}x)`;
    case "fill":
      return `fill(${expr.value})`;
    case "pad":
      return `pad(${printExpr(expr.of)}, ${expr.rowCount} x ${expr.columnCount})`;
    case "pick":
      return (
        `pick(${printExpr(expr.of)}, ${expr.axis} ${expr.start}..${expr.start + expr.count - 1} of the list ` +
        `${expr.name})`
      );
    case "noise": {
      const share = expr.fraction === 1 ? "" : `, on ${expr.fraction} of the elements`;
      return (
        `noise(${printExpr(expr.of)}, std ${expr.std}${expr.relative ? " of its own" : ""}${share}, stream ` +
        `${expr.stream})`
      );
    }
    case "redraw":
      return `redraw(${printExpr(expr.of)}, ${expr.count} ${expr.axis}, choice ${expr.choice}, stream ${expr.stream})`;
    case "shuffle":
      return `${expr.undo ? "unshuffle" : "shuffle"}(${printExpr(expr.of)}, ${expr.axis}, stream ${expr.stream})`;
    case "mean": {
      const equal = expr.weights.every((weight) => weight === expr.weights[0]);
      const parts = expr.parts.map((part, i) => `${equal ? "" : `${expr.weights[i]} `}${printExpr(part)}`);
      return `mean(${parts.join(", ")})`;
    }
    case "concat":
      return `concat(${expr.axis}: ${expr.parts.map(printExpr).join(", ")})`;
  }
}
