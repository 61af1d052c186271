/** A whole study, with every kind of arm: one, which takes seconds, serves all of these cases. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { at, valueAt } from "../../src/base/at.js";
import { openCheckpoint } from "../../src/files/checkpoint/open.js";
import { readLineage } from "../../src/surgery/convert/lineage.js";
import { countParams } from "../../src/model/cost/params.js";
import { readPoints } from "../../src/laws/points/points.js";
import { lawById } from "../../src/laws/fitting/catalogue.js";
import type { StudyResult } from "../../src/model/results/result.js";
import { writeReport } from "../../src/study/report.js";
import { runStudy, type StudyEvent } from "../../src/study/run.js";
import { recipeName } from "../../src/surgery/planning/recipe.js";
import { upcycle, upcycleJson } from "../cli/upcycle.js";
import { inThread } from "../support/backend.js";
import { armOf, fail, firstRun, lastPoint, mainParent, smallStudy } from "./small-study.js";

const { root, yaml, config, run } = smallStudy();
const whole = join(root, "whole");
const events: StudyEvent[] = [];
let result: StudyResult;
beforeAll(async () => {
  result = await run({ dir: whole }, (event) => void events.push(event));
});

const arm = (id: string): StudyResult["arms"][number] => armOf(result, id);
/** Folder of an arm's run with a seed. */
const runFolder = (id: string, seed: number): string =>
  join(whole, (arm(id).runs.find((one) => one.seed === seed) ?? fail()).path);

describe("a study's result", () => {
  it("is what result.json says, and can be drawn", async () => {
    expect(JSON.parse(readFileSync(join(whole, "result.json"), "utf8"))).toEqual(result);
    const report = await writeReport(whole, result);
    expect(readFileSync(report, "utf8")).toContain("whole copies");
    expect(result).toMatchObject({
      version: 2,
      name: "tiny",
      seeds: [0, 7],
      commands: ["upcycle study tiny.yaml"],
      environment: { threads: 1 },
    });
    expect(result.seconds).toBeGreaterThan(0);
    expect(result.findings.length).toBeGreaterThan(2);
  });

  it("describes documents, tokens and vocabulary of its text", () => {
    const { text } = result;
    expect(text.sources).toEqual([{ name: "corpus.jsonl", documents: 60, bytes: expect.any(Number) as number }]);
    expect(text.trainDocuments + text.heldOutDocuments).toBe(60);
    expect(text.heldOutDocuments).toBeGreaterThanOrEqual(5);
    expect(text.vocab).toBe(300);
    expect(text.bytesPerToken).toBeGreaterThan(1.5);
    expect(text.trainTokens).toBeGreaterThan(10 * text.heldOutTokens * 0.8);
  });

  it("has a card with every model that was trained from another", () => {
    const cardOf = (id: string): string => readFileSync(join(runFolder(id, 7), "last", "README.md"), "utf8");
    expect(cardOf("fine")).toContain("A mixture of experts, trained further from **last E4G4T4** with Upcycle");
    expect(cardOf("fine")).toContain("| upcycled from | last (llama) |");
    expect(cardOf("dense")).toContain("A dense model, trained further from **last** with Upcycle");
    expect(existsSync(join(runFolder("scratch", 7), "last", "README.md"))).toBe(false);
  });

  it("has the parent it trained, an ordinary folder", async () => {
    const parent = mainParent(result);
    expect(parent).toMatchObject({ id: "parent", tokens: 12 * 64, label: "dense parent, trained here" });
    expect(parent.path).toMatch(/^parents\/parent-[0-9a-f]{15}\/last$/);
    expect(parent.points.map(({ step }) => step)).toEqual([0, 3, 6, 9, 12]);
    expect(lastPoint(parent).loss).toBe(parent.loss);
    expect(parent.loss).toBeLessThan(at(parent.points, 0).loss - 0.2);
    const checkpoint = await openCheckpoint(join(whole, parent.path));
    const { total, active } = countParams(checkpoint.spec);
    expect(parent.params).toEqual({ total, active });
    await checkpoint.close();
    for (const name of ["tokenizer.json", "tokenizer_config.json"])
      expect(existsSync(join(whole, parent.path, name)), name).toBe(true);
  });

  it("has every arm with every seed on the same tokens, each with its checkpoints", async () => {
    expect(result.arms.map(({ id, kind, label, recipe }) => [id, kind, label, recipe])).toEqual([
      ["dense", "dense", "continued dense", null],
      ["coarse", "upcycled", "whole copies", "E4G1T2"],
      ["fine", "upcycled", "upcycled E4G4T4", "E4G4T4"],
      ["soft", "upcycled", "upcycled E4G2T4", "E4G2T4"],
      ["scratch", "scratch", "E4G1T2 from scratch", "E4G1T2"],
    ]);
    for (const { id, kind, recipe, runs, flopsPerToken, params } of result.arms) {
      expect(runs.map(({ seed }) => seed)).toEqual([0, 7]);
      for (const { path, points, finalLoss, tokensPerSecond, peakRssBytes } of runs) {
        expect(points.map(({ step, tokens }) => [step, tokens])).toEqual([
          [0, 0],
          [3, 192],
          [6, 384],
        ]);
        expect(points.map(({ flops }) => flops)).toEqual([0, 192 * flopsPerToken, 384 * flopsPerToken]);
        expect(finalLoss).toBe(lastPoint({ points }).loss);
        expect(tokensPerSecond).toBeGreaterThan(0);
        expect(peakRssBytes).toBeGreaterThan(1e7);
        const checkpoint = await openCheckpoint(join(whole, path, "last"));
        const { total, active } = countParams(checkpoint.spec);
        expect(params, id).toEqual({ total, active });
        const lineage = await readLineage(checkpoint);
        expect(lineage && recipeName(lineage.recipe), id).toBe(kind === "upcycled" ? recipe : null);
        await checkpoint.close();
        expect(existsSync(join(whole, path, "last/tokenizer.json"))).toBe(true);
      }
      expect(at(runs, 0).points, id).not.toEqual(at(runs, 1).points);
    }
    expect(arm("fine").params.total).toBeGreaterThan(arm("dense").params.total);
    expect(arm("scratch").params).toEqual(arm("coarse").params);
  });

  it("starts upcycled arms at the parent's loss, and scratch far from it", () => {
    for (const id of ["dense", "coarse", "fine", "soft"]) {
      for (const { points } of arm(id).runs)
        expect(Math.abs(at(points, 0).loss - mainParent(result).loss), id).toBeLessThan(1e-4);
    }
    for (const { points } of arm("scratch").runs)
      expect(at(points, 0).loss).toBeGreaterThan(mainParent(result).loss + 0.2);
  });

  it("measures preservation, expert load and similarity where there is something to measure", () => {
    for (const id of ["coarse", "fine", "soft"]) {
      for (const { preservation, load, similarity } of arm(id).runs) {
        const { tokens, maxAbsLogitDiff, maxAbsLogit } = preservation ?? fail();
        expect(tokens).toBe(200);
        expect(maxAbsLogitDiff / maxAbsLogit, id).toBeLessThanOrEqual(1e-5);
        expect(load.map(({ step }) => step)).toEqual([0, 3, 6]);
        for (const { layers } of load) {
          expect(layers.length).toBe(2);
          for (const layer of layers) expect(layer.reduce((a, b) => a + b)).toBeCloseTo(1, 9);
        }
        const [start, ...later] = similarity.map(({ layers }) => layers);
        expect(start?.every((cosine) => cosine > 1 - 1e-6)).toBe(true);
        expect(later.at(-1)?.every((cosine) => cosine < 1 - 1e-6 && cosine > 0.5)).toBe(true);
      }
    }
    for (const { preservation, similarity, load } of arm("scratch").runs)
      expect([preservation, similarity, load.length]).toEqual([null, [], 3]);
    for (const { preservation, similarity, load } of arm("dense").runs)
      expect([preservation, similarity, load]).toEqual([null, [], []]);
  });

  it("counts its progress from nothing to everything", () => {
    const trainings = events.filter((event) => event.type === "train");
    let last = 0;
    for (const { done, total } of trainings) {
      expect(done).toBeGreaterThanOrEqual(last);
      expect(done).toBeLessThanOrEqual(total * (1 + 1e-12));
      last = done;
    }
    expect(last / at(trainings, 0).total).toBeCloseTo(1, 12);
    expect(new Set(trainings.map(({ run: name }) => name)).size).toBe(11);
  });
});

