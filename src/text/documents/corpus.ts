/** Reads text to train on: documents with names, one at a time, in the same order on every machine. */
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { createGunzip } from "node:zlib";
import { valueAt } from "../../base/at.js";
import { inputError, type UpcycleError } from "../../base/errors.js";
import { isNestedTooDeeply, nestedTooDeeply } from "../../files/formats/duplicate-key.js";
import { fsError, withFsErrors } from "../../files/io/fs-errors.js";
import { sizeLimits, openRegular, readWhole, utf8Text } from "../../files/io/open.js";
import type { CorpusDocument } from "./document.js";
import { readParquetText } from "./parquet.js";

export type { CorpusDocument } from "./document.js";

/** Texts that come along (`texts/`), so that a first run needs no download. */
type BuiltinCorpus = "sotu" | "moby-dick";

/** Where documents are read from. */
export type CorpusSource =
  | { readonly builtin: BuiltinCorpus }
  /**
   * A .txt, .jsonl, .jsonl.gz or .parquet file, or a folder of such; `field` names the field of JSON lines or the
   * column of Parquet that has the text, by default "text".
   */
  | { readonly path: string; readonly field?: string | undefined };

/** Lines of `{"name": ..., "text": ...}`, in the order of their names; the same folder from src/ and from dist/. */
const builtinFiles: Readonly<Record<BuiltinCorpus, string>> = {
  sotu: fileURLToPath(new URL("../../../texts/sotu.jsonl.gz", import.meta.url)),
  "moby-dick": fileURLToPath(new URL("../../../texts/moby-dick.jsonl.gz", import.meta.url)),
};

/** Names of the texts that need no download. */
export const builtinCorpora = Object.keys(builtinFiles) as readonly BuiltinCorpus[];

/** The file of a built-in text. Throws RangeError for another name. */
export const builtinFile = (name: BuiltinCorpus): string => valueAt(builtinFiles, name);

const extensions = [".txt", ".jsonl", ".jsonl.gz", ".parquet"] as const;

/** Longest document in bytes. */
const LONGEST_DOCUMENT = sizeLimits.text;

/**
 * All documents of a source. Empty documents (an empty file of a folder, an empty text in .jsonl, a blank line) are
 * left out; a byte order mark at the start of a document is dropped.
 * Throws an input error with file and line for: nothing there, an unknown extension, text that is not UTF-8, a line
 * that is not JSON or has no such field, broken gzip, and a source without any document.
 */
export async function* readDocuments(
  source: CorpusSource,
  { keepEmpty = false }: { /** Yields empty documents too. */ readonly keepEmpty?: boolean } = {},
): AsyncGenerator<CorpusDocument> {
  if ("builtin" in source) {
    yield* readBuiltin(source.builtin);
    return;
  }
  const { files, where, field } = await listFiles(source);
  let count = 0;
  for (const file of files) {
    for await (const document of documentsOf(file, field)) {
      if (document.text === "" && !keepEmpty) continue;
      count++;
      yield document;
    }
  }
  if (count === 0) throw inputError("holds no text: every document is empty", { where, hint: "give a file with text" });
}

function documentsOf(file: string, field: string): AsyncGenerator<CorpusDocument> {
  if (file.endsWith(".txt")) return readTextFile(file);
  return file.endsWith(".parquet") ? readParquetText(file, field) : readJsonLines(file, field);
}

/** The files that a path stands for, in the order in which they are read. Throws inputError like `readDocuments`. */
export async function corpusFiles(path: string): Promise<readonly string[]> {
  return (await listFiles({ path })).files;
}

/** Yields the documents of a built-in text, under the names that they have in its file. */
async function* readBuiltin(name: BuiltinCorpus): AsyncGenerator<CorpusDocument> {
  const file = Object.hasOwn(builtinFiles, name) ? builtinFiles[name] : undefined;
  if (file === undefined)
    throw inputError(`unknown built-in text "${String(name)}"`, { hint: `choose one of ${builtinCorpora.join(", ")}` });
  for await (const line of splitLines(file)) yield JSON.parse(decodeUtf8(line, file)) as CorpusDocument;
}

/** The files of a source. */
interface SourceFiles {
  /** In the order in which they are read. */
  readonly files: readonly string[];
  /** What errors call the source. */
  readonly where: string;
  readonly field: string;
}

async function listFiles(source: Extract<CorpusSource, { path: string }>): Promise<SourceFiles> {
  const { path, field = "text" } = source;
  const info = await withFsErrors(path, "read text", () => stat(path));
  if (info.isDirectory()) return { files: await listFolder(path), where: path, field };
  requireTextFile(path);
  return { files: [path], where: path, field };
}

async function listFolder(path: string): Promise<string[]> {
  const entries = await withFsErrors(path, "read folder", () => readdir(path));
  const names = entries.filter((name) => hasTextExtension(name) && !name.startsWith("."));
  if (names.length === 0)
    throw inputError(`the folder has no file that ends in ${extensions.join(", ")}`, { where: path });
  return inOrder(path, names);
}

