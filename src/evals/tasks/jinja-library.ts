/** Methods, filters, tests and functions that templates may call, with Python's results. */
import { inputError } from "../../base/errors.js";
import {
  capitalize,
  isDigits,
  pythonLength,
  pythonRegex,
  pythonReplace,
  split,
  str,
  strip,
  stripEnd,
  stripStart,
  title,
  type Value,
} from "./python-text.js";

/** Names and their values. */
export type Scope = Map<string, Value>;

/** A function of positional and named arguments. */
export type Callable = (args: readonly Value[], named: Readonly<Record<string, Value>>) => Value;

type Items = readonly Value[];
type Filter = (value: Value, args: Items, named: Readonly<Record<string, Value>>) => Value;

function text(value: Value | undefined, what: string): string {
  if (typeof value !== "string") throw new Error(`${what} needs a string`);
  return value;
}

function wholeNumber(value: Value | undefined, otherwise: number): number {
  if (value === undefined || value === null) return otherwise;
  if (!Number.isInteger(value)) throw new Error("a whole number is needed");
  return value as number;
}

const characters = (value: Value | undefined): string | undefined =>
  value === undefined || value === null ? undefined : text(value, "strip");

const prefixes = (value: Value | undefined): readonly string[] =>
  (Array.isArray(value) ? (value as Items) : [value]).map((one) => text(one, "startswith"));

const stringMethods: Readonly<
  Record<string, (of: string, args: Items, named: Readonly<Record<string, Value>>) => Value>
> = {
  strip: (of, [chars]) => strip(of, characters(chars)),
  lstrip: (of, [chars]) => stripStart(of, characters(chars)),
  rstrip: (of, [chars]) => stripEnd(of, characters(chars)),
  split: (of, [separator, most], named) =>
    split(of, (separator ?? named["sep"] ?? null) as string | null, wholeNumber(most ?? named["maxsplit"], -1)),
  rsplit: (of, [separator, most], named) => {
    const parts = split(of, (separator ?? named["sep"] ?? null) as string | null);
    const limit = wholeNumber(most ?? named["maxsplit"], -1);
    if (limit < 0 || parts.length <= limit + 1) return parts;
    const joiner = text(separator ?? named["sep"], "rsplit with a limit");
    return [parts.slice(0, parts.length - limit).join(joiner), ...parts.slice(parts.length - limit)];
  },
  splitlines: (of) => {
    // eslint-disable-next-line no-control-regex -- Python's str.splitlines() ends lines at them.
    const lines = of.split(/\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/);
    return lines.at(-1) === "" ? lines.slice(0, -1) : lines;
  },
  lower: (of) => of.toLowerCase(),
  upper: (of) => of.toUpperCase(),
  title: (of) => title(of),
  capitalize: (of) => capitalize(of),
  replace: (of, [from, to, count]) => {
    const [search, replacement] = [text(from, "replace"), text(to, "replace")];
    const most = wholeNumber(count, -1);
    if (most < 0) return of.split(search).join(replacement);
    const parts = of.split(search);
    return (
      parts.slice(0, most + 1).join(replacement) +
      parts
        .slice(most + 1)
        .map((part) => search + part)
        .join("")
    );
  },
  startswith: (of, [start]) => prefixes(start).some((one) => of.startsWith(one)),
  endswith: (of, [end]) => prefixes(end).some((one) => of.endsWith(one)),
  find: (of, [part]) => {
    const at = of.indexOf(text(part, "find"));
    return at < 0 ? -1 : pythonLength(of.slice(0, at));
  },
  index: (of, [part]) => {
    const at = of.indexOf(text(part, "index"));
    if (at < 0) throw new Error("substring not found");
    return pythonLength(of.slice(0, at));
  },
  count: (of, [part]) => of.split(text(part, "count")).length - 1,
  join: (of, [items]) => {
    if (!Array.isArray(items)) throw new Error("join needs a list");
    return (items as Items).map((item) => text(item, "join")).join(of);
  },
  isdigit: (of) => isDigits(of),
  isupper: (of) => of !== of.toLowerCase() && of === of.toUpperCase(),
  islower: (of) => of !== of.toUpperCase() && of === of.toLowerCase(),
  zfill: (of, [width]) => of.padStart(wholeNumber(width, 0), "0"),
};

