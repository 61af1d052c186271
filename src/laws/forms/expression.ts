/**
 * Formulas that users write: `A * N^-alpha + B * D^-beta + E`. Numbers, names, + - * / ^, parentheses, ln, log10, exp,
 * sqrt; nothing else can be called, so nothing else can happen. Evaluation carries derivatives along (forward mode).
 */
import { at as elementAt } from "../../base/at.js";
import { inputError } from "../../base/errors.js";

/** A formula as a tree. */
export type Expression =
  | { readonly kind: "number"; readonly value: number }
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "call"; readonly name: FunctionName; readonly of: Expression }
  | { readonly kind: "binary"; readonly op: Operator; readonly left: Expression; readonly right: Expression };

type Operator = "+" | "-" | "*" | "/" | "^" | Choice;
type Choice = "max" | "min";
type FunctionName = "ln" | "log10" | "exp" | "sqrt";

const functionNames: readonly string[] = ["ln", "log10", "exp", "sqrt"];
const choices: readonly string[] = ["max", "min"] satisfies readonly Choice[];
const isChoice = (name: string): name is Choice => choices.includes(name);
/** Levels of parentheses, signs and powers inside each other. */
const deepest = 200;
/** No law that anybody fits comes near; a chain of sums this long still fits on the stack. */
const longest = 4000;

/** The tree of a formula. Throws inputError saying what was expected and what stands there instead. */
export function parseExpression(text: string): Expression {
  if (text.length > longest) throw inputError(`the law has ${text.length} characters, limit ${longest}`);
  const tokens = [
    ...text.matchAll(/\s*(?:(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)|([A-Za-z_][A-Za-z_0-9]*)|(.))/gsu),
  ]
    .map((match) => ({
      number: match[1],
      name: match[2],
      sign: match[3],
      at: match.index + match[0].trimStart().length,
    }))
    .filter(
      ({ number, name, sign }) =>
        number !== undefined || name !== undefined || (sign !== undefined && sign.trim() !== ""),
    );
  let at = 0;
  let depth = 0;
  const fail = (expected: string): never => {
    const token = tokens[at];
    const actual = token === undefined ? "the end" : `"${token.number ?? token.name ?? token.sign}"`;
    throw inputError(`in the law ${quoted(text)}: expected ${expected}, found ${actual}`, {
      hint: "write for example A*N^-alpha + B*D^-beta + E",
    });
  };
  const takes = (sign: string): boolean => {
    if (tokens[at]?.sign !== sign) return false;
    at += 1;
    return true;
  };
  const nested = <T>(parse: () => T): T => {
    if (++depth > deepest) throw inputError(`the law is nested more than ${deepest} levels deep`);
    const value = parse();
    depth -= 1;
    return value;
  };
  const sum = (): Expression => {
    let left = term();
    for (;;) {
      if (takes("+")) left = { kind: "binary", op: "+", left, right: term() };
      else if (takes("-")) left = { kind: "binary", op: "-", left, right: term() };
      else return left;
    }
  };
  const term = (): Expression => {
    let left = signed();
    for (;;) {
      if (takes("*")) left = { kind: "binary", op: "*", left, right: signed() };
      else if (takes("/")) left = { kind: "binary", op: "/", left, right: signed() };
      else return left;
    }
  };
  // A sign binds weaker than a power: -x^2 is -(x^2), and 2^-x is allowed.
  const signed = (): Expression =>
    nested(() => {
      if (takes("-")) return { kind: "binary", op: "-", left: { kind: "number", value: 0 }, right: signed() };
      if (takes("+")) return signed();
      return power();
    });
  const power = (): Expression => {
    const left = primary();
    return takes("^") ? { kind: "binary", op: "^", left, right: signed() } : left;
  };
  const primary = (): Expression => {
    const token = tokens[at];
    if (token?.number !== undefined) {
      at += 1;
      const value = Number(token.number);
      if (value === Infinity) {
        const message = `in the law ${quoted(text)}: the number ${quoted(token.number)} is too large`;
        throw inputError(message, { hint: "numbers go up to 1.7e308" });
      }
      return { kind: "number", value };
    }
    if (token?.name !== undefined) {
      at += 1;
      if (tokens[at]?.sign !== "(") return { kind: "name", name: token.name };
      if (!functionNames.includes(token.name) && !isChoice(token.name)) {
        at -= 1;
        return fail(`a function (${[...functionNames, ...choices].join(", ")})`);
      }
      at += 1;
      const of = nested(sum);
      if (isChoice(token.name)) {
        let chosen = of;
        do {
          if (!takes(",")) return fail('"," and another argument');
          chosen = { kind: "binary", op: token.name, left: chosen, right: nested(sum) };
        } while (!takes(")"));
        return chosen;
      }
      if (!takes(")")) fail('")"');
      return { kind: "call", name: token.name as FunctionName, of };
    }
    if (!takes("(")) return fail("a number, a name or a parenthesis");
    const inner = nested(sum);
    if (!takes(")")) fail('")"');
    return inner;
  };
  const whole = sum();
  if (at < tokens.length) fail("an operator (+ - * / ^)");
  return whole;
}

