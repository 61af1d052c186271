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

/** Reads the limits that hold, as Linux lists them; elsewhere there is no cheap way to ask. */
export function limitsOf(text: string): Limits {
  const soft = (name: string): number => {
    const found = new RegExp(`^${name}\\s+(\\d+)`, "m").exec(text)?.[1];
    return found === undefined ? Infinity : Number(found);
  };
  return { openFiles: soft("Max open files"), addresses: soft("Max address space") };
}

let known: Limits | undefined;

/** The limits of this process, looked up once. */
export function limits(): Limits {
  return (known ??= limitsOf(readProc("limits")));
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
  const taken = /^VmSize:\s+(\d+) kB/m.exec(readProc("status"))?.[1];
  return addresses - 1024 * Number(taken ?? 0);
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
 * Of the command line of a thread that loads modules. Flags of the process, such as --input-type, are about its own
 * script and not handed on.
 */
export function moduleArguments(): string[] {
  // Tests run the sources; threads need compiled code, which the build has put beside them.
  const here = import.meta.url;
  const file = here.endsWith(".ts")
    ? new URL("../../../dist/files/io/few-files.js", here)
    : new URL("./few-files.js", here);
  return hasFewFiles() ? ["--import", file.href] : [];
}

/** Parts of models that are kept open on one thread, without a limit: the shards of nearly every model. */
export const mostPooled = 256;

/** What Node.js itself holds open, and a thread with its loader and what it writes. */
const [ownFiles, threadFiles] = [32, 24];
/**
 * What V8 reserves for a thread (its code alone takes half of it), and what must be left for the work. V8 ends the
 * whole process where it gets no addresses.
 */
const [threadAddresses, workAddresses] = [1 << 30, 1 << 29];

/** How many of `wanted` threads fit into the limits: 0 where the work has to be done on this one. */
export function threadsThatFit(
  wanted: number,
  { openFiles }: Limits = limits(),
  left: number = addressesLeft(),
): number {
  const each = threadFiles + filesToKeep(mostPooled, { openFiles });
  const byFiles = openFiles === Infinity ? Infinity : Math.floor((openFiles - ownFiles) / each);
  const byAddresses = Math.floor((left - workAddresses) / threadAddresses);
  return Math.max(0, Math.min(wanted, byFiles, byAddresses));
}

/**
 * Before a thread is started that nothing can stand in for; `what` it is. Throws stopError where V8 would end the
 * process for want of addresses, or where its module loader would wait for ever for want of files.
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

/** Start-up itself needs some: V8 ends the process, with a stack, where its heap gets no more. Throws stopError. */
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

/** What one can do about `EMFILE`. */
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
  const said = message.replace(/\s*\n\s*/g, " ");
  if (/\b(EMFILE|ENFILE)\b/.test(`${code} ${said}`)) {
    const name = /\bENFILE\b/.test(`${code} ${said}`) ? "ENFILE" : "EMFILE";
    const { path } = cause as NodeJS.ErrnoException;
    return stopError("too many open files", {
      ...(path !== undefined && { where: path }),
      hint: filesHint(name),
      cause,
    });
  }
  if (/\bEAGAIN\b/.test(`${code} ${said}`) && /spawn|fork|thread|worker/i.test(said)) return threadError(cause);
  if (/pthread_create failed|Resource temporarily unavailable|uv_thread_create/.test(said)) return threadError(cause);
  if (isOutOfMemory(code, said)) return stopError(`not enough memory (${short(said)})`, { hint: memoryHint(), cause });
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
