/**
 * Pipes, devices and links that lead nowhere in the place of a model folder's files: each is named at once, and nothing
 * waits.
 */
import { copyFileSync, mkdirSync, readdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { findCarried } from "../../../src/files/checkpoint/copy.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { readParentCard } from "../../../src/surgery/convert/parent-card.js";
import { readRecord } from "../../../src/surgery/convert/record.js";
import { readRuns } from "../../../src/laws/points/runs.js";
import { hubSettings } from "../../../src/files/hub/settings.js";
import { lawById } from "../../../src/laws/fitting/catalogue.js";
import { graphCache } from "../../../src/engine/cache/graph-cache.js";
import { openTokenizer } from "../../../src/text/tokenizer/load.js";
import { readMetrics } from "../../../src/train/records.js";
import { hasSpecialFiles, makeFifo } from "../io/special.js";
import { temporaryFolder } from "../io/temporary.js";
import { golden } from "../../support/golden.js";
import { failure } from "./folders.js";

const root = temporaryFolder();
let count = 0;

/** A copy of a small model, with something else in the place of one file. */
function model(name: string, replace: (path: string) => unknown): string {
  const dir = join(root, String(count++));
  mkdirSync(dir);
  for (const file of readdirSync(golden("dense/llama")))
    copyFileSync(join(golden("dense/llama"), file), join(dir, file));
  rmSync(join(dir, name), { force: true });
  replace(join(dir, name));
  return dir;
}

const pipe = "this is a pipe (FIFO), expected a regular file";
const messageOf = async (name: string, promise: Promise<unknown>): Promise<string> =>
  (await failure(promise)).line.split(`${name}: `).at(-1) ?? "";

describe.skipIf(!hasSpecialFiles)("a pipe in a model folder", () => {
  const readers: readonly (readonly [string, (dir: string) => Promise<unknown>])[] = [
    ["config.json", openCheckpoint],
    ["model.safetensors", openCheckpoint],
    ["tokenizer.json", openTokenizer],
    ["tokenizer.json", findCarried],
    ["tokenizer_config.json", findCarried],
    ["generation_config.json", findCarried],
    ["LICENSE", findCarried],
    ["upcycle.json", readRecord],
    ["adapter_config.json", (dir) => openCheckpoint({ model: golden("dense/llama"), adapter: dir })],
    ["metrics.jsonl", readMetrics],
    ["result.json", (dir) => readRuns(dir, lawById("chinchilla")!)],
  ];
  it.each(readers)("as %s is refused as a pipe", async (name, read) => {
    const dir = model(name, makeFifo);
    expect(await messageOf(name, read(dir))).toBe(pipe);
  });

  it("as the index of the shards is refused as a pipe", async () => {
    const dir = model("model.safetensors", () => undefined);
    makeFifo(join(dir, "model.safetensors.index.json"));
    expect(await messageOf("model.safetensors.index.json", openCheckpoint(dir))).toBe(pipe);
  });

  it("as its card says nothing, and as one of the files of others is as good as absent", async () => {
    expect((await readParentCard(model("README.md", makeFifo), {})).license).toBeNull();
    makeFifo(join(root, "token"));
    expect((await hubSettings({ HF_TOKEN_PATH: join(root, "token"), HF_HOME: root })).token).toBeUndefined();
    makeFifo(join(root, "key.graph"));
    expect(await graphCache(root).read("key")).toBeUndefined();
  });

  it("as the folder itself is refused by what it is", async () => {
    const fifo = makeFifo(join(root, "folder"));
    expect((await failure(openCheckpoint(fifo))).line).toBe(`${fifo}: this is a pipe (FIFO), expected a model folder`);
    expect((await failure(openCheckpoint("/dev/null"))).line).toBe(
      "/dev/null: this is a device, expected a model folder",
    );
  });
});

describe("a link that leads nowhere", () => {
  it.each(["config.json", "model.safetensors"])("as %s is called one", async (name) => {
    const dir = model(name, (path) => symlinkSync("blobs/gone", path));
    expect(await messageOf(name, openCheckpoint(dir))).toBe(
      "this is a link to blobs/gone, which is not there; put that back, or remove the link",
    );
  });

  it("as the tokenizer, and as the folder", async () => {
    const dir = model("tokenizer.json", (path) => symlinkSync("gone", path));
    expect(await messageOf("tokenizer.json", openTokenizer(dir))).toContain(
      "this is a link to gone, which is not there",
    );
    symlinkSync("gone", join(root, "nowhere"));
    expect((await failure(openCheckpoint(join(root, "nowhere")))).line).toContain(
      "nowhere: this is a link to gone, which is not there",
    );
  });
});

describe("files of a model folder", () => {
  it("that are larger than any of their kind are not read", async () => {
    const huge = (path: string): void => {
      writeFileSync(path, "");
      truncateSync(path, 2 ** 40);
    };
    for (const [name, read] of [
      ["config.json", openCheckpoint],
      ["tokenizer.json", openTokenizer],
      ["LICENSE", findCarried],
    ] as const) {
      expect(await messageOf(name, read(model(name, huge)))).toMatch(
        /^(file has 1.1 TB, the limit for this is (16|256) MB|the file has 1.1 TB, a tokenizer at most 256 MB)/,
      );
    }
  });

  it.each([
    ["an empty one", "", "the file is empty, expected JSON"],
    [
      "UTF-16",
      Buffer.from("\ufeff{}", "utf16le"),
      "this is UTF-16 text, expected UTF-8; convert it first, for example with iconv -f utf-16 -t utf-8",
    ],
    ["bytes", Uint8Array.of(0x7b, 0xff), "file is not UTF-8 text"],
  ])("%s as config.json", async (_, content, line) => {
    expect(
      await messageOf("config.json", openCheckpoint(model("config.json", (path) => writeFileSync(path, content)))),
    ).toBe(line);
  });
});
