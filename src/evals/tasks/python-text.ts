/**
 * Python's view of text and values, where prompts and scores depend on it: white space, lengths in code points,
 * `str()`, `repr()`, literals and regular expressions.
 */
import { inputError } from "../../base/errors.js";

/** What a document's fields and a template's expressions are: JSON, with tuples and lists alike. */
export type Value = null | boolean | number | string | readonly Value[] | { readonly [key: string]: Value };

/** A document: one row of a data set. */
export type Doc = Readonly<Record<string, Value>>;

/** The characters for which `str.isspace()` holds, as the inside of a character class. */
const SPACES = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const leading = new RegExp(`^[${SPACES}]+`);
const trailing = new RegExp(`[${SPACES}]+$`);
const space = new RegExp(`[${SPACES}]`);
const spaceRun = new RegExp(`[${SPACES}]+`);
/** `\s+` of Python's `re`. */
export const whiteSpaceRuns = new RegExp(`[${SPACES}]+`, "g");

/** `text[0].isspace()` of one character. */
export const isSpace = (character: string): boolean => space.test(character);

/** `text.lstrip(characters)`, of white space where none are given. */
export function stripStart(text: string, characters?: string): string {
  if (characters === undefined) return text.replace(leading, "");
  const points = [...text];
  let start = 0;
  while (start < points.length && characters.includes(points[start]!)) start++;
  return points.slice(start).join("");
}

/** `text.rstrip(characters)`, of white space where none are given. */
export function stripEnd(text: string, characters?: string): string {
  if (characters === undefined) return text.replace(trailing, "");
  const points = [...text];
  let end = points.length;
  while (end > 0 && characters.includes(points[end - 1]!)) end--;
  return points.slice(0, end).join("");
}

/** `text.strip(characters)`, of white space where none are given. */
export const strip = (text: string, characters?: string): string => stripEnd(stripStart(text, characters), characters);

/** `len(text)`: code points, not UTF-16 units. */
export function pythonLength(text: string): number {
  return Array.from(text).length;
}

/** `text.split(separator, most)`; without a separator at runs of white space. */
export function split(text: string, separator: string | null = null, most = -1): string[] {
  if (separator === "") throw new Error("empty separator");
  const parts: string[] = [];
  let rest = separator === null ? stripStart(text) : text;
  if (separator === null && rest === "") return [];
  while (most < 0 || parts.length < most) {
    const found = separator === null ? spaceRun.exec(rest) : null;
    const at = separator === null ? (found?.index ?? -1) : rest.indexOf(separator);
    if (at < 0) break;
    parts.push(rest.slice(0, at));
    rest = rest.slice(at + (found?.[0].length ?? separator?.length ?? 0));
    if (separator === null && rest === "") return parts;
  }
  return [...parts, rest];
}

/** `text.isdigit()` of text that `int()` reads. */
export const isDigits = (text: string): boolean => /^\p{Nd}+$/u.test(text);

/** `text.capitalize()`. */
export function capitalize(text: string): string {
  const [first = "", ...rest] = text;
  return first.toUpperCase() + rest.join("").toLowerCase();
}

/** `text.title()`: a letter behind none is upper case, every other lower case. */
export const title = (text: string): string =>
  text.replace(/(\p{L})(\p{L}*)/gu, (_, first: string, rest: string) => first.toUpperCase() + rest.toLowerCase());

/** `repr(value)`. */
export function repr(value: Value): string {
  if (typeof value === "string") return reprOfText(value);
  if (Array.isArray(value)) return `[${(value as readonly Value[]).map(repr).join(", ")}]`;
  if (value !== null && typeof value === "object")
    return `{${Object.entries(value)
      .map(([key, entry]) => `${reprOfText(key)}: ${repr(entry)}`)
      .join(", ")}}`;
  return str(value);
}

/** `str(value)`. A whole number prints as an int: JSON does not tell 1 from 1.0. */
export function str(value: Value): string {
  if (typeof value === "string") return value;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return reprOfNumber(value);
  return repr(value);
}

/** `repr` of a float as CPython writes it: shortest digits, exponents of two digits from 1e16 and below 1e-4. */
function reprOfNumber(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Number.isInteger(value) && Math.abs(value) < 1e16) return String(value);
  const size = Math.abs(value);
  const [mantissa = "", exponent = "0"] = value.toExponential().split("e");
  if (size >= 1e16 || size < 1e-4) {
    const digits = String(Math.abs(Number(exponent))).padStart(2, "0");
    return `${mantissa}e${exponent.startsWith("-") ? "-" : "+"}${digits}`;
  }
  return String(value);
}

