/** Where a model is to be made: whether it can be, asked before anything is fetched, read or calibrated. */
import { join } from "node:path";
import { exists } from "../../files/io/atomic.js";
import { requirePlace, unfinishedName } from "../../files/io/resumable-directory.js";
import { readText } from "../../files/io/ranges.js";
import { cardFile, notMeasured } from "./card.js";
import { requireApart } from "./execute.js";
import { recordFile } from "./record.js";

export interface PlaceOptions {
  readonly out: string;
  readonly overwrite?: boolean | undefined;
  /** Folders that are read, as far as they are known. */
  readonly folders: readonly string[];
  /** A result of the same conversion that was not measured will do (`acceptFinished`). */
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
 * A result that only has to be measured, or whose making was cut off at its very end: its sources tell whether it is.
 */
async function mayBeDone(out: string, acceptFinished: boolean): Promise<boolean> {
  if (!(await exists(join(out, "config.json")).catch(() => false))) return false;
  if (await exists(unfinishedName(out))) return true;
  if (!acceptFinished || !(await exists(join(out, recordFile)))) return false;
  return (await readText(join(out, cardFile)).catch(() => "")).includes(notMeasured);
}
