/**
 * Files and folders that are either complete or absent under their name, whatever interrupts the writing: everything is
 * written beside (`.NAME.partial-PID@HOST`), flushed to disk, and renamed. Nothing named `.NAME.partial-*` is ever
 * finished.
 *
 * A folder that is replaced keeps the name `.NAME.previous` until the new one has its own; `.NAME.replacing` says
 * meanwhile that it was us who put it there.
 */
import { lstat, mkdir, open, readdir, readFile, realpath, rename, rm, rmdir, stat, unlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { inputError } from "../../base/errors.js";
import { isCheckpointFile } from "../formats/model-files.js";
import { makeFolders } from "./folders.js";
import { fsError, withFsErrors } from "./fs-errors.js";
import { hostMark, isRunning } from "./lock-owner.js";
import { entryAt, foreignEntries, removeModelFolder, requireReplaceable, type Overwrite } from "./model-folder.js";
import { openForWriting, requireOutputFile } from "./open.js";

export type { Overwrite } from "./model-folder.js";

/** Whether a staged folder may replace one that is there. */
export interface StageOptions {
  /** Default: no. */
  readonly overwrite?: Overwrite | undefined;
}

/** A folder being written beside its final place. */
export interface StagedDirectory {
  /** Where to write; removed by `discard`, renamed by `commit`. */
  readonly path: string;
  /** Flushes the folder and gives it its final name. Files in it must have been flushed by whoever wrote them. */
  commit(): Promise<void>;
  /** Removes what was staged; never fails, for use after another failure. */
  discard(): Promise<void>;
}

/**
 * Replaces or creates a file, behind a link too. A reader sees the old content or the new, never a part of each. Throws
 * inputError for what has the name and is no file, and for a place that cannot be written to; stopError for a full
 * disk.
 */
export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  const file = await stageFile(path);
  try {
    await file.append(typeof data === "string" ? new TextEncoder().encode(data) : data);
    await file.commit();
  } finally {
    await file.discard();
  }
}

/** A file being written beside its final place. */
export interface StagedFile {
  /** Writes bytes behind what has been written so far. */
  append(bytes: Uint8Array): Promise<void>;
  /** Flushes the file and gives it its final name, replacing what has it. */
  commit(): Promise<void>;
  /** Removes what was staged; never fails, for use after another failure. Does nothing after `commit`. */
  discard(): Promise<void>;
}

/**
 * Starts writing a file that gets its name once it is complete, for contents that are not in memory as a whole. Throws
 * inputError like `requireOutputFile`.
 */
export async function stageFile(path: string): Promise<StagedFile> {
  const onDisk = <T>(run: () => Promise<T>): Promise<T> => withFsErrors(path, "write file", run);
  const place = await onDisk(() => placeOf(path));
  await removeStaleFiles(place);
  const { entry: handle, partial } = await onDisk(() => createPartial(place, (name) => open(name, "wx")));
  let length = 0;
  let committed = false;
  return {
    async append(bytes) {
      await onDisk(() => writeAll(handle, bytes, length));
      length += bytes.byteLength;
    },
    commit: () =>
      onDisk(async () => {
        await handle.sync();
        await handle.close();
        await rename(partial, place);
        committed = true;
        await syncDirectory(dirname(place));
      }),
    async discard() {
      if (committed) return;
      // Closing twice is no error.
      await handle.close().catch(() => undefined);
      await rm(partial, { force: true }).catch(() => undefined);
    },
  };
}

/**
 * Makes an empty file under the name (`partial`) that a file has until it is complete and gets its own (`place`), for
 * programs that write by name. Nothing had that name before. Throws like `writeFileAtomic`.
 */
export async function reservePartial(path: string): Promise<{ readonly partial: string; readonly place: string }> {
  return withFsErrors(path, "write file", async () => {
    const place = await placeOf(path);
    await removeStaleFiles(place);
    const { entry: handle, partial } = await createPartial(place, (name) => open(name, "wx"));
    await handle.close();
    return { partial, place };
  });
}

/**
 * Where a file of this name lies, behind links. What is neither a file nor absent, such as a device, must not be
 * replaced by one.
 */
async function placeOf(path: string): Promise<string> {
  await requireOutputFile(path);
  return (await exists(path)) ? realpath(path) : resolve(path);
}

/**
 * Makes a file or folder under a partial name that nothing has: an earlier process with our id may have left one, and
 * somebody else's file may have the name.
 */
async function createPartial<T>(
  place: string,
  make: (name: string) => Promise<T>,
): Promise<{ readonly entry: T; readonly partial: string }> {
  for (let attempt = 0; ; attempt++) {
    const partial = `${partialName(place, process.pid)}${attempt === 0 ? "" : `-${attempt}`}`;
    try {
      return { entry: await make(partial), partial };
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "EEXIST") throw cause;
    }
  }
}

