/** Operating-system failures as errors a user can act on. */
import { UpcycleError, inputError, stopError } from "../base/errors.js";
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
      return stop("the file would be larger than the system allows", "raise the limit of file sizes (ulimit -f), or use smaller shards (--shard-size)");
    case "ENOMEM":
      return stop("the system has no memory for it", "close other programs, or raise the limit of addresses (ulimit -v)");
    default:
      return stop(cause instanceof Error ? cause.message : String(cause));
  }
}

/** Runs a file operation and rethrows its failure as an UpcycleError. */
export async function withFsErrors<T>(path: string, doing: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    throw fsError(cause, path, doing);
  }
}
