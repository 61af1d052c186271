/** Who has a folder, as its lock says: a process, on which machine, and since which start of that machine. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { hostname } from "node:os";

/** Whoever has a folder. */
export interface LockOwner {
  readonly pid: number;
  /** The machine; null in a lock of an earlier version, which did not say. */
  readonly host: string | null;
  /** What Linux calls this start of the machine; null elsewhere, and in a lock of an earlier version. */
  readonly boot: string | null;
}

/** Bytes of a lock at most: a process id, a host name and what Linux calls a start. */
export const MOST_LOCK_BYTES = 512;

const ownHost = hostname().replaceAll(/\s+/g, "-") || "unknown";

/** This machine in eight characters, for names of files that may be as long as a disk allows already. */
export const hostMark = createHash("sha256").update(ownHost).digest("hex").slice(0, 8);

const ownBoot = process.platform === "linux" ? bootId() : null;

function bootId(): string | null {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return null;
  }
}

/** What a lock of this process says, a line for each. */
export const ownLock = `${[process.pid, ownHost, ownBoot ?? ""].join("\n").trimEnd()}\n`;

/**
 * Whom a lock names; null for one that says nothing (yet). Undefined for text that no lock holds. Earlier versions
 * wrote the process id alone.
 */
export function lockOwner(text: string): LockOwner | null | undefined {
  if (text.trim() === "") return null;
  const [pid = "", host, boot, ...more] = text.trimEnd().split("\n");
  const isLock = /^\d{1,20}$/.test(pid) && [host, boot].every((part) => part === undefined || /^\S+$/.test(part));
  return isLock && more.length === 0 ? { pid: Number(pid), host: host ?? null, boot: boot ?? null } : undefined;
}

/** Whether this is a process of another machine, of which nothing can be known here. */
export const isElsewhere = ({ host }: LockOwner): boolean => host !== null && host !== ownHost;

/** "process 12", and of which machine where that is another one. */
export const ownerWords = (owner: LockOwner): string =>
  `process ${owner.pid}${isElsewhere(owner) ? ` of host ${owner.host}` : ""}`;

/** The id of a process of this machine that may be at work; null for one of another machine, or of an earlier start. */
export function runningHere(owner: LockOwner): number | null {
  const { pid, boot } = owner;
  const isOfBefore = boot !== null && ownBoot !== null && boot !== ownBoot;
  return !isElsewhere(owner) && !isOfBefore && pid > 0 && isRunning(pid) ? pid : null;
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
