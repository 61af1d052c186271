/** Checks, before anything is fetched, read or calibrated, whether a model can be made at the place asked for. */
import { cardFile } from "../../files/formats/model-files.js";
import { join, sep } from "node:path";
import { inputError } from "../../base/errors.js";
import { exists, realPath, requireNamed } from "../../files/io/atomic.js";
import { requirePlace, unfinishedName } from "../../files/io/resumable-directory.js";
import { readText } from "../../files/io/ranges.js";
import { notMeasured } from "./card.js";
import { recordFile } from "./record.js";

interface PlaceOptions {
  readonly out: string;
  readonly overwrite?: boolean | undefined;
  /** Folders that are read, as far as they are known. */
  readonly folders: readonly string[];
  /** Whether the folder may be a result of the same conversion that was not measured yet. */
  readonly acceptFinished?: boolean | undefined;
}

/**
 * Throws inputError for a folder that cannot be made, may not be replaced, or is or holds one of `folders`. Writes
 * nothing.
 */
export async function requireOut({
  out,
  overwrite = false,
  folders,
  acceptFinished = false,
}: PlaceOptions): Promise<void> {
  for (const folder of folders) await requireApart(folder, out);
  if (!overwrite && (await mayBeDone(out, acceptFinished))) return;
  await requirePlace(out, overwrite);
}

/**
 * Whether the folder may be a result that only has to be measured, or one whose making was killed at its very end. Only
 * its sources can tell whether it is one, and they are not open yet.
 */
async function mayBeDone(out: string, acceptFinished: boolean): Promise<boolean> {
  if (!(await exists(join(out, "config.json")).catch(() => false))) return false;
  if (await exists(unfinishedName(out))) return true;
  if (!acceptFinished || !(await exists(join(out, recordFile)))) return false;
  return (await readText(join(out, cardFile)).catch(() => "")).includes(notMeasured);
}

/** Throws inputError for a folder that is or holds the source: replacing it would destroy the source. */
async function requireApart(source: string, out: string): Promise<void> {
  requireNamed(out);
  const [from, to] = [await realPath(source), await realPath(out)];
  if (`${from}${sep}`.startsWith(`${to}${sep}`)) {
    throw inputError(from === to ? "this is the source folder itself" : "the source folder lies inside this folder", {
      where: out,
      hint: "choose another folder to write to",
    });
  }
}
