/**
 * Jinja templates as the LM Evaluation Harness renders them (StrictUndefined, keep_trailing_newline, the filter
 * regex_replace). `@huggingface/jinja` parses; values are computed here, because prompts have to have Python's `str()`,
 * `strip()`, slices and truth, and what is undefined has to be an error.
 */
import * as jinja from "@huggingface/jinja";
import { inputError } from "../../base/errors.js";
import { callMethod, filters, fraction, globals, tests, type Scope, type Callable } from "./jinja-library.js";
import { repr, str, type Doc, type Value } from "./python-text.js";

/** The two functions that are used: the package's declarations do not resolve under Node.js's rules for modules. */
const { parse, tokenize } = jinja as unknown as {
  readonly parse: (tokens: unknown) => unknown;
  readonly tokenize: (source: string) => unknown;
};

/** A node of the parser's tree, as far as it is read here. */
type Node =
  | { readonly type: "Program"; readonly body: readonly Node[] }
  | {
      readonly type: "If";
      readonly test: Node;
      readonly body: readonly Node[];
      readonly alternate: readonly Node[];
    }
  | {
      readonly type: "For";
      readonly loopvar: Node;
      readonly iterable: Node;
      readonly body: readonly Node[];
      readonly defaultBlock: readonly Node[];
    }
  | { readonly type: "Break" | "Continue" | "Comment" }
  | {
      readonly type: "Set";
      readonly assignee: Node;
      readonly value: Node | null;
      readonly body: readonly Node[];
    }
  | { readonly type: "MemberExpression"; readonly object: Node; readonly property: Node; readonly computed: boolean }
  | { readonly type: "CallExpression"; readonly callee: Node; readonly args: readonly Node[] }
  | { readonly type: "Identifier"; readonly value: string }
  | { readonly type: "IntegerLiteral" | "FloatLiteral"; readonly value: number }
  | { readonly type: "StringLiteral"; readonly value: string }
  | { readonly type: "ArrayLiteral" | "TupleLiteral"; readonly value: readonly Node[] }
  | { readonly type: "ObjectLiteral"; readonly value: ReadonlyMap<Node, Node> }
  | { readonly type: "BinaryExpression"; readonly operator: Operator; readonly left: Node; readonly right: Node }
  | { readonly type: "FilterExpression"; readonly operand: Node; readonly filter: Node }
  | { readonly type: "SelectExpression"; readonly lhs: Node; readonly test: Node }
  | { readonly type: "TestExpression"; readonly operand: Node; readonly negate: boolean; readonly test: Node }
  | { readonly type: "UnaryExpression"; readonly operator: Operator; readonly argument: Node }
  | {
      readonly type: "SliceExpression";
      readonly start: Node | undefined;
      readonly stop: Node | undefined;
      readonly step: Node | undefined;
    }
  | { readonly type: "KeywordArgumentExpression"; readonly key: { readonly value: string }; readonly value: Node }
  | { readonly type: "Ternary"; readonly condition: Node; readonly trueExpr: Node; readonly falseExpr: Node };

interface Operator {
  readonly value: string;
}

/** What a name or an attribute that is not there evaluates to; every use but a test of it is an error. */
class Undefined {
  constructor(readonly what: string) {}
}

/** What an expression evaluates to. */
type Result = Value | Undefined | Callable;

/** A template that has been parsed. */
export interface Template {
  /** The text that it renders to for a document. Throws inputError for what is undefined. */
  render(doc: Doc): string;
  /** The value, where the template is one expression and nothing else; else the rendered text. */
  value(doc: Doc): Value;
}

class BreakLoop extends Error {}
class ContinueLoop extends Error {}

