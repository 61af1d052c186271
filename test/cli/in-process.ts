/** Runs commands without a process of their own, which spares a second each where many lines are tried. */
import type { Command } from "commander";
import { vi } from "vitest";
import { results } from "../../src/cli/terminal.js";

/** The run before, because all write to the same stream. */
let before: Promise<unknown> = Promise.resolve();

/**
 * The JSON document that a command prints. `args` are words as after `upcycle`, of which the first is the command's
 * name. Rejects with the command's own error.
 */
export function jsonInProcess(command: Command, ...args: readonly string[]): Promise<Record<string, unknown>> {
  const run = before.then(async () => {
    const texts: string[] = [];
    const spy = vi.spyOn(results, "write").mockImplementation((text) => {
      texts.push(text);
    });
    try {
      await command.exitOverride().parseAsync([...args.slice(1), "--json"], { from: "user" });
    } finally {
      spy.mockRestore();
    }
    return JSON.parse(texts.join("")) as Record<string, unknown>;
  });
  before = run.catch(() => undefined);
  return run;
}
