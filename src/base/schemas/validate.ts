/**
 * YAML text -> checked config, or all that is wrong with it: for each thing ONE line that says file, line, key, what
 * was found and what was expected.
 */
import { Lexer, LineCounter, isMap, isScalar, parseDocument, type Document } from "yaml";
import { z } from "zod";
import { FileProblems, inputError, type UpcycleError } from "../errors.js";
import { child, describeExpected, jsonSchema, schemasAt, wordsOf, type JsonSchema } from "./json-schema.js";
import { nearest } from "./nearest.js";

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];

/** Parses and checks `text`. `file` is only used to name the place. Throws `input`. */
export function parseConfig<S extends z.ZodType>(schema: S, text: string, file: string): z.output<S> {
  requireModest(text, file);
  const lines = new LineCounter();
  // Warnings of the library are for programmers.
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, logLevel: "error" });
  const data = readDocument(document, lines, file);
  const parsed = schema.safeParse(data);
  if (parsed.success) return parsed.data;
  const place = { document, lines, file, schema: jsonSchema(schema) };
  const issues = singleIssues(parsed.error.issues, data);
  const problems = [...describeAll(issues, { ...place, data }), ...furtherProblems(schema, issues, { ...place, data })];
  throw problemsOf(file, problems);
}

/** Deeper, and more of them, than in any file that a person means. */
const [deepest, mostKeys] = [500, 10_000];

/**
 * What is nested without end takes a kilobyte of memory for each level where it is parsed, its tokens nothing; and each
 * key is compared with all others beside it. Blocks that nest by indentation alone take more text with each level.
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

/** From the file's beginning to its end; one thing is told once. */
function problemsOf(file: string, problems: readonly Problem[]): UpcycleError {
  const byText = new Map(problems.map((problem) => [problem.error.line, problem]));
  const [first, second, ...rest] = [...byText.values()].sort((a, b) => a.line - b.line).map(({ error }) => error);
  return second === undefined ? first! : new FileProblems(file, [first!, second, ...rest]);
}

/** Issues that say one thing each. */
function singleIssues(issues: readonly Issue[], data: unknown): Issue[] {
  return issues
    .flatMap((issue) => insideUnion(issue, data))
    .flatMap((issue): Issue[] =>
      issue.code === "unrecognized_keys" ? issue.keys.map((key) => ({ ...issue, keys: [key] })) : [issue],
    );
}

/**
 * A mistyped key is found both as unknown and as missing, in words of our own too: the unknown one can say what was
 * meant, and that is enough. `gone`: keys that are missing because they were taken out, by path.
 */
function describeAll(issues: readonly Issue[], place: Place, gone: readonly Path[] = []): Problem[] {
  const without = [...gone, ...issues.flatMap((issue) => meantPath(issue, place) ?? [])];
  const paths = new Set(without.map(printPath));
  const holders = new Set(without.map((path) => printPath(path.slice(0, -1))));
  const follows = ({ code, path }: Issue): boolean =>
    code !== "unrecognized_keys" && (code === "custom" ? holders : paths).has(printPath(path));
  return issues.filter((issue) => !follows(issue)).map((issue) => describeIssue(issue, place));
}

/** Where the key belongs that an unknown one was meant to be. */
function meantPath(issue: Issue, { data, schema }: Place): [Path] | undefined {
  const meant = meantKey(issue, data, schema);
  return meant === undefined ? undefined : [[...issue.path, meant]];
}

/**
 * Rules about several keys are looked at only where each key is fine by itself. So the rest is looked at once more
 * without what is wrong, and with keys as they were meant: what then is found anew is a problem too, but for the keys
 * that are missing because they were taken out.
 */
function furtherProblems(schema: z.ZodType, issues: readonly Issue[], place: Place): Problem[] {
  const data: unknown = structuredClone(place.data);
  const gone = issues.flatMap((issue) => takeOut(data, issue) ?? []);
  const renamed = issues.flatMap((issue) => rename(data, issue, place) ?? []);
  const parsed = schema.safeParse(data);
  if (parsed.success) return [];
  const known = new Set(issues.map(({ path }) => printPath(path)));
  for (const { meant } of renamed) known.delete(printPath(meant));
  const further = singleIssues(parsed.error.issues, data).filter(
    ({ code, path }) => code === "custom" || !known.has(printPath(path)),
  );
  return describeAll(further, { ...place, data, renamed }, gone);
}

