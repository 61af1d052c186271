/** The dense models of one conversion: the base first. */
import { openCheckpoint, type Checkpoint } from "../checkpoint/open.js";

/** Opens all folders, or none. Throws like `openCheckpoint`. */
export async function openParents(folders: readonly string[]): Promise<Checkpoint[]> {
  const opened: Checkpoint[] = [];
  try {
    for (const folder of folders) opened.push(await openCheckpoint(folder));
    return opened;
  } catch (cause) {
    await closeParents(opened);
    throw cause;
  }
}

export async function closeParents(parents: readonly Checkpoint[]): Promise<void> {
  await Promise.all(parents.map((parent) => parent.close()));
}
