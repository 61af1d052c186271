import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { coactivationOf } from "../../../src/experts/measures/coactivation.js";
import { lockFolder } from "../../../src/files/io/lock.js";
import { CurveStore } from "../../../src/studio/folders/detail.js";
import { RunEntry } from "../../../src/studio/folders/run-entry.js";
import { Studio } from "../../../src/studio/server/studio.js";
import type { CoactivationHistory } from "../../../src/studio/data/expert-types.js";
import type { Overview, RunDetail, RunRow } from "../../../src/studio/data/types.js";
import { listRuns } from "../../../src/train/run-list.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { addLines, evalRecord, linesOf, recordsOf, stepRecord, writeRun, writeStudy } from "../folder.js";

const root = temporaryFolder();
let count = 0;
let dir = "";
let now = 0;
let studio: Studio;
beforeEach(async () => {
  dir = join(root, String(count++));
  mkdirSync(dir);
  writeStudy(dir);
  now = Date.now();
  studio = await Studio.open({ dir, actions: false }, () => now);
  await studio.look();
});
const rowOf = (name: string): RunRow | undefined => studio.index.run(name)?.row;
const ask = async <T>(address: string): Promise<T> => {
  const [path = "", query = ""] = address.split("?");
  return (await studio.answer(path, new URLSearchParams(query))) as T;
};
const later = async (seconds = 4): Promise<void> => {
  now += 1000 * seconds;
  await studio.look();
};

