/**
 * Signals that ask a command to stop: Ctrl-C (SIGINT), a supervisor (SIGTERM), a terminal that is gone (SIGHUP: a
 * dropped ssh, a closed window). This is the one place that knows them and the exit codes they lead to.
 */
import { closeSync, openSync, readFileSync, readlinkSync } from "node:fs";
import { constants } from "node:os";
import { basename } from "node:path";
import { isatty } from "node:tty";

export const stopSignals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
export type StopSignal = (typeof stopSignals)[number];

/** What a shell reports of a process that a signal has ended: 130, 143, 129. */
export const exitCodeOf = (name: StopSignal): number => 128 + constants.signals[name];

/**
 * Within this time a second signal of the same name is a copy of the first, and so is a SIGTERM beside a SIGHUP: npx
 * passes Ctrl-C on to a process that has had it from the terminal; a terminal that closes sends SIGHUP itself, and its
 * shell does so again; the end of a login session sends both. None of them is a user who cannot wait.
 */
const COPIES_MS = 500;

/** Which signals of one process mean what; apart from the process, so that it can be tested. */
export class StopRequests {
  private first: { readonly name: StopSignal; readonly at: number } | null = null;
  private readonly asked = new Set<() => void>();

  /**
   * `end` ends the process at once by the default of the signal: while an engine computes, `process.exit` is a crash.
   */
  constructor(
    private readonly end: (name: StopSignal) => void,
    private readonly now: () => number,
  ) {}

  /** The exit code of a command that has stopped because it was asked to; null if no signal has come. */
  get exitCode(): number | null {
    return this.first === null ? null : exitCodeOf(this.first.name);
  }

  /** Calls `ask` on the first signal, at once if it has come already. Returns what takes it back. */
  onFirst(ask: () => void): () => void {
    this.asked.add(ask);
    if (this.first !== null) ask();
    return () => void this.asked.delete(ask);
  }

  get listeners(): number {
    return this.asked.size;
  }

  receive(name: StopSignal): void {
    if (this.first !== null) {
      if (!isCopy(this.first, name, this.now())) this.end(name);
      return;
    }
    this.first = { name, at: this.now() };
    for (const ask of this.asked) ask();
  }
}

function isCopy(first: { readonly name: StopSignal; readonly at: number }, name: StopSignal, now: number): boolean {
  return now - first.at < COPIES_MS && (first.name === name || (first.name !== "SIGINT" && name !== "SIGINT"));
}

const listeners = new Map<StopSignal, () => void>();

const requests = new StopRequests(
  (name) => {
    process.off(name, listeners.get(name)!);
    process.kill(process.pid, name);
  },
  () => performance.now(),
);

/**
 * Calls `ask` when the process is asked to stop, at once if it has been; a second signal ends the process. Returns what
 * takes it back: while nobody listens a signal ends the process by its default.
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
 * Whatever ends the process later: what a terminal that goes away does to it, and that `nohup` holds. Called once,
 * first of all.
 */
export function withstandHangups(): void {
  if (startedByNohup(process.env, fileAtStdin)) {
    hangupIgnored = true;
    process.on("SIGHUP", () => undefined);
  }
  const terminals = [0, 1, 2].filter((descriptor) => isatty(descriptor));
  process.on("exit", () => {
    // Node gives terminals their settings back at its end, and aborts where one is gone. A file that is not the one of
    // its beginning it leaves alone.
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
    // Closed is as good.
  }
}

/**
 * `nohup` ignores SIGHUP, but Node takes every signal's default back when it starts, so only the traces of nohup are
 * left: shells name the command they run in the variable `_`, and a terminal as standard input has become /dev/null
 * opened for writing.
 */
export function startedByNohup(
  env: Readonly<Record<string, string | undefined>>,
  atStdin: () => OpenFile | null,
): boolean {
  if (basename(env["_"] ?? "") === "nohup") return true;
  const stdin = atStdin();
  return stdin !== null && stdin.path === "/dev/null" && stdin.writeOnly;
}

/** What standard input is, on Linux; null where nobody can tell. */
function fileAtStdin(): OpenFile | null {
  if (process.platform !== "linux") return null;
  try {
    const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync("/proc/self/fdinfo/0", "utf8"))?.[1] ?? "0";
    return { path: readlinkSync("/proc/self/fd/0"), writeOnly: (parseInt(flags, 8) & 3) === 1 };
  } catch {
    return null;
  }
}
