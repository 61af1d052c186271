/** `upcycle experts` as a user runs it, on mixtures made of the small model that comes along. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ExpertsReport } from "../../src/model/results/experts.js";
import { copyModel, start, upcycle, upcycleJson } from "./upcycle.js";

const tiny = fileURLToPath(new URL("../../models/tiny", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "upcycle-experts-"));
const inDir = (name: string): string => join(dir, name);
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const convert = async (recipe: string, name: string, ...more: string[]): Promise<void> => {
  const { code, stderr } = await upcycle(
    "convert",
    inDir("tiny"),
    "--recipe",
    recipe,
    "--no-report",
    "--out",
    inDir(name),
    ...more,
  );
  expect([code, code === 0 ? "" : stderr]).toEqual([0, ""]);
};

/** Short texts: those that come along are long, and reading them takes most of a command's time. */
const texts = (): readonly string[] => ["--text", inDir("navy.txt"), "--text", inDir("sums.txt")];
const small = ["--sequence", "32", "--tokens", "520", "--device", "cpu", "--threads", "1"];
const report = async (...args: string[]): Promise<ExpertsReport> =>
  (await upcycleJson("experts", ...args, ...small)) as unknown as ExpertsReport;

beforeAll(async () => {
  copyModel(tiny, inDir("tiny"));
  await convert("E4G1T2", "copies");
  await convert("E4G1T2", "noisy", "--noise", "30%", "--router-std", "0.3");
  await convert("E2G2T2", "parts", "--permute");
  const lines = Array.from(
    { length: 90 },
    (_, i) => `In 18${i} the ${i} ships of the navy went to sea, and came back.`,
  );
  writeFileSync(inDir("navy.txt"), lines.join("\n"));
  const sums = (length: number): string => Array.from({ length }, (_, i) => `${i} + ${i * 7} = ${i * 8};`).join("\n");
  writeFileSync(inDir("sums.txt"), sums(200));
  writeFileSync(inDir("long.txt"), sums(8000));
});

