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
export function kindOf(found: Stats): string {
  if (found.isFile()) return "a file";
  if (found.isDirectory()) return "a folder";
  if (found.isFIFO()) return "a pipe (FIFO)";
  if (found.isSocket()) return "a socket";
  return found.isCharacterDevice() || found.isBlockDevice() ? "a device" : "no regular file";
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
  // Looked at before it is opened: a device may act on being opened, and whoever writes into a pipe would see its
  // reader come and go.
  requireKind(await withFsErrors(path, doing, () => stat(path)), path);
  return opened(path, doing, constants.O_RDONLY);
}

/** Opens a file for reading and appending, and makes it if it is not there. Throws like `openRegular`. */
export async function openForAppending(path: string, doing: string): Promise<RegularFile> {
  return opened(path, doing, constants.O_RDWR | constants.O_APPEND | constants.O_CREAT);
}

/** Makes a file, or empties one, for writing. Throws like `openRegular`, naming `shownAs`. */
export async function openForWriting(path: string, shownAs = path): Promise<FileHandle> {
  const { handle } = await opened(path, "write file", constants.O_WRONLY | constants.O_CREAT, shownAs);
  try {
    // Once it is known that this is a file.
    await withFsErrors(shownAs, "write file", () => handle.truncate(0));
    return handle;
  } catch (cause) {
    await handle.close();
    throw cause;
  }
}

async function opened(path: string, doing: string, flags: number, shownAs = path): Promise<RegularFile> {
  const handle = await withFsErrors(shownAs, doing, () => open(path, flags | O_NONBLOCK | O_NOCTTY));
  try {
    const found = await withFsErrors(shownAs, doing, () => handle.stat());
    requireKind(found, shownAs);
    return { handle, size: found.size };
  } catch (cause) {
    await handle.close();
    throw cause;
  }
}

/** Throws inputError, naming what was found, for anything but a regular file. */
export function requireKind(found: Stats, path: string): void {
  if (found.isFile()) return;
  throw inputError(`this is ${kindOf(found)}, expected ${found.isDirectory() ? "a file" : "a regular file"}`, {
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
    // One byte more than there should be: a file that is being written has it, and so have those of /proc, which say
    // that they are empty.
    const room = new Uint8Array(size + 1);
    let done = 0;
    for (;;) {
      const { bytesRead } = await withFsErrors(path, doing, () => handle.read(room, done, room.length - done, done));
      done += bytesRead;
      if (bytesRead === 0 || done > size) break;
    }
    if (done === size) return room.subarray(0, size);
    const found =
      done < size ? `file ended at byte ${done}, it had ${size}` : `file has more than the ${size} bytes it had`;
    throw inputError(`${found} when opened`, {
      where: path,
      hint: "something else is changing it: wait for that, or give a copy",
    });
  } finally {
    await handle.close();
  }
}

/** What is larger than the limit of its kind. */
export function tooLarge(where: string, found: string, maxBytes: number): UpcycleError {
  return inputError(`${found}, the limit for this is ${bytesText(maxBytes)}`, {
    where,
    hint: "is this the right file?",
  });
}

/** Text of bytes. Throws inputError if they are not UTF-8; a byte order mark of UTF-8 is dropped. */
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

/** Names of this process's own streams, or of another's: nobody means a file that takes the place of one. */
const streamNames = /^\/(dev\/(std(in|out|err)|fd\/\d+)|proc\/[^/]+\/(task\/\d+\/)?fd\/\d+)$/;

/**
 * A file that is made takes the place of what has its name, which must be an ordinary file. Throws inputError for
 * folders, pipes, devices and streams such as /dev/stdout, and where there is no folder to make it in.
 */
export async function requireOutputFile(path: string): Promise<void> {
  if (path === "") {
    throw inputError("the name of the file to make is empty", { hint: "is a variable of the shell not set?" });
  }
  const look = (name: string): Promise<Stats | null> => withFsErrors(path, "write file", () => statOrNull(name));
  const target = resolve(path);
  const found = await look(target);
  if (found !== null && (!found.isFile() || streamNames.test(target))) {
    const kind = found.isFile() ? "a stream" : kindOf(found);
    const hint = found.isDirectory() ? undefined : "name a file to be made; results on stdout can be redirected";
    throw inputError(`this is ${kind}, expected a file`, { where: path, hint });
  }
  if (found === null && !((await look(dirname(target)))?.isDirectory() ?? false)) {
    throw inputError("cannot write file: its folder does not exist", { where: path, hint: "make it first" });
  }
}

function statOrNull(path: string): Promise<Stats | null> {
  return stat(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return null;
    throw cause;
  });
}
