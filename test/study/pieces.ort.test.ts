/** A study in pieces: chosen trainings, runs that are there without weights, parents that are trained again. */
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import type { StudyResult } from "../../src/model/results/result.js";
import { armOf, fail, failure, smallStudy, timeless } from "./small-study.js";

const { root, yaml, config, run } = smallStudy();
const lean = config(
  yaml("  larger: {kind: multiplied, of: coarse, copies: 2}").replace(/ {2}(fine|soft|scratch): .*\n/g, ""),
);
const whole = join(root, "whole");
let result: StudyResult;
beforeAll(async () => {
  result = await run({ config: lean, dir: whole });
});

/** Paths of files and folders within a folder. */
const within = (dir: string): string[] => readdirSync(dir, { recursive: true, encoding: "utf8" }).sort();

/** The one folder of a run: `arms/dense/seed-0`, or `parents/parent`. */
function folderOf(dir: string, start: string): string {
  const [found] = within(join(dir, dirname(start))).filter((name) => name.startsWith(`${basename(start)}-`));
  return join(dir, dirname(start), found ?? fail());
}

/** A copy of the whole study without a weight, and without its result. */
function withoutWeights(name: string): string {
  const dir = join(root, name);
  cpSync(whole, dir, { recursive: true });
  for (const path of within(dir)) {
    const isModel = /^(parents|arms\/[^/]+)\/[^/]+\/(last|best)$|^starts\/[^/.]+$|^tokens$/.test(path);
    if (isModel || path === "result.json") rmSync(join(dir, path), { recursive: true });
  }
  expect(within(dir).filter((path) => path.endsWith(".safetensors"))).toEqual([]);
  return dir;
}

/** Names of the runs that a study trains. */
async function trained(options: Parameters<typeof run>[0]): Promise<[StudyResult, string[]]> {
  const names = new Set<string>();
  const found = await run(options, (event) => {
    if (event.type === "train" && event.event.type === "open") names.add(event.run);
  });
  return [found, [...names]];
}

const metricsOf = (dir: string, start: string): string =>
  readFileSync(join(folderOf(dir, start), "metrics.jsonl"), "utf8");

describe("pieces by name", () => {
  it("train what was chosen, its parent, and nothing else; together they are the whole study", async () => {
    const store = join(root, "pieces");
    const [first, ofFirst] = await trained({ config: lean, dir: join(root, "one"), store, only: ["dense/7"] });
    expect(ofFirst).toEqual(["dense parent", "continued dense, seed 7"]);
    expect([first.arms.map(({ id }) => id), first.seeds]).toEqual([["dense"], [7]]);
    const [, ofMore] = await trained({ config: lean, dir: join(root, "two"), store, only: ["larger"] });
    expect(ofMore.filter((name) => name.startsWith("whole copies"))).toHaveLength(2);
    expect(ofMore).toHaveLength(4);
    const [, ofRest] = await trained({ config: lean, dir: join(root, "rest"), store, only: ["dense"] });
    expect(ofRest).toEqual(["continued dense, seed 0"]);
    const [merged, none] = await trained({ config: lean, dir: join(root, "merged"), store, only: [] });
    expect(none).toEqual([]);
    const places = (study: StudyResult): unknown =>
      JSON.parse(JSON.stringify({ ...(timeless(study) as object), commands: null }).replaceAll("../pieces/", ""));
    expect(places(merged)).toEqual(places(result));
  });

  it("by names that are none are refused with the names that there are, and no folder is made", async () => {
    const [dir, store] = [join(root, "misnamed"), join(root, "misnamed-store")];
    const { line } = await failure(run({ config: lean, dir, store, only: ["dense/3"] }));
    expect(line).toContain('"dense/3" is no training of this study');
    expect(line).toContain("arms dense, coarse, larger; seeds 0, 7");
    expect([existsSync(dir), existsSync(store)]).toEqual([false, false]);
  });

  it("by names that are none leave the study in the folder as it is", async () => {
    const record = join(whole, "study.json");
    const before = readFileSync(record, "utf8");
    await failure(run({ config: { ...lean, seeds: [0, 7, 8] }, dir: whole, only: ["dense/3"] }));
    expect(readFileSync(record, "utf8")).toBe(before);
  });

  it("without any run that is there give no result, and no folder is made", async () => {
    const dir = join(root, "nothing");
    const { kind, line } = await failure(run({ config: lean, dir, only: [] }));
    expect([kind, line]).toEqual(["input", expect.stringContaining("no training of this study is there")]);
    expect(existsSync(dir)).toBe(false);
  });
});

describe("finished runs without weights", () => {
  it("are not trained again, and their result is the same", async () => {
    const [again, names] = await trained({ config: lean, dir: withoutWeights("bare") });
    expect(names).toEqual([]);
    expect(timeless(again)).toEqual(timeless(result));
  });

  it("are trained again beside their records where a missing run begins with them, to the same bits", async () => {
    const dir = withoutWeights("missing");
    const before = metricsOf(dir, "parents/parent");
    rmSync(folderOf(dir, "arms/larger/seed-7"), { recursive: true });
    const [again, names] = await trained({ config: lean, dir });
    expect(names).toEqual(["dense parent", "whole copies, seed 7", expect.stringContaining("seed 7")]);
    expect(timeless(again)).toEqual(timeless(result));
    expect(metricsOf(dir, "parents/parent")).toBe(before);
    expect(readdirSync(join(dir, "again"))).toHaveLength(2);
    expect(armOf(again, "larger").runs).toHaveLength(2);
  });

  it("stop a study whose parent, trained again, is another one than the record says", async () => {
    const dir = withoutWeights("other");
    rmSync(folderOf(dir, "arms/dense/seed-0"), { recursive: true });
    const path = join(folderOf(dir, "parents/parent"), "metrics.jsonl");
    const lines = readFileSync(path, "utf8").split("\n");
    const index = lines.findIndex((line) => line.includes('"step":5,'));
    lines[index] = at(lines, index).replace(/"loss":[\d.]+/, '"loss":9.5');
    writeFileSync(path, lines.join("\n"));
    const { kind, line } = await failure(run({ config: lean, dir }));
    expect(kind).toBe("stopped");
    expect(line).toContain("the loss of step 5 was 9.5, and is");
  });

  it("belong to a study on the same tokens alone", async () => {
    const dir = withoutWeights("retokenized");
    const path = join(folderOf(dir, "arms/dense/seed-0"), "run.json");
    writeFileSync(path, readFileSync(path, "utf8").replace(/"tokens": ?"[0-9a-f]{16}"/, '"tokens":"0123456789abcdef"'));
    expect((await failure(run({ config: lean, dir }))).line).toContain("other tokens than when this run began");
  });
});

it("a text is tokenized once: the tokens that a store holds are taken", async () => {
  const dir = withoutWeights("kept");
  const folders = readdirSync(join(whole, "tokens"));
  expect(folders).toHaveLength(1);
  const file = join("tokens", at(folders, 0), "tokens.safetensors");
  expect(existsSync(join(dir, file))).toBe(false);
  mkdirSync(dirname(join(dir, file)), { recursive: true });
  cpSync(join(whole, file), join(dir, file));
  const { mtimeMs } = statSync(join(dir, file));
  const phases: string[] = [];
  const again = await run({ config: lean, dir }, (event) => void (event.type === "phase" && phases.push(event.label)));
  expect(phases).toContain("reading tokens");
  expect(phases).not.toContain("reading text");
  expect(statSync(join(dir, file)).mtimeMs).toBe(mtimeMs);
  expect(again.text).toEqual(result.text);
});
