/** One command at a time in a folder: two writers would mix their logs and replace each other's checkpoints. */
import { closeSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { rm } from "node:fs/promises";
import { resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { inputError, UpcycleError } from "../../base/errors.js";
import { withFsErrors } from "./fs-errors.js";
import {
  isElsewhere,
  lockOwner,
  MOST_LOCK_BYTES,
  ownerWords,
  ownLock,
  runningHere,
  type LockOwner,
} from "./lock-owner.js";
import { openRegular } from "./open.js";

/** Name of the lock in a folder that a command works in. */
export const lockName = ".lock";

/** Another command works in the folder. */
export class BusyFolderError extends UpcycleError {
  /** Whoever has it; null where it has not said yet. */
  readonly owner: LockOwner | null;

  constructor(dir: string, owner: LockOwner | null) {
    const isAway = owner !== null && isElsewhere(owner);
    const who = owner === null ? "process unknown" : ownerWords(owner);
    super({
      kind: "input",
      message:
        `another command (${who}) is working in this folder` +
        (isAway ? ", unless it was killed: this machine cannot see that" : ""),
      where: dir,
      hint: isAway
        ? `wait for it, choose another folder, or, where no such process runs on ${owner.host}, remove ` +
          resolve(dir, lockName)
        : `wait for it, choose another folder, or remove ${lockName} there if no such command runs`,
    });
    this.owner = owner;
  }

  /** Whether it is this very process. */
  get isOwn(): boolean {
    return this.owner !== null && !isElsewhere(this.owner) && this.owner.pid === process.pid;
  }
}

/**
 * Locks of this very process: a lock with our process id that is not here was left by an earlier process with the same
 * id.
 */
const ownLocks = new Set<string>();

/**
 * Takes the folder, which must exist, and returns the function that gives it back. The lock of a process that no longer
 * runs is taken over, so a killed command never keeps a folder; that of a process of another machine is not, for nobody
 * here can tell whether it runs. Throws BusyFolderError with the process that has it.
 */
export async function lockFolder(dir: string): Promise<() => Promise<void>> {
  const path = resolve(dir, lockName);
  const release = async (): Promise<void> => {
    // Given back already: what is there now is another command's.
    if (!ownLocks.delete(path)) return;
    await rm(path, { force: true });
  };
  for (let look = 0; look < MOST_LOOKS; look++) {
    if (await createLock(path)) {
      ownLocks.add(path);
      return release;
    }
    const owner = lockOwner(await lockText(path));
    if (owner === undefined) {
      throw inputError(`${lockName} is no lock of a command (it does not begin with the number of a process)`, {
        where: dir,
        hint: "move it away, or choose another folder",
      });
    }
    if (owner !== null && isOwned(owner, path)) throw new BusyFolderError(dir, owner);
    // Whoever has just made the lock has written nothing yet; whoever was killed at once never will.
    if (owner === null && look < LOOKS_AT_EMPTY) await pause(BETWEEN_LOOKS);
    else if (!(await removeEnded(path))) await pause(BETWEEN_LOOKS);
  }
  throw new BusyFolderError(dir, lockOwner(await lockText(path)) ?? null);
}

/**
 * Takes a folder that `make` makes where it is not there. Whoever has it may finish and remove it in between: then it
 * is made again. Throws like `lockFolder`.
 */
export async function lockMade(dir: string, make: () => Promise<void>): Promise<() => Promise<void>> {
  for (let look = 1; ; look++) {
    await make();
    try {
      return await lockFolder(dir);
    } catch (cause) {
      if (look === MOST_LOOKS || !isMissing(cause)) throw cause;
    }
  }
}

/** Whether a failure is that of a file or folder that is not there. */
const isMissing = (cause: unknown): boolean =>
  ((cause as Error).cause as NodeJS.ErrnoException | undefined)?.code === "ENOENT";

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
        const owner = lockOwner(textAt(takeover));
        // These calls follow at once on each other, so one with our id was left by another process.
        const hasEnded = owner && !isElsewhere(owner) && [null, process.pid].includes(runningHere(owner));
        if (hasEnded === true) rmSync(takeover, { force: true });
        return false;
      }
      try {
        const owner = lockOwner(textAt(path));
        if (owner === null || (owner !== undefined && !isOwned(owner, path))) rmSync(path, { force: true });
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
    return readFileSync(path, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return "";
    throw cause;
  }
}

/** Whether a command works in the folder, as far as can be seen from this machine. */
export async function isFolderLocked(dir: string): Promise<boolean> {
  const path = resolve(dir, lockName);
  const owner = lockOwner(await lockText(path));
  return owner !== null && owner !== undefined && isOwned(owner, path);
}

/** Whether the process that the lock names is at work; one of another machine is taken to be. */
function isOwned(owner: LockOwner, path: string): boolean {
  if (isElsewhere(owner)) return true;
  const pid = runningHere(owner);
  return pid === process.pid ? ownLocks.has(path) : pid !== null;
}

/**
 * What the lock says; nothing where it has just been given back. Throws inputError for what cannot be a lock, which is
 * never removed.
 */
async function lockText(path: string): Promise<string> {
  try {
    const { handle } = await openRegular(path, "read the lock");
    try {
      // Whoever has just made the lock may be writing it; a larger file is none.
      const most = MOST_LOCK_BYTES + 1;
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(most), 0, most, 0);
      return buffer.toString("utf8", 0, bytesRead);
    } finally {
      await handle.close();
    }
  } catch (cause) {
    if (isMissing(cause)) return "";
    throw cause;
  }
}

/** Writes who we are unless the file is there; synchronously, so that it is empty for as short as can be. */
function createLock(path: string): Promise<boolean> {
  return withFsErrors(path, "lock the folder", () => Promise.resolve().then(() => makeLock(path)));
}

function makeLock(path: string): boolean {
  try {
    const file = openSync(path, "wx");
    try {
      writeSync(file, ownLock);
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
