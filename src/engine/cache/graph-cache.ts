/**
 * Lowered graphs on disk, under what decides them: the graph's content and the code that lowers it. A cache never
 * fails: what cannot be read or written is as good as absent. onnxruntime opens them unoptimised, so nothing here
 * depends on its version or on the processor.
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { lstat, open, readdir, rename, rm, utimes } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { serialize } from "node:v8";
import { makeFolders } from "../../files/io/folders.js";
import { readWhole } from "../../files/io/open.js";

/** Bytes of all files together, beyond which those unused for longest are removed. */
const MOST_BYTES = 512 * 1024 ** 2;
/** A larger file holds data rather than structure. */
const MOST_BYTES_EACH = 64 * 1024 ** 2;
/** Age of a partial file whose writer must have been killed: nothing takes as long to write. */
const ABANDONED_MS = 3_600_000;
const BEGINNING = Buffer.from("upcycle graph ");
const MAGIC = Buffer.concat([BEGINNING, Buffer.from("2\n")]);
const DIGEST_BYTES = 32;
const SUFFIX = ".graph";
const PARTIAL = ".partial-";

/** What is kept on disk, by names. */
export interface GraphCache {
  /**
   * What is kept under this name, or undefined where there is nothing or where it is not, to the last bit, what was
   * written.
   */
  read(key: string): Promise<Uint8Array | undefined>;
  /** Keeps parts, one after the other, and removes the least recently used files beyond the limit. */
  write(key: string, parts: readonly Uint8Array[]): Promise<void>;
}

/**
 * Where graphs are kept: UPCYCLE_CACHE, else `upcycle/graphs` in XDG_CACHE_HOME or ~/.cache. Null where UPCYCLE_CACHE
 * is "off" or empty.
 */
export function graphCacheFolder(env: Readonly<Record<string, string | undefined>>): string | null {
  const { UPCYCLE_CACHE: own, XDG_CACHE_HOME: caches } = env;
  if (own !== undefined) return own === "" || own === "off" ? null : own;
  return join(caches === undefined || caches === "" ? join(homedir(), ".cache") : caches, "upcycle", "graphs");
}

/** The name of what plain data (a graph and its options) are lowered to. */
export function graphKey(content: unknown): string {
  return createHash("sha256").update(loweringCode()).update(serialize(content)).digest("hex");
}

let codeHash: string | undefined;

/** A hash of the code that lowers graphs: a version number would not change with every change of it. */
function loweringCode(): string {
  if (codeHash !== undefined) return codeHash;
  const hash = createHash("sha256");
  const folder = fileURLToPath(new URL("../../graph/onnx/", import.meta.url));
  for (const name of readdirSync(folder)
    .filter((file) => /\.[jt]s$/.test(file))
    .sort())
    hash
      .update(name)
      .update("\n")
      .update(readFileSync(join(folder, name)));
  return (codeHash = hash.digest("hex"));
}

const digest = (key: string, parts: readonly Uint8Array[]): Buffer =>
  parts.reduce((hash, part) => hash.update(part), createHash("sha256").update(key)).digest();

const partialName = /^\..+\.partial-\d+-\d+-[a-z0-9]*$/;

/**
 * The folder may be anyone's, and so may a file by such a name: ours begin as every version has begun them, as far as
 * they were written.
 */
async function isOurs(path: string): Promise<boolean> {
  try {
    const handle = await open(path, "r");
    try {
      const { bytesRead, buffer } = await handle.read(Buffer.alloc(BEGINNING.length), 0, BEGINNING.length, 0);
      return (
        BEGINNING.subarray(0, bytesRead).equals(buffer.subarray(0, bytesRead)) &&
        (bytesRead === BEGINNING.length || partialName.test(basename(path)))
      );
    } finally {
      await handle.close();
    }
  } catch {
    return false;
  }
}

/** Number of the next partial file of this thread. */
let nextPartial = 0;

/** The cache of lowered graphs in a folder, which is made when the first one is written. */
export function graphCache(folder: string, mostBytes = MOST_BYTES): GraphCache {
  const place = (key: string): string => join(folder, `${key}${SUFFIX}`);
  return {
    async read(key) {
      const path = place(key);
      try {
        const { buffer, byteLength } = await readWhole(path, MOST_BYTES_EACH + MAGIC.length + DIGEST_BYTES);
        const file = Buffer.from(buffer, 0, byteLength);
        const body = file.subarray(MAGIC.length + DIGEST_BYTES);
        if (
          !file.subarray(0, MAGIC.length).equals(MAGIC) ||
          !file.subarray(MAGIC.length, MAGIC.length + DIGEST_BYTES).equals(digest(key, [body]))
        )
          return undefined;
        const now = new Date();
        await utimes(path, now, now).catch(() => undefined);
        return body;
      } catch {
        return undefined;
      }
    },
    async write(key, parts) {
      const size = parts.reduce((sum, { length }) => sum + length, 0);
      if (size === 0 || size > Math.min(MOST_BYTES_EACH, mostBytes)) return;
      // Threads of a process share its id but not this counter.
      const partial = join(
        folder,
        `.${key}${PARTIAL}${process.pid}-${nextPartial++}-${Math.random().toString(36).slice(2)}`,
      );
      try {
        await makeFolders(folder);
        const handle = await open(partial, "wx");
        try {
          await handle.writev([MAGIC, digest(key, parts), ...parts]);
        } finally {
          await handle.close();
        }
        await rename(partial, place(key));
        await prune(folder, mostBytes);
      } catch {
        // A full disk or a folder that cannot be written.
        await rm(partial, { force: true }).catch(() => undefined);
      }
    },
  };
}

/** Files of the cache, whole or being written, with their sizes and the times of their last use. */
async function cacheFiles(
  folder: string,
): Promise<readonly { readonly name: string; readonly bytes: number; readonly usedMs: number }[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(SUFFIX) || partialName.test(name));
  const files = await Promise.all(
    names.map(async (name) => {
      const entry = await lstat(join(folder, name)).catch(() => null);
      return entry?.isFile() !== true ? [] : [{ name, bytes: entry.size, usedMs: entry.mtimeMs }];
    }),
  );
  return files.flat();
}

/** Removes the least recently used files beyond the limit, and partial files of writers that were killed. */
async function prune(folder: string, mostBytes: number): Promise<void> {
  let bytes = 0;
  const files = await cacheFiles(folder);
  for (const file of files.toSorted((a, b) => b.usedMs - a.usedMs)) {
    const partial = !file.name.endsWith(SUFFIX);
    if (!partial) bytes += file.bytes;
    if (partial ? file.usedMs >= Date.now() - ABANDONED_MS : bytes <= mostBytes) continue;
    const path = join(folder, file.name);
    if (await isOurs(path)) await rm(path, { force: true }).catch(() => undefined);
    else if (!partial) bytes -= file.bytes;
  }
}
