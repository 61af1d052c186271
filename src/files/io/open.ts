/**
 * The one place where files are opened: for reading, and for writing under a name that something else may have. What is
 * opened is a regular file, whatever stands under its name: a pipe (FIFO) would wait for its other end for ever, a
 * device has no end. `streams.ts` reads the inputs that may be pipes.
 */
import { constants, type Stats } from "node:fs";
import { open, stat, type FileHandle } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { inputError, type UpcycleError } from "../../base/errors.js";
import { bytes as bytesText } from "../../base/format.js";
import { withFsErrors } from "./fs-errors.js";

/**
 * Most bytes of what is read into memory as a whole. All are far above what is met in practice; a larger file is
 * something else under that name.
 */
export const sizeLimits = {
  /** Settings that programs write: config.json, adapter_config.json. */
  settings: 16e6,
  /** Settings that people write, as YAML: recipes, train and study files, tables of hardware. */
  yaml: 2e6,
  /** What grows with a model or a run: indices of shards, tokenizer.json, upcycle.json, results, fits, licences. */
  record: 256e6,
  /** Tables of losses, whose cells take some thirty times as much memory as their text. */
  table: 16e6,
  /** Prompts, one document of a text. A JavaScript string holds about twice as many characters. */
  text: 256e6,
  /** Logs of runs and journals, read line by line from one string. */
  log: 500e6,
  /** Files of one line: the Hub's token, the commit of a branch. */
  line: 64e3,
} as const;

// With it, opening a pipe does not wait for the other end. Windows has neither the flag nor such pipes.
const { O_NONBLOCK = 0, O_NOCTTY = 0 } = constants as { readonly O_NONBLOCK?: number; readonly O_NOCTTY?: number };

/** What stands under a name, in words. */
export function kindOf(entry: Stats): string {
  if (entry.isFile()) return "a file";
  if (entry.isDirectory()) return "a folder";
  if (entry.isFIFO()) return "a pipe (FIFO)";
  if (entry.isSocket()) return "a socket";
  return entry.isCharacterDevice() || entry.isBlockDevice() ? "a device" : "no regular file";
}

interface RegularFile {
  readonly handle: FileHandle;
  /** Bytes in the file when it was opened. */
  readonly size: number;
}

/**
 * Opens a regular file for reading. Throws inputError for what is missing, forbidden or of another kind, which is
 * named; never waits.
 */
export async function openRegular(path: string, doing = "open file"): Promise<RegularFile> {
  // The name is looked up before the file is opened: a device may act on being opened, and whoever writes into a pipe
  // would see its reader come and go.
  requireKind(await withFsErrors(path, doing, () => stat(path)), path);
  return openWith(constants.O_RDONLY, path, doing);
}

/** Opens a file for reading and appending, and makes it if it is not there. Throws like `openRegular`. */
export async function openForAppending(path: string, doing: string): Promise<RegularFile> {
  return openWith(constants.O_RDWR | constants.O_APPEND | constants.O_CREAT, path, doing);
}

/** Makes a file, or empties one, for writing. Throws like `openRegular`, naming `shownAs`. */
export async function openForWriting(path: string, shownAs = path): Promise<FileHandle> {
  const { handle } = await openWith(constants.O_WRONLY | constants.O_CREAT, path, "write file", shownAs);
  try {
    // It is emptied only now that it is known to be a file.
    await withFsErrors(shownAs, "write file", () => handle.truncate(0));
    return handle;
  } catch (cause) {
    await handle.close();
    throw cause;
  }
}

/** Opens what must be a regular file, with these flags. */
async function openWith(flags: number, path: string, doing: string, shownAs = path): Promise<RegularFile> {
  const handle = await withFsErrors(shownAs, doing, () => open(path, flags | O_NONBLOCK | O_NOCTTY));
  try {
    const info = await withFsErrors(shownAs, doing, () => handle.stat());
    requireKind(info, shownAs);
    return { handle, size: info.size };
  } catch (cause) {
    await handle.close();
    throw cause;
  }
}

