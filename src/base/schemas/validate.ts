/**
 * Turns YAML text into a checked config, or into all that is wrong with it: for each problem ONE line that says file,
 * line, key, what was found and what was expected.
 */
import {
  Lexer,
  LineCounter,
  isMap,
  isScalar,
  parseDocument,
  type Document,
  type DocumentOptions,
  type SchemaOptions,
} from "yaml";
import { z } from "zod";
import { FileProblems, inputError, type UpcycleError } from "../errors.js";
import { child, describeExpected, jsonSchema, schemasAt, wordsOf, type JsonSchema } from "./json-schema.js";
import { nearest } from "./nearest.js";

/** What zod finds wrong. */
type SchemaIssue = z.core.$ZodIssue;
/** One unknown key, where zod names all unknown keys of a block at once. */
interface UnknownKey {
  readonly code: "unknown_key";
  readonly path: PropertyKey[];
  readonly message: string;
  readonly key: string;
}
/** One thing that is wrong. */
type Issue = Exclude<SchemaIssue, { readonly code: "unrecognized_keys" }> | UnknownKey;
type Path = readonly PropertyKey[];

/** How a file's YAML is read: 1.2 without tags of its own when left out. */
type Dialect = Pick<DocumentOptions, "version"> & Pick<SchemaOptions, "customTags">;

/** Parses and checks `text`. `file` is only used to name the place. Throws inputError. */
export function parseConfig<S extends z.ZodType>(
  schema: S,
  text: string,
  file: string,
  dialect: Dialect = {},
): z.output<S> {
  requireModest(text, file);
  const lines = new LineCounter();
  // Warnings of the library are for programmers.
  const document = parseDocument(text, { ...dialect, lineCounter: lines, prettyErrors: false, logLevel: "error" });
  const data = readDocument(document, lines, file);
  const result = schema.safeParse(data);
  if (result.success) return result.data;
  const place = { document, lines, file, data, schema: jsonSchema(schema) };
  const issues = singleIssues(result.error.issues, data);
  throw errorOf(file, [...describeAll(issues, place), ...furtherProblems(schema, issues, place)]);
}

/** More levels and more keys than any file has that a person means. */
const [deepest, mostKeys] = [500, 10_000];

/**
 * Refuses a file that is made to exhaust the parser, which takes a kilobyte of memory for each level of nesting, and
 * compares each key with all others of its block; reading the tokens costs nothing. Blocks that nest by indentation
 * alone need no limit, because they take more text with each level.
 */
function requireModest(text: string, file: string): void {
  let [brackets, blocks, keys] = [0, 0, 0];
  for (const token of new Lexer().lex(text)) {
    if (token === "[" || token === "{") brackets++;
    else if (token === "]" || token === "}") brackets--;
    else if (token === "-" || token === "?") blocks++;
    else if (token === ":") keys++;
    else if (token === "\n") blocks = 0;
    if (brackets > deepest || blocks > deepest)
      throw inputError(`lists and blocks are nested more than ${deepest} levels deep`, { where: file });
    if (keys > mostKeys) throw inputError(`the file has more than ${mostKeys} keys`, { where: file });
  }
}

interface Problem {
  readonly line: number;
  readonly error: UpcycleError;
}

/** All problems as one error, from the file's beginning to its end; problems of the same words count once. */
function errorOf(file: string, problems: readonly Problem[]): UpcycleError {
  const byText = new Map(problems.map((problem) => [problem.error.line, problem]));
  const [first, second, ...rest] = [...byText.values()].sort((a, b) => a.line - b.line).map(({ error }) => error);
  if (first === undefined) throw new Error(`the schema of ${file} refuses it without a reason`);
  return second === undefined ? first : new FileProblems(file, [first, second, ...rest]);
}

/** Issues that say one thing each. */
function singleIssues(issues: readonly SchemaIssue[], data: unknown): Issue[] {
  return issues
    .flatMap((issue) => insideUnion(issue, data))
    .flatMap((issue): Issue[] => {
      if (issue.code !== "unrecognized_keys") return [issue];
      const { path, message } = issue;
      return issue.keys.map((key) => ({ code: "unknown_key", path, message, key }));
    });
}

/**
 * A mistyped key is found both as unknown and as missing, by our own rules too. Only the unknown one is told, because
 * it can say which key was meant. `removedPaths` are those of keys that are missing because `takeOut` removed them.
 */
