/**
 * Optimised graphs on disk. Most of opening a large graph is onnxruntime's search for rewrites, whose outcome depends on nothing but the graph, the build of onnxruntime,
 * its options and the processor: all of which are the name under which the outcome is kept. A cache never fails: what cannot be read or written is as good as absent.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { cpus, homedir } from "node:os";
import { join } from "node:path";

/** Bytes of all files together, beyond which those unused for longest are removed. */
const MOST_BYTES = 512 * 1024 ** 2;
/** A larger outcome holds data rather than structure. */
const MOST_BYTES_EACH = 64 * 1024 ** 2;
/** Of a writer that was killed: nothing takes as long to write. */
const ABANDONED_MS = 3_600_000;
const MAGIC = Buffer.from("upcycle graph 1\n");
const DIGEST_BYTES = 32;
const SUFFIX = ".graph";
const PARTIAL = ".partial-";

export interface GraphCache {
  /** The outcome kept under this name, or undefined where there is none or where it is not, to the last bit, what was written. */
  read(key: string): Promise<Uint8Array | undefined>;
  /** Calls `work` with a path to write an outcome to, keeps the outcome, and removes the least recently used ones beyond the limit. */
  write<T>(key: string, work: (path: string) => Promise<T>): Promise<T>;
}

/** Where outcomes are kept: UPCYCLE_CACHE, else `upcycle/graphs` in XDG_CACHE_HOME or ~/.cache. Null where UPCYCLE_CACHE is "off" or empty. */
export function graphCacheFolder(env: Readonly<Record<string, string | undefined>>): string | null {
  const { UPCYCLE_CACHE: own, XDG_CACHE_HOME: caches } = env;
  if (own !== undefined) return own === "" || own === "off" ? null : own;
  return join(caches === undefined || caches === "" ? join(homedir(), ".cache") : caches, "upcycle", "graphs");
}

/** The name of a graph's outcome. `settings` are all that decides it beside the graph and this machine. */
export function graphKey(graph: Uint8Array, settings: unknown): string {
  return createHash("sha256").update(JSON.stringify([settings, process.platform, process.arch, processor()])).update("\n").update(graph).digest("hex");
}

let known: string | undefined;

/** Model and, where the system tells them, instruction sets: a hypervisor may hide some of a model's. */
function processor(): string {
  if (known !== undefined) return known;
  let features = "";
  try {
    features = /^(?:flags|Features)\s*:.*$/m.exec(readFileSync("/proc/cpuinfo", "latin1"))?.[0] ?? "";
  } catch {
    // Not Linux: the model has to do.
  }
  return (known = `${cpus()[0]?.model} ${features}`);
}

const digest = (key: string, body: Uint8Array): Buffer => createHash("sha256").update(key).update(body).digest();

let written = 0;

export function graphCache(folder: string, mostBytes = MOST_BYTES): GraphCache {
  const place = (key: string): string => join(folder, `${key}${SUFFIX}`);
  return {
    async read(key) {
      const path = place(key);
      try {
        const file = await readFile(path);
        const body = file.subarray(MAGIC.length + DIGEST_BYTES);
        if (!file.subarray(0, MAGIC.length).equals(MAGIC) || !file.subarray(MAGIC.length, MAGIC.length + DIGEST_BYTES).equals(digest(key, body))) return undefined;
        const now = new Date();
        await utimes(path, now, now).catch(() => undefined);
        return body;
      } catch {
        return undefined;
      }
    },
    async write(key, work) {
      // Threads of a process share its id but not this counter.
      const partial = join(folder, `.${key}${PARTIAL}${process.pid}-${written++}-${Math.random().toString(36).slice(2)}`);
      try {
        await mkdir(folder, { recursive: true });
        await (await open(partial, "wx")).close();
      } catch {
        // No file is asked for where none can be made.
        return work("");
      }
      try {
        const result = await work(partial);
        await keep(key, partial).catch(() => undefined);
        return result;
      } finally {
        for (const path of [partial, `${partial}-kept`]) await rm(path, { force: true }).catch(() => undefined);
      }
    },
  };

  async function keep(key: string, partial: string): Promise<void> {
    const body = await readFile(partial);
    if (body.length === 0 || body.length > Math.min(MOST_BYTES_EACH, mostBytes)) return;
    const handle = await open(`${partial}-kept`, "wx");
    try {
      await handle.writev([MAGIC, digest(key, body), body]);
    } finally {
      await handle.close();
    }
    await rename(`${partial}-kept`, place(key));
    await prune();
  }

  async function prune(): Promise<void> {
    const names = (await readdir(folder)).filter((name) => name.endsWith(SUFFIX) || name.includes(PARTIAL));
    const files = await Promise.all(names.map(async (name) => {
      const found = await stat(join(folder, name)).catch(() => null);
      return found === null ? [] : [{ name, bytes: found.size, at: found.mtimeMs }];
    }));
    let bytes = 0;
    for (const file of files.flat().sort((a, b) => b.at - a.at)) {
      const partial = !file.name.endsWith(SUFFIX);
      if (!partial) bytes += file.bytes;
      if (partial ? file.at < Date.now() - ABANDONED_MS : bytes > mostBytes) await rm(join(folder, file.name), { force: true }).catch(() => undefined);
    }
  }
}
