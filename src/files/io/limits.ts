/**
 * What the system lets this process have: open files (`ulimit -n`) and addresses (`ulimit -v`). Work is cut to fit;
 * what cannot fit is said in one line.
 */
import { readFileSync, readdirSync } from "node:fs";
import { UpcycleError, stopError } from "../../base/errors.js";
import { bytes } from "../../base/format.js";

/** What the system lets this process use: open files and addresses. */
export interface Limits {
  /** Files, sockets and pipes that may be open at once; infinite where nobody says. */
  readonly openFiles: number;
  /** Bytes of addresses; infinite where nobody says. */
  readonly addresses: number;
}

/** Reads the limits that hold out of the list that Linux gives; other systems have no cheap way to ask. */
export function limitsOf(text: string): Limits {
  const soft = (name: string): number => {
    const limit = new RegExp(`^${name}\\s+(\\d+)`, "m").exec(text)?.[1];
    return limit === undefined ? Infinity : Number(limit);
  };
  return { openFiles: soft("Max open files"), addresses: soft("Max address space") };
}

let ownLimits: Limits | undefined;

/** The limits of this process, looked up once. */
export function limits(): Limits {
  return (ownLimits ??= limitsOf(readProc("limits")));
}

function readProc(name: string): string {
  try {
    return readFileSync(`/proc/self/${name}`, "utf8");
  } catch {
    return "";
  }
}

/** Bytes of addresses that may still be taken; infinite without a limit. */
function addressesLeft(): number {
  const { addresses } = limits();
  if (addresses === Infinity) return Infinity;
  const usedKilobytes = /^VmSize:\s+(\d+) kB/m.exec(readProc("status"))?.[1];
  return addresses - 1024 * Number(usedKilobytes ?? 0);
}

/** Files that may still be opened; infinite where nobody says. */
function filesLeft(): number {
  const { openFiles } = limits();
  if (!hasFewFiles()) return Infinity;
  try {
    return openFiles - readdirSync("/proc/self/fd").length;
  } catch {
    return openFiles - ownFiles;
  }
}

/**
 * Below this many open files everything opens few at a time. Node.js alone has some 25, and its module loader opens all
 * that a module imports at once.
 */
const fewFiles = 512;

/** Whether so few files may be open that loading modules has to save on them. */
export function hasFewFiles({ openFiles }: Limits = limits()): boolean {
  return openFiles < fewFiles;
}

/**
 * Files of one kind (shards that are read, shards that are written) to keep open on one thread, out of the `most` that
 * would be kept without a limit.
 */
export function filesToKeep(most: number, { openFiles }: Pick<Limits, "openFiles"> = limits()): number {
  return Math.max(1, Math.min(most, Math.floor(openFiles / 32)));
}

/**
 * Node's arguments for a thread that loads modules (`execArgv`). Flags of the process, such as --input-type, are about
 * its own script and not handed on.
 */
export function moduleArguments(): string[] {
  // Tests run the sources; threads need compiled code.
  const file = new URL("../../../dist/files/io/few-files.js", import.meta.url);
  return hasFewFiles() ? ["--import", file.href] : [];
}

/** How many files of models stay open on one thread where no limit is lower: the shards of nearly every model. */
export const mostPooled = 256;

/** Files that Node.js itself has open, and that a thread has with its module loader and what it writes. */
const [ownFiles, threadFiles] = [32, 24];
/**
 * What V8 reserves for a thread (its code alone takes half of it), and what must be left for the work. V8 ends the
 * whole process where it gets no addresses.
 */
const [threadAddresses, workAddresses] = [1 << 30, 1 << 29];

/** How many of `most` threads fit into the limits: 0 where the work has to be done on this one. */
export function threadsThatFit(most: number, { openFiles }: Limits = limits(), left: number = addressesLeft()): number {
  const each = threadFiles + filesToKeep(mostPooled, { openFiles });
  const byFiles = openFiles === Infinity ? Infinity : Math.floor((openFiles - ownFiles) / each);
  const byAddresses = Math.floor((left - workAddresses) / threadAddresses);
  return Math.max(0, Math.min(most, byFiles, byAddresses));
}

/**
 * To be called before a thread is started that nothing can stand in for; `what` names it. Throws stopError where V8
 * would end the process for want of addresses, or where its module loader would wait for ever for want of files.
 */