/** A method of a string, list or dict, bound to it; undefined for one that it does not have. */
export function callMethod(of: Value, name: string): Callable | undefined {
  if (typeof of === "string") {
    const method = Object.hasOwn(stringMethods, name) ? stringMethods[name] : undefined;
    return method === undefined ? undefined : (args, named) => method(of, args, named);
  }
  if (Array.isArray(of)) return listMethod(of as Items, name);
  if (of !== null && typeof of === "object") return dictMethod(of as Readonly<Record<string, Value>>, name);
  return undefined;
}

function listMethod(of: Items, name: string): Callable | undefined {
  if (name === "index")
    return ([value]) => {
      const at = of.findIndex((one) => one === value);
      if (at < 0) throw new Error(`${str(value ?? null)} is not in the list`);
      return at;
    };
  if (name === "count") return ([value]) => of.filter((one) => one === value).length;
  if (name === "append")
    return ([value]) => {
      (of as Value[]).push(value ?? null);
      return null;
    };
  return undefined;
}

function dictMethod(of: Readonly<Record<string, Value>>, name: string): Callable | undefined {
  if (name === "keys") return () => Object.keys(of);
  if (name === "values") return () => Object.values(of);
  if (name === "items") return () => Object.entries(of).map(([key, value]) => [key, value]);
  if (name === "get") return ([key, otherwise]) => of[str(key ?? null)] ?? otherwise ?? null;
  return undefined;
}

/** What behaves like a list in a filter. */
function listOf(value: Value): Items {
  if (typeof value === "string") return [...value];
  if (Array.isArray(value)) return value as Items;
  if (value !== null && typeof value === "object") return Object.keys(value);
  throw new Error("a list is needed");
}

function attributeOf(value: Value, attribute: Value | undefined): Value {
  if (attribute === undefined) return value;
  let current: Value | undefined = value;
  for (const part of str(attribute).split("."))
    current = (current as Readonly<Record<string, Value>> | null | undefined)?.[part];
  if (current === undefined) throw new Error(`${str(attribute)} is undefined`);
  return current;
}

