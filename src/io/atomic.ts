/**
 * Files and folders that are either complete or absent under their name, whatever interrupts the writing: everything is
 * written beside (`.NAME.partial-PID`), flushed to disk, and renamed. Nothing named `.NAME.partial-*` is ever finished.
 */
import { mkdir, open, readdir, realpath, rename, rm, rmdir, stat } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { basename, dirname, join, resolve, sep } from "node:path";
import { inputError } from "../base/errors.js";
import { makeFolders } from "./folders.js";
import { fsError, requireNoDeadLink, withFsErrors } from "./fs-errors.js";
import { isRunning, lockFolder } from "./lock.js";
import { kindOf, openForWriting, requireOutputFile } from "./open.js";

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
 * Replaces or creates a file. A reader sees the old content or the new, never a mixture. Throws inputError like
 * `requireOutputFile`.
 */
export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  await requireOutputFile(path);
  const temporary = partialName(path, process.pid);
  try {
    await writeAndFlush(temporary, data, path);
    await rename(temporary, path);
    await syncDirectory(dirname(resolve(path)));
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw fsError(cause, path, "write file");
  }
}

/** A file being written beside its final place. */
export interface StagedFile {
  /** Bytes behind what was written so far. */
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
  await requireOutputFile(path);
  const temporary = partialName(path, process.pid);
  const onDisk = <T>(run: () => Promise<T>): Promise<T> => withFsErrors(path, "write file", run);
  const handle = await onDisk(() => openForWriting(temporary, path));
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
        await rename(temporary, path);
        committed = true;
        await syncDirectory(dirname(resolve(path)));
      }),
    async discard() {
      if (committed) return;
      // Closing twice is no error.
      await handle.close().catch(() => undefined);
      await rm(temporary, { force: true }).catch(() => undefined);
    },
  };
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
 * Throws inputError if `final` is a file, or a non-empty folder and `overwrite` is not set.
 */
export async function stageDirectory(final: string, { overwrite = false } = {}): Promise<StagedDirectory> {
  requireNamed(final);
  const target = resolve(final);
  const path = partialName(target, process.pid);
  const previous = previousName(target);
  await withFsErrors(final, "create folder", async () => {
    await makeFolders(dirname(target));
    await restoreReplaced(target);
    await rm(previous, { recursive: true, force: true });
    await requireReplaceable(target, final, overwrite);
    await removeStalePartials(target);
    await mkdir(path);
  });
  return {
    path,
    commit: () => withFsErrors(final, "finish folder", () => replaceDirectory(path, target, previous, overwrite, final)),
    discard: () => rm(path, { recursive: true, force: true }).catch(() => undefined),
  };
}

async function replaceDirectory(
  staged: string,
  target: string,
  previous: string,
  overwrite: boolean,
  final: string,
): Promise<void> {
  await syncDirectory(staged);
  if (!overwrite) await requireEmptyOrAbsent(target, final);
  if (await exists(target)) {
    if ((await readdir(target)).length === 0) {
      await rmdir(target);
    } else {
      // The old folder keeps a name until the new one has its own: at every moment one of the two is complete on disk.
      await rm(previous, { recursive: true, force: true });
      await rename(target, previous);
    }
  }
  try {
    await rename(staged, target);
  } catch (cause) {
    if (await exists(previous)) await rename(previous, target);
    throw cause;
  }
  await syncDirectory(dirname(target));
  await rm(previous, { recursive: true, force: true });
}

/**
 * Like `stageDirectory`, for a folder that is made over several attempts: its place, `.NAME.unfinished`, is the same each time and stays after a
 * failure. `path` is in it; beside `path` there is room for what the making itself has to remember. One process at a time works there.
 * Throws inputError like `stageDirectory`, if another process is at work, and for the folder that this process works in.
 */
export async function stageForAttempts(final: string, { overwrite = false } = {}): Promise<AttemptedDirectory> {
  requireNamed(final);
  const target = resolve(final);
  const room = unfinishedName(target);
  const path = join(room, "folder");
  await requireElsewhere(target, final);
  await withFsErrors(final, "create folder", async () => {
    await makeFolders(dirname(target));
    await restoreReplaced(target);
    if (await exists(room)) return;
    await requireReplaceable(target, final, overwrite);
    // Asked for the whole path, Node tries for ever where a folder holds no others, such as /proc.
    await mkdir(room).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code !== "EEXIST") throw cause;
    });
  });
  const release = await lockFolder(room);
  const remove = async (): Promise<void> => {
    await rm(room, { recursive: true, force: true }).catch(() => undefined);
    await release();
  };
  return {
    path, room, release,
    async requireFree() {
      await withFsErrors(final, "create folder", () => requireReplaceable(target, final, overwrite));
    },
    async commit() {
      await withFsErrors(final, "finish folder", () => replaceDirectory(path, target, previousName(target), overwrite, final));
      await remove();
    },
    discard: remove,
  };
}

