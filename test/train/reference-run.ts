/** A finished run, with whose bytes those of other runs are compared. */
import { join } from "node:path";
import { beforeAll } from "vitest";
import { temporaryFolder } from "../files/io/temporary.js";
import { finish, remains, runOptions } from "../support/runs.js";

type Remains = Awaited<ReturnType<typeof remains>>;

/** Gives the path of a new run folder with every call. */
export function freshFolders(root: string): () => string {
  let count = 0;
  return () => join(root, `run${count++}`);
}

/**
 * Makes a run with the options of `runOptions` before the tests of a file. `whole` is its folder, `expected` gives what
 * every run with these options must leave behind, whenever it was stopped.
 */
export function referenceRun(): {
  readonly root: string;
  readonly whole: string;
  readonly fresh: () => string;
  readonly expected: () => Remains;
} {
  const root = temporaryFolder();
  const whole = join(root, "whole");
  let left: Remains | undefined;
  beforeAll(async () => {
    await finish(runOptions(whole));
    left = await remains(whole);
  });
  return {
    root,
    whole,
    fresh: freshFolders(root),
    expected: () => {
      if (left === undefined) throw new Error("the run is not finished");
      return left;
    },
  };
}