/** Parses a template; `where` names its place in errors. Throws inputError for syntax that is not understood. */
export function parseTemplate(source: string, where: string): Template {
  let program: Extract<Node, { type: "Program" }>;
  try {
    // The tokenizer drops one line end at the end of a template, which keep_trailing_newline keeps.
    program = parse(tokenize(withKeptEscapes(`${source}\n`))) as typeof program;
  } catch (cause) {
    throw inputError(`the template ${quoted(source)} cannot be read (${(cause as Error).message})`, { where, cause });
  }
  const nodes = program.body.filter(({ type }) => type !== "Comment");
  const failing = <T>(work: () => T): T => {
    try {
      return work();
    } catch (cause) {
      throw inputError(`the template ${quoted(source)} fails: ${(cause as Error).message}`, { where, cause });
    }
  };
  const [only] = nodes;
  const alone = nodes.length === 1 && only !== undefined && isExpression(only) && only.type !== "StringLiteral";
  return {
    render: (doc) => failing(() => new Evaluation(doc).block(nodes)),
    value: (doc) => failing(() => (alone ? new Evaluation(doc).defined(only) : new Evaluation(doc).block(nodes))),
  };
}

const quoted = (source: string): string => {
  const text = JSON.stringify(source);
  return text.length > 80 ? `${text.slice(0, 77)}..."` : text;
};

/** Python keeps a backslash before a letter that is no escape; the tokenizer knows fewer letters and refuses others. */
function withKeptEscapes(source: string): string {
  return source.replace(/\{[{%][\s\S]*?[%}]\}/g, (inside) => inside.replace(/\\(\\|.)/g, keptEscape));
}

function keptEscape(escape: string, letter: string): string {
  if (letter === "a") return "\\x07";
  if (letter === "0") return "\\x00";
  return /[ntrbfvxu'"\\]/.test(letter) ? escape : `\\${escape}`;
}

const statements: ReadonlySet<string> = new Set(["Program", "If", "For", "Break", "Continue", "Comment", "Set"]);
const isExpression = ({ type }: Node): boolean => !statements.has(type);

/** Python's truth of a value. */
export function isTrue(value: Value): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (value !== null && typeof value === "object") return Object.keys(value).length > 0;
  return Boolean(value);
}

/** One rendering of one template. */
class Evaluation {
  private scope: Scope;

  constructor(doc: Doc) {
    this.scope = new Map(Object.entries(doc));
  }

  block(nodes: readonly Node[]): string {
    let out = "";
    for (const node of nodes) out += this.statement(node);
    return out;
  }

  private statement(node: Node): string {
    switch (node.type) {
      case "Comment":
        return "";
      case "Break":
        throw new BreakLoop("break outside of a loop");
      case "Continue":
        throw new ContinueLoop("continue outside of a loop");
      case "If":
        return this.block(this.truth(node.test) ? node.body : node.alternate);
      case "For":
        return this.loop(node);
      case "Set":
        this.assign(node.assignee, node.value === null ? this.block(node.body) : this.defined(node.value));
        return "";
      default:
        return node.type === "StringLiteral" ? node.value : str(this.defined(node));
    }
  }

  private loop({ loopvar, iterable, body, defaultBlock }: Extract<Node, { type: "For" }>): string {
    const chosen = iterable.type === "SelectExpression" ? iterable : null;
    const outer = this.scope;
    let items = iterate(this.defined(chosen?.lhs ?? iterable));
    if (chosen !== null)
      items = items.filter((item) => {
        this.scope = new Map(outer);
        this.assign(loopvar, item);
        return this.truth(chosen.test);
      });
    this.scope = outer;
    if (items.length === 0) return this.block(defaultBlock);
    let out = "";
    try {
      for (const [i, item] of items.entries()) {
        this.scope = new Map(outer);
        this.scope.set("loop", {
          index: i + 1,
          index0: i,
          revindex: items.length - i,
          revindex0: items.length - i - 1,
          first: i === 0,
          last: i === items.length - 1,
          length: items.length,
        });
        this.assign(loopvar, item);
        try {
          out += this.block(body);
        } catch (cause) {
          if (cause instanceof BreakLoop) break;
          if (!(cause instanceof ContinueLoop)) throw cause;
        }
      }
    } finally {
      this.scope = outer;
    }
    return out;
  }