describe("upcycle experts", () => {
  it("of exact copies finds them equal to each other and to the parent beside them, and merging them free", async () => {
    const found = await report(inDir("copies"), "--candidates", "1");
    expect(found.parent).toBe(inDir("tiny"));
    expect(found.texts.map(({ name, observed, heldOut }) => [name, observed, heldOut])).toEqual([
      ["sotu", 8, 8],
      ["moby-dick", 8, 8],
    ]);
    for (const { load, similarity, specialisation, byText, byClass } of found.layers) {
      expect(load.counts.reduce((sum, count) => sum + count, 0)).toBe(2 * found.tokens);
      expect(Math.min(...similarity.weights.flat())).toBeGreaterThan(1 - 1e-6);
      expect(Math.min(...similarity.outputs.flat())).toBeGreaterThan(1 - 1e-6);
      expect(Math.min(...similarity.parent!.weights, ...similarity.parent!.outputs!)).toBeGreaterThan(1 - 1e-5);
      expect(specialisation.text!.most).toBeCloseTo(1, 12);
      expect([byText.length, byClass.length]).toEqual([2, found.classes.length]);
    }
    expect(found.classes.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(found.tokens);
    const merged = found.costs.find(({ kind }) => kind === "merged")!;
    expect(merged.difference).toBe(0);
    // Exact scaling makes the weights sum to 1, so that another copy does the same.
    expect(Math.abs(found.costs.find(({ kind }) => kind === "without")!.difference)).toBeLessThan(1e-5);
  });

  it("of noisy experts gives the same numbers again, measures what is asked for, and pairs sequences", async () => {
    const args = [inDir("noisy"), ...texts(), "--without", "0:1,4:2", "--merged", "1:0+3"];
    const [found, again] = [await report(...args), await report(...args)];
    expect(again).toEqual(found);
    expect(found.costs.map(({ asked, expected }) => [asked, expected])).toEqual([
      [true, null],
      [true, null],
    ]);
    for (const { difference, error, interval, byText, loss } of found.costs) {
      expect(loss - found.loss!).toBeCloseTo(difference, 12);
      expect(error).toBeGreaterThan(0);
      expect((interval![0] + interval![1]) / 2).toBeCloseTo(difference, 12);
      const sequences = found.texts.map(({ heldOut }) => heldOut);
      const weighed =
        byText.reduce((sum, value, i) => sum + value * sequences[i]!, 0) / sequences.reduce((a, b) => a + b);
      expect(weighed).toBeCloseTo(difference, 12);
    }
    expect(found.layers[0]!.similarity.parent!.weights.every((cosine) => cosine > 0.9 && cosine < 0.99)).toBe(true);
  });

  it("of parts compares each expert with its own part of the parent, in the order of the recipe", async () => {
    const found = await report(inDir("parts"), "--parent", inDir("tiny"), "--candidates", "0");
    expect(found.costs).toEqual([]);
    expect(found.loss).toBeNull();
    for (const { similarity } of found.layers) {
      expect(similarity.parent!.outputs).toBeNull();
      expect(Math.min(...similarity.parent!.weights)).toBeGreaterThan(1 - 1e-5);
      // Two parts of one FFN are not alike.
      expect(similarity.outputs[0]![1]!).toBeLessThan(0.9);
    }
  });

  it("shows tables of 80 columns and writes a page with maps", async () => {
    const page = inDir("page.html");
    const { code, stdout, stderr } = await upcycle(
      "experts",
      inDir("noisy"),
      ...texts(),
      ...small,
      "--candidates",
      "2",
      "--html",
      page,
    );
    expect([code, code === 0 ? "" : stderr]).toEqual([0, ""]);
    expect(Math.max(...stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
    for (const words of ["95 % interval", "most alike", "entropy", "without ", "merged ", "report: "])
      expect(stdout).toContain(words);
    const html = readFileSync(page, "utf8");
    expect(html.match(/<svg class="heat-svg" viewBox="0 0 \d/g)).toHaveLength(21);
    expect(html).toContain("upcycle experts");
    expect(
      (await upcycle("experts", inDir("noisy"), ...texts(), ...small, "--candidates", "0", "--html", page)).code,
    ).toBe(0);
  });

  it.each([
    ["a dense model", () => [inDir("tiny")], /the model is dense: it has no experts/],
    [
      "a text that is not there",
      () => [inDir("copies"), "--text", inDir("none.txt")],
      /none\.txt: cannot read text: no such file/,
    ],
    [
      "a text that is too short",
      () => [inDir("copies"), "--sequence", "512"],
      /sotu: the text has 521 tokens, needed at least 1025/,
    ],
    [
      "an expert that is not there",
      () => [inDir("copies"), "--without", "0:4"],
      /--without 0:4: layer 0 has experts 0 to 3, not 4/,
    ],
    ["all experts left out", () => [inDir("copies"), "--without", "0:0,0:1,0:2"], /layer 0 would keep 1 of 4 experts/],
    [
      "a parent that is an MoE",
      () => [inDir("copies"), "--parent", inDir("parts")],
      /a mixture of experts, not a dense parent/,
    ],
    [
      "two texts of one name",
      () => [inDir("copies"), "--text", inDir("navy.txt"), "--text", inDir("navy.txt")],
      /two texts have this name/,
    ],
    [
      "a page in the place of another file",
      () => [inDir("copies"), "--html", inDir("navy.txt")],
      /is no page of this command/,
    ],
  ] as const)("refuses %s in one line with exit code 2", async (_, args, expected) => {
    const words = args();
    const usual = words.includes("--sequence") ? small.filter((_, i) => i > 1) : small;
    const { code, stdout, stderr } = await upcycle("experts", ...words, ...usual);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(stderr).toMatch(expected);
  });

  it("refuses a model without tokenizer", async () => {
    const bare = copyModel(inDir("copies"), inDir("bare"));
    rmSync(join(bare, "tokenizer.json"));
    const { code, stderr } = await upcycle("experts", bare, ...small);
    expect([code, stderr.includes("the model has no tokenizer.json")]).toEqual([2, true]);
  });

  it("ends by Ctrl-C with 130 and leaves no page", async () => {
    const running = start([
      "experts",
      inDir("noisy"),
      "--text",
      inDir("long.txt"),
      "--tokens",
      "60000",
      "--device",
      "cpu",
      "--html",
      inDir("never.html"),
    ]);
    await running.saw("looking at the experts");
    running.process.kill("SIGINT");
    const { code, stdout } = await running.outcome;
    expect([code, stdout]).toEqual([130, ""]);
    expect(() => readFileSync(inDir("never.html"))).toThrow("ENOENT");
  });
});
