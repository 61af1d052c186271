/** Which columns of a table are the law's, in which unit: `N=params`, `D=tokens*1e9`, `D=flops/(6*N)`. */
import { at as elementAt, valueAt } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { forbiddenHint, isForbiddenName } from "../forms/expression-law.js";
import { compileExpression, namesIn, parseExpression, type Expression } from "../forms/expression.js";

interface ColumnSource {
  /** Of the law, or `loss`. */
  readonly name: string;
  /** As written by the user, or the header found. */
  readonly text: string;
  readonly formula: Expression;
  /** The user wrote more than a header: units are stated. */
  readonly stated: boolean;
}

/** Headers taken for a column where the user maps none, ignoring case; the column's own name comes first. */
const usual: Readonly<Record<string, readonly string[]>> = {
  N: ["params", "parameters", "model_size", "model size", "size", "n_params", "num_params"],
  D: ["tokens", "training_tokens", "train_tokens", "n_tokens", "num_tokens"],
  D1: ["tokens1", "parent_tokens", "dense_tokens"],
  D2: ["tokens2", "upcycled_tokens", "moe_tokens"],
  E: ["experts", "num_experts", "n_experts"],
  G: ["granularity"],
  S: ["sparsity"],
  loss: ["final_loss", "val_loss", "validation_loss", "test_loss", "eval_loss", "heldout_loss", "l"],
  group: ["kind"],
};

/** `N=params,D=tokens` as pairs. Throws inputError for anything else. */
export function parseMapping(text: string): ReadonlyMap<string, string> {
  const pairs = new Map<string, string>();
  for (const part of text.split(",")) {
    const at = part.indexOf("=");
    const [name, source] = [part.slice(0, at).trim(), part.slice(at + 1).trim()];
    if (at < 0 || !/^[A-Za-z_]\w*$/.test(name) || source === "") {
      throw inputError(`"${part.trim()}" is not NAME=COLUMN`, {
        where: "--columns",
        hint: "write for example N=params,D=tokens*1e9,loss=final_loss",
      });
    }
    if (isForbiddenName(name)) {
      throw inputError(`"${name}" is not allowed as the name of a column`, { where: "--columns", hint: forbiddenHint });
    }
    if (pairs.has(name)) throw inputError(`${name} is mapped twice`, { where: "--columns" });
    pairs.set(name, source);
  }
  return pairs;
}

/**
 * Where one column comes from, or null where nothing in the table looks like it. Throws inputError for a mapping that
 * cannot be read.
 */
export function columnSource(
  name: string,
  headers: readonly string[],
  mapping: ReadonlyMap<string, string>,
): ColumnSource | null {
  const written = mapping.get(name);
  if (written === undefined) {
    const header = [name, ...(usual[name] ?? [])].flatMap((wanted) =>
      headers.filter((found) => found === wanted || found.toLowerCase() === wanted.toLowerCase()),
    )[0];
    return header === undefined ? null : { name, text: header, formula: { kind: "name", name: header }, stated: false };
  }
  if (headers.includes(written))
    return { name, text: written, formula: { kind: "name", name: written }, stated: false };
  // Headers that are no names of formulas (spaces, slashes) stand for themselves; longer ones first.
  let text = written;
  const placeholders = new Map<string, string>();
  [...headers]
    .sort((a, b) => b.length - a.length)
    .forEach((header, i) => {
      if (/^[A-Za-z_]\w*$/.test(header) || header === "" || !text.includes(header)) return;
      placeholders.set(`header_${i}_`, header);
      text = text.replaceAll(header, ` header_${i}_ `);
    });
  const restore = (node: Expression): Expression => {
    switch (node.kind) {
      case "number":
        return node;
      case "name":
        return { kind: "name", name: placeholders.get(node.name) ?? node.name };
      case "call":
        return { ...node, of: restore(node.of) };
      case "binary":
        return { ...node, left: restore(node.left), right: restore(node.right) };
    }
  };
  let formula: Expression;
  try {
    formula = restore(parseExpression(text));
  } catch (cause) {
    throw inputError(`cannot read ${name}=${written}`, {
      where: "--columns",
      hint: `columns of the file: ${headerList(headers)}`,
      cause,
    });
  }
  return { name, text: written, formula, stated: true };
}

/** The first twelve headers, for messages. */
export function headerList(headers: readonly string[]): string {
  const shown = headers.filter((name) => name !== "").slice(0, 12);
  return shown.join(", ") + (headers.length > shown.length ? ", ..." : "");
}

/** Values by row; a formula may use headers and columns read before it. An empty or unreadable cell is NaN. */
export function readColumn(
  source: ColumnSource,
  cell: (header: string, row: number) => string | undefined,
  known: Readonly<Record<string, Float64Array>>,
  rows: number,
  headers: readonly string[],
): Float64Array {
  const { all } = namesIn(source.formula);
  for (const name of all) {
    if (!headers.includes(name) && !Object.hasOwn(known, name)) {
      throw inputError(`${source.name}=${source.text}: there is no column ${name}`, {
        where: "--columns",
        hint: `columns of the file: ${headerList(headers)}`,
      });
    }
  }
  const evaluate = compileExpression(source.formula, [], all);
  return Float64Array.from({ length: rows }, (_, row) => {
    const values = all.map((name) =>
      headers.includes(name) ? numberIn(cell(name, row)) : elementAt(valueAt(known, name), row),
    );
    return evaluate([], values).value;
  });
}

/** NaN for text, for an empty cell, and for the spellings of missing values. */
function numberIn(text: string | undefined): number {
  return text === undefined || text.trim() === "" ? NaN : Number(text);
}
