/**
 * The folder that tests write into. The toolkit flushes what it writes, a training of 600 steps some 400 times, and
 * tests on a disk wait for that; where there is room in memory, their folder is there.
 */
import { mkdirSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const memory = "/dev/shm";
const prefix = "upcycle-tests-";
/** A run of all tests writes less than this at any moment. */
const neededBytes = 4e9;

function hasRoom(): boolean {
  if (process.platform !== "linux" || process.env["TMPDIR"] !== undefined) return false;
  try {
    const { bavail, bsize } = statfsSync(memory);
    return bavail * bsize >= neededBytes;
  } catch {
    return false;
  }
}

const folder = hasRoom() ? join(memory, `${prefix}${process.pid}`) : null;

/**
 * Of whoever runs tests: `TMPDIR`, and `UPCYCLE_TEST_KEPT`, the folder on disk of what one run of tests leaves to the
 * next.
 */
export const scratch: Readonly<Record<string, string>> =
  folder === null ? {} : { TMPDIR: folder, UPCYCLE_TEST_KEPT: tmpdir() };

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Makes the folder, and removes those of runs that were killed. */
export function makeScratch(): void {
  if (folder === null) return;
  for (const name of readdirSync(memory))
    if (name.startsWith(prefix) && !isRunning(Number(name.slice(prefix.length))))
      rmSync(join(memory, name), { recursive: true, force: true });
  mkdirSync(folder, { recursive: true, mode: 0o700 });
}

export function removeScratch(): void {
  if (folder !== null) rmSync(folder, { recursive: true, force: true });
}