/** A formula in quotes, cut where it is too long for a message. */
export function quoted(text: string): string {
  const most = 120;
  return `"${text.length <= most ? text : `${text.slice(0, most - 3)}...`}"`;
}

/** How tightly what an operator makes holds together; names, numbers and calls do most. */
const binding: Readonly<Record<Operator, number>> = { "+": 1, "-": 1, "*": 2, "/": 2, "^": 3, max: 4, min: 4 };
const tightest = 4;

/** The formula as text, with parentheses only where parts would else group in another way, and around signs. */
export function textOf(expression: Expression): string {
  const boundBy = (node: Expression): number => (node.kind === "binary" ? binding[node.op] : tightest);
  const inside = (node: Expression, least: number): string =>
    boundBy(node) < least ? `(${textOf(node)})` : textOf(node);
  switch (expression.kind) {
    case "number":
      return String(expression.value);
    case "name":
      return expression.name;
    case "call":
      return `${expression.name}(${textOf(expression.of)})`;
    case "binary": {
      const { op, left, right } = expression;
      if (isChoice(op)) return `${op}(${textOf(left)},${textOf(right)})`;
      const own = binding[op];
      const sign = op === "-" && left.kind === "number" && left.value === 0;
      // Powers group from the right, all others from the left.
      return `${sign ? "" : inside(left, op === "^" ? own + 1 : own)}${op}${inside(right, op === "^" ? own : own + 1)}`;
    }
  }
}

/** Names in order of appearance; `powers` are those that stand in an exponent. */
export function namesIn(expression: Expression): {
  readonly all: readonly string[];
  readonly powers: ReadonlySet<string>;
} {
  const all = new Set<string>();
  const powers = new Set<string>();
  const visit = (node: Expression, inPower: boolean): void => {
    switch (node.kind) {
      case "number":
        return;
      case "name":
        all.add(node.name);
        if (inPower) powers.add(node.name);
        return;
      case "call":
        visit(node.of, inPower);
        return;
      case "binary":
        visit(node.left, inPower);
        visit(node.right, inPower || node.op === "^");
    }
  };
  visit(expression, false);
  return { all: [...all], powers };
}

/**
 * Names of `candidates` in which the formula is linear all together: a sum in which none multiplies another, and none
 * stands in a divisor, an exponent or a function.
 */
export function linearNames(expression: Expression, candidates: readonly string[]): readonly string[] {
  return candidates.reduce<readonly string[]>((linear, name) => {
    const wider = [...linear, name];
    return degreeIn(expression, new Set(wider)) <= 1 ? wider : linear;
  }, []);
}

/** 0: none of the names is there; 1: the formula is linear in them; more: it is not. */
function degreeIn(node: Expression, names: ReadonlySet<string>): number {
  switch (node.kind) {
    case "number":
      return 0;
    case "name":
      return names.has(node.name) ? 1 : 0;
    case "call":
      return 2 * degreeIn(node.of, names);
    case "binary": {
      const [left, right] = [degreeIn(node.left, names), degreeIn(node.right, names)];
      if (node.op === "+" || node.op === "-") return Math.max(left, right);
      if (node.op === "*") return left + right;
      return node.op === "/" && right === 0 ? left : 2 * (left + right);
    }
  }
}