export function requireThreadRoom(what: string, left: number = addressesLeft(), files: number = filesLeft()): void {
  if (files < threadFiles)
    throw stopError(`too many open files: ${what} needs ${threadFiles}, ${Math.max(0, files)} are left`, {
      hint: filesHint("EMFILE"),
    });
  if (left < threadAddresses)
    throw tooFewAddresses(
      `cannot start ${what}: its thread needs ${bytes(threadAddresses)} of addresses, ` +
        `${bytes(Math.max(0, left))} are left`,
    );
}

/**
 * Throws stopError where fewer addresses are left than starting needs: V8 would end the process, with a stack, where
 * its heap gets no more.
 */
export function requireAddresses(left: number = addressesLeft()): void {
  if (left < workAddresses)
    throw tooFewAddresses(
      `cannot start: ${bytes(workAddresses)} of addresses are needed, ${bytes(Math.max(0, left))} are left`,
    );
}

function tooFewAddresses(message: string): UpcycleError {
  return stopError(message, { hint: `${addressWords()}; raise it, best to ulimit -v unlimited` });
}

function addressWords(): string {
  return `the limit is ${bytes(limits().addresses)} (ulimit -v)`;
}

/** What one can do about too many open files: of this process (`EMFILE`), or of the system (`ENFILE`). */
export function filesHint(code: string | undefined): string {
  if (code === "ENFILE") return "the whole system has no more; close other programs, or raise fs.file-max";
  const { openFiles } = limits();
  return `${openFiles === Infinity ? "" : `the limit is ${openFiles}; `}raise it with ulimit -n 1024`;
}

/**
 * What was thrown for want of memory, addresses, threads or open files, wherever it happened, as an error that says
 * which; errors that are for users already stay as they are; null for anything else.
 */
export function limitError(cause: unknown): UpcycleError | null {
  if (cause instanceof UpcycleError) return cause;
  if (!(cause instanceof Error)) return null;
  const { code = "", message } = cause as NodeJS.ErrnoException;
  const text = message.replace(/\s*\n\s*/g, " ");
  if (/\b(EMFILE|ENFILE)\b/.test(`${code} ${text}`)) {
    const name = /\bENFILE\b/.test(`${code} ${text}`) ? "ENFILE" : "EMFILE";
    const { path } = cause as NodeJS.ErrnoException;
    return stopError("too many open files", {
      ...(path !== undefined && { where: path }),
      hint: filesHint(name),
      cause,
    });
  }
  if (/\bEAGAIN\b/.test(`${code} ${text}`) && /spawn|fork|thread|worker/i.test(text)) return threadError(cause);
  if (/pthread_create failed|Resource temporarily unavailable|uv_thread_create/.test(text)) return threadError(cause);
  if (isOutOfMemory(code, text)) return stopError(`not enough memory (${short(text)})`, { hint: memoryHint(), cause });
  return null;
}

/** What V8, Node, WebAssembly, onnxruntime and the system say where memory is short. */
const outOfMemoryWords = [
  /could not allocate memory/i,
  /invalid (typed )?array (buffer )?length/i,
  /invalid string length/i,
  /cannot create a string longer/i,
  /allocation failed/i,
  /bad_alloc/i,
  /bad allocation/i,
  /failed to allocate/i,
  /out of memory/i,
  /\bENOMEM\b/i,
  /Cannot allocate memory/i,
];

function isOutOfMemory(code: string, message: string): boolean {
  if (code === "ENOMEM" || code === "ERR_WORKER_OUT_OF_MEMORY" || code === "ERR_MEMORY_ALLOCATION_FAILED") return true;
  return outOfMemoryWords.some((words) => words.test(message));
}

function threadError(cause: Error): UpcycleError {
  return stopError("the system lets no further thread or process start", {
    hint:
      "use fewer threads, or raise the limits of processes (ulimit -u) and addresses (ulimit " +
      `-v${limits().addresses === Infinity ? "" : `, now ${bytes(limits().addresses)}`})`,
    cause,
  });
}

const short = (text: string): string => (text.length > 160 ? `${text.slice(0, 157)}...` : text);

function memoryHint(): string {
  if (limits().addresses === Infinity)
    return "close other programs, use fewer threads or smaller batches, or a machine with more memory";
  return (
    `${addressWords()}; raise it, or set NODE_OPTIONS=--disable-wasm-trap-handler, without which Node.js ` +
    "reserves 10 GB of addresses for each block of weights"
  );
}
