/** What every command gets: a terminal, a signal that Ctrl-C raises, and the common options. */
import { cpus } from "node:os";
import { resolve } from "node:path";
import { inputError } from "../base/errors.js";
import { openTerminal, type Terminal } from "./terminal.js";

export interface CommandContext {
  readonly terminal: Terminal;
  /** Print one JSON document on stdout and nothing else. */
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/** The first Ctrl-C asks the command to finish its step and save; the second ends the process at once. */
export function openContext(json: boolean): CommandContext {
  const controller = new AbortController();
  const terminal = openTerminal({ stdout: process.stdout, stderr: process.stderr, now: () => performance.now() }, json);
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(130);
      controller.abort();
      terminal.settle();
      process.stderr.write("stopping: finishing the step in hand and saving (once more to stop at once)\n");
    });
  }
  return { terminal, json, signal: controller.signal };
}

/** Threads to use where the user names none: one for each core. */
export function defaultThreads(): number {
  return Math.max(1, cpus().length);
}

/** A whole number from the command line. Throws inputError naming the option. */
export function wholeNumber(option: string, low: number, high = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < low || value > high) {
      throw inputError(`"${text}" is not a whole number ${high === Number.MAX_SAFE_INTEGER ? `from ${low}` : `from ${low} to ${high}`}`, { where: option });
    }
    return value;
  };
}

/** A number from the command line. Throws inputError naming the option. */
export function realNumber(option: string, low: number, high: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !(value >= low && value <= high)) {
      throw inputError(`"${text}" is not a number ${high === Infinity ? `from ${low}` : `from ${low} to ${high}`}`, { where: option });
    }
    return value;
  };
}

/** One of a few words from the command line. Throws inputError naming the option and the valid words. */
export function oneOf<T extends string>(option: string, words: readonly T[]): (text: string) => T {
  return (text) => {
    const found = words.find((word) => word === text);
    if (found === undefined) throw inputError(`"${text}" is not one of ${words.join(", ")}`, { where: option });
    return found;
  };
}

/** A path as the user would write it: relative where it lies below the working folder. */
export function shownPath(path: string): string {
  const full = resolve(path);
  const here = `${process.cwd()}/`;
  return full.startsWith(here) ? full.slice(here.length) : path;
}
