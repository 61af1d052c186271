/**
 * Signals that ask a command to stop: Ctrl-C (SIGINT), a supervisor (SIGTERM), a terminal that is gone (SIGHUP: a
 * dropped ssh, a closed window). This is the one place that knows them and the exit codes they lead to.
 */
import { closeSync, openSync, readFileSync, readlinkSync } from "node:fs";
import { constants } from "node:os";
import { basename } from "node:path";
import { isatty } from "node:tty";

/** The signals that ask a command to stop. */
export const stopSignals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
/** The name of a signal that asks a command to stop. */
export type StopSignal = (typeof stopSignals)[number];

/** The exit code that a shell reports of a process that a signal has ended: 130, 143, 129. */
export const exitCodeOf = (name: StopSignal): number => 128 + constants.signals[name];

/**
 * Within this time a second signal of the same name is a copy of the first, and so is a SIGTERM beside a SIGHUP: npx
 * passes Ctrl-C on to a process that has had it from the terminal; a terminal that closes sends SIGHUP itself, and its
 * shell does so again; the end of a login session sends both. None of them is a user who cannot wait.
 */
const COPIES_MS = 500;

interface ReceivedSignal {
  readonly name: StopSignal;
  /** Milliseconds, by the clock of `StopRequests`. */
  readonly at: number;
}

/** Decides what each signal that one process receives means. It is apart from the process, so that it can be tested. */
export class StopRequests {
  private first: ReceivedSignal | null = null;
  private readonly callbacks = new Set<() => void>();

  /**
   * `end` ends the process at once by the default of the signal: while an engine computes, `process.exit` is a crash.
   * `now` is a clock in milliseconds.
   */
  constructor(
    private readonly end: (name: StopSignal) => void,
    private readonly now: () => number,
  ) {}

  /** The exit code of a command that has stopped because it was asked to; null if no signal has come. */
  get exitCode(): number | null {
    return this.first === null ? null : exitCodeOf(this.first.name);
  }

  /** Calls `ask` on the first signal, at once if it has come already. Returns a function that takes `ask` back. */
  onFirst(ask: () => void): () => void {
    this.callbacks.add(ask);
    if (this.first !== null) ask();
    return () => void this.callbacks.delete(ask);
  }

  /** How many callbacks wait for a signal. */
  get listeners(): number {
    return this.callbacks.size;
  }

  /** Takes a signal: the first one calls all callbacks, a second one that is no copy of it ends the process. */
  receive(name: StopSignal): void {
    if (this.first !== null) {
      if (!isCopy(this.first, name, this.now())) this.end(name);
      return;
    }
    this.first = { name, at: this.now() };
    for (const ask of this.callbacks) ask();
  }
}

function isCopy(first: ReceivedSignal, name: StopSignal, now: number): boolean {
  return now - first.at < COPIES_MS && (first.name === name || (first.name !== "SIGINT" && name !== "SIGINT"));
}

const listeners = new Map<StopSignal, () => void>();

const requests = new StopRequests(
  (name) => {
    const listener = listeners.get(name);
    if (listener !== undefined) process.off(name, listener);
    process.kill(process.pid, name);
  },
  () => performance.now(),
);

/**
 * Calls `ask` when the process is asked to stop, at once if it has been; a second signal ends the process. Returns a
 * function that takes `ask` back: while nobody listens a signal ends the process by its default.
 */
export function onStopAsked(ask: () => void): () => void {
  const forget = requests.onFirst(ask);
  for (const name of stopSignals) {
    if (listeners.has(name) || (name === "SIGHUP" && hangupIgnored)) continue;
    const listener = (): void => requests.receive(name);
    listeners.set(name, listener);
    process.on(name, listener);
  }
  return () => {
    forget();
    if (requests.listeners > 0) return;
    for (const [name, listener] of listeners) process.off(name, listener);
    listeners.clear();
  };
}

/** The exit code of a command that stopped because a signal asked it to; null if none did. */
export const stoppedExitCode = (): number | null => requests.exitCode;

let hangupIgnored = false;

/**
 * Prepares the process for a terminal that goes away: SIGHUP is ignored where the command was started by `nohup`, and
 * at the end Node does not abort for want of the terminal. This is called once, before anything else.
 */
export function withstandHangups(): void {
  if (startedByNohup(process.env, fileAtStdin)) {
    hangupIgnored = true;
    process.on("SIGHUP", () => undefined);
  }
  const terminals = [0, 1, 2].filter((descriptor) => isatty(descriptor));
  process.on("exit", () => {
    // At its end Node gives each terminal its settings back, and aborts where a terminal is gone. It leaves a
    // descriptor alone behind which another file lies than at the beginning.
    for (const descriptor of terminals) if (!isatty(descriptor)) replaceByNothing(descriptor);
  });
}

interface OpenFile {
  readonly path: string;
  readonly writeOnly: boolean;
}

function replaceByNothing(descriptor: number): void {
  try {
    closeSync(descriptor);
    openSync("/dev/null", "r+");
  } catch {
    // A descriptor that is closed is as good.
  }
}

/**
 * Whether `nohup` has started this process. It ignores SIGHUP, but Node restores every signal's default when it starts,
 * so only the traces of nohup are left: shells name the command they run in the variable `_`, and a terminal as
 * standard input has become /dev/null opened for writing.
 */
export function startedByNohup(
  env: Readonly<Record<string, string | undefined>>,
  atStdin: () => OpenFile | null,
): boolean {
  if (basename(env["_"] ?? "") === "nohup") return true;
  const stdin = atStdin();
  return stdin !== null && stdin.path === "/dev/null" && stdin.writeOnly;
}

/** The file that is standard input, on Linux; null where nobody can tell. */
function fileAtStdin(): OpenFile | null {
  if (process.platform !== "linux") return null;
  try {
    const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync("/proc/self/fdinfo/0", "utf8"))?.[1] ?? "0";
    return { path: readlinkSync("/proc/self/fd/0"), writeOnly: (parseInt(flags, 8) & 3) === 1 };
  } catch {
    return null;
  }
}
