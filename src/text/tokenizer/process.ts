/** The command's side of a tokenizer's process: starts it, calls it, and says in one line what it died of. */
import { spawn, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";
import { UpcycleError, inputError, interruptedError, stopError } from "../../base/errors.js";
import { bytes } from "../../base/format.js";
import { threadModule } from "../../files/io/thread-module.js";
import {
  guardMarks,
  type CallBudget,
  type Method,
  type Methods,
  type Refusal,
  type TokenizerReply,
  type TokenizerRequest,
} from "./calls.js";

/** What a call does, in the words of its errors. */
export interface Doing {
  /** In words that fit before "failed": `encoding a text of 41 characters`. */
  readonly what: string;
  /** What the call may take. */
  readonly budget: CallBudget;
  /** What it means where the library itself refuses; the library's message follows after a colon. */
  readonly refused: string;
}

/** A running process that holds one tokenizer. */
export interface TokenizerProcess {
  /**
   * Throws inputError where the library refuses, gives up or takes more than the budget, stopError for a process that
   * something else has ended, and interruptedError where the signal was raised.
   */
  call<M extends Method>(method: M, args: Parameters<Methods[M]>, doing: Doing): Promise<ReturnType<Methods[M]>>;
  /** Ends the process; nothing may be called any more. */
  close(): Promise<void>;
}

/** A call that has not been answered. */
interface PendingCall {
  readonly doing: Doing;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
  /** Runs once the signal is raised. */
  timer?: NodeJS.Timeout;
}

/**
 * How long a call goes on after the signal: what takes milliseconds, such as the last characters of a text, still comes
 * to its end.
 */
const GRACE_MS = 300;

/** So much of what a dying process writes is remembered; its first words are the reason, the rest a stack. */
const STDERR_UNITS = 20_000;

const ANOTHER_FILE = "use the tokenizer.json that the model was published with";
const MORE_MEMORY = "free some, or raise what this command may have (ulimit -v), then run again";

/**
 * Starts a process for the tokenizer in `file`, which errors name; it has to be loaded by the first call. Throws
 * stopError where no process can be started.
 */
export function startTokenizer(file: string, signal?: AbortSignal): TokenizerProcess {
  const pending = new Map<number, PendingCall>();
  let child: ChildProcess;
  let calls = 0;
  let stderr = "";
  /** Why nothing can be called any more. */
  let over: Error | undefined;
  /** Its end is waited for, whatever it still answers. */
  let isClosing = false;

  const finish = (error: Error): void => {
    const reason = (over ??= error);
    for (const id of pending.keys()) settle(id, ({ reject }) => reject(reason));
  };
  /** A process without calls does not keep the command from ending. */
  const updateHold = (): void => setKeepsAlive(child, isClosing || pending.size > 0);
  const settle = (id: number, how: (call: PendingCall) => void): void => {
    const call = pending.get(id);
    if (call === undefined) return;
    pending.delete(id);
    clearTimeout(call.timer);
    updateHold();
    how(call);
  };
  const hurry = (call: PendingCall): void => {
    call.timer = setTimeout(() => {
      finish(interruptedError(`stopped while ${call.doing.what}`, { where: file }));
      child.kill("SIGKILL");
    }, GRACE_MS);
  };
  const hurryAll = (): void => [...pending.values()].forEach(hurry);

  try {
    child = spawnChild();
  } catch (cause) {
    throw notStarted(file, cause as Error);
  }
  child.on("message", ({ id, result, refusal }: TokenizerReply) => {
    settle(id, ({ doing, resolve, reject }) =>
      refusal === undefined ? resolve(result) : reject(refusedBy(refusal, doing, file)),
    );
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr = (stderr + text).slice(0, STDERR_UNITS)));
  const gone = new Promise<void>((resolve) => {
    child.on("error", (cause) => {
      finish(notStarted(file, cause));
      // Nothing closes that has not begun.
      if (child.pid === undefined) resolve();
    });
    child.on("close", (code, killedBy) => {
      signal?.removeEventListener("abort", hurryAll);
      finish(deathOf(file, [...pending.values()][0]?.doing, { code, killedBy, stderr }));
      resolve();
    });
  });
  signal?.addEventListener("abort", hurryAll, { once: true });
  updateHold();

  return {
    call<M extends Method>(method: M, args: Parameters<Methods[M]>, doing: Doing) {
      return new Promise<ReturnType<Methods[M]>>((resolve, reject) => {
        if (over !== undefined) return reject(over);
        const id = calls++;
        const call: PendingCall = { doing, reject, resolve: resolve as PendingCall["resolve"] };
        pending.set(id, call);
        updateHold();
        if (signal?.aborted === true) hurry(call);
        // Where there is no process, or it is dying, the call is answered by that.
        if (child.pid === undefined) return;
        try {
          child.send({ id, method, args, budget: doing.budget } satisfies TokenizerRequest, () => undefined);
        } catch (cause) {
          // A text of half a gigabyte and more cannot be made into a message.
          settle(id, () =>
            reject(inputError(`${doing.what} failed: ${cleaned((cause as Error).message)}`, { where: file, cause })),
          );
        }
      });
    },
    async close() {
      over ??= stopError("the tokenizer is closed", { where: file });
      isClosing = true;
      updateHold();
      child.kill("SIGKILL");
      await gone;
    },
  };
}

function spawnChild(): ChildProcess {
  const file = fileURLToPath(threadModule("text/tokenizer/child.js"));
  return spawn(process.execPath, [file, String(process.pid)], {
    serialization: "advanced",
    // What the library writes while it dies is for us to read, not for the terminal.
    stdio: ["ignore", "ignore", "pipe", "ipc"],
    // A terminal's Ctrl-C reaches all processes of its session: this one is ended by us, after a last word.
    detached: true,
    windowsHide: true,
    env: { ...process.env, RUST_BACKTRACE: "0" },
  });
}

/** Sets whether the process keeps this one from ending. */
function setKeepsAlive(child: ChildProcess, keepsAlive: boolean): void {
  const stderr = child.stderr as (NodeJS.ReadableStream & { ref(): void; unref(): void }) | null;
  for (const handle of [child, child.channel, stderr]) {
    if (keepsAlive) handle?.ref();
    else handle?.unref();
  }
}

function refusedBy(refusal: Refusal, { refused }: Doing, where: string): UpcycleError {
  if (refusal.kind === "ours") return new UpcycleError(refusal.failure);
  return inputError(`${refused}: ${cleaned(refusal.message)}`, { where });
}

const notStarted = (where: string, cause: Error): UpcycleError =>
  stopError(`cannot start a process for the tokenizer (${cleaned(cause.message)})`, {
    where,
    hint: "see ulimit -a: too few processes, files or memory",
    cause,
  });

/** How a process ended. */
interface Death {
  readonly code: number | null;
  readonly killedBy: NodeJS.Signals | null;
  /** The beginning of what it wrote to stderr. */
  readonly stderr: string;
}

/** Signals by which a process ends itself, or by which the system ends one that does what it must not. */
const crashes: readonly (NodeJS.Signals | null)[] = ["SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE"];

/** The error for a process that ended while it did something. */
function deathOf(where: string, doing: Doing | undefined, death: Death): UpcycleError {
  const { code, killedBy, stderr } = death;
  const what = doing?.what ?? "waiting";
  const failure = failureOfFile(what, doing?.budget, death);
  if (failure !== null) return inputError(failure, { where, hint: ANOTHER_FILE });
  // What a sane call needs was refused, so the file is not to blame. V8 says nothing more where it gets none at all.
  const refusal = memoryRefusal.exec(stderr)?.[0];
  if (refusal !== undefined || killedBy === "SIGTRAP") {
    return stopError(`the tokenizer's process got no memory while ${what} (${refusal ?? killedBy})`, {
      where,
      hint: MORE_MEMORY,
    });
  }
  if (killedBy !== null) {
    return stopError(`the tokenizer's process was killed (${killedBy}) while ${what}`, {
      where,
      hint: `the system does that when memory runs out: ${MORE_MEMORY}`,
    });
  }
  const last = cleaned(stderr.trim().split("\n").at(-1) ?? "");
  return stopError(`the tokenizer's process ended with code ${code} while ${what}${last === "" ? "" : ` (${last})`}`, {
    where,
  });
}

/** What Rust and V8 write where they get no memory; Rust says how many bytes it asked for. */
const memoryRefusal = /memory allocation of (\d+) bytes failed|Fatal process OOM|out of memory/i;

/** Why a process ended, where the tokenizer's file is to blame; null where it is not. */
function failureOfFile(what: string, budget: CallBudget | undefined, { killedBy, stderr }: Death): string | null {
  if (budget !== undefined && stderr.includes(guardMarks.processorMs)) {
    const seconds = Math.round(budget.processorMs / 100) / 10;
    return `${what} was ended after ${seconds} s: most likely one of its patterns cannot be run on it`;
  }
  if (budget !== undefined && stderr.includes(guardMarks.memoryMB))
    return `${what} took more than ${bytes(budget.memoryMB * 1e6)} of memory`;
  const panic = panicIn(stderr);
  if (panic !== undefined && /^Onig/.test(panic))
    return `${what} failed, because one of its patterns cannot be run on it (${panic})`;
  if (panic !== undefined) return `${what} failed in the tokenizers library (${panic})`;
  const [refusal, requestedBytes] = memoryRefusal.exec(stderr) ?? [];
  if (budget !== undefined && Number(requestedBytes) > budget.memoryMB * 1e6)
    return `${what} took too much memory (${refusal})`;
  const isCrash = refusal === undefined && crashes.includes(killedBy);
  return isCrash ? `${what} failed in the tokenizers library (${killedBy})` : null;
}

/** What Rust says when it gives up: in the line after the one that names the place, in old versions within that. */
function panicIn(stderr: string): string | undefined {
  const [, oldMessage, newMessage] = /panicked at (?:'([^\n]*)', \S+|[^\n]*\n([^\n]*))/.exec(stderr) ?? [];
  const message = oldMessage ?? newMessage;
  return message === undefined ? undefined : cleaned(message);
}

/** One short line without control characters. */
function cleaned(text: string): string {
  // eslint-disable-next-line no-control-regex
  const line = text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " ").trim();
  return line.length > 200 ? `${line.slice(0, 197)}...` : line;
}