/** Numbers before and behind each other, text by code points. */
function compare(left: Value, right: Value): number {
  if (typeof left === "number" && typeof right === "number") return left - right;
  const [a, b] = [[...str(left)], [...str(right)]];
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const difference = a[i]!.codePointAt(0)! - b[i]!.codePointAt(0)!;
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/** Half to even, as Python rounds. */
function rounded(value: number, digits: number): number {
  const scale = 10 ** digits;
  const scaled = value * scale;
  const low = Math.floor(scaled);
  const rest = scaled - low;
  const whole = rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
  return whole / scale;
}

/**
 * A float as Python has it. Throws for a whole one, which Python prints with `.0`: numbers do not tell it from an int
 * here, and a prompt must not differ silently.
 */
export function fraction(value: number): number {
  if (!Number.isInteger(value)) return value;
  throw new Error("a float that is a whole number cannot be told from an int here; divide with // or use int");
}

const lowered = (value: Value): Value => (typeof value === "string" ? value.toLowerCase() : value);

/** Filters by their names. */
export const filters: Readonly<Record<string, Filter>> = {
  upper: (value) => str(value).toUpperCase(),
  lower: (value) => str(value).toLowerCase(),
  title: (value) => title(str(value)),
  capitalize: (value) => capitalize(str(value)),
  trim: (value, [chars], named) => strip(str(value), characters(chars ?? named["chars"])),
  string: (value) => str(value),
  replace: (value, args) => stringMethods["replace"]!(str(value), args, {}),
  join: (value, [separator], named) =>
    listOf(value)
      .map((item) => str(attributeOf(item, named["attribute"])))
      .join(str(separator ?? named["d"] ?? "")),
  length: (value) => (typeof value === "string" ? pythonLength(value) : listOf(value).length),
  count: (value) => (typeof value === "string" ? pythonLength(value) : listOf(value).length),
  first: (value) => edge(listOf(value), 0),
  last: (value) => edge(listOf(value), -1),
  list: (value) => [...listOf(value)],
  int: (value, [otherwise]) => {
    const number = typeof value === "string" ? Number(strip(value)) : Number(value);
    return Number.isFinite(number) && value !== "" ? Math.trunc(number) : (otherwise ?? 0);
  },
  float: (value, [otherwise]) => {
    const number = Number(value);
    return Number.isFinite(number) && value !== "" ? fraction(number) : (otherwise ?? fraction(0));
  },
  abs: (value) => Math.abs(Number(value)),
  round: (value, [digits]) => fraction(rounded(Number(value), wholeNumber(digits, 0))),
  sum: (value, _, named) =>
    listOf(value).reduce<number>((total, item) => total + Number(attributeOf(item, named["attribute"])), 0),
  min: (value) => [...listOf(value)].sort(compare)[0] ?? null,
  max: (value) => [...listOf(value)].sort(compare).at(-1) ?? null,
  reverse: (value) => (typeof value === "string" ? [...value].reverse().join("") : [...listOf(value)].reverse()),
  sort: (value, args, named) => {
    const isCaseSensitive = (args[1] ?? named["case_sensitive"]) === true;
    const key = (item: Value): Value => {
      const own = attributeOf(item, named["attribute"]);
      return isCaseSensitive ? own : lowered(own);
    };
    const sorted = [...listOf(value)].sort((a, b) => compare(key(a), key(b)));
    return (args[0] ?? named["reverse"]) === true ? sorted.reverse() : sorted;
  },
  unique: (value) => {
    const seen = new Set<string>();
    return listOf(value).filter((item) => {
      const key = JSON.stringify(lowered(item));
      if (seen.has(key)) return false;
      seen.add(key);
      return true;
    });
  },
  map: (value, [name, ...args], named) => {
    if (named["attribute"] !== undefined) return listOf(value).map((item) => attributeOf(item, named["attribute"]));
    const work = filters[str(name ?? "")];
    if (work === undefined) throw new Error(`the filter "${str(name ?? "")}" is unknown`);
    return listOf(value).map((item) => work(item, args, {}));
  },
  items: (value) => Object.entries(value as Record<string, Value>).map(([key, entry]) => [key, entry]),
  tojson: (value) => JSON.stringify(value),
  regex_replace: (value, [pattern, replacement, count], named) =>
    pythonReplace(
      pythonRegex(text(pattern ?? named["pattern"], "regex_replace"), "regex_replace"),
      text(replacement ?? named["repl"], "regex_replace"),
      text(value, "regex_replace"),
      wholeNumber(count ?? named["count"], 0),
    ),
  random: () => {
    throw inputError("the filter random has no result that could be repeated", { hint: "leave it out" });
  },
};

function edge(items: Items, place: 0 | -1): Value {
  const item = items.at(place);
  if (item === undefined) throw new Error("the first or last item of nothing is undefined");
  return item;
}

const isMapping = (value: Value): boolean => value !== null && typeof value === "object" && !Array.isArray(value);

/** Tests by their names, but for `defined` and `undefined`. */
export const tests: Readonly<Record<string, (value: Value) => boolean>> = {
  none: (value) => value === null,
  string: (value) => typeof value === "string",
  number: (value) => typeof value === "number" || typeof value === "boolean",
  integer: (value) => Number.isInteger(value),
  boolean: (value) => typeof value === "boolean",
  mapping: isMapping,
  iterable: (value) => typeof value === "string" || (value !== null && typeof value === "object"),
  sequence: (value) => typeof value === "string" || (value !== null && typeof value === "object"),
  true: (value) => value === true,
  false: (value) => value === false,
  odd: (value) => Math.abs(Number(value)) % 2 === 1,
  even: (value) => Number(value) % 2 === 0,
  lower: (value) => typeof value === "string" && value === value.toLowerCase(),
  upper: (value) => typeof value === "string" && value === value.toUpperCase(),
};

/** Functions that every template knows. */
export const globals: Readonly<Record<string, Callable>> = {
  range: (args) => {
    const [start, stop, step] =
      args.length === 1
        ? [0, wholeNumber(args[0], 0), 1]
        : [wholeNumber(args[0], 0), wholeNumber(args[1], 0), wholeNumber(args[2], 1)];
    const numbers: number[] = [];
    for (let i = start; step > 0 ? i < stop : i > stop; i += step) numbers.push(i);
    return numbers;
  },
  dict: (_, named) => ({ ...named }),
  namespace: (_, named) => ({ ...named }),
};
