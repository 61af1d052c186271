/** Operating-system failures as errors a user can act on. */
import { readlink, stat } from "node:fs/promises";
import { UpcycleError, inputError, stopError } from "../../base/errors.js";
import { filesHint } from "./limits.js";

const fileOnTheWay = "a part of this path is a file, expected a folder";

/**
 * Turns whatever a file operation threw into an UpcycleError naming the path. Things the user can point elsewhere
 * (missing, forbidden, a folder for a file) are input errors; a full disk and failing hardware stop the run.
 */
export function fsError(cause: unknown, path: string, doing: string): UpcycleError {
  if (cause instanceof UpcycleError) return cause;
  const code = (cause as NodeJS.ErrnoException | null)?.code;
  const input = (message: string, hint?: string): UpcycleError =>
    inputError(`cannot ${doing}: ${message}`, { where: path, hint, cause });
  const stop = (message: string, hint?: string): UpcycleError =>
    stopError(`cannot ${doing}: ${message}`, { where: path, hint, cause });
  switch (code) {
    case "ENOENT":
      return input("no such file or folder");
    case "EACCES":
    case "EPERM":
      return input("permission denied", "give your user access to it, or use another path");
    case "EROFS":
      return input("the file system is read-only", "use a path on another one");
    case "EISDIR":
      return input("this is a folder, expected a file");
    case "ENOTDIR":
      return input(fileOnTheWay);
    case "ELOOP":
      return input("links lead in a circle");
    case "ENAMETOOLONG":
      return input("the name is too long for this file system");
    case "ENXIO":
      return input("this is a socket, a device or a pipe without reader, expected a file");
    case "ERR_INVALID_ARG_VALUE":
      return input("the path holds a zero byte");
    case "EEXIST":
      // A recursive mkdir takes folders that are there already; what it meets is a file.
      return input((cause as NodeJS.ErrnoException).syscall === "mkdir" ? fileOnTheWay : "it already exists");
    case "ENOTEMPTY":
      return input("it already exists");
    case "ENOSPC":
      return stop("the disk is full", "free some space or write to another disk, then run again");
    case "EDQUOT":
      return stop("your disk quota is used up", "free some space or write to another disk, then run again");
    case "EMFILE":
    case "ENFILE":
      return stop("too many open files", filesHint(code));
    case "EFBIG":
      return stop(
        "the file would be larger than the system allows",
        "raise the limit of file sizes (ulimit -f), or use smaller shards (--shard-size)",
      );
    case "ENOMEM":
      return stop(
        "the system has no memory for it",
        "close other programs, or raise the limit of addresses (ulimit -v)",
      );
    default:
      return stop(cause instanceof Error ? cause.message : String(cause));
  }
}

/** Runs a file operation and rethrows its failure as an UpcycleError. */
export async function withFsErrors<T>(path: string, doing: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    throw fsError(cause, path, doing + (await whereItLeads(cause, path)));
  }
}

/** Where nothing was found: words for the link that led there, if it was one; else no words. */
async function whereItLeads(cause: unknown, path: string): Promise<string> {
  if ((cause as NodeJS.ErrnoException | null)?.code !== "ENOENT") return "";
  const end = await deadLink(path);
  return end === null ? "" : `, a link to ${end}`;
}

/** Where a link leads whose end is missing, or null for anything else. */
async function deadLink(path: string): Promise<string | null> {
  const end = await readlink(path).catch(() => null);
  const isMissing = (): Promise<boolean> =>
    stat(path).then(
      () => false,
      (cause: NodeJS.ErrnoException) => cause.code === "ENOENT",
    );
  return end !== null && (await isMissing()) ? end : null;
}

/**
 * Throws inputError for a link whose end is missing: to be asked where nothing has been found, or something is to be
 * made.
 */
export async function requireNoDeadLink(path: string, shownAs = path): Promise<void> {
  const end = await deadLink(path);
  if (end === null) return;
  const hint = "put that back, or remove the link";
  throw inputError(`this is a link to ${end}, which is not there`, { where: shownAs, hint });
}