/** Throws inputError, naming what was found, for anything but a regular file. */
export function requireKind(entry: Stats, path: string): void {
  if (entry.isFile()) return;
  throw inputError(`this is ${kindOf(entry)}, expected ${entry.isDirectory() ? "a file" : "a regular file"}`, {
    where: path,
  });
}

/**
 * The whole of a regular file. Throws inputError like `openRegular`, for more than `maxBytes`, and for a file that
 * changes its size meanwhile.
 */
export async function readWhole(path: string, maxBytes: number, doing = "read file"): Promise<Uint8Array<ArrayBuffer>> {
  const { handle, size } = await openRegular(path, doing);
  try {
    if (size > maxBytes) throw tooLarge(path, `file has ${bytesText(size)}`, maxBytes);
    // One byte more than there should be is asked for: a file that is being written has it, and so have those of /proc,
    // which say that they are empty.
    const memory = new Uint8Array(size + 1);
    let done = 0;
    for (;;) {
      const { bytesRead } = await withFsErrors(path, doing, () =>
        handle.read(memory, done, memory.length - done, done),
      );
      done += bytesRead;
      if (bytesRead === 0 || done > size) break;
    }
    if (done === size) return memory.subarray(0, size);
    const change =
      done < size ? `file ended at byte ${done}, it had ${size}` : `file has more than the ${size} bytes it had`;
    throw inputError(`${change} when opened`, {
      where: path,
      hint: "something else is changing it: wait for that, or give a copy",
    });
  } finally {
    await handle.close();
  }
}

/** The error for what is larger than the limit of its kind; `size` says so, such as `file has 2 GB`. */
export function tooLarge(where: string, size: string, maxBytes: number): UpcycleError {
  return inputError(`${size}, the limit for this is ${bytesText(maxBytes)}`, {
    where,
    hint: "is this the right file?",
  });
}

/**
 * The text of bytes; a byte order mark of UTF-8 is dropped. Throws inputError if they are not UTF-8, with the message
 * `otherwise` unless they are UTF-16.
 */
export function utf8Text(
  bytes: Uint8Array,
  where: string,
  otherwise = "file is not UTF-8 text",
  hint?: string,
): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    if (!isUtf16(bytes)) throw inputError(otherwise, { where, hint, cause });
    const conversion = "convert it first, for example with iconv -f utf-16 -t utf-8";
    throw inputError("this is UTF-16 text, expected UTF-8", { where, hint: conversion, cause });
  }
}

function isUtf16([first, second]: Uint8Array): boolean {
  return (first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff);
}

/** Names of this process's own streams, or of another's: nobody wants a file to take the place of one. */
const streamNames = /^\/(dev\/(std(in|out|err)|fd\/\d+)|proc\/[^/]+\/(task\/\d+\/)?fd\/\d+)$/;

/**
 * Throws inputError where a file that is to be made would take the place of a folder, a pipe, a device or a stream such
 * as /dev/stdout, and where there is no folder to make it in.
 */
export async function requireOutputFile(path: string): Promise<void> {
  if (path === "") {
    throw inputError("the name of the file to make is empty", { hint: "is a variable of the shell not set?" });
  }
  const look = (name: string): Promise<Stats | null> => withFsErrors(path, "write file", () => statOrNull(name));
  const target = resolve(path);
  const existing = await look(target);
  if (existing !== null && (!existing.isFile() || streamNames.test(target))) {
    const kind = existing.isFile() ? "a stream" : kindOf(existing);
    const hint = existing.isDirectory() ? undefined : "name a file to be made; results on stdout can be redirected";
    throw inputError(`this is ${kind}, expected a file`, { where: path, hint });
  }
  if (existing === null && !((await look(dirname(target)))?.isDirectory() ?? false)) {
    throw inputError("cannot write file: its folder does not exist", { where: path, hint: "make it first" });
  }
}

function statOrNull(path: string): Promise<Stats | null> {
  return stat(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return null;
    throw cause;
  });
}