function describeAll(issues: readonly Issue[], place: Place, removedPaths: readonly Path[] = []): Problem[] {
  const missing = [...removedPaths, ...issues.flatMap((issue) => intendedPath(issue, place) ?? [])];
  const paths = new Set(missing.map(printPath));
  const holders = new Set(missing.map((path) => printPath(path.slice(0, -1))));
  const follows = ({ code, path }: Issue): boolean =>
    code !== "unknown_key" && (code === "custom" ? holders : paths).has(printPath(path));
  return issues.filter((issue) => !follows(issue)).map((issue) => describeIssue(issue, place));
}

/** The path of the key that an unknown one was meant to be. */
function intendedPath(issue: Issue, { data, schema }: Place): [Path] | undefined {
  if (issue.code !== "unknown_key") return undefined;
  const key = intendedKey(issue, data, schema);
  return key === undefined ? undefined : [[...issue.path, key]];
}

/**
 * zod looks at rules about several keys only where each key is fine by itself. So the data is checked once more without
 * what is wrong, and with keys renamed to what was meant. A problem that only then turns up is told too, unless it is
 * that a key is missing which was taken out here.
 */
function furtherProblems(schema: z.ZodType, issues: readonly Issue[], place: Place): Problem[] {
  const data: unknown = structuredClone(place.data);
  const removedPaths = issues.flatMap((issue) => takeOut(data, issue) ?? []);
  const renames = issues.flatMap((issue) => rename(data, issue, place) ?? []);
  const result = schema.safeParse(data);
  if (result.success) return [];
  const toldPaths = new Set(issues.map(({ path }) => printPath(path)));
  for (const { to } of renames) toldPaths.delete(printPath(to));
  const further = singleIssues(result.error.issues, data).filter(
    ({ code, path }) => code === "custom" || !toldPaths.has(printPath(path)),
  );
  return describeAll(further, { ...place, data, renames }, removedPaths);
}

/**
 * Takes a wrong value out and returns the path of its key, which then is missing. Elements of lists stay, because the
 * places of those behind them would change.
 */
function takeOut(data: unknown, { code, path }: Issue): [Path] | undefined {
  const holder = path.slice(0, -1).reduce<unknown>(child, data);
  const last = path.at(-1);
  if (code === "custom" || code === "unknown_key") return undefined;
  if (!isBlock(holder) || last === undefined || !Object.hasOwn(holder, last)) return undefined;
  delete holder[last];
  return [path];
}

/** Gives an unknown key the name that was meant, or takes it out. */
function rename(data: unknown, issue: Issue, place: Place): Rename | undefined {
  const holder = issue.path.reduce<unknown>(child, data);
  if (issue.code !== "unknown_key" || !isBlock(holder)) return undefined;
  const { path, key } = issue;
  const rightKey = intendedKey(issue, place.data, place.schema);
  if (rightKey !== undefined) holder[rightKey] = holder[key];
  delete holder[key];
  return rightKey === undefined ? undefined : { from: [...path, key], to: [...path, rightKey] };
}

const isBlock = (value: unknown): value is Record<PropertyKey, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The known key that an unknown one was probably meant to be, among those that the block does not have yet. */
function intendedKey({ path, key }: UnknownKey, data: unknown, schema: JsonSchema): string | undefined {
  const block = path.reduce<unknown>(child, data);
  return nearest(
    key,
    keysAt(path, data, schema).filter((name) => child(block, name) === undefined),
  );
}

/** The keys that the schema has for the block at `path`. */
const keysAt = (path: Path, data: unknown, schema: JsonSchema): string[] =>
  schemasAt(schema, path, data).flatMap((node) => Object.keys(node.properties ?? {}));