  private assign(target: Node, value: Value): void {
    if (target.type === "Identifier") {
      this.scope.set(target.value, value);
      return;
    }
    if (target.type === "TupleLiteral") {
      const parts = iterate(value);
      if (parts.length !== target.value.length)
        throw new Error(`${parts.length} values for ${target.value.length} names`);
      target.value.forEach((name, i) => this.assign(name, parts[i]!));
      return;
    }
    if (target.type === "MemberExpression" && !target.computed && target.property.type === "Identifier") {
      const holder = this.defined(target.object);
      if (holder !== null && typeof holder === "object" && !Array.isArray(holder)) {
        (holder as Record<string, Value>)[target.property.value] = value;
        return;
      }
    }
    throw new Error("a name is expected on the left of =");
  }

  private truth(node: Node): boolean {
    return isTrue(this.defined(node));
  }

  /** The value of an expression. Throws where it is undefined or a function. */
  defined(node: Node): Value {
    const result = this.expression(node);
    if (result instanceof Undefined) throw new Error(`${result.what} is undefined`);
    if (typeof result === "function") throw new Error("a function is used as a value");
    return result;
  }

  private expression(node: Node): Result {
    switch (node.type) {
      case "IntegerLiteral":
      case "FloatLiteral":
      case "StringLiteral":
        return node.value;
      case "ArrayLiteral":
      case "TupleLiteral":
        return node.value.map((item) => this.defined(item));
      case "ObjectLiteral":
        return Object.fromEntries([...node.value].map(([key, value]) => [str(this.defined(key)), this.defined(value)]));
      case "Identifier":
        return this.name(node.value);
      case "MemberExpression":
        return this.member(node);
      case "CallExpression":
        return this.call(node);
      case "BinaryExpression":
        return this.binary(node.operator.value, node.left, node.right);
      case "UnaryExpression":
        return this.unary(node.operator.value, node.argument);
      case "FilterExpression":
        return this.filter(node);
      case "TestExpression":
        return this.test(node) !== node.negate;
      case "Ternary":
        return this.expression(this.truth(node.condition) ? node.trueExpr : node.falseExpr);
      case "SelectExpression":
        return this.truth(node.test) ? this.expression(node.lhs) : new Undefined("the value of an if without else");
      default:
        throw new Error(`${node.type} is not understood here`);
    }
  }

  private name(name: string): Result {
    if (this.scope.has(name)) return this.scope.get(name)!;
    const constants: Readonly<Record<string, Value>> = {
      true: true,
      True: true,
      false: false,
      False: false,
      none: null,
      None: null,
    };
    if (Object.hasOwn(constants, name)) return constants[name]!;
    return Object.hasOwn(globals, name) ? globals[name]! : new Undefined(`"${name}"`);
  }

  private member({ object, property, computed }: Extract<Node, { type: "MemberExpression" }>): Result {
    const holder = this.defined(object);
    if (property.type === "SliceExpression") return this.slice(holder, property);
    const key = computed || property.type !== "Identifier" ? this.defined(property) : property.value;
    const found = item(holder, key);
    if (found !== undefined) return found;
    if (typeof key === "string" && !computed) {
      const method = callMethod(holder, key);
      if (method !== undefined) return method;
    }
    return new Undefined(`${repr(key)} of a ${kindOf(holder)}`);
  }

  private slice(holder: Value, { start, stop, step }: Extract<Node, { type: "SliceExpression" }>): Value {
    const number = (node: Node | undefined): number | null => {
      const value = node === undefined ? null : this.defined(node);
      if (value !== null && !Number.isInteger(value)) throw new Error("a slice needs whole numbers");
      return value as number | null;
    };
    const items = typeof holder === "string" ? [...holder] : iterate(holder);
    const picked = pythonSlice(items, number(start), number(stop), number(step) ?? 1);
    return typeof holder === "string" ? picked.map(str).join("") : picked;
  }

