/** Which columns of a table are the law's, in which unit: `N=params`, `D=tokens*1e9`, `D=flops/(6*N)`. */
import { at as elementAt, valueAt } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { forbiddenHint, isForbiddenName } from "../forms/expression-law.js";
import { compileExpression, namesIn, parseExpression, type Expression } from "../forms/expression.js";
import { numberOf, type DecimalSign } from "./numbers.js";

/** Where a column is read from. */
export interface ColumnSource {
  /** Of the law, or `loss`. */
  readonly name: string;
  /** As written by the user, or the header found. */
  readonly text: string;
  readonly formula: Expression;
  /** The user wrote more than a header: units are stated. */
  readonly stated: boolean;
}

/**
 * Headers taken for a column where the user maps none; the column's own name comes first. Case does not count, nor what
 * parts words, nor the law's own unit in brackets: `Val Loss (nats)` is `val_loss`.
 */
const usual: Readonly<Record<string, readonly string[]>> = {
  N: ["params", "parameters", "model_size", "model size", "size", "n_params", "num_params", "num_parameters"],
  D: [
    ...["tokens", "training_tokens", "train_tokens", "n_tokens", "num_tokens", "tokens_seen", "train/tokens"],
    ...["consumed_tokens", "num_input_tokens_seen", "total_tokens", "n_tokens_seen", "optim/n_tokens"],
  ],
  D1: ["tokens1", "parent_tokens", "dense_tokens"],
  D2: ["tokens2", "upcycled_tokens", "moe_tokens"],
  E: ["experts", "num_experts", "n_experts"],
  G: ["granularity"],
  S: ["sparsity"],
  U: ["unique_tokens"],
  C: ["compute", "flops", "flop", "budget", "training flop"],
  loss: [
    ...["final_loss", "val_loss", "validation_loss", "test_loss", "eval_loss", "heldout_loss", "l"],
    ...["eval/loss", "val/loss", "validation/loss", "valid/loss", "test/loss", "eval/lm_loss"],
  ],
  group: ["kind"],
};

/** `N=params,D=tokens` as pairs. Throws inputError for anything else. */
export function parseMapping(text: string): ReadonlyMap<string, string> {
  const pairs = new Map<string, string>();
  for (const part of splitOutside(text)) {
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

/** The parts between commas that stand outside of parentheses. */
export function splitOutside(text: string): readonly string[] {
  const parts: string[] = [];
  let depth = 0;
  let part = "";
  for (const character of text) {
    depth += character === "(" ? 1 : character === ")" ? -1 : 0;
    if (character === "," && depth <= 0) {
      parts.push(part);
      part = "";
    } else part += character;
  }
  return [...parts, part];
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
  const text = mapping.get(name);
  if (text === undefined) {
    const header = usualHeader(name, headers);
    return header === undefined ? null : headerSource(name, header);
  }
  if (headers.includes(text)) return headerSource(name, text);
  return { name, text, formula: readFormula(name, text, headers), stated: true };
}

function headerSource(name: string, header: string): ColumnSource {
  return { name, text: header, formula: { kind: "name", name: header }, stated: false };
}

/** The header that is taken for a column which the user has not mapped. */
function usualHeader(name: string, headers: readonly string[]): string | undefined {
  const spellings = [name, ...(usual[name] ?? [])];
  return (
    spellings.find((spelling) => headers.includes(spelling)) ??
    spellings.flatMap((spelling) => headers.filter((header) => plainName(header) === plainName(spelling)))[0]
  );
}

/** The units in which the law counts; a header with another one, such as `loss (bits)`, is not taken without a word. */
const ownUnits = /\s*[([](?:nats?|nats? ?(?:\/|per) ?token|params|parameters|tokens|flops?)[)\]]$/i;

const plainName = (header: string): string =>
  header
    .replace(ownUnits, "")
    .toLowerCase()
    .replaceAll(/[\s_/.-]+/g, "_");

/** Headers that are names of formulas; others (with spaces, slashes) stand for themselves in a mapping. */
const isName = (header: string): boolean => /^[A-Za-z_]\w*$/.test(header);

/** Headers that a formula could mean by something else: numbers and signs, as pandas heads columns without a name. */
const isAmbiguous = (header: string): boolean => !/\p{L}/u.test(header) || Number.isFinite(Number(header));

/** The formula of a mapping. Throws inputError where it cannot be read. */
function readFormula(name: string, mapped: string, headers: readonly string[]): Expression {
  let text = mapped;
  const placeholders = new Map<string, string>();
  // Longer headers first: a shorter one may be a part of them.
  const longestFirst = headers.toSorted((a, b) => b.length - a.length);
  for (const [i, header] of longestFirst.entries()) {
    if (isName(header) || isAmbiguous(header) || !text.includes(header)) continue;
    placeholders.set(`header_${i}_`, header);
    text = text.replaceAll(header, ` header_${i}_ `);
  }
  try {
    return renamed(parseExpression(text), placeholders);
  } catch (cause) {
    throw inputError(`cannot read ${name}=${mapped}`, {
      where: "--columns",
      hint: `columns of the file: ${headerList(headers)}`,
      cause,
    });
  }
}

/** The formula with other names; those that `names` does not hold stay. */
function renamed(node: Expression, names: ReadonlyMap<string, string>): Expression {
  switch (node.kind) {
    case "number":
      return node;
    case "name":
      return { kind: "name", name: names.get(node.name) ?? node.name };
    case "call":
      return { ...node, of: renamed(node.of, names) };
    case "binary":
      return { ...node, left: renamed(node.left, names), right: renamed(node.right, names) };
  }
}

/** The first twelve headers, for messages. */
export function headerList(headers: readonly string[]): string {
  const first = headers.filter((name) => name !== "").slice(0, 12);
  return first.join(", ") + (headers.length > first.length ? ", ..." : "");
}

/** The table's side of a column: its headers, its cells, and how numbers are written in them. */
export interface Cells {
  readonly headers: readonly string[];
  readonly rows: number;
  readonly decimal: DecimalSign;
  readonly cell: (header: string, row: number) => string;
}

/** The headers whose cells a column is computed from. */
export function headersOf({ formula }: ColumnSource, headers: readonly string[]): readonly string[] {
  return namesIn(formula).all.filter((name) => headers.includes(name));
}

/**
 * Values [rows] of a column; its formula may use headers and the `columns` read before it. An empty or unreadable cell
 * is NaN. Throws inputError for a name that is neither.
 */
export function readColumn(
  source: ColumnSource,
  { headers, rows, decimal, cell }: Cells,
  columns: Readonly<Record<string, Float64Array>>,
): Float64Array {
  const { all } = namesIn(source.formula);
  for (const name of all) {
    if (!headers.includes(name) && !Object.hasOwn(columns, name)) {
      throw inputError(`${source.name}=${source.text}: there is no column ${name}`, {
        where: "--columns",
        hint: `columns of the file: ${headerList(headers)}`,
      });
    }
  }
  const evaluate = compileExpression(source.formula, [], all);
  return Float64Array.from({ length: rows }, (_, row) => {
    const values = all.map((name) =>
      headers.includes(name) ? numberOf(cell(name, row), decimal) : elementAt(valueAt(columns, name), row),
    );
    return evaluate([], values).value;
  });
}
