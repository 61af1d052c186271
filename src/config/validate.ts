/**
 * YAML text -> checked config, or ONE line that says file, line, key, what was found and what was expected.
 * If several things are wrong, the first is reported and the number of others said.
 */
import { LineCounter, isMap, isScalar, parseDocument, type Document } from "yaml";
import { z } from "zod";
import { inputError, type UpcycleError } from "../base/errors.js";
import { child, describeExpected, jsonSchema, schemasAt, wordsOf, type JsonSchema } from "./json-schema.js";
import { nearest } from "./nearest.js";

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];

/** Parses and checks `text`. `file` is only used to name the place. Throws `input`. */
export function parseConfig<S extends z.ZodType>(schema: S, text: string, file: string): z.output<S> {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const data = readDocument(document, lines, file);
  const parsed = schema.safeParse(data);
  if (parsed.success) return parsed.data;
  // A mistyped key is reported both as unknown and as missing: the unknown one can say what was meant.
  const issues = parsed.error.issues.map((issue) => insideUnion(issue, data));
  const first = issues.find(({ code }) => code === "unrecognized_keys") ?? issues[0]!;
  throw describeIssue(first, issues.length - 1, { data, document, lines, file, schema: jsonSchema(schema) });
}

/** Plain data of a document. Throws `input` for bad syntax, several documents, or an empty file. */
function readDocument(document: Document.Parsed, lines: LineCounter, file: string): unknown {
  const problem = document.errors[0];
  if (problem !== undefined) {
    const { line, col } = lines.linePos(problem.pos[0]);
    const several = problem.code === "MULTIPLE_DOCS";
    const message = several ? "several documents in one file, expected one" : problem.message.split("\n")[0];
    throw inputError(`this is not valid YAML: ${message}`, { where: `${file}:${line}:${col}`, cause: problem });
  }
  let data: unknown;
  try {
    data = document.toJS();
  } catch (cause) {
    throw inputError(`this YAML cannot be resolved: ${(cause as Error).message}`, { where: file, cause });
  }
  if (data === null || data === undefined) throw inputError("the file is empty", { where: file });
  return data;
}

/** An issue of a choice between types, replaced by the first issue of the branch that the data has the type of. */
function insideUnion(issue: Issue, data: unknown): Issue {
  if (issue.code !== "invalid_union") return issue;
  const branch = issue.errors.find((issues) => !issues.some(({ code, path }) => code === "invalid_type" && path.length === 0));
  if (branch?.[0] === undefined) return issue;
  const inner = branch.find(({ code }) => code === "unrecognized_keys") ?? branch[0];
  return insideUnion({ ...inner, path: [...issue.path, ...inner.path] }, data);
}

interface Place {
  readonly data: unknown;
  readonly document: Document.Parsed;
  readonly lines: LineCounter;
  readonly file: string;
  readonly schema: JsonSchema;
}

function describeIssue(issue: Issue, others: number, place: Place): UpcycleError {
  const { path, message, hint } = wording(issue, place);
  const more = others === 0 ? "" : ` (and ${others} more problem${others === 1 ? "" : "s"})`;
  const key = path.length === 0 ? "" : ` (${printPath(path)})`;
  return inputError(message + more, { where: `${place.file}:${lineOf(path, place)}${key}`, hint });
}

function wording(issue: Issue, { data, schema }: Place): { path: Path; message: string; hint?: string } {
  const { path } = issue;
  const last = String(path.at(-1));
  const found = path.reduce<unknown>(child, data);
  if (issue.code === "custom") {
    const [message, hint] = issue.message.split("; ");
    return { path, message: message!, hint };
  }
  if (issue.code === "unrecognized_keys") {
    const key = issue.keys[0]!;
    const known = schemasAt(schema, path, data).flatMap((node) => Object.keys(node.properties ?? {}));
    // A key that is still missing is a likelier meaning than one that is there already.
    const free = known.filter((name) => child(found, name) === undefined);
    const meant = nearest(key, free);
    const valid = `valid keys: ${known.join(", ")}`;
    const hint = meant === undefined ? valid : `did you mean "${meant}"? ${valid}`;
    return { path: [...path, key], message: `unknown key "${key}"`, hint };
  }
  if (issue.code === "invalid_key") {
    return { path, message: `"${last}" cannot be a name here`, hint: "use lower-case letters, digits, dashes and underscores" };
  }
  const nodes = schemasAt(schema, path, data);
  const expected = describeExpected(nodes);
  if (found === undefined) return { path: path.slice(0, -1), message: `"${last}" is missing, expected ${expected}` };
  const message = `expected ${expected}, found ${describeFound(found)}`;
  const meant = typeof found === "string" ? nearest(found, wordsOf(nodes).map(String)) : undefined;
  if (meant !== undefined) return { path, message, hint: `did you mean "${meant}"?` };
  const keys = issue.code === "invalid_type" ? nodes.flatMap((node) => Object.keys(node.properties ?? {})) : [];
  return { path, message, hint: keys.length === 0 ? undefined : `its keys: ${keys.join(", ")}` };
}

function describeFound(value: unknown): string {
  if (value === null) return "nothing";
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (typeof value === "object") return "a block of keys";
  const text = typeof value === "string" ? JSON.stringify(value) : String(value);
  const shown = text.length > 60 ? `${text.slice(0, 57)}..."` : text;
  return typeof value === "string" ? `text ${shown}` : shown;
}

/** `arms.coarse.recipe`, `seeds[1]`. */
function printPath(path: Path): string {
  return path.map((step, i) => (typeof step === "number" ? `[${step}]` : `${i === 0 ? "" : "."}${String(step)}`)).join("");
}

/** Line of the key at `path`, or of the nearest enclosing thing that the file has. */
function lineOf(path: Path, { document, lines }: Place): number {
  for (let length = path.length; length > 0; length--) {
    const offset = offsetOf(path.slice(0, length), document);
    if (offset !== undefined) return lines.linePos(offset).line;
  }
  return 1;
}

function offsetOf(path: Path, document: Document.Parsed): number | undefined {
  const holder: unknown = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true);
  const last = path.at(-1);
  if (isMap(holder)) {
    const pair = holder.items.find(({ key }) => isScalar(key) && String(key.value) === String(last));
    return isScalar(pair?.key) ? pair.key.range?.[0] : undefined;
  }
  const node: unknown = document.getIn(path, true);
  return typeof node === "object" && node !== null && "range" in node ? (node.range as [number] | undefined)?.[0] : undefined;
}