  private arguments(nodes: readonly Node[]): { readonly args: Value[]; readonly named: Record<string, Value> } {
    const args: Value[] = [];
    const named: Record<string, Value> = {};
    for (const node of nodes) {
      if (node.type === "KeywordArgumentExpression") named[node.key.value] = this.defined(node.value);
      else args.push(this.defined(node));
    }
    return { args, named };
  }

  private call({ callee, args: nodes }: Extract<Node, { type: "CallExpression" }>): Value {
    const called = this.expression(callee);
    if (called instanceof Undefined) throw new Error(`${called.what} is undefined`);
    if (typeof called !== "function") throw new Error(`a ${kindOf(called)} is called`);
    const { args, named } = this.arguments(nodes);
    return called(args, named);
  }

  private filter({ operand, filter }: Extract<Node, { type: "FilterExpression" }>): Value {
    const [callee, nodes] = filter.type === "CallExpression" ? [filter.callee, filter.args] : [filter, []];
    const name = callee.type === "Identifier" ? callee.value : "";
    const { args, named } = this.arguments(nodes);
    const value = this.expression(operand);
    if (name === "default" || name === "d") {
      if (value instanceof Undefined) return args[0] ?? named["default_value"] ?? "";
      const replacesFalse = isTrue(args[1] ?? named["boolean"] ?? false);
      return replacesFalse && !isTrue(value as Value) ? (args[0] ?? "") : (value as Value);
    }
    if (value instanceof Undefined) throw new Error(`${value.what} is undefined`);
    const work = Object.hasOwn(filters, name) ? filters[name] : undefined;
    if (work === undefined) throw new Error(`the filter "${name}" is unknown`);
    return work(value as Value, args, named);
  }

  private test({ operand, test }: Extract<Node, { type: "TestExpression" }>): boolean {
    const name = test.type === "Identifier" ? test.value : "";
    const value = this.expression(operand);
    if (name === "defined") return !(value instanceof Undefined);
    if (name === "undefined") return value instanceof Undefined;
    if (value instanceof Undefined) throw new Error(`${value.what} is undefined`);
    const work = Object.hasOwn(tests, name) ? tests[name] : undefined;
    if (work === undefined) throw new Error(`the test "${name}" is unknown`);
    return typeof value !== "function" && work(value);
  }

  private unary(operator: string, argument: Node): Value {
    if (operator === "not") return !this.truth(argument);
    const value = Number(this.defined(argument));
    return operator === "-" ? -value : value;
  }

  private binary(operator: string, leftNode: Node, rightNode: Node): Value {
    const left = this.defined(leftNode);
    if (operator === "and") return isTrue(left) ? this.defined(rightNode) : left;
    if (operator === "or") return isTrue(left) ? left : this.defined(rightNode);
    const right = this.defined(rightNode);
    switch (operator) {
      case "==":
        return isEqual(left, right);
      case "!=":
        return !isEqual(left, right);
      case "in":
        return contains(right, left);
      case "not in":
        return !contains(right, left);
      case "~":
        return str(left) + str(right);
      case "+":
        return sum(left, right);
      case "<":
      case ">":
      case "<=":
      case ">=":
        return ordered(operator, left, right);
      default:
        return arithmetic(operator, left, right);
    }
  }
}

function kindOf(value: Value | Callable): string {
  if (typeof value === "function") return "function";
  if (value === null) return "None";
  if (Array.isArray(value)) return "list";
  return { string: "string", number: "number", boolean: "bool", object: "dict" }[typeof value as string] ?? "value";
}

/** `holder[key]`, with places from the end; undefined where there is none. */
function item(holder: Value, key: Value): Value | undefined {
  if (typeof holder === "string" || Array.isArray(holder)) {
    const items: readonly Value[] = typeof holder === "string" ? [...holder] : (holder as readonly Value[]);
    return Number.isInteger(key)
      ? items[(key as number) < 0 ? items.length + (key as number) : (key as number)]
      : undefined;
  }
  if (holder === null || typeof holder !== "object") return undefined;
  const name = str(key);
  return Object.hasOwn(holder, name) ? (holder as Readonly<Record<string, Value>>)[name] : undefined;
}

