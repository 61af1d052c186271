/**
 * A folder that is made over several commands: `.NAME.unfinished` beside its final name holds it until it is complete,
 * stays after a failure and is locked while somebody works there. Which parts of it are complete is recorded by
 * `checkpoint/resumable-write.ts`, whose journal lies here too.
 */
import type { Dirent } from "node:fs";
import { access, constants, mkdir, open, readdir, rm, rmdir, stat } from "node:fs/promises";
import { basename, dirname, join, resolve, sep } from "node:path";
import { inputError } from "../../base/errors.js";
import { isCheckpointFile } from "../formats/model-files.js";
import {
  realPath,
  replaceDirectory,
  requireFree,
  requireNamed,
  restoreReplaced,
  type StagedDirectory,
  type StageOptions,
} from "./atomic.js";
import { makeFolders } from "./folders.js";
import { withFsErrors } from "./fs-errors.js";
import { lockMade, lockNames } from "./lock.js";
import { entryAt, foreignEntries, removeModelFolder, someOf, type Overwrite } from "./model-folder.js";

/** A folder that is made over several commands. */
export interface ResumableDirectory extends StagedDirectory {
  /** The place `.NAME.unfinished`, which holds `path`, and files that do not belong to the result. */
  readonly room: string;
  /** Throws inputError if the final name is taken and may not be replaced. */
  requireFree(): Promise<void>;
  /** Leaves everything on disk, to be resumed, and gives back the lock. */
  release(): Promise<void>;
}

/** The place where a folder is made over several commands. */
export function unfinishedName(path: string): string {
  const target = resolve(path);
  return join(dirname(target), `.${basename(target)}.unfinished`);
}

/**
 * Like `stageDirectory`, for a folder that is made over several commands: its place, `.NAME.unfinished`, is the same
 * each time and stays after a failure. `path` is in it; beside `path` there is room for what the making itself has to
 * remember. One process at a time works there. Throws inputError like `stageDirectory`, if another process is at work,
 * and for the folder that this process works in.
 */
export async function stageResumable(
  final: string,
  { overwrite = false }: StageOptions = {},
): Promise<ResumableDirectory> {
  requireNamed(final);
  const target = resolve(final);
  const room = unfinishedName(target);
  const path = join(room, "folder");
  await requireElsewhere(target, final);
  const release = await lockMade(room, () =>
    withFsErrors(final, "create folder", async () => {
      await makeFolders(dirname(target));
      await restoreReplaced(target);
      if (await requireOwnRoom(room)) return;
      await requireFree(target, final, overwrite);
      // With the option `recursive`, Node tries for ever where a folder can hold no others, such as /proc.
      await mkdir(room).catch((cause: NodeJS.ErrnoException) => {
        if (cause.code !== "EEXIST") throw cause;
      });
    }),
  );
  const remove = async (): Promise<void> => {
    await emptyRoom(room).catch(() => undefined);
    await release();
    // Another process may have come in.
    await rmdir(room).catch(() => undefined);
  };
  return {
    path,
    room,
    release,
    async requireFree() {
      await withFsErrors(final, "create folder", () => requireFree(target, final, overwrite));
    },
    async commit() {
      await withFsErrors(final, "finish folder", () => replaceDirectory(path, target, overwrite, final));
      await remove();
    },
    discard: remove,
  };
}

/** Name of the journal, beside the folder in its place. */
export const journalName = "journal.jsonl";

async function emptyRoom(room: string): Promise<void> {
  await rm(join(room, journalName), { force: true });
  await removeModelFolder(join(room, "folder"));
}

/**
 * Whether the place of an unfinished folder is there. Throws inputError if it holds anything that we did not put there:
 * it is somebody else's then.
 */
async function requireOwnRoom(room: string): Promise<boolean> {
  const entry = await entryAt(room);
  if (entry === null) return false;
  const notOurs = (what: string): Error =>
    inputError(`${what}, so it is not what an unfinished conversion leaves, and the place is needed for one`, {
      where: room,
      hint: "move it away, or choose another --out",
    });
  if (!entry.isDirectory()) throw notOurs("this is no folder");
  const foreign: string[] = [];
  for (const inner of await readdir(room, { withFileTypes: true })) foreign.push(...(await foreignInRoom(room, inner)));
  if (foreign.length > 0) throw notOurs(`this folder holds ${someOf(foreign.sort())}`);
  return true;
}

/** Names of what is not ours in an entry of the place of an unfinished folder. */
async function foreignInRoom(room: string, entry: Dirent): Promise<string[]> {
  const path = join(room, entry.name);
  if (entry.name === "folder" && entry.isDirectory()) {
    return (await foreignEntries(path, isCheckpointFile)).map((inner) => join(entry.name, inner));
  }
  const isOurs =
    entry.isFile() && (lockNames.includes(entry.name) || (entry.name === journalName && (await isJournal(path))));
  return isOurs ? [] : [entry.name];
}

/** A journal begins with what is being made, of which a power cut may leave a part, or zeros. */
async function isJournal(path: string): Promise<boolean> {
  const expected = Buffer.from('{"begun":');
  const handle = await open(path, "r");
  try {
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(expected.length), 0, expected.length, 0);
    const beginning = buffer.subarray(0, bytesRead);
    return beginning.equals(expected.subarray(0, bytesRead)) || beginning.every((byte) => byte === 0);
  } finally {
    await handle.close();
  }
}

/**
 * Throws inputError if a folder cannot be made there, or not without replacing what may not be replaced; writes
 * nothing. To be asked before anything slow: `stageResumable` asks again.
 */
export async function requirePlace(final: string, overwrite: Overwrite): Promise<void> {
  requireNamed(final);
  const target = resolve(final);
  await requireElsewhere(target, final);
  await withFsErrors(final, "create folder", async () => {
    await requireOwnRoom(unfinishedName(target));
    await requireFree(target, final, overwrite);
    await requireWritableAbove(target);
  });
}

/** Throws what the system says where the nearest folder above that exists does not take new names. */
async function requireWritableAbove(target: string): Promise<void> {
  const above = dirname(target);
  const info = await stat(above).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT" && above !== target) return null;
    throw cause;
  });
  if (info === null) return requireWritableAbove(above);
  if (!info.isDirectory()) throw Object.assign(new Error("not a folder"), { code: "ENOTDIR" });
  await access(above, constants.W_OK | constants.X_OK);
}

/**
 * Throws inputError where the working folder is, or lies in, the folder to be made: the new one would take its place,
 * and this process would be left in a folder without a name.
 */
async function requireElsewhere(target: string, final: string): Promise<void> {
  const [here, there] = [await realPath("."), await realPath(target)];
  if (!`${here}${sep}`.startsWith(there.endsWith(sep) ? there : `${there}${sep}`)) return;
  throw inputError(
    here === there
      ? "this is the working folder, which a new one would replace"
      : "the working folder lies inside this folder, which a new one would replace",
    {
      where: final,
      hint: "choose a folder to be made, such as ./model",
    },
  );
}
