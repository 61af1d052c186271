/** Commands that prepare one data set at the same time, and what a killed one leaves at its very end. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, it, vi } from "vitest";
import type { UpcycleError } from "../../../src/base/errors.js";
import { resultOf } from "../../../src/base/events.js";
import { prepareData, type PrepareOptions } from "../../../src/text/prepare/prepare.js";
import { trainByteLevelBpe } from "../../../src/text/tokenizer/train.js";

/** What happens between making and locking the next folder, and what lies in a folder when it is given back. */
const locking = vi.hoisted(() => ({
  before: null as (() => Promise<unknown>) | null,
  atRelease: [] as string[][],
}));
vi.mock("../../../src/files/io/lock.js", async (original) => {
  const actual = await original<typeof import("../../../src/files/io/lock.js")>();
  const lockMade: typeof actual.lockMade = async (dir, make) => {
    const release = await actual.lockMade(dir, async () => {
      await make();
      const { before } = locking;
      locking.before = null;
      await before?.();
    });
    return () => {
      locking.atRelease.push(readdirSync(dir));
      return release();
    };
  };
  return { ...actual, lockMade };
});

const root = mkdtempSync(join(tmpdir(), "upcycle-prepare-locking-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const [input, tokenizer] = [join(root, "text.jsonl"), join(root, "tokenizer.json")];
const texts = Array.from({ length: 40 }, (_, i) => `document ${i} says what document ${i - 1} has said`);

beforeAll(async () => {
  writeFileSync(tokenizer, await trainByteLevelBpe(texts, { vocab: 300 }));
  writeFileSync(input, texts.map((text) => `${JSON.stringify({ text })}\n`).join(""));
});
beforeEach(() => {
  locking.before = null;
  locking.atRelease.length = 0;
});

let made = 0;
const options = (more: Partial<PrepareOptions> = {}): PrepareOptions => ({
  inputs: [input],
  field: "text",
  tokenizer,
  out: join(root, `out${made++}`),
  appendEod: false,
  specialTokens: false,
  workers: 1,
  pace: { batchUnits: 200, flushIds: 1 },
  ...more,
});
const bytes = (out: string): string[] =>
  ["bin", "idx"].map((kind) => readFileSync(`${out}_text_document.${kind}`).toString("hex"));
const roomOf = (out: string): string => `${out.replace(/out(\d+)$/, ".out$1")}_text_document.unfinished`;

/** Prepares until a few documents are flushed, and stops. */
async function stopped(given: PrepareOptions): Promise<void> {
  const abort = new AbortController();
  const run = resultOf(prepareData({ ...given, signal: abort.signal }), () => abort.abort());
  await expect(run).rejects.toMatchObject({ kind: "interrupted" });
}

it("a data set keeps its place locked until nothing is left to do there", async () => {
  const given = options();
  await resultOf(prepareData(given));
  expect(locking.atRelease).toEqual([[".lock"]]);
  expect(existsSync(roomOf(given.out))).toBe(false);
});

it("a data set that another command has finished meanwhile is not made again", async () => {
  const given = options();
  locking.before = () => resultOf(prepareData(given));
  const refusal = await resultOf(prepareData(given)).catch((cause: UpcycleError) => cause);
  expect(refusal).toMatchObject({ message: "file exists", kind: "input" });
  locking.before = () => Promise.resolve();
  await resultOf(prepareData({ ...given, overwrite: true }));
});

it("a command that was killed between the names of both files goes on", async () => {
  const whole = options();
  await resultOf(prepareData(whole));
  const given = options();
  await stopped(given);
  writeFileSync(`${given.out}_text_document.idx`, "an index without its ids");
  await resultOf(prepareData(given));
  expect(bytes(given.out)).toEqual(bytes(whole.out));
});

it("a journal of files that have their names already, or were lost, is begun anew", async () => {
  const whole = options();
  await resultOf(prepareData(whole));
  for (const lost of ["ids", "lengths"]) {
    const given = options();
    await stopped(given);
    rmSync(join(roomOf(given.out), lost));
    await resultOf(prepareData(given));
    expect(bytes(given.out)).toEqual(bytes(whole.out));
  }
});