/** Python's `items[start:stop:step]`. */
export function pythonSlice<T>(items: readonly T[], start: number | null, stop: number | null, step: number): T[] {
  if (step === 0) throw new Error("a slice's step is 0");
  const size = items.length;
  const clamp = (place: number, low: number, high: number): number =>
    Math.min(high, Math.max(low, place < 0 ? place + size : place));
  const picked: T[] = [];
  if (step > 0) {
    const end = clamp(stop ?? size, 0, size);
    for (let i = clamp(start ?? 0, 0, size); i < end; i += step) picked.push(items[i]!);
  } else {
    const end = stop === null ? -1 : clamp(stop, -1, size - 1);
    for (let i = clamp(start ?? size - 1, -1, size - 1); i > end; i += step) picked.push(items[i]!);
  }
  return picked;
}

/** The items that a loop goes over: characters, elements, keys. */
export function iterate(value: Value): readonly Value[] {
  if (typeof value === "string") return [...value];
  if (Array.isArray(value)) return value as readonly Value[];
  if (value !== null && typeof value === "object") return Object.keys(value);
  throw new Error(`a ${kindOf(value)} has no items`);
}

/** Python's `==`. */
export function isEqual(left: Value, right: Value): boolean {
  if (typeof left === "boolean" && typeof right === "number") return Number(left) === right;
  if (typeof right === "boolean" && typeof left === "number") return Number(right) === left;
  if (Array.isArray(left) && Array.isArray(right))
    return left.length === right.length && left.every((value, i) => isEqual(value as Value, right[i] as Value));
  if (left !== null && right !== null && typeof left === "object" && typeof right === "object") {
    if (Array.isArray(left) || Array.isArray(right)) return false;
    const [a, b] = [left, right] as Readonly<Record<string, Value>>[];
    const keys = Object.keys(a!);
    return (
      keys.length === Object.keys(b!).length &&
      keys.every((key) => Object.hasOwn(b!, key) && isEqual(a![key]!, b![key]!))
    );
  }
  return left === right;
}

function contains(holder: Value, value: Value): boolean {
  if (typeof holder === "string") return holder.includes(str(value));
  return iterate(holder).some((one) => isEqual(one, value));
}

function sum(left: Value, right: Value): Value {
  if (typeof left === "string" && typeof right === "string") return left + right;
  if (Array.isArray(left) && Array.isArray(right)) return [...(left as Value[]), ...(right as Value[])];
  return arithmetic("+", left, right);
}

function ordered(operator: "<" | ">" | "<=" | ">=", left: Value, right: Value): boolean {
  const bothText = typeof left === "string" && typeof right === "string";
  const isNumber = (value: Value): boolean => typeof value === "number" || typeof value === "boolean";
  if (!bothText && !(isNumber(left) && isNumber(right)))
    throw new Error(`a ${kindOf(left)} and a ${kindOf(right)} have no order`);
  const [a, b] = (bothText ? [left, right] : [Number(left), Number(right)]) as [number, number];
  if (operator === "<") return a < b;
  if (operator === ">") return a > b;
  return operator === "<=" ? a <= b : a >= b;
}

function arithmetic(operator: string, left: Value, right: Value): Value {
  if (operator === "*" && (typeof left === "string" || typeof right === "string")) {
    const [text, count] = (typeof left === "string" ? [left, right] : [right, left]) as [string, Value];
    if (Number.isInteger(count)) return text.repeat(Math.max(0, count as number));
  }
  const isNumber = (value: Value): boolean => typeof value === "number" || typeof value === "boolean";
  if (!isNumber(left) || !isNumber(right))
    throw new Error(`"${operator}" of a ${kindOf(left)} and a ${kindOf(right)} is not defined`);
  const [a, b] = [Number(left), Number(right)];
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "/":
      return fraction(a / b);
    case "//":
      return Math.floor(a / b);
    case "%":
      return a - b * Math.floor(a / b);
    case "**":
      return a ** b;
    default:
      throw new Error(`the operator "${operator}" is unknown`);
  }
}