/** The value with the given numbers for names; `visit` is called with the value of every part, inner ones first. */
export function valueOf(
  expression: Expression,
  numberFor: (name: string) => number,
  visit: (part: Expression, value: number) => void,
): number {
  const visited = (value: number): number => {
    visit(expression, value);
    return value;
  };
  switch (expression.kind) {
    case "number":
      return visited(expression.value);
    case "name":
      return visited(numberFor(expression.name));
    case "call":
      return visited(functions[expression.name](valueOf(expression.of, numberFor, visit))[0]);
    case "binary": {
      const left = valueOf(expression.left, numberFor, visit);
      return visited(operators[expression.op](left, valueOf(expression.right, numberFor, visit))[0]);
    }
  }
}

/** A value with its derivatives; an evaluator reuses its own. */
interface Dual {
  value: number;
  readonly slopes: Float64Array;
}

/**
 * A function of parameters [p] and columns that evaluates the formula: parameters carry derivatives, at their index in
 * `slopes`, columns do not. Every call returns the same object with new numbers.
 */
export function compileExpression(
  expression: Expression,
  parameters: readonly string[],
  columns: readonly string[],
): (theta: ArrayLike<number>, row: ArrayLike<number>) => Dual {
  const p = parameters.length;
  const out: Dual = { value: 0, slopes: new Float64Array(p) };
  switch (expression.kind) {
    case "number":
      out.value = expression.value;
      return () => out;
    case "name": {
      const parameter = parameters.indexOf(expression.name);
      const column = columns.indexOf(expression.name);
      if (parameter >= 0) out.slopes[parameter] = 1;
      return (theta, row) => {
        out.value = parameter >= 0 ? elementAt(theta, parameter) : elementAt(row, column);
        return out;
      };
    }
    case "call": {
      const inner = compileExpression(expression.of, parameters, columns);
      const apply = functions[expression.name];
      return (theta, row) => {
        const { value, slopes } = inner(theta, row);
        const [result, slope] = apply(value);
        out.value = result;
        for (let j = 0; j < p; j++) out.slopes[j] = slope * slopes[j]!;
        return out;
      };
    }
    case "binary": {
      const left = compileExpression(expression.left, parameters, columns);
      const right = compileExpression(expression.right, parameters, columns);
      const apply = operators[expression.op];
      return (theta, row) => {
        const a = left(theta, row);
        const b = right(theta, row);
        const [value, da, db] = apply(a.value, b.value);
        out.value = value;
        // A side without derivatives may have an infinite slope, as ln of a negative base: 0 times it must stay 0.
        for (let j = 0; j < p; j++) {
          const [sa, sb] = [a.slopes[j]!, b.slopes[j]!];
          out.slopes[j] = (sa === 0 ? 0 : da * sa) + (sb === 0 ? 0 : db * sb);
        }
        return out;
      };
    }
  }
}

const functions: Readonly<Record<FunctionName, (x: number) => readonly [value: number, slope: number]>> = {
  ln: (x) => [Math.log(x), 1 / x],
  log10: (x) => [Math.log10(x), 1 / (x * Math.LN10)],
  exp: (x) => [Math.exp(x), Math.exp(x)],
  sqrt: (x) => [Math.sqrt(x), 0.5 / Math.sqrt(x)],
};

const operators: Readonly<
  Record<Operator, (a: number, b: number) => readonly [value: number, da: number, db: number]>
> = {
  "+": (a, b) => [a + b, 1, 1],
  "-": (a, b) => [a - b, 1, -1],
  "*": (a, b) => [a * b, b, a],
  "/": (a, b) => [a / b, 1 / b, -a / (b * b)],
  // A power of zero does not change with its exponent, as long as it is finite.
  "^": (a, b) => [a ** b, b * a ** (b - 1), a === 0 ? 0 : a ** b * Math.log(a)],
  max: (a, b) => (a >= b || Number.isNaN(a) ? [a, 1, 0] : [b, 0, 1]),
  min: (a, b) => (a <= b || Number.isNaN(a) ? [a, 1, 0] : [b, 0, 1]),
};
