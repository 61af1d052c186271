/** Runs commands without a process of their own, which spares a second each where many lines are tried. */
import type { Command } from "commander";
import { vi } from "vitest";
import { results } from "../../src/cli/terminal.js";

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