function reprOfText(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let out = "";
  for (const character of text) out += escaped(character, quote);
  return quote + out + quote;
}

const escapes: Readonly<Record<string, string>> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escaped(character: string, quote: string): string {
  if (character === quote) return `\\${quote}`;
  const known = escapes[character];
  if (known !== undefined) return known;
  if (character === " " || !/[\p{C}\p{Z}]/u.test(character)) return character;
  const code = character.codePointAt(0)!;
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
}

/** The value of a Python literal, as `ast.literal_eval` reads it. Throws SyntaxError for anything else. */
export function parseLiteral(text: string): Value {
  const reader = new LiteralReader(strip(text));
  const value = reader.value();
  reader.end();
  return value;
}

class LiteralReader {
  private place = 0;

  constructor(private readonly text: string) {}

  end(): void {
    this.skipSpace();
    if (this.place < this.text.length) throw this.problem();
  }

  private problem(): SyntaxError {
    return new SyntaxError(`no Python literal at character ${this.place + 1}`);
  }

  private skipSpace(): void {
    while (this.place < this.text.length && isSpace(this.text[this.place]!)) this.place++;
  }

  private take(pattern: RegExp): string | null {
    const sticky = new RegExp(pattern.source, "y");
    sticky.lastIndex = this.place;
    const found = sticky.exec(this.text)?.[0] ?? null;
    this.place += found?.length ?? 0;
    return found;
  }