describe("a study that begins", () => {
  const begun = (text: string): ReturnType<typeof runStudy> =>
    runStudy({
      config: config(text),
      dir: join(root, `begun-${config(text).name}`),
      backends: [inThread],
      threads: 2,
      command: "upcycle study tiny.yaml",
    });

  it("says how much there is to train, and about how long, before it reads text", async () => {
    const events = begun(yaml());
    expect((await events.next()).value).toEqual({
      type: "phase",
      label: expect.stringMatching(/^11 trainings of [\d.]+ [kMG]FLOP in all: about [\d.]+ s, as a first guess$/),
    });
    expect((await events.next()).value).toEqual({ type: "phase", label: "reading text" });
    await events.return(undefined as never);
  });

  it("refuses a recipe that the new parent cannot be turned into before it reads text", async () => {
    const events = begun(yaml().replace("name: tiny", "name: uneven").replace("recipe: E4G4T4", "recipe: E4G7T7"));
    await expect(events.next()).rejects.toThrow("is not divisible by G = 7");
  });
});

describe("a study's folder", () => {
  it("is read by upcycle fit: a point for each finished model", async () => {
    const { points } = await readPoints(whole, lawById("upcycling-shared") ?? fail(), { mapping: new Map() });
    const groups = points.group ?? [];
    expect(groups.filter((name) => name === "upcycled")).toHaveLength(6);
    expect([...points.loss].sort()).toEqual(
      [mainParent(result).loss, ...result.arms.flatMap(({ runs }) => runs.map(({ finalLoss }) => finalLoss))].sort(),
    );
    const furtherTokens = lastPoint(firstRun(at(result.arms, 1))).tokens;
    for (const [i, name] of groups.entries()) {
      const value = (column: string): number => at(valueAt(points.columns, column), i);
      expect(value("N")).toBe(mainParent(result).params.total);
      if (name === "upcycled") expect([value("D1"), value("D2")]).toEqual([mainParent(result).tokens, furtherTokens]);
      else expect(value("D")).toBeGreaterThan(0);
    }
    // The law of one size over the parent, the dense arms and those from scratch.
    const fit = await upcycleJson(
      "fit",
      whole,
      "--law",
      "A*D^-a",
      "--columns",
      "D=D",
      "--start",
      "A=10,a=0.1",
      "--loss",
      "mse",
    );
    expect(fit).toMatchObject({ n: 5, rows: 5, dropped: [], status: "converged" });
    const { code, stderr } = await upcycle("fit", whole, "--law", "upcycling");
    expect([code, stderr]).toEqual([2, expect.stringMatching(/whole: 6 points for a law with 7 parameters/)]);
  });
});
