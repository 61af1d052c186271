/** What a conversion notes beside its folder for whoever looks on. */
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { interruptedError } from "../../../src/base/errors.js";
import { unfinishedName } from "../../../src/files/io/resumable-directory.js";
import {
  ProgressRecord,
  progressFile,
  progressOf,
  readProgress,
} from "../../../src/surgery/convert/progress-record.js";
import type { WorkflowEvent } from "../../../src/surgery/convert/workflow.js";
import { temporaryFolder } from "../../files/io/temporary.js";

const root = temporaryFolder();
let folders = 0;
const fresh = (): string => join(root, `${folders++}`, "moe");
const command = { words: ["upcycle", "convert", "dense", "--out", "moe"], folder: "/work" };
const about = { command, sources: ["dense"] };

const recordOf = (out: string): ReturnType<typeof readProgress> =>
  readProgress(JSON.parse(readFileSync(progressFile(out), "utf8")));

async function until(isThere: () => boolean): Promise<void> {
  const end = Date.now() + 5000;
  while (!isThere() && Date.now() < end) await new Promise((done) => setTimeout(done, 10));
  expect(isThere()).toBe(true);
}

function opened(out: string): ProgressRecord {
  const record = new ProgressRecord(out, about);
  onTestFinished(() => record.end());
  return record;
}

const written = (tensor: string, done: number): WorkflowEvent => ({
  type: "progress",
  tensor,
  done,
  total: 1000,
  bytesPerSecond: 250,
});

describe("the record of a conversion", () => {
  it("says what it does, how far it is and which command does it, and is gone when the model is complete", async () => {
    const out = fresh();
    const record = opened(out);
    record.take({ type: "reading", done: 1, total: 4 });
    await until(() => existsSync(progressFile(out)));
    expect(recordOf(out)).toMatchObject({ ...about, name: null, phase: "measuring", done: 1, total: 4, ended: null });
    record.name("E8G1T2");
    record.take({ type: "resumed", done: 100, total: 1000 });
    record.take(written("layers.0.up", 500));
    await until(() => recordOf(out)?.tensor === "layers.0.up");
    expect(recordOf(out)).toMatchObject({
      name: "E8G1T2",
      phase: "writing",
      done: 500,
      total: 1000,
      found: 100,
      bytesPerSecond: 250,
      pid: process.pid,
    });
    record.take({ type: "proof", event: { type: "progress", done: 3, total: 9 } });
    await record.end();
    expect(readdirSync(join(out, ".."))).toEqual([]);
  });

  it("stays beside unfinished work with the reason of the stop, and nowhere else", async () => {
    const out = fresh();
    const record = opened(out);
    record.take(written("layers.0.up", 500));
    mkdirSync(unfinishedName(out), { recursive: true });
    await record.end(interruptedError("stopped with 50 % written", { where: "moe" }));
    expect(recordOf(out)).toMatchObject({ done: 500, ended: "moe: stopped with 50 % written" });
    const other = fresh();
    const refused = opened(other);
    refused.take(written("layers.0.up", 500));
    await refused.end(new Error("no room"));
    expect(existsSync(progressFile(other))).toBe(false);
  });

  it("leaves the record of another command at work on the same folder alone", async () => {
    const out = fresh();
    mkdirSync(unfinishedName(out), { recursive: true });
    writeFileSync(join(unfinishedName(out), ".lock"), String(process.ppid));
    writeFileSync(progressFile(out), "of the other");
    await opened(out).end(new Error("another command is working in this folder"));
    expect(readFileSync(progressFile(out), "utf8")).toBe("of the other");
  });

  it("is written over no file that a link leads to", async () => {
    const out = fresh();
    mkdirSync(join(out, ".."), { recursive: true });
    writeFileSync(join(root, "mine"), "mine");
    symlinkSync(join(root, "mine"), `${progressFile(out)}.new`);
    const record = opened(out);
    record.take(written("layers.0.up", 500));
    await until(() => existsSync(progressFile(out)));
    expect(readFileSync(join(root, "mine"), "utf8")).toBe("mine");
  });

  it("does not fail where nothing can be written", async () => {
    writeFileSync(join(root, "file"), "");
    const record = opened(join(root, "file", "moe"));
    record.take(written("layers.0.up", 500));
    await new Promise((done) => setTimeout(done, 20));
    await expect(record.end()).resolves.toBeUndefined();
  });
});

describe("reading a record", () => {
  it.each([null, [], {}, "text", { name: "E8", sources: [1] }, { name: null, sources: [], phase: "cooking" }])(
    "takes %j for none",
    (content) => {
      expect(readProgress(content)).toBeNull();
    },
  );

  it("knows its files by their names", () => {
    expect([".a b.progress.json", "a.progress.json", ".progress.json", "..progress.json"].map(progressOf)).toEqual([
      "a b",
      null,
      null,
      null,
    ]);
  });
});
