import { chmod, mkdir, mkdtemp, readdir, readFile, rm, truncate, utimes, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { graphCache, graphCacheFolder, graphKey } from "../../../src/engine/cache/graph-cache.js";

let folder: string;
beforeEach(async () => void (folder = await mkdtemp(join(tmpdir(), "graphs-"))));
afterEach(() => rm(folder, { recursive: true, force: true }));

const bytes = (size: number, value = 7): Uint8Array => new Uint8Array(size).fill(value);
const put = (cache = graphCache(folder), key = "a", data = bytes(100)): Promise<void> => cache.write(key, [data]);

describe("where lowered graphs are kept", () => {
  it("is what UPCYCLE_CACHE names, else the user's cache, else nowhere", () => {
    expect(graphCacheFolder({ UPCYCLE_CACHE: "/x", XDG_CACHE_HOME: "/y" })).toBe("/x");
    expect(graphCacheFolder({ XDG_CACHE_HOME: "/y" })).toBe(join("/y", "upcycle", "graphs"));
    expect(graphCacheFolder({ XDG_CACHE_HOME: "" })).toBe(join(homedir(), ".cache", "upcycle", "graphs"));
    expect(graphCacheFolder({ UPCYCLE_CACHE: "off" })).toBeNull();
    expect(graphCacheFolder({ UPCYCLE_CACHE: "" })).toBeNull();
  });

  it("is off while tests run", () => expect(graphCacheFolder(process.env)).toBeNull());

  it("has a name for each graph and setting", () => {
    const graph = (by: number) => ({
      nodes: [{ prim: "scale", in: [0], out: [1], attrs: { by } }],
      values: [{ dtype: "f32", shape: [2] }],
    });
    const names = [
      graphKey([graph(1), {}]),
      graphKey([graph(2), {}]),
      graphKey([graph(1), { transposed: new Set([1]) }]),
      graphKey([graph(1), { transposed: new Set([0]) }]),
    ];
    expect(new Set(names).size).toBe(4);
    expect(graphKey([graph(1), {}])).toBe(names[0]);
  });
});

describe("a cache of lowered graphs", () => {
  it("gives back what was written and leaves nothing beside it", async () => {
    const cache = graphCache(folder);
    expect(await cache.read("a")).toBeUndefined();
    await put(cache);
    expect(new Uint8Array((await cache.read("a"))!)).toEqual(bytes(100));
    expect(await readdir(folder)).toEqual(["a.graph"]);
  });

  it("does not take a file that is cut short, changed in any byte, or another graph's, and replaces it", async () => {
    const cache = graphCache(folder);
    const path = join(folder, "a.graph");
    await put(cache);
    const good = await readFile(path);
    for (let i = 0; i < good.length; i++) {
      const bad = Buffer.from(good);
      bad[i]! ^= 1;
      await writeFile(path, bad);
      expect(await cache.read("a")).toBeUndefined();
    }
    for (const length of [good.length - 1, 40, 0]) {
      await writeFile(path, good);
      await truncate(path, length);
      expect(await cache.read("a")).toBeUndefined();
    }
    await writeFile(join(folder, "b.graph"), good);
    expect(await cache.read("b")).toBeUndefined();
    await put(cache);
    expect(await readFile(path)).toEqual(good);
  });

  it("does without a folder that cannot be written", async () => {
    await writeFile(join(folder, "file"), "");
    const cache = graphCache(join(folder, "file", "graphs"));
    await put(cache);
    expect(await cache.read("a")).toBeUndefined();
  });

  it.skipIf(process.getuid?.() === 0)("does without a folder that is read-only", async () => {
    await chmod(folder, 0o500);
    await put();
    expect(await readdir(folder)).toEqual([]);
  });

  it("joins parts, and keeps nothing that is empty or too large", async () => {
    const cache = graphCache(folder, 400);
    await cache.write("a", [bytes(3, 1), bytes(2, 2)]);
    expect([...(await cache.read("a"))!]).toEqual([1, 1, 1, 2, 2]);
    await cache.write("b", []);
    await put(cache, "c", bytes(401));
    expect(await readdir(folder)).toEqual(["a.graph"]);
  });

  it("removes what was unused for longest, and what killed writers left", async () => {
    const cache = graphCache(folder, 400);
    const ago = async (name: string, hours: number): Promise<void> => {
      const then = new Date(Date.now() - hours * 3_600_000);
      await utimes(join(folder, name), then, then);
    };
    await put(cache, "a");
    await put(cache, "b");
    await ago("a.graph", 3);
    await ago("b.graph", 2);
    await cache.read("a");
    await writeFile(join(folder, ".c.partial-1-0-x"), "");
    await ago(".c.partial-1-0-x", 2);
    await writeFile(join(folder, ".d.partial-1-0-x"), "");
    await writeFile(join(folder, "notes.txt"), "mine");
    await put(cache, "e");
    expect((await readdir(folder)).sort()).toEqual([".d.partial-1-0-x", "a.graph", "e.graph", "notes.txt"]);
  });

  it("leaves what others have put into the folder, whatever it is called", async () => {
    const theirs = ["social.graph", ".thesis.partial-1-0-x", "notes.partial-2", `${"0".repeat(64)}.graph`];
    const then = new Date(Date.now() - 9 * 3_600_000);
    for (const name of theirs) {
      await writeFile(join(folder, name), bytes(300));
      await utimes(join(folder, name), then, then);
    }
    await mkdir(join(folder, "folder.graph"));
    const cache = graphCache(folder, 400);
    await put(cache, "a");
    await put(cache, "b");
    expect((await readdir(folder)).sort()).toEqual([...theirs, "a.graph", "b.graph", "folder.graph"].sort());
  });

  it("serves writers of one name at once", async () => {
    const cache = graphCache(folder);
    await Promise.all(Array.from({ length: 8 }, () => put(cache, "a", bytes(50_000))));
    expect(new Uint8Array((await cache.read("a"))!)).toEqual(bytes(50_000));
    expect(await readdir(folder)).toEqual(["a.graph"]);
  });
});
