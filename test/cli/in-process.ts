/** Runs commands of the source tree without a process of their own, which spares a second each. */
import type { Command } from "commander";
import { expect, vi } from "vitest";
import { UpcycleError } from "../../src/base/errors.js";
import { commandEntries } from "../../src/cli/commands.js";
import { results } from "../../src/cli/terminal.js";

/**
 * What `upcycle ARGS` would end with on stderr, without the program's name: one line, or a line for each mistake of a
 * file. Fails where the command does not refuse with exit code 2, or has written a result before.
 */
export async function refusalOf([name = "", ...args]: readonly string[]): Promise<string> {
  const written = vi.spyOn(results, "write").mockReturnValue(undefined);
  const noted = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  const before = signals.map((signal) => process.listeners(signal));
  try {
    const command = await commandEntries[name]?.load();
    const error: unknown = await command
      ?.exitOverride()
      .parseAsync([...args], { from: "user" })
      .then(
        () => "no refusal",
        (cause: unknown) => cause,
      );
    if (!(error instanceof UpcycleError)) throw error;
    expect([error.exitCode, written.mock.calls]).toEqual([2, []]);
    return error.lines.join("\n");
  } finally {
    // A command listens for signals to the end of its process, and this process goes on.
    for (const [i, signal] of signals.entries())
      for (const listener of process.listeners(signal))
        if (before[i]?.includes(listener) !== true) process.off(signal, listener);
    written.mockRestore();
    noted.mockRestore();
  }
}

/** The run before, because all write to the same stream. */
let before: Promise<unknown> = Promise.resolve();

/**
 * What a command prints. `args` are words as after `upcycle`, of which the first is the command's name. Rejects with
 * the command's own error.
 */
export function textInProcess(command: Command, ...args: readonly string[]): Promise<string> {
  const run = before.then(async () => {
    const texts: string[] = [];
    const spy = vi.spyOn(results, "write").mockImplementation((text) => {
      texts.push(text);
    });
    try {
      await command.exitOverride().parseAsync(args.slice(1), { from: "user" });
    } finally {
      spy.mockRestore();
    }
    return texts.join("");
  });
  before = run.catch(() => undefined);
  return run;
}

/** The JSON document that a command prints with `--json`. */
export async function jsonInProcess(command: Command, ...args: readonly string[]): Promise<Record<string, unknown>> {
  return JSON.parse(await textInProcess(command, ...args, "--json")) as Record<string, unknown>;
}