/** Takes a wrong value out. Parts of lists stay: others are counted by them. Returns where the key then is missing. */
function takeOut(data: unknown, { code, path }: Issue): [Path] | undefined {
  const holder = path.slice(0, -1).reduce<unknown>(child, data);
  const last = path.at(-1);
  if (code === "custom" || code === "unrecognized_keys") return undefined;
  if (!isBlock(holder) || last === undefined || !Object.hasOwn(holder, last)) return undefined;
  delete holder[last];
  return [path];
}

/** Gives an unknown key the name that was meant, or takes it out. */
function rename(data: unknown, issue: Issue, place: Place): Renamed | undefined {
  const holder = issue.path.reduce<unknown>(child, data);
  if (issue.code !== "unrecognized_keys" || !isBlock(holder)) return undefined;
  const [key] = issue.keys as [string];
  const meant = meantKey(issue, place.data, place.schema);
  if (meant !== undefined) holder[meant] = holder[key];
  delete holder[key];
  return meant === undefined ? undefined : { meant: [...issue.path, meant], written: [...issue.path, key] };
}

const isBlock = (value: unknown): value is Record<PropertyKey, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/**
 * The known key that an unknown one was probably meant to be. One that is still missing is likelier than one that is
 * there already.
 */
function meantKey(issue: Issue, data: unknown, schema: JsonSchema): string | undefined {
  if (issue.code !== "unrecognized_keys") return undefined;
  const found = issue.path.reduce<unknown>(child, data);
  return nearest(
    issue.keys[0]!,
    knownKeys(issue, data, schema).filter((name) => child(found, name) === undefined),
  );
}

const knownKeys = ({ path }: Issue, data: unknown, schema: JsonSchema): string[] =>
  schemasAt(schema, path, data).flatMap((node) => Object.keys(node.properties ?? {}));

/** Plain data of a document. Throws `input` for bad syntax, several documents, or an empty file. */
function readDocument(document: Document.Parsed, lines: LineCounter, file: string): unknown {
  // What a parser finds behind its first error is mostly that error again.
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

/** An issue of a choice between types, replaced by those of the branch that the data has the type of. */
function insideUnion(issue: Issue, data: unknown): Issue[] {
  if (issue.code !== "invalid_union") return [issue];
  const branch = issue.errors.find(
    (issues) => !issues.some(({ code, path }) => code === "invalid_type" && path.length === 0),
  );
  if (branch?.[0] === undefined) return [issue];
  return branch.flatMap((inner) => insideUnion({ ...inner, path: [...issue.path, ...inner.path] }, data));
}

interface Place {
  readonly data: unknown;
  readonly document: Document.Parsed;
  readonly lines: LineCounter;
  readonly file: string;
  readonly schema: JsonSchema;
  /** Keys that are taken for others than they are. */
  readonly renamed?: readonly Renamed[];
}

interface Renamed {
  readonly meant: Path;
  readonly written: Path;
}

function describeIssue(issue: Issue, place: Place): Problem {
  const { path, message, hint } = wording(issue, place);
  const line = lineOf(path, place);
  const key = path.length === 0 ? "" : ` (${printPath(path)})`;
  return { line, error: inputError(message, { where: `${place.file}:${line}${key}`, hint }) };
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
    const meant = meantKey(issue, data, schema);
    const valid = `valid keys: ${knownKeys(issue, data, schema).join(", ")}`;
    const hint = meant === undefined ? valid : `did you mean "${meant}"? ${valid}`;
    return { path: [...path, key], message: `unknown key "${key}"`, hint };
  }
  if (issue.code === "invalid_key") {
    return {
      path,
      message: `"${last}" cannot be a name here`,
      hint: "use lower-case letters, digits, dashes and underscores",
    };
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
  const text = typeof value === "number" ? String(value) : (JSON.stringify(value) ?? typeof value);
  const shown = text.length > 60 ? `${text.slice(0, 57)}..."` : text;
  return typeof value === "string" ? `text ${shown}` : shown;
}

/** `arms.coarse.recipe`, `seeds[1]`. */
function printPath(path: Path): string {
  return path
    .map((step, i) => (typeof step === "number" ? `[${step}]` : `${i === 0 ? "" : "."}${String(step)}`))
    .join("");
}

/** Line of the key at `path`, or of the nearest enclosing thing that the file has. */
function lineOf(asMeant: Path, { document, lines, renamed = [] }: Place): number {
  const path = renamed.reduce(
    (at, { meant, written }) =>
      meant.every((step, i) => step === at[i]) ? [...written, ...at.slice(meant.length)] : at,
    asMeant,
  );
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
  return typeof node === "object" && node !== null && "range" in node
    ? (node.range as [number] | undefined)?.[0]
    : undefined;
}