/** A folder being made over several attempts. */
export interface AttemptedDirectory extends StagedDirectory {
  /** Holds `path`, and files that do not belong to the result. */
  readonly room: string;
  /** Throws inputError if the final name is taken and may not be replaced. */
  requireFree(): Promise<void>;
  /** Leaves everything for the next attempt. */
  release(): Promise<void>;
}

/** Where a folder is made over several attempts. */
export function unfinishedName(path: string): string {
  const target = resolve(path);
  return join(dirname(target), `.${basename(target)}.unfinished`);
}

/** What is empty would be resolved to the working folder. Throws inputError. */
export function requireNamed(final: string): void {
  if (final === "") throw inputError("the name of the folder to make is empty", { hint: "is a variable of the shell not set?" });
}

/** The new folder takes the place of the old one; whoever stands in that would go on in a folder that has no name any more. */
async function requireElsewhere(target: string, final: string): Promise<void> {
  const [here, there] = [await realPath("."), await realPath(target)];
  if (!`${here}${sep}`.startsWith(there.endsWith(sep) ? there : `${there}${sep}`)) return;
  throw inputError(here === there ? "this is the working folder, which a new one would replace" : "the working folder lies inside this folder, which a new one would replace", {
    where: final, hint: "choose a folder to be made, such as ./model",
  });
}

async function requireReplaceable(target: string, final: string, overwrite: boolean): Promise<void> {
  await requireNoDeadLink(target, final);
  if (!overwrite) await requireEmptyOrAbsent(target, final);
  else if (await exists(target)) await requireFolder(target, final);
}

async function requireFolder(target: string, final: string): Promise<void> {
  const found = await stat(target);
  if (!found.isDirectory()) throw inputError(`this is ${kindOf(found)}, expected a folder`, { where: final });
}

/** Puts back the old version of a folder whose replacement was cut off between its two renames; else does nothing. */
export async function restoreReplaced(final: string): Promise<void> {
  const target = resolve(final);
  const previous = previousName(target);
  if (!(await exists(target)) && (await exists(previous))) await rename(previous, target);
}

/** Where a replaced folder lives between the two renames of a replacement. */
export function previousName(path: string): string {
  return join(dirname(path), `.${basename(path)}.previous`);
}

function partialName(path: string, pid: number): string {
  const target = resolve(path);
  return join(dirname(target), `.${basename(target)}.partial-${pid}`);
}

/** Removes partial folders of this target whose writer is gone (or is this very process, starting again). */
async function removeStalePartials(target: string): Promise<void> {
  const prefix = `.${basename(target)}.partial-`;
  for (const name of await readdir(dirname(target))) {
    const pid = name.startsWith(prefix) ? Number(name.slice(prefix.length)) : NaN;
    if (!Number.isInteger(pid) || (pid !== process.pid && isRunning(pid))) continue;
    await rm(join(dirname(target), name), { recursive: true, force: true });
  }
}

async function requireEmptyOrAbsent(target: string, final: string): Promise<void> {
  if (!(await exists(target))) return;
  await requireFolder(target, final);
  const found = await readdir(target);
  if (found.length > 0) {
    throw inputError(`folder exists and is not empty (${found.length} entries, such as ${found[0]})`, {
      where: final,
      hint: "choose another folder, or replace this one (--overwrite)",
    });
  }
}

/** Whether anything has this name. Throws inputError if that cannot be known (a forbidden folder, a file on the way). */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw fsError(cause, path, "look up path");
  }
}

/** The path without links; made absolute only, where nothing has it. */
export function realPath(path: string): Promise<string> {
  return realpath(path).catch(() => resolve(path));
}

/** Makes renames and new names in a folder survive a power cut. */
export async function syncDirectory(path: string): Promise<void> {
  if (process.platform === "win32") return; // Folders cannot be opened there; NTFS journals names by itself.
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
