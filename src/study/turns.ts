/**
 * Commands that train pieces of one study at the same time share its store: parents, and the models that arms start
 * from. Whoever comes second waits until the first has made what both need, and then finds it.
 */
import { resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { interruptedError } from "../base/errors.js";
import { isElsewhere, ownerWords } from "../files/io/lock-owner.js";
import { BusyFolderError, lockName } from "../files/io/lock.js";

/** Milliseconds between two looks at a folder in which another command works. */
const BETWEEN_LOOKS = 250;

/** Waits a moment for the command that works in a folder. Throws interruptedError when the signal is raised. */
async function nextLook({ where }: BusyFolderError, signal: AbortSignal | undefined): Promise<void> {
  try {
    await pause(BETWEEN_LOOKS, undefined, { signal });
  } catch {
    throw interruptedError("stopped while another command works in this folder; run the same command again to go on", {
      where,
    });
  }
}

/** Whether a failure is that of a folder in which another process works; this process never waits for itself. */
const isOthers = (cause: unknown): cause is BusyFolderError => cause instanceof BusyFolderError && !cause.isOwn;

/** What is waited for, and, where that may last for ever, what ends it. */
function waiting({ owner, where = "" }: BusyFolderError): string {
  if (owner === null) return "waits for another command";
  const end = isElsewhere(owner) ? `; if that has ended, remove ${resolve(where, lockName)}` : "";
  return `waits for another command (${ownerWords(owner)})${end}`;
}

/**
 * The events of what `begin` starts, in the folder that it locks first of all; where another command has it, a note
 * says so once, and it is begun again until the folder is free. Throws interruptedError when the signal is raised while
 * it waits.
 */
export async function* inTurn<Event, Result>(
  name: string,
  signal: AbortSignal | undefined,
  begin: () => AsyncGenerator<Event, Result>,
): AsyncGenerator<Event | { readonly type: "note"; readonly text: string }, Result> {
  for (let looks = 0; ; looks++) {
    try {
      return yield* begin();
    } catch (cause) {
      if (!isOthers(cause)) throw cause;
      if (looks === 0) yield { type: "note", text: `${name}: ${waiting(cause)}` };
      await nextLook(cause, signal);
    }
  }
}

/** What `begin` gives, which is begun again as long as another command has the folder that it locks first of all. */
export async function afterOthers<Result>(
  signal: AbortSignal | undefined,
  begin: () => Promise<Result>,
): Promise<Result> {
  for (;;) {
    try {
      return await begin();
    } catch (cause) {
      if (!isOthers(cause)) throw cause;
      await nextLook(cause, signal);
    }
  }
}