function hasTextExtension(name: string): boolean {
  return extensions.some((extension) => name.endsWith(extension));
}

/** Throws inputError for a file whose name is not that of a text. */
function requireTextFile(path: string): void {
  if (/\.(bin|idx)$/.test(path)) {
    throw inputError("this holds tokens, not text", {
      where: path,
      hint: "tokenised data goes into text.mix of a train file",
    });
  }
  if (!hasTextExtension(path))
    throw inputError(`unknown kind of text file, expected ${extensions.join(", ")} or a folder`, { where: path });
}

/** Paths of files, sorted by code units: the same everywhere, unlike a locale's order or the order of a directory. */
function inOrder(folder: string, names: readonly string[]): string[] {
  return [...names].sort().map((name) => join(folder, name));
}

/** Reads the whole file as one document. */
async function* readTextFile(file: string): AsyncGenerator<CorpusDocument> {
  const { size } = await withFsErrors(file, "read text", () => stat(file));
  if (size > LONGEST_DOCUMENT) throw tooLong(file, `the file has ${size} bytes`);
  const bytes = await readWhole(file, LONGEST_DOCUMENT, "read text");
  yield { name: basename(file), text: decodeUtf8(bytes, file) };
}

/** Reads one document per line that is not blank; memory holds one line at a time. */
async function* readJsonLines(file: string, field: string): AsyncGenerator<CorpusDocument> {
  let line = 0;
  for await (const bytes of splitLines(file)) {
    line++;
    const where = `${file}:${line}`;
    const json = decodeUtf8(bytes, where);
    if (json.trim() === "") continue;
    yield { name: `${basename(file)}:${line}`, text: textOfLine(json, field, where) };
  }
}

function textOfLine(json: string, field: string, where: string): string {
  if (isNestedTooDeeply(json)) throw inputError(nestedTooDeeply, { where });
  let record: unknown;
  try {
    record = JSON.parse(json);
  } catch (cause) {
    throw inputError("the line is not JSON", {
      where,
      hint: "a .jsonl file holds one JSON object on each line",
      cause,
    });
  }
  if (typeof record !== "object" || record === null || Array.isArray(record)) {
    throw inputError("the line is not a JSON object", { where, hint: `expected {"${field}": "..."}` });
  }
  const text = Object.hasOwn(record, field) ? (record as Record<string, unknown>)[field] : undefined;
  if (typeof text === "string") return text;
  const keys = Object.keys(record).slice(0, 8).join(", ") || "none";
  if (text === undefined)
    throw inputError(`the line has no field "${field}"`, { where, hint: `its fields are: ${keys}` });
  throw inputError(`field "${field}" is ${text === null ? "null" : `a ${typeof text}`}, expected a string`, { where });
}

/**
 * The lines of a file, unpacked where its name ends in .gz, without their line feeds. Throws inputError for what cannot
 * be read or unpacked, and for a line beyond the longest document.
 */
export async function* splitLines(file: string): AsyncGenerator<Buffer> {
  const { handle } = await openRegular(file, "read text");
  const raw = handle.createReadStream();
  let stream: Readable = raw;
  if (file.endsWith(".gz")) {
    const gunzip = createGunzip();
    raw.on("error", (error) => gunzip.destroy(error));
    stream = raw.pipe(gunzip);
  }
  // The parts of a line that spans several chunks wait here. They are joined once, so that a long line takes time in
  // proportion to its length.
  let lineParts: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      let start = 0;
      for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
        yield Buffer.concat([...lineParts, chunk.subarray(start, end)]);
        lineParts = [];
        length = 0;
        start = end + 1;
      }
      lineParts.push(chunk.subarray(start));
      length += chunk.length - start;
      if (length > LONGEST_DOCUMENT) throw tooLong(file, `a line has over ${LONGEST_DOCUMENT} bytes`);
    }
  } catch (cause) {
    throw unreadable(file, cause);
  } finally {
    raw.destroy();
    await handle.close().catch(() => undefined);
  }
  if (length > 0) yield Buffer.concat(lineParts);
}

/** The text of bytes. Throws inputError for what is not UTF-8. */
export function decodeUtf8(bytes: Uint8Array, where: string): string {
  return utf8Text(bytes, where, "the text is not valid UTF-8", "convert it first, for example with iconv -t utf-8");
}

/** The error for a document above the limit; `size` says so, such as `the file has 5 bytes`. */
function tooLong(where: string, size: string): UpcycleError {
  return inputError(`${size}, the limit for one document is ${LONGEST_DOCUMENT}`, {
    where,
    hint: "cut it into several documents, for example one per line of a .jsonl file",
  });
}

/** The error for what the system or gzip threw; errors of ours pass through. */
function unreadable(where: string, cause: unknown): UpcycleError {
  const code = (cause as { code?: unknown }).code;
  if (typeof code === "string" && code.startsWith("Z_")) {
    return inputError(`the gzip data is broken or cut short (${code})`, {
      where,
      hint: "fetch or pack it again",
      cause,
    });
  }
  return fsError(cause, where, "read text");
}