  value(): Value {
    this.skipSpace();
    const next = this.text[this.place];
    if (next === "[") return this.list("]");
    if (next === "(") return this.tuple();
    if (next === "{") return this.dict();
    if (this.take(/True\b/) !== null) return true;
    if (this.take(/False\b/) !== null) return false;
    if (this.take(/None\b/) !== null) return null;
    const number = this.take(/[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?/);
    if (number !== null) return Number(number.replaceAll("_", ""));
    return this.joinedText();
  }

  private list(close: string): Value[] {
    this.place++;
    const items: Value[] = [];
    for (;;) {
      this.skipSpace();
      if (this.text[this.place] === close) break;
      items.push(this.value());
      this.skipSpace();
      if (this.text[this.place] === ",") this.place++;
      else if (this.text[this.place] !== close) throw this.problem();
    }
    this.place++;
    return items;
  }

  /** A tuple, or one value in brackets. */
  private tuple(): Value {
    const start = this.place;
    const items = this.list(")");
    const inside = this.text.slice(start + 1, this.place - 1);
    return items.length === 1 && !/,\s*$/.test(inside) ? items[0]! : items;
  }

  private dict(): Value {
    this.place++;
    const entries: [string, Value][] = [];
    for (;;) {
      this.skipSpace();
      if (this.text[this.place] === "}") break;
      const key = this.value();
      this.skipSpace();
      if (this.text[this.place++] !== ":") throw this.problem();
      entries.push([str(key), this.value()]);
      this.skipSpace();
      if (this.text[this.place] === ",") this.place++;
      else if (this.text[this.place] !== "}") throw this.problem();
    }
    this.place++;
    return Object.fromEntries(entries);
  }

  /** String literals side by side are one string. */
  private joinedText(): string {
    let text: string | null = null;
    for (let part = this.stringPart(); part !== null; part = this.stringPart()) text = (text ?? "") + part;
    if (text === null) throw this.problem();
    return text;
  }

  private stringPart(): string | null {
    this.skipSpace();
    const prefix = this.take(/[uUrR]?(?=['"])/);
    if (prefix === null) return null;
    const quote = this.take(/'''|"""|'|"/)!;
    const raw = /r/i.test(prefix);
    let out = "";
    while (!this.text.startsWith(quote, this.place)) {
      if (this.place >= this.text.length) throw this.problem();
      const character = this.text[this.place]!;
      if (character === "\n" && quote.length === 1) throw this.problem();
      if (character === "\\" && !raw) out += this.escape();
      else {
        out += character;
        this.place++;
      }
    }
    this.place += quote.length;
    return out;
  }

  private escape(): string {
    const code = this.take(/\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3})/);
    if (code !== null) {
      const octal = /^\\[0-7]/.test(code);
      return String.fromCodePoint(parseInt(code.slice(octal ? 1 : 2), octal ? 8 : 16));
    }
    const next = this.text[this.place + 1] ?? "";
    this.place += 2;
    const plain: Readonly<Record<string, string>> = {
      n: "\n",
      t: "\t",
      r: "\r",
      b: "\b",
      f: "\f",
      v: "\v",
      a: "\x07",
      "\n": "",
    };
    return plain[next] ?? (/['"\\]/.test(next) ? next : `\\${next}`);
  }
}

const classShorthands: Readonly<Record<string, string>> = {
  s: SPACES,
  d: "\\p{Nd}",
  w: "\\p{L}\\p{N}_",
};

/**
 * A pattern of Python's `re` as a RegExp with flag `u`: inline flags in front, named groups, `\A`, `\Z`, and `\s`,
 * `\d`, `\w` over all of Unicode. Throws inputError for a pattern that has no such form.
 */
export function pythonRegex(pattern: string, where: string): RegExp {
  let flags = "gu";
  let rest = pattern.replace(/^\(\?([aimsux]+)\)/, (_, letters: string) => {
    for (const letter of letters) if ("ims".includes(letter)) flags += letter;
    return "";
  });
  rest = rest.replaceAll("(?P<", "(?<").replace(/\(\?P=(\w+)\)/g, "\\k<$1>");
  let out = "";
  let inClass = false;
  for (let i = 0; i < rest.length; i++) {
    const character = rest[i]!;
    if (character !== "\\") {
      if (character === "[" && !inClass) {
        inClass = true;
        out += "[";
        // A bracket in the first place of a class is one of its characters.
        if (rest[i + 1] === "^") out += rest[++i]!;
        if (rest[i + 1] === "]") {
          out += "\\]";
          i++;
        }
        continue;
      }
      if (character === "]" && inClass) inClass = false;
      else if (character === "[" && inClass) out += "\\";
      // Python takes a brace that is no quantifier as itself, and a lone closing one too.
      else if (character === "{" && !inClass && !/^\{\d*,?\d*\}/.test(rest.slice(i))) out += "\\";
      else if (character === "}" && !inClass && !/\{\d*,?\d*$/.test(rest.slice(0, i))) out += "\\";
      else if (character === "]" && !inClass) out += "\\";
      out += character;
      continue;
    }
    const next = rest[++i] ?? "";
    const shorthand = classShorthands[next.toLowerCase()];
    if (shorthand !== undefined) {
      const negated = next !== next.toLowerCase();
      if (inClass && negated) out += `\\${next}`;
      else out += inClass ? shorthand : `[${negated ? "^" : ""}${shorthand}]`;
    } else if (next === "A") out += "(?<![\\s\\S])";
    else if (next === "Z") out += "(?![\\s\\S])";
    else if (/[a-zA-Z0-9]/.test(next) || /[\^$\\.*+?()[\]{}|/]/.test(next) || (next === "-" && inClass))
      out += `\\${next}`;
    else out += next;
  }
  try {
    return new RegExp(out, [...new Set(flags)].join(""));
  } catch (cause) {
    throw inputError(`the pattern ${JSON.stringify(pattern)} cannot be read (${(cause as Error).message})`, {
      where,
      cause,
    });
  }
}

/** `re.sub(pattern, replacement, text, count)`, with `\1` and `\g<name>` in the replacement. */
export function pythonReplace(regex: RegExp, replacement: string, text: string, count = 0): string {
  let done = 0;
  return text.replace(regex, (...found: unknown[]) => {
    const match = found[0] as string;
    if (count > 0 && done++ >= count) return match;
    const groups = typeof found.at(-1) === "object" ? (found.at(-1) as Record<string, string | undefined>) : {};
    return replacement.replace(/\\(?:g<(\w+)>|(\d{1,2})|n|t|\\)/g, (code, name?: string, number?: string) => {
      if (code === "\\n") return "\n";
      if (code === "\\t") return "\t";
      if (code === "\\\\") return "\\";
      const key = name ?? number ?? "";
      return (/^\d+$/.test(key) ? (found[Number(key)] as string | undefined) : groups[key]) ?? "";
    });
  });
}
