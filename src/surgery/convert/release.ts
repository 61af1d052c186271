/**
 * A folder of saves as Megatron-Core loads it: `release` holds the model, and a tracker beside it names that. The
 * tracker comes last, so that nothing can be loaded before the model is complete.
 */
import { join } from "node:path";
import { inputError } from "../../base/errors.js";
import { trackerFile } from "../../files/checkpoint/open-megatron.js";
import { exists, writeFileAtomic } from "../../files/io/atomic.js";
import { readText } from "../../files/io/ranges.js";

const release = "release";

/** Where the model goes in a folder of saves. */
export const releaseFolder = (out: string): string => join(out, release);

/** Throws inputError where a training has saved checkpoints of its own, which a new tracker would hide. */
export async function requireReleasePlace(out: string): Promise<void> {
  const tracker = join(out, trackerFile);
  if (!(await exists(tracker))) return;
  const said = (await readText(tracker)).trim();
  if (said === release) return;
  throw inputError(`the folder holds checkpoints of a training, its tracker names ${said.slice(0, 40)}`, {
    where: out,
    hint: "choose another --out",
  });
}

/** Whether work stopped between the last file of the model and its tracker: the same command then only names it. */
export async function isUnnamed(out: string): Promise<boolean> {
  return (await exists(releaseFolder(out))) && !(await exists(join(out, trackerFile)));
}

/** Names the model that is complete by now. */
export async function nameRelease(out: string): Promise<void> {
  const tracker = join(out, trackerFile);
  if (!(await exists(tracker)) || (await readText(tracker)).trim() !== release) await writeFileAtomic(tracker, release);
}
