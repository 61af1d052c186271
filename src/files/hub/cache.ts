/**
 * Judges what lies in the Hub's cache: it is used if it is what its name says, and nothing is written through links
 * that lead out of the cache.
 */
import type { Stats } from "node:fs";
import { lstat, realpath, stat } from "node:fs/promises";
import { dirname, sep } from "node:path";
import { inputError } from "../../base/errors.js";
import { exists } from "../io/atomic.js";
import { withFsErrors } from "../io/fs-errors.js";
import type { RemoteFile } from "./listing.js";

/**
 * Throws inputError where a folder of the cache is a link to a place outside it, in which we would write. The model's
 * folder itself may lie anywhere.
 */
export async function requireInsideCache(repoDir: string, folders: readonly string[]): Promise<void> {
  const root = await withFsErrors(repoDir, "look up path", () => realpath(repoDir));
  for (const folder of folders) {
    for (const path of [dirname(folder), folder]) {
      const real = await withFsErrors(path, "look up path", () => orNull(realpath(path)));
      if (real === null && !(await isLink(path))) continue;
      if (real !== null && (real === root || real.startsWith(`${root}${sep}`))) continue;
      throw inputError("this is a link that leads out of the cache", {
        where: path,
        hint: "remove it, or set HF_HUB_CACHE to another folder",
      });
    }
  }
}

async function isLink(path: string): Promise<boolean> {
  return lstat(path).then(
    (info) => info.isSymbolicLink(),
    () => false,
  );
}

/**
 * Whether the blob is in the cache. Throws inputError for one that is not what its name says, as far as its size tells.
 */
export async function isThere(blob: string, { path, size }: RemoteFile): Promise<boolean> {
  if (!(await exists(blob))) return false;
  const info = await withFsErrors(blob, "look up path", () => stat(blob));
  if (info.isFile() && info.size === size) return true;
  const what = info.isFile() ? `${info.size} bytes instead of ${size}` : "no regular file";
  throw inputError(`this is not ${path} as the Hub has it: ${what}`, {
    where: blob,
    hint: "remove it, then run the same command again",
  });
}

/**
 * Whether a snapshot has the file already. A link that leads to something else counts as not there, so that it is made
 * anew; what is no link is not ours to replace. Throws like `isThere` then.
 */
export async function isNamed(pointer: string, file: RemoteFile): Promise<boolean> {
  const link = await isLink(pointer);
  if (!link) return isThere(pointer, file);
  const info = await stat(pointer).catch(() => null);
  return info?.isFile() === true && info.size === file.size;
}

/** Throws inputError for a name in the cache that is taken by something else than a file of its own. */
export async function requireOwnFile(path: string): Promise<void> {
  const info = await withFsErrors(path, "look up path", () => orNull(lstat(path)));
  if (info === null || (info.isFile() && info.nlink === 1)) return;
  throw inputError(`this is ${kindInCache(info)}, expected a part of a download`, {
    where: path,
    hint: "remove it, or set HF_HUB_CACHE to another folder",
  });
}

function kindInCache(info: Stats): string {
  if (info.isSymbolicLink()) return "a link";
  return info.isFile() ? "a file that has a second name" : "no regular file";
}

/** Null where nothing has the name. */
function orNull<T>(lookup: Promise<T>): Promise<T | null> {
  return lookup.catch((cause: NodeJS.ErrnoException) => (cause.code === "ENOENT" ? null : Promise.reject(cause)));
}
