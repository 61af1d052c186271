/** Options that several commands have, and readers of their values. */
import { availableParallelism, cpus } from "node:os";
import type { Command } from "commander";
import { inputError } from "../base/errors.js";
import { mostQuoted, visibleLine } from "../base/shown.js";
import { nearest } from "../base/schemas/nearest.js";
import { helpText } from "./help.js";

/** `--threads` and `--json`, in that order after a command's own options. */
export interface CommonFlags {
  readonly threads?: number;
  readonly json?: boolean;
}

/** Adds `--threads`; `otherwise` says in the help what the default is. */
export function withThreads(command: Command, otherwise = "all cores"): Command {
  return command.option(
    "--threads <n>",
    `threads of the engine (default: ${otherwise})`,
    wholeNumber("--threads", 1, mostThreads()),
  );
}

/** Adds `--json`. */
export function withJson(command: Command): Command {
  return command.option("--json", "print the result as JSON on stdout, nothing else");
}

/** Ends a command's help with `remarks`, a paragraph each, and with a command line that works. */
export function withExample(command: Command, example: string, ...remarks: readonly string[]): Command {
  return command.addHelpText("after", () => helpText(remarks, [example]));
}

/**
 * The most threads that an engine may have here. Each takes memory and waits for the others, so that far more threads
 * than processors would do nothing but wait.
 */
export const mostThreads = (): number => Math.max(64, 8 * availableParallelism());

/** The number of threads that a file asks for. Throws inputError for more than this machine can use. */
export function threadsOfFile(threads: number | undefined, file: string): number | undefined {
  if (threads === undefined || threads <= mostThreads()) return threads;
  const message = `expected a whole number from 1 to ${mostThreads()} on this machine, found ${threads}`;
  throw inputError(message, { where: `${file} (threads)`, hint: "--threads goes before it" });
}

/** The number of threads where the user names none: one for each core. */
export function defaultThreads(): number {
  return Math.max(1, cpus().length);
}

/** A whole number from the command line. Throws inputError naming the option. */
export function wholeNumber(option: string, low: number, high = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < low || value > high) {
      throw inputError(`"${visibleLine(text, mostQuoted)}" is not a whole number ${range(low, high)}`, {
        where: option,
      });
    }
    return value;
  };
}

/** A number from the command line. Throws inputError naming the option. */
export function realNumber(option: string, low: number, high = Infinity): (text: string) => number {
  return (text) => {
    const value = Number(text);
    // Number() also reads "0x10" and "Infinity", which nobody means here; 1e999 is infinite too.
    const isNumber = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text) && Number.isFinite(value);
    if (!isNumber || !(value >= low && value <= high)) {
      throw inputError(`"${visibleLine(text, mostQuoted)}" is not a number ${range(low, high)}`, { where: option });
    }
    return value;
  };
}

const quantityUnits: Readonly<Record<string, number>> = { "": 1, K: 1e3, M: 1e6, B: 1e9, G: 1e9, T: 1e12 };

/** A number that may end in K, M, B (or G) or T: 50K, 7B, 2T, 1e12. Throws inputError naming the option. */
export function quantity(option: string, low: number, high = 1e18): (text: string) => number {
  return (text) => {
    const [, number = "", unit = "?"] = /^(\d+\.?\d*(?:e\+?\d+)?)([kmbgt]?)$/i.exec(text.trim()) ?? [];
    const value = Number(number) * (quantityUnits[unit.toUpperCase()] ?? NaN);
    if (!Number.isFinite(value) || !(value >= low && value <= high)) {
      throw inputError(`"${visibleLine(text, mostQuoted)}" is not a number ${range(low, high)}`, {
        where: option,
        hint: "write 50000, 50K, 7B, 2T or 1e12",
      });
    }
    return value;
  };
}

/** The known word that a mistyped one was probably meant to be, as the question `did you mean WORD?`. */
export function didYouMean(word: string, knownWords: readonly string[]): string | undefined {
  const similar = nearest(word, knownWords);
  return similar === undefined ? undefined : `did you mean ${similar}?`;
}

function range(low: number, high: number): string {
  if (low === -Infinity && high === Infinity) return "between -1.7e308 and 1.7e308";
  return high === Infinity || high === Number.MAX_SAFE_INTEGER ? `from ${low}` : `from ${low} to ${high}`;
}

/** One of a few words from the command line. Throws inputError naming the option and the valid words. */
export function oneOf<T extends string>(option: string, words: readonly T[]): (text: string) => T {
  return (text) => {
    const word = words.find((known) => known === text);
    if (word !== undefined) return word;
    throw inputError(`"${visibleLine(text, mostQuoted)}" is not one of ${words.join(", ")}`, {
      where: option,
      hint: didYouMean(text, words),
    });
  };
}

const byteUnits: Readonly<Record<string, number>> = {
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

/** A size such as 5GB (10^9 bytes) or 512MiB (2^20 bytes). Throws inputError naming the option. */
export function byteSize(option: string): (text: string) => number {
  return (text) => {
    const [, number = "", unit = ""] = /^(\d+(?:\.\d+)?) ?([a-z]+)$/i.exec(text.trim()) ?? [];
    const bytes = Math.floor(Number(number) * (byteUnits[unit.toUpperCase()] ?? NaN));
    if (!(bytes >= 1 && bytes <= Number.MAX_SAFE_INTEGER)) {
      throw inputError(`"${visibleLine(text, mostQuoted)}" is not a size`, {
        where: option,
        hint: "write a number and a unit: 500MB, 5GB, 4GiB",
      });
    }
    return bytes;
  };
}

/** Collects all values of an option that may be given several times, in order. */
export function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}

/** The address of `--webhook`. Throws inputError for what is no address of the web. */
export function webAddress(text: string): string {
  const address = URL.canParse(text) ? new URL(text) : null;
  if (address !== null && /^https?:$/.test(address.protocol)) return text;
  throw inputError("this is no address of the web", { where: "--webhook", hint: "such as https://example.org/hook" });
}