describe("the index of a folder", () => {
  it("says of every run what upcycle runs says", async () => {
    const listed = await listRuns(dir);
    expect(listed).toHaveLength(8);
    for (const run of listed) {
      const row = rowOf(run.name);
      const { name, kind, params, activeParams, step, steps, state, tokens, loss, bestLoss, bytes } = run;
      expect(row).toMatchObject({
        name,
        kind,
        params,
        activeParams,
        step,
        steps,
        state,
        tokens,
        loss,
        bestLoss,
        bytes,
      });
      expect(row!.tokensPerSecond).toBeCloseTo(run.tokensPerSecond, 6);
    }
  });

  it("knows studies, arms, seeds and parents by the folders that upcycle study makes", () => {
    expect(rowOf("study/arms/coarse/seed-2-0123456789abcdef")).toMatchObject({
      study: "study",
      arm: "coarse",
      seed: 2,
      dead: 1,
      experts: 8,
    });
    expect(rowOf("study/parents/parent-0123456789abcdef")).toMatchObject({ study: "study", arm: "parent parent" });
    expect(rowOf("alone")).toMatchObject({ study: null, arm: "alone", state: "stopped", step: 12 });
  });

  it("reads on: a new line changes the row, half a line does not", async () => {
    const alone = join(dir, "alone");
    const before = rowOf("alone")!;
    addLines(alone, stepRecord(13, { steps: 40 }));
    await later();
    expect(rowOf("alone")).toMatchObject({ step: 13, revision: before.revision + 1 });
    writeFileSync(join(alone, "metrics.jsonl"), `${linesOf(recordsOf({ steps: 40, done: 13 }))}{"type":"step","st`);
    await later();
    expect(rowOf("alone")).toMatchObject({ step: 13, problem: null });
  });

  it("says that a run is under way while a command works in its folder, and how long it takes", async () => {
    const release = await lockFolder(join(dir, "alone"));
    addLines(join(dir, "alone"), stepRecord(13, { steps: 40 }));
    await later();
    expect(rowOf("alone")).toMatchObject({ state: "running", secondsLeft: (27 * 10) / 1000 });
    await release();
    await later();
    expect(rowOf("alone")).toMatchObject({ state: "stopped", secondsLeft: null });
  });

  it("reads a log that grows all the time on when its turn has come", async () => {
    const name = "alone";
    const unlock = await lockFolder(join(dir, name));
    await later();
    const { step } = rowOf(name)!;
    const look = async (after: number): Promise<number> => {
      now += after;
      await studio.lookAtLive(now);
      return rowOf(name)!.step - step;
    };
    const add = (): void => addLines(join(dir, name), stepRecord(rowOf(name)!.step + 1));
    add();
    expect(await look(1000)).toBe(1);
    add();
    expect([await look(350), await look(350)]).toEqual([1, 2]);
    await unlock();
  });

  it("says when the next look may find something: not before a log that has just grown has its turn", async () => {
    const name = "alone";
    const unlock = await lockFolder(join(dir, name));
    await later();
    const look = async (after: number): Promise<number> => {
      now += after;
      await studio.lookAtLive(now);
      return studio.index.liveInMs;
    };
    expect(await look(1000)).toBe(350);
    addLines(join(dir, name), stepRecord(rowOf(name)!.step + 1));
    // Whoever looks too early, since a page was opened, waits for the rest alone.
    expect([await look(350), await look(300), await look(400), await look(350)]).toEqual([700, 400, 350, 350]);
    await unlock();
    await later(200);
    expect(studio.index.liveInMs).toBe(700);
  });

  it("says when the tree is to be looked at again", async () => {
    expect(studio.index.treeInMs).toBe(3000);
    now += 2900;
    expect(studio.index.treeInMs).toBe(100);
    await later();
    expect(studio.index.treeInMs).toBe(3000);
  });

  it("reads on soon in a run that is at rest where somebody looks at it", async () => {
    now += 3_600_000;
    await later();
    const { step } = rowOf("alone")!;
    addLines(join(dir, "alone"), stepRecord(step + 1));
    await studio.lookAtLive(now);
    expect(rowOf("alone")!.step).toBe(step);
    await ask("/api/run?name=alone");
    now += 400;
    await studio.lookAtLive(now);
    expect(rowOf("alone")!.step).toBe(step + 1);
  });

  it("takes runs up and lets them go as they come and go", async () => {
    writeRun(join(dir, "new", "one"));
    rmSync(join(dir, "alone"), { recursive: true });
    await later();
    expect([rowOf("new/one")?.state, rowOf("alone")]).toEqual(["finished", undefined]);
  });

  it("follows no link: neither to folders nor to files", async () => {
    const outside = join(root, "outside");
    writeRun(outside);
    mkdirSync(join(dir, "sly"));
    symlinkSync(outside, join(dir, "linked"));
    for (const name of ["run.json", "metrics.jsonl"]) symlinkSync(join(outside, name), join(dir, "sly", name));
    symlinkSync(join(dir, "study", "report.html"), join(dir, "page.html"));
    await later();
    expect([rowOf("linked"), rowOf("sly")]).toEqual([undefined, undefined]);
    expect((await ask<{ reports: { name: string }[] }>("/api/reports")).reports.map(({ name }) => name)).toEqual([
      "study/report.html",
    ]);
  });

  it("is not stopped by a record that lacks what it should have", async () => {
    writeRun(join(dir, "half"));
    const half = [{ type: "eval", step: 25 }, { ...stepRecord(26), routing: {} }, stepRecord(27)];
    writeFileSync(join(dir, "half", "metrics.jsonl"), linesOf([...recordsOf({ steps: 40, done: 20 }), ...half]));
    await later();
    expect(rowOf("half")).toMatchObject({ state: "stopped", step: 27, problem: "1 lines of its log are no records" });
    const { curves } = await ask<Curves>("/api/curves?run=half&metric=train/loss&axis=step");
    expect(curves[0]!.x.at(-1)).toBe(27);
  });

  it("says how far a run with a long log is before the log is read", async () => {
    const path = join(dir, "long");
    const settings = { steps: 9000, done: 8000, evalEvery: 900 };
    writeRun(path, settings);
    const entry = new RunEntry("long", path);
    await entry.glance(now);
    expect([entry.isKnown, entry.isRead]).toEqual([true, false]);
    const seen = { state: "stopped", step: 8000, steps: 9000, trainLoss: stepRecord(8000, settings).loss };
    expect(entry.row).toMatchObject({ ...seen, bestLoss: null, revision: 0 });
    const { changed } = await entry.refresh(now);
    expect([changed, entry.isRead]).toEqual([true, true]);
    expect(entry.row).toMatchObject({ ...seen, loss: evalRecord(7200, settings).loss, revision: 1 });
    expect(entry.row.bestLoss).toBe(entry.row.loss);
    expect(await entry.refresh(now)).toEqual({ changed: false, alerts: [] });
  });

  it("reads a record that was mended, and checkpoints that came while a run was under way", async () => {
    const alone = join(dir, "alone");
    const record = readFileSync(join(alone, "run.json"), "utf8");
    mkdirSync(join(dir, "bad"));
    writeFileSync(join(dir, "bad", "run.json"), "{");
    writeFileSync(join(dir, "bad", "metrics.jsonl"), linesOf(recordsOf({})));
    await later();
    expect(rowOf("bad")).toMatchObject({ state: "unreadable" });
    writeFileSync(join(dir, "bad", "run.json"), record);
    await later();
    expect(rowOf("bad")).toMatchObject({ state: "finished", step: 20 });
    const release = await lockFolder(alone);
    await later();
    writeFileSync(join(alone, "last", "more.safetensors"), "x".repeat(500));
    await later();
    expect(rowOf("alone")).toMatchObject({ state: "running", bytes: 1500 });
    await release();
    await later();
    expect(rowOf("alone")).toMatchObject({ state: "stopped", bytes: 1500 });
  });

  it("says what is wrong with a damaged run, and shows all others", async () => {
    mkdirSync(join(dir, "bad"));
    writeFileSync(join(dir, "bad", "run.json"), "{");
    writeFileSync(join(dir, "bad", "metrics.jsonl"), "");
    writeRun(join(dir, "torn"));
    writeFileSync(join(dir, "torn", "metrics.jsonl"), `{"type":"what"}\nnonsense\n${linesOf(recordsOf({}))}`);
    await later();
    expect(rowOf("bad")).toMatchObject({ state: "unreadable", problem: expect.stringContaining("not valid JSON") });
    expect(rowOf("torn")).toMatchObject({ state: "finished", problem: "2 lines of its log are no records" });
    expect(await ask<RunDetail>("/api/run?name=bad")).toMatchObject({ settings: [] });
    expect((await ask<Overview>("/api/overview")).runs).toBe(10);
  });
});

