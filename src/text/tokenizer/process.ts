/** The command's side of a tokenizer's process: starts it, calls it, and says in one line what it died of. */
import { spawn, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";
import { UpcycleError, inputError, interruptedError, stopError } from "../../base/errors.js";
import { bytes } from "../../base/format.js";
import {
  marks,
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
  readonly budget: CallBudget;
  /** What it means where the library itself refuses; its message follows a colon. */
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

interface Waiting {
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

/** So much of what a dying process says is kept; its first words are the reason, the rest a stack. */
const SAID_UNITS = 20_000;

const ANOTHER_FILE = "use the tokenizer.json that the model was published with";
const MORE_MEMORY = "free some, or raise what this command may have (ulimit -v), then run again";

/** `file` is the one that errors name. */
export function startTokenizer(file: string, signal?: AbortSignal): TokenizerProcess {
  const waiting = new Map<number, Waiting>();
  let child: ChildProcess;
  let calls = 0;
  let said = "";
  /** Why nothing can be called any more. */
  let over: Error | undefined;

  const finish = (error: Error): void => {
    over ??= error;
    for (const id of waiting.keys()) settle(id, ({ reject }) => reject(over!));
  };
  /** A process without calls keeps no command from ending. */
  const hold = (): void => setHeld(child, waiting.size > 0);
  const settle = (id: number, how: (call: Waiting) => void): void => {
    const call = waiting.get(id);
    if (call === undefined) return;
    waiting.delete(id);
    clearTimeout(call.timer);
    hold();
    how(call);
  };
  const hurry = (call: Waiting): void => {
    call.timer = setTimeout(() => {
      finish(interruptedError(`stopped while ${call.doing.what}`, { where: file }));
      child.kill("SIGKILL");
    }, GRACE_MS);
  };
  const hurryAll = (): void => [...waiting.values()].forEach(hurry);

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
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(0, SAID_UNITS)));
  const gone = new Promise<void>((resolve) => {
    child.on("error", (cause) => {
      finish(notStarted(file, cause));
      // Nothing closes that has not begun.
      if (child.pid === undefined) resolve();
    });
    child.on("close", (code, killedBy) => {
      signal?.removeEventListener("abort", hurryAll);
      finish(deathOf(file, [...waiting.values()][0]?.doing, { code, killedBy, said }));
      resolve();
    });
  });
  signal?.addEventListener("abort", hurryAll, { once: true });
  hold();

  return {
    call<M extends Method>(method: M, args: Parameters<Methods[M]>, doing: Doing) {
      return new Promise<ReturnType<Methods[M]>>((resolve, reject) => {
        if (over !== undefined) return reject(over);
        const id = calls++;
        const call: Waiting = { doing, reject, resolve: resolve as Waiting["resolve"] };
        waiting.set(id, call);
        hold();
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
      setHeld(child, true);
      child.kill("SIGKILL");
      await gone;
    },
  };
}

function spawnChild(): ChildProcess {
  // Tests run the sources; a process needs compiled code, which the build has put beside them.
  const here = import.meta.url;
  const file = here.endsWith(".ts")
    ? new URL("../../../dist/text/tokenizer/child.js", here)
    : new URL("./child.js", here);
  return spawn(process.execPath, [fileURLToPath(file), String(process.pid)], {
    serialization: "advanced",
    // What the library writes while it dies is for us to read, not for the terminal.
    stdio: ["ignore", "ignore", "pipe", "ipc"],
    // A terminal's Ctrl-C reaches all processes of its session: this one is ended by us, after a last word.
    detached: true,
    windowsHide: true,
    env: { ...process.env, RUST_BACKTRACE: "0" },
  });
}

function setHeld(child: ChildProcess, held: boolean): void {
  const stderr = child.stderr as (NodeJS.ReadableStream & { ref(): void; unref(): void }) | null;
  for (const handle of [child, child.channel, stderr]) {
    if (held) handle?.ref();
    else handle?.unref();
  }
}

function refusedBy(refusal: Refusal, { refused }: Doing, where: string): UpcycleError {
  if (refusal.kind === "ours") return new UpcycleError(refusal.failure);
  if (refusal.kind === "not JSON")
    return inputError("the file is not JSON", { where, hint: "it may be cut short: fetch it again" });
  return inputError(`${refused}: ${cleaned(refusal.message)}`, { where });
}

const notStarted = (where: string, cause: Error): UpcycleError =>
  stopError(`cannot start a process for the tokenizer (${cleaned(cause.message)})`, {
    where,
    hint: "see ulimit -a: too few processes, files or memory",
    cause,
  });

interface Death {
  readonly code: number | null;
  readonly killedBy: NodeJS.Signals | null;
  readonly said: string;
}

/** Signals by which a process ends itself, or by which the system ends one that does what it must not. */
const crashes: readonly (NodeJS.Signals | null)[] = ["SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE"];

function deathOf(where: string, doing: Doing | undefined, { code, killedBy, said }: Death): UpcycleError {
  const what = doing?.what ?? "waiting";
  const bad = (message: string): UpcycleError => inputError(message, { where, hint: ANOTHER_FILE });
  if (doing !== undefined && said.includes(marks.processorMs)) {
    const seconds = Math.round(doing.budget.processorMs / 100) / 10;
    return bad(`${what} was ended after ${seconds} s: most likely one of its patterns cannot be run on it`);
  }
  if (doing !== undefined && said.includes(marks.memoryMB))
    return bad(`${what} took more than ${bytes(doing.budget.memoryMB * 1e6)} of memory`);
  const panic = panicIn(said);
  if (panic !== undefined && /^Onig/.test(panic))
    return bad(`${what} failed, because one of its patterns cannot be run on it (${panic})`);
  if (panic !== undefined) return bad(`${what} failed in the tokenizers library (${panic})`);
  const [refused, asked] = /memory allocation of (\d+) bytes failed|Fatal process OOM|out of memory/i.exec(said) ?? [];
  if (doing !== undefined && Number(asked) > doing.budget.memoryMB * 1e6)
    return bad(`${what} took too much memory (${refused})`);
  // What a sane call needs was refused, so the file is not to blame. V8 says nothing more where it gets none at all.
  if (refused !== undefined || killedBy === "SIGTRAP") {
    return stopError(`the tokenizer's process got no memory while ${what} (${refused ?? killedBy})`, {
      where,
      hint: MORE_MEMORY,
    });
  }
  if (crashes.includes(killedBy)) return bad(`${what} failed in the tokenizers library (${killedBy})`);
  if (killedBy !== null) {
    return stopError(`the tokenizer's process was killed (${killedBy}) while ${what}`, {
      where,
      hint: `the system does that when memory runs out: ${MORE_MEMORY}`,
    });
  }
  const last = cleaned(said.trim().split("\n").at(-1) ?? "");
  return stopError(`the tokenizer's process ended with code ${code} while ${what}${last === "" ? "" : ` (${last})`}`, {
    where,
  });
}

/** What Rust says when it gives up: the line after, in old versions within, the one that names the place. */
function panicIn(said: string): string | undefined {
  const found = /panicked at (?:'([^\n]*)', \S+|[^\n]*\n([^\n]*))/.exec(said);
  const message = found?.[1] ?? found?.[2];
  return message === undefined ? undefined : cleaned(message);
}

/** One short line without control characters. */
function cleaned(text: string): string {
  // eslint-disable-next-line no-control-regex
  const line = text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " ").trim();
  return line.length > 200 ? `${line.slice(0, 197)}...` : line;
}