/** Writes a value as indented JSON with a final newline, atomically. */
export async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`);
}

/** Writes a new file and flushes it to disk; for files inside a staged folder, which need no atomicity of their own. */
export async function writeFileSynced(path: string, data: string | Uint8Array): Promise<void> {
  await withFsErrors(path, "write file", () => writeAndFlush(path, data, path));
}

async function writeAndFlush(path: string, data: string | Uint8Array, shownAs: string): Promise<void> {
  const handle = await openForWriting(path, shownAs);
  try {
    await writeAll(handle, typeof data === "string" ? new TextEncoder().encode(data) : data, 0);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes every byte at `position`; a single `write` may stop early and takes at most 2 GiB. */
export async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  const chunk = 1 << 28;
  for (let done = 0; done < bytes.byteLength;) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(chunk, bytes.byteLength - done), position + done);
    done += bytesWritten;
  }
}

/**
 * Starts writing a folder that will be named `final` once complete. Creates the parent folders, removes partial folders
 * of processes that no longer run, and puts back an old version that an interrupted replacement had moved aside.
 * Throws inputError if `final` is a file or a link, or a non-empty folder that `overwrite` does not let be replaced.
 */
export async function stageDirectory(
  final: string,
  { overwrite = false }: StageOptions = {},
): Promise<StagedDirectory> {
  requireNamed(final);
  const target = resolve(final);
  const path = await withFsErrors(final, "create folder", async () => {
    await makeFolders(dirname(target));
    await restoreReplaced(target);
    await requireFree(target, final, overwrite);
    await removeStalePartials(target);
    return (await createPartial(target, (partial) => mkdir(partial))).partial;
  });
  return {
    path,
    commit: () => withFsErrors(final, "finish folder", () => replaceDirectory(path, target, overwrite, final)),
    discard: () => rm(path, { recursive: true, force: true }).catch(() => undefined),
  };
}

/**
 * Gives a staged folder its final name, in place of what has it; `final` is that name in errors. The old folder keeps a
 * name until the new one has its own: at every moment one of the two is complete on disk.
 */
export async function replaceDirectory(
  staged: string,
  target: string,
  overwrite: Overwrite,
  final: string,
): Promise<void> {
  await syncDirectory(staged);
  // It may have filled up since we looked.
  await requireFree(target, final, overwrite);
  if ((await entryAt(target)) === null) {
    await rename(staged, target);
    return syncDirectory(dirname(target));
  }
  if ((await readdir(target)).length === 0) {
    await rmdir(target);
    await rename(staged, target);
    return syncDirectory(dirname(target));
  }
  await writeAndFlush(markName(target), `${replacing} ${await idOf(staged)}\n`, markName(target));
  await syncDirectory(dirname(target));
  await rename(target, previousName(target));
  try {
    await rename(staged, target);
  } catch (cause) {
    await rename(previousName(target), target);
    await unlink(markName(target));
    throw cause;
  }
  await syncDirectory(dirname(target));
  if (await removeModelFolder(previousName(target), target)) await rm(markName(target), { force: true });
}

/**
 * Where the folder lies that is complete at this moment: under its name, or, between the two renames of a replacement,
 * beside it. Changes nothing, so that it may be asked of a folder that another command is replacing.
 */
export async function completeFolder(path: string): Promise<string> {
  const previous = previousName(path);
  return (await entryAt(path)) === null && (await entryAt(previous))?.isDirectory() === true ? previous : path;
}

/** Throws inputError for an empty name, which would stand for the working folder. */
export function requireNamed(final: string): void {
  if (final === "")
    throw inputError("the name of the folder to make is empty", { hint: "is a variable of the shell not set?" });
}

/** Throws inputError if the name is taken by what may not be replaced; `final` is the name in errors. */
export async function requireFree(target: string, final: string, overwrite: Overwrite): Promise<void> {
  await requireReplaceable(target, final, overwrite);
  // Where nothing is replaced, nothing needs the name of the old version.
  if (overwrite === false || (await entryAt(target)) === null || (await entryAt(previousName(target))) === null) return;
  if ((await replacementId(target)) === (await idOf(target))) return;
  throw inputError("this name is needed while the folder beside it is replaced, and what has it is not ours", {
    where: previousName(target),
    hint: "move it away, or remove it if it is an old version",
  });
}

const replacing = "upcycle replaces the folder with number";

/** The text of the mark of a replacement; null where there is none. */
async function markText(target: string): Promise<string | null> {
  if ((await entryAt(markName(target)))?.isFile() !== true) return null;
  return readFile(markName(target), "utf8");
}

/** The number of the folder that was to take the place of the old one; null: no replacement is under way. */
async function replacementId(target: string): Promise<string | null> {
  const text = await markText(target);
  return text?.startsWith(`${replacing} `) === true && text.endsWith("\n")
    ? text.slice(replacing.length + 1, -1)
    : null;
}

/** Removes a mark that was cut off while it was written: nothing has been renamed yet then. */
async function removeCutMark(target: string): Promise<void> {
  const text = await markText(target);
  if (text === null || text.endsWith("\n")) return;
  if (`${replacing} `.startsWith(text) || new RegExp(`^${replacing} \\d*$`).test(text)) await unlink(markName(target));
}

/** A folder's own number, which renaming keeps. */
const idOf = async (path: string): Promise<string> => String((await lstat(path, { bigint: true })).ino);

/**
 * Ends the replacement of a folder that was cut off: between its two renames the old version is put back, behind them
 * it is removed. Else does nothing. What is in the old version and is no file of ours moves along into the new one.
 */
export async function restoreReplaced(final: string): Promise<void> {
  await withFsErrors(final, "create folder", () => endReplacement(resolve(final)));
}

async function endReplacement(target: string): Promise<void> {
  const previous = previousName(target);
  await removeCutMark(target);
  const newId = await replacementId(target);
  const old = await entryAt(previous);
  if ((await entryAt(target)) === null) {
    if (old?.isDirectory() !== true) return;
    if (newId === null && (await entryAt(join(previous, "config.json"))) === null) return;
    await rename(previous, target);
  } else if (old !== null && newId !== null) {
    // Somebody else's folder in the place of ours does not make the old one worthless.
    if ((await idOf(target)) !== newId || !(await removeModelFolder(previous, target))) return;
  }
  if (newId !== null) await unlink(markName(target));
}

/** Where a replaced folder lives between the two renames of a replacement. */
export function previousName(path: string): string {
  return join(dirname(path), `.${basename(path)}.previous`);
}

/** The mark that says whose `previousName` is: ours, while a folder is replaced. */
function markName(target: string): string {
  return join(dirname(target), `.${basename(target)}.replacing`);
}

function partialName(path: string, pid: number): string {
  const target = resolve(path);
  return join(dirname(target), `.${basename(target)}.partial-${pid}@${hostMark}`);
}

/**
 * Removes partial folders of this target whose writer is gone (or is this very process, starting again), where they
 * hold nothing but our files.
 */
async function removeStalePartials(target: string): Promise<void> {
  for (const name of await readdir(dirname(target))) {
    if (!isLeftOver(name) || targetOf(name) !== basename(target)) continue;
    const path = join(dirname(target), name);
    const isFolder = (await entryAt(path))?.isDirectory() === true;
    if (isFolder && (await foreignEntries(path, isCheckpointFile)).length === 0) await removeModelFolder(path);
  }
}

/** Names of earlier versions say no machine. */
const partialPattern = /^\.(.+)\.partial-(\d+)(?:@([\da-f]{8}))?(?:-\d+)?$/s;

/** The name that a partial file or folder would have got; undefined for another name. */
const targetOf = (name: string): string | undefined => partialPattern.exec(name)?.[1];

/**
 * Whether this is a partial name whose writer is gone, or is this very process, starting again. Of a writer on another
 * machine that shares the disk nothing can be known here.
 */
function isLeftOver(name: string): boolean {
  const [, , id, host = hostMark] = partialPattern.exec(name) ?? [];
  const pid = Number(id);
  return !Number.isNaN(pid) && host === hostMark && (pid === process.pid || !isRunning(pid));
}

/** For each folder that this process has written files in, the partial names that were left there before it began. */
const leftBefore = new Map<string, Promise<Set<string>>>();

async function leftOvers(folder: string): Promise<Set<string>> {
  // A folder that may not be listed can be written to all the same.
  const names = await readdir(folder).catch(() => []);
  return new Set(names.filter(isLeftOver));
}

/**
 * Removes partial files of this target whose writer was killed before this process began. A folder is read once, since
 * some hold many thousand files.
 */
async function removeStaleFiles(place: string): Promise<void> {
  const folder = dirname(place);
  const found = leftBefore.get(folder) ?? leftOvers(folder);
  leftBefore.set(folder, found);
  const left = await found;
  for (const name of left) {
    if (targetOf(name) !== basename(place)) continue;
    left.delete(name);
    const path = join(folder, name);
    const entry = await entryAt(path).catch(() => null);
    if (entry?.isFile() === true && entry.mtimeMs < performance.timeOrigin) await unlink(path).catch(() => undefined);
  }
}

/**
 * Whether anything has this name. Throws inputError if that cannot be known (a forbidden folder, a file on the way).
 */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw fsError(cause, path, "look up path");
  }
}

/** The path with its links resolved; where nothing has it, it is only made absolute. */
export function realPath(path: string): Promise<string> {
  return realpath(path).catch(() => resolve(path));
}

/** Flushes a folder, so that renames and new names in it survive a power cut. */
export async function syncDirectory(path: string): Promise<void> {
  if (process.platform === "win32") return; // Folders cannot be opened there; NTFS journals names by itself.
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
