/** The report of a study while it runs, from the folders of its runs. */
import { mkdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parseStudyConfig } from "../../../src/base/schemas/study.js";
import type { Overview, ReportAnswer } from "../../../src/studio/data/types.js";
import { studyBody } from "../../../src/report/study/html.js";
import type { ReportData } from "../../../src/report/study/view.js";
import { StudioIndex } from "../../../src/studio/folders/index.js";
import { StudyReader } from "../../../src/studio/folders/study.js";
import { Studio } from "../../../src/studio/server/studio.js";
import { readMetrics, tokensPerSecond } from "../../../src/train/records.js";
import { runIdentity } from "../../../src/train/run-list.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { study as finishedStudy } from "../../report/fixture.js";
import { present } from "../../support/present.js";
import { addLines, evalRecord, stepRecord, writeRun, writeStudy, type RunSettings } from "../folder.js";

const recipe = readFileSync(new URL("../../../recipes/quickstart.yaml", import.meta.url), "utf8");
const config = parseStudyConfig(recipe, "quickstart.yaml");
const key = "-0123456789abcde";

/** A study of the quickstart's file, of which some runs are there. */
function begun(runs: Readonly<Record<string, RunSettings>>): string {
  const dir = temporaryFolder();
  mkdirSync(join(dir, "q"));
  const record = { version: 2, config, threads: 1, startedAt: "2026-01-02T00:00:00Z", seconds: 61, sources: {} };
  writeFileSync(join(dir, "q", "study.json"), JSON.stringify(record));
  for (const [folder, settings] of Object.entries(runs)) writeRun(join(dir, "q", `${folder}${key}`), settings);
  return dir;
}

async function shown(dir: string) {
  const index = await StudioIndex.open(dir);
  await index.look();
  return present(await new StudyReader(index).study("q"));
}

describe("a study under way", () => {
  it("compares the runs that have ended, and says what is missing", async () => {
    const dir = begun({
      "parents/parent": { loss: 3.5 },
      "arms/dense/seed-0": { loss: 3.2 },
      "arms/coarse/seed-0": { loss: 3, kind: "moe" },
      "arms/dense/seed-1": { seed: 1, loss: 3.3, done: 12 },
    });
    const study = await shown(dir);
    expect(study.progress).toMatchObject({ finished: 2, runs: 8, isEarly: false, tokens: 640 });
    expect(study.arms.map(({ id, label, runs }) => [id, label, runs.length])).toEqual([
      ["dense", "continued dense", 1],
      ["coarse", "upcycled E8G1T2", 1],
      ["fine", "upcycled E8G8T8", 0],
      ["scratch", "E8G1T2 from scratch", 0],
    ]);
    const [dense, coarse] = study.arms.map(({ runs }) => runs[0]?.finalLoss);
    expect(dense).toBeCloseTo(evalRecord(20, { loss: 3.2, steps: 20 }).loss, 12);
    expect(coarse).toBeCloseTo(evalRecord(20, { loss: 3, steps: 20, kind: "moe" }).loss, 12);
    expect(study.progress?.missing).toEqual([
      "continued dense: seed 1 is at step 12 of 20.",
      "upcycled E8G1T2: 1 seed not begun (1).",
      "upcycled E8G8T8: 2 seeds not begun (0, 1).",
      "E8G1T2 from scratch: 2 seeds not begun (0, 1).",
    ]);
    expect(study.progress?.underWay.map(({ arm, seed, losses }) => [arm, seed, losses.length])).toEqual([
      ["dense", 1, 3],
    ]);
    const path = join(dir, "q", `arms/dense/seed-0${key}`);
    const { steps } = await readMetrics(path);
    expect(study.arms[0]?.runs[0]?.tokensPerSecond).toBe(
      tokensPerSecond(steps, (await runIdentity(path)).tokensPerStep),
    );
    expect(study.parents[0]?.loss).toBeCloseTo(evalRecord(20, { loss: 3.5, steps: 20 }).loss, 12);
    expect(study.findings.join(" ")).toMatch(/upcycled E8G1T2 came out below continued dense .*with one seed nothing/);
    expect(study.findings.join(" ")).toContain("Held-out loss after 640 tokens: upcycled E8G1T2");
    expect(study.findings.join(" ")).not.toContain("Final held-out loss");
  });

  it("compares runs that have not ended at the most tokens that all have, where no two arms have an end", async () => {
    const dir = begun({
      "arms/dense/seed-0": { loss: 3.2, done: 17 },
      "arms/coarse/seed-0": { loss: 3, kind: "moe", done: 11 },
    });
    const study = await shown(dir);
    expect(study.progress).toMatchObject({ finished: 0, isEarly: true, tokens: 320 });
    expect(study.arms[0]?.runs[0]?.finalLoss).toBeCloseTo(evalRecord(10, { loss: 3.2, steps: 20 }).loss, 12);
  });

  it("follows its runs, takes the newer of two runs of a seed, and goes back to the result once it is there", async () => {
    const dir = begun({ "arms/dense/seed-0": { loss: 3.2, done: 12 } });
    const studio = await Studio.open({ dir, actions: false });
    const ask = async (): Promise<ReportAnswer> => {
      await studio.look();
      return (await studio.answer("/api/study", new URLSearchParams({ name: "q" }))) as ReportAnswer;
    };
    const curve = ({ data }: ReportAnswer): readonly number[] => (data as ReportData).arms[0]!.curve.tokens;
    expect(curve(await ask())).toEqual([0, 160, 320]);
    const settings = { loss: 3.2, steps: 20 };
    addLines(join(dir, "q", `arms/dense/seed-0${key}`), ...[13, 14, 15].map((step) => stepRecord(step, settings)));
    addLines(join(dir, "q", `arms/dense/seed-0${key}`), evalRecord(15, settings));
    const answer = await ask();
    expect(curve(answer)).toEqual([0, 160, 320, 480]);
    expect(answer.sections[0]).toMatch(/Not finished: 0 of 8 runs/);
    const result = { ...finishedStudy(), findings: ["Words of an earlier version."] };
    writeFileSync(join(dir, "q", "result.json"), JSON.stringify(result));
    const [header] = (await ask()).sections;
    expect(header).not.toMatch(/Not finished|earlier version/);
    expect(header).toContain("came out below Continued dense");
  });

  it("is shown by its runs alone where its file cannot be resolved", async () => {
    const dir = temporaryFolder();
    writeStudy(dir);
    const index = await StudioIndex.open(dir);
    await index.look();
    const study = present(await new StudyReader(index).study("study"));
    expect(study.arms.map(({ id, runs }) => [id, runs.length])).toEqual([
      ["coarse", 3],
      ["dense", 3],
    ]);
    expect(study.findings[0]).toMatch(/coarse did better than dense/);
  });

  it("says so where nothing has begun", async () => {
    const study = await shown(begun({}));
    expect(study.findings).toEqual(["Nothing is measured yet."]);
    expect(study.progress).toMatchObject({ finished: 0, runs: 8, tokens: null, isEarly: false });
    expect(study.progress?.missing).toHaveLength(4);
    expect(studyBody(study).sections.join("")).not.toMatch(/NaN|undefined|Infinity/);
  });
});

