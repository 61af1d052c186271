/** One command at a time in a folder: two writers would mix their logs and replace each other's checkpoints. */
import { open, rm } from "node:fs/promises";
import { resolve } from "node:path";
import { inputError, UpcycleError } from "../../base/errors.js";
import { withFsErrors } from "./fs-errors.js";
import { openRegular } from "./open.js";

/** Name of the lock in a folder that a command works in. */
export const lockName = ".lock";

/** Another command works in the folder. */
export class BusyFolderError extends UpcycleError {
  /** Its process; NaN where it has not said yet. */
  readonly owner: number;

  constructor(dir: string, owner: string) {
    super({
      kind: "input",
      message: `another command (process ${owner === "" ? "unknown" : owner}) is working in this folder`,
      where: dir,
      hint: `wait for it, choose another folder, or remove ${lockName} there if no such command runs`,
    });
    this.owner = owner === "" ? NaN : Number(owner);
  }
}

/**
 * Locks of this very process: a lock with our process id that is not here was left by an earlier process with the same
 * id.
 */
const ownLocks = new Set<string>();

/**
 * Takes the folder, which must exist, and returns the function that gives it back. The lock of a process that no longer
 * runs is taken over, so a killed command never keeps a folder. Throws BusyFolderError with the process that has it.
 */
export async function lockFolder(dir: string): Promise<() => Promise<void>> {
  const path = resolve(dir, lockName);
  const release = async (): Promise<void> => {
    ownLocks.delete(path);
    await rm(path, { force: true });
  };
  for (let attempt = 0; attempt < 2; attempt++) {
    if (await createLock(path)) {
      ownLocks.add(path);
      return release;
    }
    const text = (await lockText(path)).trim();
    // Whoever was killed at once has written nothing.
    if (!/^\d{0,20}$/.test(text)) {
      throw inputError(`${lockName} is no lock of a command (it does not hold the number of a process)`, {
        where: dir,
        hint: "move it away, or choose another folder",
      });
    }
    if (isOwned(Number(text), path)) break;
    await withFsErrors(path, "remove the lock of a process that ended", () => rm(path, { force: true }));
  }
  throw new BusyFolderError(dir, (await lockText(path)).trim());
}

/** Whether a command works in the folder. */
export async function isFolderLocked(dir: string): Promise<boolean> {
  const path = resolve(dir, lockName);
  const owner = Number((await lockText(path)).trim());
  return isOwned(owner, path);
}

/** Whether the process that the lock names is at work. */
function isOwned(owner: number, path: string): boolean {
  if (owner === process.pid) return ownLocks.has(path);
  return Number.isInteger(owner) && owner > 0 && isRunning(owner);
}

/**
 * What the lock says; nothing where it has just been given back. Throws inputError for what cannot be a lock, which is
 * never removed.
 */
async function lockText(path: string): Promise<string> {
  try {
    const { handle } = await openRegular(path, "read the lock");
    try {
      // Longer than any process id; whoever has just made the lock may be writing it.
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(64), 0, 64, 0);
      return buffer.toString("utf8", 0, bytesRead);
    } finally {
      await handle.close();
    }
  } catch (cause) {
    if (((cause as Error).cause as NodeJS.ErrnoException | undefined)?.code === "ENOENT") return "";
    throw cause;
  }
}

/** Writes our process id unless the file is there. */
async function createLock(path: string): Promise<boolean> {
  return withFsErrors(path, "lock the folder", async () => {
    try {
      const handle = await open(path, "wx");
      try {
        await handle.writeFile(String(process.pid));
      } finally {
        await handle.close();
      }
      return true;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "EEXIST") return false;
      throw cause;
    }
  });
}

/** Whether a process of this machine runs under this id. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EPERM";
  }
}
