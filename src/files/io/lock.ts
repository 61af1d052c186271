/** One command at a time in a folder: two writers would mix their logs and replace each other's checkpoints. */
import { closeSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { rm } from "node:fs/promises";
import { resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
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
  for (let look = 0; look < MOST_LOOKS; look++) {
    if (await createLock(path)) {
      ownLocks.add(path);
      return release;
    }
    const text = (await lockText(path)).trim();
    if (!/^\d{0,20}$/.test(text)) {
      throw inputError(`${lockName} is no lock of a command (it does not hold the number of a process)`, {
        where: dir,
        hint: "move it away, or choose another folder",
      });
    }
    if (isOwned(Number(text), path)) break;
    // Whoever has just made the lock has written nothing yet; whoever was killed at once never will.
    if (text === "" && look < LOOKS_AT_EMPTY) await pause(BETWEEN_LOOKS);
    else if (!(await removeEnded(path))) await pause(BETWEEN_LOOKS);
  }
  throw new BusyFolderError(dir, (await lockText(path)).trim());
}

/** Looks at a lock that says nothing, and the milliseconds between two of them. */
const LOOKS_AT_EMPTY = 20;
const BETWEEN_LOOKS = 25;
/** Looks at a lock that others keep taking and giving back. */
const MOST_LOOKS = 100;

/** Name of the file that a command makes while it removes the lock of one that has ended. */
const takeoverName = `${lockName}-takeover`;

/** Names of all that locking puts into a folder. */
export const lockNames: readonly string[] = [lockName, takeoverName];

/**
 * Removes the lock of a process that has ended; false where another command is just doing so. Several commands may find
 * the same one, and whoever comes late must not remove the lock that another has put in its place, so one at a time
 * looks again and removes it. The calls are synchronous: hardly a moment lies in which this process could be killed.
 */
function removeEnded(path: string): Promise<boolean> {
  const takeover = resolve(path, "..", takeoverName);
  return withFsErrors(path, "remove the lock of a process that ended", () =>
    Promise.resolve().then(() => {
      if (!makeLock(takeover)) {
        const owner = textAt(takeover);
        if (owner !== "" && !(Number(owner) !== process.pid && isRunning(Number(owner))))
          rmSync(takeover, { force: true });
        return false;
      }
      try {
        if (!isOwned(Number(textAt(path)), path)) rmSync(path, { force: true });
        return true;
      } finally {
        rmSync(takeover, { force: true });
      }
    }),
  );
}

/** What a lock says; nothing where it is gone. */
function textAt(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return "";
    throw cause;
  }
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

/** Writes our process id unless the file is there; synchronously, so that it is empty for as short as can be. */
function createLock(path: string): Promise<boolean> {
  return withFsErrors(path, "lock the folder", () => Promise.resolve().then(() => makeLock(path)));
}

function makeLock(path: string): boolean {
  try {
    const file = openSync(path, "wx");
    try {
      writeSync(file, String(process.pid));
    } catch (cause) {
      rmSync(path, { force: true });
      throw cause;
    } finally {
      closeSync(file);
    }
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw cause;
  }
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