describe("a study that was run again with another setting", () => {
  it("is shown on the start page with the later run of each seed alone", async () => {
    const dir = temporaryFolder();
    for (const [hash, loss] of [
      ["-0123456789abcde", 3.4],
      ["-fedcba987654321", 3.1],
    ] as const)
      for (const seed of [0, 1]) {
        const run = join(dir, "q", "arms", "dense", `seed-${seed}${hash}`);
        writeRun(run, { seed, loss });
        const when = loss < 3.2 ? 2000 : 1000;
        utimesSync(join(run, "metrics.jsonl"), when, when);
      }
    writeFileSync(join(dir, "q", "study.json"), JSON.stringify({ version: 2, config: { name: "q" } }));
    const studio = await Studio.open({ dir, actions: false });
    await studio.look();
    const { studies } = (await studio.answer("/api/overview", new URLSearchParams())) as Overview;
    expect(studies.map(({ runs, finished }) => [runs, finished])).toEqual([[2, 2]]);
    const shown = studies.flatMap(({ arms }) => arms.flatMap((arm) => arm.runs));
    expect(shown.map(({ run, seed }) => [run, seed])).toEqual([
      ["q/arms/dense/seed-0-fedcba987654321", 0],
      ["q/arms/dense/seed-1-fedcba987654321", 1],
    ]);
  });
});

describe("studies that share a folder of runs", () => {
  it("are shown with its runs on the start page, and the folder is no study", async () => {
    const dir = temporaryFolder();
    for (const seed of [0, 1])
      for (const [arm, loss] of [
        ["dense", 3.2],
        ["coarse", 3],
      ] as const)
        writeRun(join(dir, "store", "arms", arm, `seed-${seed}${key}`), { seed, loss });
    mkdirSync(join(dir, "q"));
    writeFileSync(join(dir, "q", "study.json"), JSON.stringify({ version: 2, config: { name: "q" } }));
    const words = ["upcycle", "study", "q.yaml", "--out", "q", "--store", "store"];
    writeFileSync(join(dir, "q", "command.json"), JSON.stringify({ version: 1, words, folder: dir }));
    // Which runs are its own is said by their records: logs, which may be long, are not read for it.
    const log = join(dir, "store", "arms", "dense", `seed-0${key}`, "metrics.jsonl");
    const [first = "", ...lines] = readFileSync(log, "utf8").split("\n");
    writeFileSync(log, [first, "damaged", ...lines].join("\n"));
    const studio = await Studio.open({ dir, actions: false });
    await studio.look();
    const { studies, runs } = (await studio.answer("/api/overview", new URLSearchParams())) as Overview;
    expect(studies.map(({ name, runs: own, arms }) => [name, own, arms.map((arm) => arm.name)])).toEqual([
      ["q", 4, ["coarse", "dense"]],
    ]);
    expect(runs).toBe(4);
    expect(studies[0]?.command?.words).toEqual(words);
  });
});
