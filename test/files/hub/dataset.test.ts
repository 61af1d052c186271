import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fetchSplit, type DatasetSplit } from "../../../src/files/hub/dataset.js";
import { temporaryFolder } from "../io/temporary.js";
import { commit, fakeHub, listed, type FakeHub } from "./server.js";

const cacheDir = temporaryFolder();
const files: Readonly<Record<string, Uint8Array>> = {
  "anatomy/test/0000.parquet": new TextEncoder().encode("first part"),
  "anatomy/test/0001.parquet": new TextEncoder().encode("second part"),
  "en/c4-validation.00000-of-00008.json.gz": new TextEncoder().encode("packed"),
};
let hub: FakeHub;

/** What the Hub says of the one data set that it has. */
beforeAll(async () => {
  hub = await fakeHub({});
  hub.trouble.instead = (request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "", "http://hub").pathname);
    const json = (value: unknown): boolean => {
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value));
      return true;
    };
    if (/^\/api\/datasets\/org\/quiz\/revision\/(main|refs\/convert\/parquet)$/.test(path))
      return json({ _id: "1", id: "org/quiz", sha: commit, private: false, downloads: 0, gated: false, likes: 0 });
    const [, folder] = new RegExp(`^/api/datasets/org/quiz/tree/${commit}/?(.*)$`).exec(path) ?? [];
    const inFolder = Object.entries(files).filter(([name]) => name.slice(0, name.lastIndexOf("/")) === folder);
    if (folder !== undefined && inFolder.length > 0) return json(inFolder.map(listed));
    const [, name] = new RegExp(`^/datasets/org/quiz/resolve/${commit}/(.+)$`).exec(path) ?? [];
    const content = name === undefined ? undefined : files[name];
    if (content === undefined) return false;
    response.writeHead(200, { "content-length": content.length }).end(content);
    return true;
  };
});
afterAll(() => hub.close());

const split = (changes: Partial<DatasetSplit> = {}): DatasetSplit => ({
  path: "org/quiz",
  name: "anatomy",
  split: "test",
  files: [],
  ...changes,
});
const settings = (offline = false) => ({ endpoint: hub.endpoint, cacheDir, token: undefined, offline });
const limits = { retryMs: 1 };

describe("a split of the Hub", () => {
  it("comes into the cache of huggingface_hub, all its parts in order, once", async () => {
    const paths = await fetchSplit(split(), { settings: settings(), limits });
    expect(paths.map((path) => readFileSync(path, "utf8"))).toEqual(["first part", "second part"]);
    expect(paths[0]).toBe(join(cacheDir, "datasets--org--quiz/snapshots", commit, "anatomy/test/0000.parquet"));
    expect(readFileSync(join(cacheDir, "datasets--org--quiz/refs/refs/convert/parquet"), "utf8")).toBe(commit);
    const before = hub.requests.length;
    expect(await fetchSplit(split(), { settings: settings(), limits })).toEqual(paths);
    expect(hub.requests.slice(before).filter((request) => request.includes("/resolve/"))).toEqual([]);
    expect(await fetchSplit(split(), { settings: settings(true) })).toEqual(paths);
    expect(readdirSync(join(cacheDir, "datasets--org--quiz/blobs"))).toHaveLength(2);
  });

  it("is the files that a task names itself", async () => {
    const named = ["en/c4-validation.00000-of-00008.json.gz"];
    const [path] = await fetchSplit(split({ files: named }), { settings: settings(), limits });
    expect(readFileSync(path!, "utf8")).toBe("packed");
  });

  it("is refused where the data set does not have it, or nothing may be asked", async () => {
    await expect(fetchSplit(split({ name: "botany" }), { settings: settings(), limits })).rejects.toThrow(
      /no folder botany\/test on its branch refs\/convert\/parquet/,
    );
    await expect(fetchSplit(split({ split: "dev" }), { settings: settings(true) })).rejects.toThrow(/HF_HUB_OFFLINE/);
    expect(existsSync(join(cacheDir, "datasets--org--quiz/.lock"))).toBe(false);
  });
});
