/** Conversions at work, stopped and killed, as the studio finds them. */
import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { unfinishedName } from "../../../src/files/io/resumable-directory.js";
import { ConversionShelf } from "../../../src/studio/folders/conversions.js";
import { StudioIndex } from "../../../src/studio/folders/index.js";
import { progressFile } from "../../../src/surgery/convert/progress-record.js";
import type { ConversionRow } from "../../../src/studio/data/model-types.js";
import { temporaryFolder } from "../../files/io/temporary.js";

const root = temporaryFolder();
let folders = 0;
function fresh(): string {
  const dir = join(root, String(folders++));
  mkdirSync(dir);
  return dir;
}

const now = Date.now();
/** The number of a process that has ended. */
const gone = spawnSync(process.execPath, ["-e", ""]).pid;

const record = (changes: object = {}): object => ({
  version: 1,
  command: { words: ["upcycle", "convert", "dense", "--out", "moe"], folder: "/work" },
  name: "E8G1T2",
  sources: ["dense"],
  phase: "writing",
  tensor: "layers.3.up",
  done: 250,
  total: 1000,
  found: 0,
  bytesPerSecond: 25,
  started: now - 10_000,
  updated: now,
  host: hostname(),
  pid: process.pid,
  ended: null,
  ...changes,
});

function note(out: string, changes: object = {}, changed = now): void {
  mkdirSync(dirname(out), { recursive: true });
  writeFileSync(progressFile(out), JSON.stringify(record(changes)));
  utimesSync(progressFile(out), changed / 1000, changed / 1000);
}

function leave(out: string, begun: object = { name: "E8G1T2 of llama as BF16", request: "x", sources: {} }): string {
  const room = unfinishedName(out);
  mkdirSync(join(room, "folder"), { recursive: true });
  writeFileSync(join(room, "journal.jsonl"), `${JSON.stringify({ begun })}\n`);
  return room;
}

async function rowsOf(dir: string): Promise<readonly ConversionRow[]> {
  const index = await StudioIndex.open(dir);
  const shelf = new ConversionShelf(index);
  await index.look();
  return shelf.rows(now);
}

describe("a conversion", () => {
  it("at work has its speed, what is left, the tensor and the command", async () => {
    const dir = fresh();
    note(join(dir, "models", "moe"));
    expect(await rowsOf(dir)).toEqual([
      {
        name: "models/moe",
        state: "working",
        what: "E8G1T2",
        sources: ["dense"],
        phase: "writing",
        tensor: "layers.3.up",
        done: 250,
        total: 1000,
        found: 0,
        bytesPerSecond: 25,
        secondsLeft: 30,
        started: now - 10_000,
        updated: now,
        why: null,
        command: { words: ["upcycle", "convert", "dense", "--out", "moe"], folder: "/work" },
      },
    ]);
  });

  it.each([
    ["that has said why it ended", "stopped", { ended: "stopped with 25 % written", pid: gone }, now],
    ["whose process is gone", "dead", { pid: gone }, now],
    ["whose process says nothing", "silent", { updated: now - 60_000 }, now - 60_000],
    ["on another machine that is heard of", "working", { host: "elsewhere", pid: gone, updated: 0 }, now - 5000],
    ["on another machine that is not", "dead", { host: "elsewhere", updated: now - 60_000 }, now - 60_000],
  ] as const)("%s is %s", async (_, state, changes, changed) => {
    const dir = fresh();
    leave(join(dir, "moe"));
    note(join(dir, "moe"), changes, changed);
    expect(await rowsOf(dir)).toMatchObject([{ name: "moe", state, what: "E8G1T2" }]);
  });

  it("that left nothing to go on with is not there", async () => {
    const dir = fresh();
    note(join(dir, "moe"), { pid: gone });
    note(join(dir, "other"), { ended: "refused" });
    expect(await rowsOf(dir)).toEqual([]);
  });

  it("without a record is known by its journal, and by what of its files is on disk", async () => {
    const dir = fresh();
    const sources = { "/models/dense/model.safetensors": "1 byte", "/models/dense/config.json": "1 byte" };
    const room = leave(join(dir, "moe"), { name: "E8G1T2 of llama as BF16", request: "x", sources });
    writeFileSync(join(room, "folder", "model.safetensors"), Buffer.alloc(65_536, 1));
    truncateSync(join(room, "folder", "model.safetensors"), 262_144);
    expect(await rowsOf(dir)).toMatchObject([
      {
        state: "stopped",
        what: "E8G1T2 of llama as BF16",
        sources: ["dense"],
        done: 65_536,
        total: 262_144,
        command: null,
      },
    ]);
    writeFileSync(join(room, ".lock"), String(process.pid));
    expect(await rowsOf(dir)).toMatchObject([{ state: "working" }]);
  });

  it("is told of when it is further, and when it has ended", async () => {
    const dir = fresh();
    note(join(dir, "moe"));
    const index = await StudioIndex.open(dir);
    const shelf = new ConversionShelf(index);
    await index.look();
    expect([await shelf.look(now), await shelf.look(now)]).toEqual([true, false]);
    note(join(dir, "moe"), { done: 500 });
    // Whoever asks in between has it, and those who did not are told.
    expect(await shelf.rows(now)).toMatchObject([{ done: 500 }]);
    expect([await shelf.look(now), await shelf.look(now)]).toEqual([true, false]);
    rmSync(progressFile(join(dir, "moe")));
    expect([await shelf.look(now), await shelf.rows(now)]).toEqual([true, []]);
  });
});

describe("what is no conversion of ours", () => {
  it("is left out: other unfinished folders, other files, records and places that are links", async () => {
    const dir = fresh();
    const outside = fresh();
    leave(join(dir, "corpus"), { documents: 3 });
    mkdirSync(join(dir, ".empty.unfinished"));
    writeFileSync(join(dir, ".notes.progress.json"), JSON.stringify({ name: "mine" }));
    note(join(outside, "moe"));
    symlinkSync(progressFile(join(outside, "moe")), progressFile(join(dir, "linked")));
    symlinkSync(leave(join(outside, "left")), unfinishedName(join(dir, "left")));
    note(join(dir, "left"), { pid: gone });
    expect(await rowsOf(dir)).toEqual([]);
  });
});
