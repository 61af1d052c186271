/** Free disk space, asked before writing rather than found out at 99 %. */
import { statfs } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { stopError } from "../../base/errors.js";
import { bytes } from "../../base/format.js";
import { fsError } from "./fs-errors.js";

/** Bytes an ordinary user may still write under `dir`, which need not exist yet. */
export async function freeBytes(dir: string): Promise<number> {
  for (let at = resolve(dir); ; at = dirname(at)) {
    try {
      const { bavail, bsize } = await statfs(at);
      return bavail * bsize;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "ENOENT" || at === dirname(at))
        throw fsError(cause, dir, "look up free space");
    }
  }
}

/** Throws stopError if fewer than `needed` bytes are free under `dir`. */
export async function requireFreeSpace(dir: string, needed: number): Promise<void> {
  const free = await freeBytes(dir);
  if (free < needed) {
    throw stopError(`not enough disk space: ${bytes(needed, 4)} needed, ${bytes(free, 4)} free`, {
      where: dir,
      hint: "free some space or write to another disk",
    });
  }
}