/** Plain data of a document. Throws inputError for bad syntax, several documents, or an empty file. */
function readDocument(document: Document.Parsed, lines: LineCounter, file: string): unknown {
  // What a parser finds behind its first error is mostly that error again.
  const problem = document.errors[0];
  if (problem !== undefined) {
    const { line, col } = lines.linePos(problem.pos[0]);
    const isSeveral = problem.code === "MULTIPLE_DOCS";
    const message = isSeveral ? "several documents in one file, expected one" : problem.message.split("\n")[0];
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

/** An issue of a choice between types, replaced by the issues of the branch whose type the data has. */
function insideUnion(issue: SchemaIssue, data: unknown): SchemaIssue[] {
  if (issue.code !== "invalid_union") return [issue];
  const branch = issue.errors.find(
    (issues) => !issues.some(({ code, path }) => code === "invalid_type" && path.length === 0),
  );
  if (branch?.[0] === undefined) return [issue];
  return branch.flatMap((inner) => insideUnion({ ...inner, path: [...issue.path, ...inner.path] }, data));
}

/** The file that issues are about, as text, as data and as its schema. */
interface Place {
  readonly data: unknown;
  readonly document: Document.Parsed;
  readonly lines: LineCounter;
  readonly file: string;
  readonly schema: JsonSchema;
  /** Keys that have another name in `data` than in the document. */
  readonly renames?: readonly Rename[];
}

interface Rename {
  /** The path in the document. */
  readonly from: Path;
  /** The path in the data. */
  readonly to: Path;
}

interface Wording {
  readonly path: Path;
  readonly message: string;
  readonly hint?: string | undefined;
}

function describeIssue(issue: Issue, place: Place): Problem {
  const { path, message, hint } = wording(issue, place);
  const line = lineOf(path, place);
  const key = path.length === 0 ? "" : ` (${printPath(path)})`;
  return { line, error: inputError(message, { where: `${place.file}:${line}${key}`, hint }) };
}

function wording(issue: Issue, place: Place): Wording {
  switch (issue.code) {
    case "custom":
      return ruleWording(issue);
    case "unknown_key":
      return unknownKeyWording(issue, place);
    case "invalid_key":
      return {
        path: issue.path,
        message: `"${String(issue.path.at(-1))}" cannot be a name here`,
        hint: "use lower-case letters, digits, dashes and underscores",
      };
    default:
      return valueWording(issue, place);
  }
}

/** Rules of our own say what to do behind a semicolon. */
function ruleWording({ path, message: text }: Issue): Wording {
  const [message = "", hint] = text.split("; ");
  return { path, message, hint };
}

function unknownKeyWording(issue: UnknownKey, { data, schema }: Place): Wording {
  const { path, key } = issue;
  const rightKey = intendedKey(issue, data, schema);
  const valid = `valid keys: ${keysAt(path, data, schema).join(", ")}`;
  const hint = rightKey === undefined ? valid : `did you mean "${rightKey}"? ${valid}`;
  return { path: [...path, key], message: `unknown key "${key}"`, hint };
}

/** Words for a value that is missing or that the schema does not accept. */
function valueWording({ code, path }: Issue, { data, schema }: Place): Wording {
  const value = path.reduce<unknown>(child, data);
  const nodes = schemasAt(schema, path, data);
  const expectation = describeExpected(nodes);
  if (value === undefined)
    return { path: path.slice(0, -1), message: `"${String(path.at(-1))}" is missing, expected ${expectation}` };
  const message = `expected ${expectation}, found ${describeValue(value)}`;
  const word = typeof value === "string" ? nearest(value, wordsOf(nodes).map(String)) : undefined;
  if (word !== undefined) return { path, message, hint: `did you mean "${word}"?` };
  const keys = code === "invalid_type" ? nodes.flatMap((node) => Object.keys(node.properties ?? {})) : [];
  return { path, message, hint: keys.length === 0 ? undefined : `its keys: ${keys.join(", ")}` };
}

function describeValue(value: unknown): string {
  if (value === null) return "nothing";
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (typeof value === "object") return "a block of keys";
  const text = typeof value === "number" ? String(value) : (JSON.stringify(value) ?? typeof value);
  const short = text.length > 60 ? `${text.slice(0, 57)}..."` : text;
  return typeof value === "string" ? `text ${short}` : short;
}

/** A path as a person writes it: `arms.coarse.recipe`, `seeds[1]`. */
function printPath(path: Path): string {
  return path
    .map((step, i) => (typeof step === "number" ? `[${step}]` : `${i === 0 ? "" : "."}${String(step)}`))
    .join("");
}

/** Line of the key at a path of the data, or of the nearest enclosing block that the document has. */
function lineOf(dataPath: Path, { document, lines, renames = [] }: Place): number {
  const path = renames.reduce(
    (current, { from, to }) =>
      to.every((step, i) => step === current[i]) ? [...from, ...current.slice(to.length)] : current,
    dataPath,
  );
  for (let length = path.length; length > 0; length--) {
    const offset = offsetOf(path.slice(0, length), document);
    if (offset !== undefined) return lines.linePos(offset).line;
  }
  return 1;
}

/** Offset in the text of the key or the list element at `path`; undefined where the document has none. */
function offsetOf(path: Path, document: Document.Parsed): number | undefined {
  const holder: unknown = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true);
  const last = path.at(-1);
  if (isMap(holder)) {
    const pair = holder.items.find(({ key }) => isScalar(key) && String(key.value) === String(last));
    return isScalar(pair?.key) ? pair.key.range?.[0] : undefined;
  }
  const node: unknown = document.getIn(path, true);
  return typeof node === "object" && node !== null && "range" in node
    ? (node.range as [number] | undefined)?.[0]
    : undefined;
}