interface Curves {
  readonly curves: readonly { readonly run: string; readonly x: readonly number[]; readonly total: number }[];
}

interface Grown {
  readonly x: readonly number[];
  readonly total: number;
  readonly first: number;
  readonly generation: number;
}

describe("the answers", () => {
  it("say which arm leads and whether that means anything, which experts are dead, and what repeats a study", async () => {
    const { studies, dead, alive } = await ask<Overview>("/api/overview");
    expect(studies).toHaveLength(1);
    expect(studies[0]).toMatchObject({
      name: "study",
      runs: 6,
      finished: 6,
      words: expect.stringMatching(/^coarse leads dense by 0\.19\d nats after 640 tokens: more than chance explains/),
      report: "study/report.html",
      command: { words: ["upcycle", "study", "my study.yaml"], folder: "/home/me" },
    });
    expect(dead[0]).toMatchObject({ dead: 1, experts: 8, where: [{ layer: 1, experts: [3] }] });
    expect([dead.length, alive]).toEqual([3, 0]);
  });

  it("give one run with its settings, checkpoints and the command of its study", async () => {
    const name = "study/arms/coarse/seed-0-0123456789abcdef";
    const detail = await ask<RunDetail>(`/api/run?name=${name}`);
    expect(detail.settings).toContainEqual(["training.lr.peak", "0.002"]);
    expect(detail.settings).toContainEqual(["spec.layers[0 to 1].ffn.experts", "4"]);
    expect(detail.checkpoints).toMatchObject([{ name: "last", bytes: 1000 }]);
    expect(detail).toMatchObject({
      memory: { bytes: 5e8, when: "peak" },
      command: { words: ["upcycle", "study", "my study.yaml"] },
    });
  });

  it("give curves of several runs, raw where a part is asked for", async () => {
    const { curves } = await ask<Curves>("/api/curves?run=alone&run=nobody&metric=train/loss&axis=step&columns=2");
    expect(curves.map(({ run, total }) => [run, total])).toEqual([["alone", 12]]);
    expect(curves[0]!.x[0]).toBe(1);
    const part = await ask<Curves>("/api/curves?run=alone&metric=train/loss&axis=step&from=4&to=6&columns=9");
    expect(part.curves[0]!.x).toEqual([3, 4, 5, 6]);
  });

  it("give the same curves with and without what steps say of routing, whichever is asked for first", async () => {
    const name = "study/arms/coarse/seed-0-0123456789abcdef";
    const metrics = ["train/loss", "train/z_loss", "train/router_entropy", "train/grad_norm", "train/dead_experts"];
    const answers = async (order: readonly string[]): Promise<Map<string, unknown>> => {
      const fresh = await Studio.open({ dir, actions: false }, () => now);
      const found = new Map<string, unknown>();
      for (const metric of order)
        found.set(metric, await fresh.answer("/api/curves", new URLSearchParams({ run: name, metric, axis: "hours" })));
      expect(fresh.bytes).toBeGreaterThan(0);
      return found;
    };
    const [one, other] = [await answers(metrics), await answers([...metrics].reverse())];
    const text = (answer: unknown): string => JSON.stringify(answer).replace(/"generation":\d+/g, "");
    for (const metric of metrics) expect(text(one.get(metric))).toBe(text(other.get(metric)));
    const { curves } = one.get("train/router_entropy") as { curves: { total: number; y: number[] }[] };
    expect([curves[0]!.total, curves[0]!.y[0]]).toEqual([20, 1.25]);
  });

  it("give what is new of a curve to whom has the rest, and all of it where that is void", async () => {
    const grownCurve = async (have: string): Promise<Grown> =>
      (await ask<{ curves: Grown[] }>(`/api/curves?run=nobody&run=alone&metric=train/loss&axis=step${have}`))
        .curves[0]!;
    const { generation, total, first } = await grownCurve("");
    expect([total, first]).toEqual([12, 0]);
    const alone = join(dir, "alone");
    addLines(alone, stepRecord(13, { steps: 40 }), stepRecord(14, { steps: 40 }));
    await later();
    const have = `&have=1:1&have=${generation}:12`;
    expect(await grownCurve(have)).toMatchObject({ x: [13, 14], total: 14, first: 12, generation });
    // Another generation, more points than there are, a part of the range, and no number: all is given.
    for (const other of [
      `&have=1:1&have=${generation + 1e6}:12`,
      `&have=1:1&have=${generation}:99`,
      `${have}&from=1`,
      "&have=x",
    ])
      expect(await grownCurve(other)).toMatchObject({ total: 14, first: 0 });
    addLines(alone, { type: "resume", step: 11 }, stepRecord(12, { steps: 40 }), stepRecord(13, { steps: 40 }));
    await later();
    const again = await grownCurve(have);
    expect([again.first, again.x.slice(-3)]).toEqual([0, [11, 12, 13]]);
    expect(again.generation).not.toBe(generation);
  });

  it("forget curves that were not asked for lately, and read them again", async () => {
    const names = ["dense", "coarse"].flatMap((arm) =>
      [0, 1, 2].map((seed) => `study/arms/${arm}/seed-${seed}-0123456789abcdef`),
    );
    const store = new CurveStore(20_000);
    for (const name of [...names, ...names]) {
      const columns = await store.of(studio.index.run(name)!, name.includes("coarse"));
      expect(columns.curve("train/loss", "step")!.x).toHaveLength(20);
      expect(store.bytes).toBeLessThanOrEqual(20_000);
    }
  });

  it("refuse measures and axes that there are not, and more runs than can be drawn", async () => {
    await expect(ask("/api/curves?metric=x")).rejects.toMatchObject({ kind: "input", where: "metric" });
    await expect(ask("/api/curves?axis=x")).rejects.toMatchObject({ kind: "input", where: "axis" });
    await expect(ask("/api/curves?from=x")).rejects.toMatchObject({ kind: "input", where: "from" });
    await expect(
      ask(`/api/compare?${Array.from({ length: 201 }, (_, i) => `run=${i}`).join("&")}`),
    ).rejects.toMatchObject({ kind: "input" });
  });

  it("name the settings in which runs differ", async () => {
    const names = ["dense", "coarse"].map((arm) => `run=study/arms/${arm}/seed-0-0123456789abcdef`);
    const { differences } = await ask<{ differences: { key: string; values: string[] }[] }>(
      `/api/compare?${names.join("&")}`,
    );
    expect(differences[0]).toEqual({ key: "kind", values: ["dense", "moe"] });
    expect(differences).toContainEqual({ key: "training.lr.peak", values: ["0.001", "0.002"] });
  });

  it("give the history of experts, and nothing for a dense run", async () => {
    const history = await ask<{ steps: number[]; load: number[][][]; dead: number[][][] }>(
      "/api/experts?name=study/arms/coarse/seed-0-0123456789abcdef",
    );
    expect(history.steps).toEqual([0, 5, 10, 15, 20]);
    expect(history.load[4]![1]).toEqual([2, 1.2, 0.796, 0.004]);
    expect(history.dead[4]).toEqual([[], [3]]);
    expect(await ask("/api/experts?name=alone")).toBeNull();
  });

  it("give similarity of each expert, and of logs without it none", async () => {
    const name = "study/arms/coarse/seed-0-0123456789abcdef";
    const { expertSimilarity } = await ask<{ expertSimilarity: number[][][] }>(`/api/experts?name=${name}`);
    expect(expertSimilarity[4]).toEqual([
      [1, 0.99, 0.98, 0.97],
      [0.99, 0.98, 0.97, 0.96],
    ]);
  });

  it("give co-activation over time, pairs against independent choices as upcycle experts has them", async () => {
    const path = "/api/coactivation?name=study/arms/coarse/seed-0-0123456789abcdef";
    const history = await ask<CoactivationHistory>(`${path}&layer=1`);
    expect(history).toMatchObject({
      layer: 1,
      layers: 2,
      experts: 4,
      topK: 2,
      complete: true,
      steps: [0, 5, 10, 15, 20],
    });
    const counts = [
      [1000, 600, 398, 2],
      [600, 600, 0, 0],
      [398, 0, 398, 0],
      [2, 0, 0, 2],
    ];
    const { ratios } = coactivationOf(counts);
    expect(history.moments[4]).toHaveLength(6);
    for (const { a, b, share, ratio } of history.moments[4]!) {
      expect(share).toBeCloseTo(counts[a]![b]! / 1000, 4);
      expect(ratio).toBeCloseTo(ratios[a]![b]!, 2);
    }
    for (const layer of ["2", "-1", "0.5", "1e300"]) expect(await ask(`${path}&layer=${layer}`), layer).toBeNull();
    await expect(ask(`${path}&layer=x`)).rejects.toThrow("no number");
    expect(await ask("/api/coactivation?name=alone")).toBeNull();
  });

  it("are null for every name that is none of the folder's, such as paths", async () => {
    const names = [
      "../alone",
      "/etc/passwd",
      "alone/../alone",
      "study",
      "",
      "alone/run.json",
      "__proto__",
      "constructor",
    ];
    for (const path of ["/api/run", "/api/experts", "/api/coactivation", "/api/expert-file", "/api/model"])
      for (const name of names)
        expect(await studio.answer(path, new URLSearchParams({ name })), `${path} ${name}`).toBeNull();
    expect(await studio.answer("/api/constructor", new URLSearchParams())).toBeNull();
    expect(await studio.shelf.page("alone/run.json")).toBeNull();
  });

  it("tell of a run whose loss is no number any more", async () => {
    const release = await lockFolder(join(dir, "alone"));
    addLines(join(dir, "alone"), { ...stepRecord(13), loss: null }, { ...evalRecord(13), loss: null });
    now += 4000;
    const { alerts } = await studio.look();
    await release();
    expect(alerts.filter(({ run }) => run === "alone").map(({ kind }) => kind)).toContain("nan");
    expect((await ask<Overview>("/api/overview")).alerts).toContainEqual(
      expect.objectContaining({ run: "alone", kind: "nan", level: "error" }),
    );
  });
});
