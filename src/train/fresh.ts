/** Checks of a folder before a run: files that no run has made are neither replaced nor added to. */
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { exists } from "../files/io/atomic.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { entryAt, requireReplaceable, someOf } from "../files/io/model-folder.js";
import { metricsFile } from "./records.js";

/** Folders of a run that are replaced while it runs. */
const replaced = ["last", "best", "average"] as const;

/** Throws inputError if a run here would replace or add to what it has not made, or could not replace its own. */
export async function requireRunFolder(dir: string): Promise<void> {
  const record = join(dir, "run.json");
  if (!(await exists(record)))
    await requireUnclaimed(dir, [...replaced, metricsFile], "run.json of a run").catch(async (cause: unknown) => {
      // Another command may have begun a run here since: its record comes before anything else.
      if (!(await exists(record))) throw cause;
    });
  for (const name of replaced) {
    const path = join(dir, name);
    await withFsErrors(path, "look up folder", () => requireReplaceable(path, path, "checkpoint"));
  }
}

/** Throws inputError if the folder, which has no `mark` of ours, holds something by one of these names. */
export async function requireUnclaimed(dir: string, names: readonly string[], mark: string): Promise<void> {
  const strangers: string[] = [];
  await withFsErrors(dir, "look up folder", async () => {
    for (const name of names) if ((await entryAt(join(dir, name))) !== null) strangers.push(name);
  });
  if (strangers.length === 0) return;
  throw inputError(
    `the folder has no ${mark}, but holds ${someOf(strangers)}, which would be replaced or taken for this one's`,
    {
      where: dir,
      hint: "choose another folder, or move that away first",
    },
  );
}
