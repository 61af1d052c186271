/**
 * A whole study, as small as one can be: real text files, a real tokenizer, every kind of arm. The file is long
 * because one study, which takes seconds, serves all of its cases.
 */
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { at, entryOf, valueAt } from "../../src/base/at.js";
import { UpcycleError } from "../../src/base/errors.js";
import { resultOf } from "../../src/base/events.js";
import { randomStream } from "../../src/base/random.js";
import { openCheckpoint } from "../../src/files/checkpoint/open.js";
import { parseStudyConfig, type StudyConfig } from "../../src/base/schemas/index.js";
import { readLineage } from "../../src/surgery/convert/lineage.js";
import { countParams } from "../../src/model/cost/params.js";
import { readPoints } from "../../src/laws/points/points.js";
import { lawById } from "../../src/laws/fitting/catalogue.js";
import type { StudyResult } from "../../src/model/results/result.js";
import { writeReport } from "../../src/study/report.js";
import { runStudy, type StudyEvent } from "../../src/study/run.js";
import { recipeName } from "../../src/surgery/planning/recipe.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { upcycle, upcycleJson } from "../cli/upcycle.js";
import { inThread } from "../support/backend.js";

const root = temporaryFolder();
const corpus = join(root, "corpus.jsonl");
const vocabulary =
  "the a whale ship sea of in and union state people year congress captain white great night wind every war peace law";
const words = vocabulary.split(" ");

/** Sixty documents of sentences that repeat enough for a small model to learn something. */
function writeCorpus(): void {
  const stream = randomStream(2, "corpus");
  let index = 0;
  const word = (): string => at(words, Math.floor(stream.uniformAt(index++) ** 2 * words.length));
  const sentence = (): string => `${Array.from({ length: 8 }, word).join(" ")}.`;
  const lines = Array.from({ length: 60 }, () =>
    JSON.stringify({ text: Array.from({ length: 6 }, sentence).join(" ") }),
  );
  writeFileSync(corpus, `${lines.join("\n")}\n`);
}

const training = (steps: number): string =>
  `{steps: ${steps}, batch: 4, sequence: 16, lr: {peak: 1e-2, schedule: cosine, warmup: 2, final: 0.1}, ` +
  "evalEvery: 3, saveEvery: 4}";

const yaml = (changes = ""): string => `
name: tiny
seeds: [0, 7]
text: {files: [${JSON.stringify(corpus)}], heldOut: 0.1}
tokenizer: {vocab: 300}
model: {hidden: 16, layers: 2, heads: 2, kvHeads: 1, inner: 32, maxPositions: 64}
pretrain: ${training(12)}
continue: ${training(6)}
evaluation: {tokens: 200}
arms:
  dense: {kind: dense}
  coarse: {kind: upcycled, recipe: E4G1T2, label: whole copies}
  fine: {kind: upcycled, recipe: E4G4T4, routerStd: 1}
  soft: {kind: upcycled, recipe: E4G2T4, router: softmax-topk, routerStd: 0}
  scratch: {kind: scratch, like: coarse}
${changes}`;

const config = (text = yaml()): StudyConfig => parseStudyConfig(text, "study.yaml");

interface Options {
  readonly config?: StudyConfig;
  readonly dir: string;
  readonly store?: string;
  readonly jobs?: number;
  readonly signal?: AbortSignal;
}

function run(
  { config: study = config(), signal, ...place }: Options,
  onEvent?: (event: StudyEvent) => void,
): Promise<StudyResult> {
  const command = "upcycle study tiny.yaml";
  return resultOf(runStudy({ config: study, ...place, backends: [inThread], threads: 1, command, signal }), onEvent);
}

async function failure(promise: Promise<unknown>): Promise<UpcycleError> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  if (!(error instanceof UpcycleError)) throw new Error(`expected an UpcycleError, got ${String(error)}`);
  return error;
}

/** For values that a test has to have: throws, so that the test fails. */
function fail(): never {
  throw new Error("there is no such value");
}

/** A result without what depends on the clock and the machine. Findings are words about the same numbers. */
function timeless(result: StudyResult): unknown {
  return {
    ...result,
    startedAt: null,
    seconds: null,
    environment: null,
    findings: result.findings.filter((sentence) => !/token.*s\b|memory|GB|MB/i.test(sentence)),
    arms: result.arms.map((arm) => ({
      ...arm,
      runs: arm.runs.map((one) => ({ ...one, tokensPerSecond: null, peakRssBytes: null })),
    })),
  };
}

const whole = join(root, "whole");
const events: StudyEvent[] = [];
let result: StudyResult;
beforeAll(async () => {
  writeCorpus();
  result = await run({ dir: whole }, (event) => void events.push(event));
});

type ArmResult = StudyResult["arms"][number];

const mainParent = ({ parents }: StudyResult): StudyResult["parents"][number] => at(parents, 0);
/** Folder of the parent that `whole` has trained. */
const parentFolder = (): string => join(whole, mainParent(result).path);
/** Folder of an arm's run with a seed. */
const runFolder = (id: string, seed: number, of = result, dir = whole): string =>
  join(dir, (armOf(of, id).runs.find((one) => one.seed === seed) ?? fail()).path);

const armOf = ({ arms }: StudyResult, id: string): ArmResult => entryOf(new Map(arms.map((one) => [one.id, one])), id);
const arm = (id: string): ArmResult => armOf(result, id);
const firstRun = ({ runs }: ArmResult): ArmResult["runs"][number] => at(runs, 0);
const lastPoint = ({ points }: { readonly points: ArmResult["runs"][number]["points"] }): (typeof points)[number] =>
  at(points, points.length - 1);

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

describe("the same command again", () => {
  it("on a finished study trains nothing and finds the same", async () => {
    const heard: StudyEvent[] = [];
    expect(await run({ dir: whole }, (event) => void heard.push(event))).toEqual(result);
    expect(heard).toEqual([{ type: "phase", label: "already finished, nothing was trained" }]);
  });

  it("after being stopped, here and there, ends with the same result", async () => {
    const dir = join(root, "stopped");
    const stops = [5, 9, 23, 40];
    for (const stop of stops) {
      const controller = new AbortController();
      let count = 0;
      const error = await failure(
        run(
          { dir, signal: controller.signal },
          (event) => void (event.type === "train" && ++count === stop && controller.abort()),
        ),
      );
      expect(error.kind).toBe("interrupted");
    }
    const { seconds } = JSON.parse(readFileSync(join(dir, "study.json"), "utf8")) as { seconds: number };
    expect(seconds).toBeGreaterThan(0.05);
    const resumed = await run({ dir });
    expect(timeless(resumed)).toEqual(timeless(result));
    expect(resumed.seconds).toBeGreaterThan(seconds);
  });

  it("takes no folder that holds something by the names it gives", async () => {
    for (const [name, message] of [
      ["parents", "holds parents, which would be replaced"],
      ["result.json", "holds result.json"],
      ["study.json", "this is not the record of a study"],
    ] as const) {
      const dir = join(root, `taken-${name}`);
      mkdirSync(dir);
      writeFileSync(join(dir, name), "{}");
      expect((await failure(run({ dir }))).line).toContain(message);
      expect(readdirSync(dir)).toEqual([name]);
      expect(readFileSync(join(dir, name), "utf8")).toBe("{}");
    }
  });

  it.each(["reading text", "learning the tokenizer"])("stopped while %s, ends before any training", async (label) => {
    const dir = join(root, `early-${label}`);
    const controller = new AbortController();
    const heard: string[] = [];
    const error = await failure(
      run({ dir, signal: controller.signal }, (event) => {
        heard.push(event.type === "phase" ? event.label : event.type);
        if (event.type === "phase" && event.label === label) controller.abort();
      }),
    );
    expect([error.kind, error.where, error.hint]).toEqual(["interrupted", dir, "run the same command again to go on"]);
    expect(heard.at(-1)).toBe(label);
    expect(existsSync(join(dir, "tokenizers"))).toBe(false);
  });

  it("with other settings makes only the runs that those change, and finds the others", async () => {
    const dir = join(root, "changing-arms");
    cpSync(whole, dir, { recursive: true });
    const trained = async (text: string): Promise<string[]> => {
      const names = new Set<string>();
      await run({ dir, config: config(text) }, (event) => {
        if (event.type === "train" && event.event.type === "step") names.add(event.run);
      });
      return [...names];
    };
    expect(await trained(yaml())).toEqual([]);
    // A new arm costs its seeds, a new seed one run of each arm, a changed arm itself.
    expect(await trained(yaml("  more: {kind: upcycled, recipe: E2G1T1}"))).toEqual([
      "upcycled E2G1T1, seed 0",
      "upcycled E2G1T1, seed 7",
    ]);
    expect(await trained(yaml().replace("routerStd: 1", "routerStd: 2"))).toEqual([
      "upcycled E4G4T4, seed 0",
      "upcycled E4G4T4, seed 7",
    ]);
    expect(
      await trained(
        yaml()
          .replace("[0, 7]", "[0, 7, 8]")
          .replace(/ {2}(fine|soft|scratch).*\n/g, ""),
      ),
    ).toEqual(["continued dense, seed 8", "whole copies, seed 8"]);
    // The load-balancing loss is nothing to a dense model, a name and the order of arms nothing to any.
    const renamed = yaml().replace("  coarse:", "  copies:").replace("like: coarse", "like: copies");
    expect(await trained(renamed)).toEqual([]);
    const aux = yaml()
      .replace("continue: {", "continue: {auxLoss: 0.5, ")
      .replace(/ {2}(fine|soft|scratch).*\n/g, "");
    expect(await trained(aux)).toEqual(["whole copies, seed 0", "whole copies, seed 7"]);
    // Back at the first file nothing is left to do, and the result is what it was.
    const events: StudyEvent[] = [];
    const again = await run({ dir }, (event) => void events.push(event));
    expect(timeless(again)).toEqual(timeless(result));
    expect(events.every((event) => event.type !== "train" || event.event.type !== "step")).toBe(true);
  });

  it("in a folder of another study is refused, by both names", async () => {
    const error = await failure(run({ dir: whole, config: config(yaml().replace("name: tiny", "name: other")) }));
    expect([error.kind, error.message]).toEqual(["input", "this folder holds the study tiny, not other"]);
    const earlier = join(root, "earlier");
    mkdirSync(join(earlier, "arms"), { recursive: true });
    writeFileSync(join(earlier, "study.json"), JSON.stringify({ config: {}, startedAt: "2026-11-01", seconds: 1 }));
    expect((await failure(run({ dir: earlier }))).message).toMatch(/^this study was begun by an earlier version/);
  });

  it("with several trainings at once ends with the same numbers", async () => {
    const result3 = await run({ dir: join(root, "jobs"), jobs: 3 });
    expect(timeless(result3)).toEqual(timeless(result));
  });

  it("shares runs with other studies through a store", async () => {
    const store = join(root, "store");
    const first = await run({ dir: join(root, "one"), store });
    const heard: StudyEvent[] = [];
    const second = await run(
      { dir: join(root, "two"), store, config: config(yaml().replace("name: tiny", "name: two")) },
      (event) => void heard.push(event),
    );
    expect(heard.filter((event) => event.type === "train" && event.event.type === "step")).toEqual([]);
    expect(second.arms.map(({ runs }) => runs.map(({ finalLoss }) => finalLoss))).toEqual(
      first.arms.map(({ runs }) => runs.map(({ finalLoss }) => finalLoss)),
    );
    expect(at(second.arms, 0).runs[0]?.path).toMatch(/^\.\.\/store\/arms\/dense\/seed-0-/);
  });
});

describe("a grid", () => {
  const gridded = (): StudyConfig =>
    config(`
name: grid
seeds: [1, 2]
text: {files: [${JSON.stringify(corpus)}], heldOut: 0.1}
tokenizer: {vocab: 300}
model: {hidden: 16, layers: 1, heads: 2, kvHeads: 1, inner: 32, maxPositions: 64}
pretrain: ${training(4)}
continue: ${training(4)}
evaluation: {tokens: 200}
parents:
  small: {vary: {pretrain.steps: [4, 6]}}
  wide: {model: {inner: 64}, seed: 5}
arms:
  dense: {kind: dense}
  moe:
    kind: upcycled
    recipe: E2G1T1
    parents: [small]
    vary: {continue.lr.peak: [1.0e-2, 1.0e-3]}
  equal: {kind: upcycled, recipe: E2G1T2, parents: [wide], match: {flops: dense}}
  wild: {kind: dense, parents: [wide], continue: {lr: {peak: 9, warmup: 0}, optimizer: {clip: 1.0e9}}}
questions:
  - {ask: Does the rate matter?, compare: moe-0.01, with: moe-0.001}
  - {ask: And wildness?, compare: wild, with: dense, measure: worst-loss}
`);

  it("runs every arm on every parent that it names, and pairs runs by parent and seed", async () => {
    const dir = join(root, "grid");
    const study = await run({ dir, config: gridded(), jobs: 2 });
    expect(study.parents.map(({ id, tokens }) => [id, tokens])).toEqual([
      ["small-4", 4 * 64],
      ["small-6", 6 * 64],
      ["wide", 4 * 64],
    ]);
    expect(study.arms.map(({ id }) => id)).toEqual([
      "dense@small-4",
      "moe-0.01@small-4",
      "moe-0.001@small-4",
      "dense@small-6",
      "moe-0.01@small-6",
      "moe-0.001@small-6",
      "dense@wide",
      "equal@wide",
      "wild@wide",
    ]);
    const [dense, equal] = ["dense@wide", "equal@wide"].map((id) => firstRun(armOf(study, id)).points.at(-1) ?? fail());
    expect(at(study.arms, 7).flopsPerToken).toBeGreaterThan(at(study.arms, 6).flopsPerToken);
    // Whole steps come as close to the dense arm's FLOPs as they can.
    const step = at(study.arms, 7).flopsPerToken * 64;
    expect(Math.abs((dense?.flops ?? 0) - (equal?.flops ?? 0))).toBeLessThanOrEqual(step / 2);
    const [rate] = study.questions;
    expect(rate?.pairs.map(({ parent, seed }) => [parent, seed])).toEqual([
      ["small-4", 1],
      ["small-4", 2],
      ["small-6", 1],
      ["small-6", 2],
    ]);
    for (const { a, b, parent, seed } of rate?.pairs ?? []) {
      const lossOf = (id: string): number => {
        const found = armOf(study, `${id}@${parent}`).runs.find((one) => one.seed === seed);
        return (found ?? fail()).finalLoss;
      };
      expect([a, b]).toEqual([lossOf("moe-0.01"), lossOf("moe-0.001")]);
    }
    expect(at(study.findings, 0)).toMatch(/^Does the rate matter\? .*4 pairs of runs find a difference of [\d.]+ nats/);
    const again: StudyEvent[] = [];
    expect(await run({ dir, config: gridded(), jobs: 2 }, (event) => void again.push(event))).toEqual(study);
    expect(again).toEqual([{ type: "phase", label: "already finished, nothing was trained" }]);
  });
});

describe("a study whose rates do not depend on its length", () => {
  const steady = (steps: number): StudyConfig =>
    config(
      yaml()
        .replaceAll("schedule: cosine", "schedule: constant")
        .replace("steps: 6", `steps: ${steps}`)
        .replace("seeds: [0, 7]", "seeds: [0]")
        .replace(/ {2}(fine|soft|scratch).*\n/g, ""),
    );

  it("resumes when its trainings are to be longer, in finished, begun and new arms, to the same result", async () => {
    const dir = join(root, "longer");
    const controller = new AbortController();
    let steps = 0;
    const watch = (event: StudyEvent): void =>
      void (
        event.type === "train" &&
        event.run.startsWith("whole") &&
        event.event.type === "step" &&
        ++steps === 2 &&
        controller.abort()
      );
    await failure(run({ dir, config: steady(12), signal: controller.signal }, watch));
    const resumed = await run({ dir, config: steady(15) });
    expect(timeless(resumed)).toEqual(timeless(await run({ dir: join(root, "straight"), config: steady(15) })));
  });
});

describe("a parent that the user brings", () => {
  const own = (parent: string, more = ""): StudyConfig =>
    config(`
name: own
seeds: [3]
text: {files: [${JSON.stringify(join(root, "own.txt"))}], heldOut: 0.2}
parent: ${JSON.stringify(parent)}
continue: ${training(4)}
evaluation: {tokens: 150}
arms:
  dense: {kind: dense}
  coarse: {kind: upcycled, recipe: E2G2T2}
${more}`);
  beforeAll(() =>
    writeFileSync(
      join(root, "own.txt"),
      Array.from(
        { length: 120 },
        (_, i) => `The ${words[i % words.length]} of the sea and the ${words[(i * 7) % words.length]}. `,
      ).join("\n\n"),
    ),
  );

  it("is measured as it is and upcycled with its own tokenizer, on the user's text", async () => {
    const parent = parentFolder();
    const study = await run({ dir: join(root, "own"), config: own(parent) });
    expect(mainParent(study)).toMatchObject({ path: parent, tokens: null, points: [] });
    expect(study.text).toMatchObject({ vocab: 300, sources: [{ name: "own.txt" }] });
    expect(study.arms.map(({ id, runs }) => [id, runs.length])).toEqual([
      ["dense", 1],
      ["coarse", 1],
    ]);
    for (const one of study.arms)
      expect(Math.abs(at(firstRun(one).points, 0).loss - mainParent(study).loss)).toBeLessThan(1e-4);
    const { preservation, path } = firstRun(armOf(study, "coarse"));
    const { maxAbsLogitDiff, maxAbsLogit } = preservation ?? fail();
    expect(maxAbsLogitDiff / maxAbsLogit).toBeLessThanOrEqual(1e-5);
    // Nothing is written into the user's folder, and its tokenizer goes along.
    expect(readFileSync(join(root, "own", path, "last/tokenizer.json"))).toEqual(
      readFileSync(join(parent, "tokenizer.json")),
    );
    expect(existsSync(join(root, "own", "parents"))).toBe(false);
  });

  it("trains mixtures with the routing that the study asks for, and the dense model without", async () => {
    const parent = parentFolder();
    const routed = (arms: string): StudyConfig => {
      const { continue: block, ...rest } = own(parent, arms);
      return { ...rest, continue: { ...block, routing: { bias: 0.01, capacity: { factor: 1, drop: "probs" } } } };
    };
    const error = await failure(run({ dir: join(root, "no-bias"), config: routed("") }));
    const noBias =
      "arm coarse, continue.routing.bias: routers of the family mixtral have no bias to balance experts with; " +
      "make it with upcycle convert --correction-bias";
    expect(error.line.slice(0, noBias.length)).toBe(noBias);
    const dir = join(root, "routed");
    const withBias = routed("  biased: {kind: upcycled, recipe: E4G1T2, correctionBias: true}");
    const arms = Object.fromEntries(Object.entries(withBias.arms).filter(([id]) => id !== "coarse"));
    const study = await run({ dir, config: { ...withBias, arms } });
    const of = (id: string): string => join(dir, firstRun(armOf(study, id)).path);
    const trainingOf = (id: string): unknown =>
      (JSON.parse(readFileSync(join(of(id), "run.json"), "utf8")) as { training: { routing?: unknown } }).training
        .routing;
    expect([trainingOf("dense"), trainingOf("biased")]).toEqual([
      undefined,
      { bias: 0.01, capacity: { factor: 1, drop: "probs" } },
    ]);
    const checkpoint = await openCheckpoint(join(of("biased"), "last"));
    expect((await checkpoint.readFloat32("layers.1.routerCorrection")).some((value) => value !== 0)).toBe(true);
    await checkpoint.close();
  });

  it("goes through recipes/own-parent.yaml, with its own folder and text", async () => {
    const recipe = readFileSync(new URL("../../recipes/own-parent.yaml", import.meta.url), "utf8")
      .replace("models/my-parent", JSON.stringify(parentFolder()))
      .replace(/files: \[.*?\]/, `files: [${JSON.stringify(corpus)}]`)
      .replace("steps: 2000", "steps: 2")
      .replace("sequence: 512", "sequence: 16")
      .replace("warmup: 100, decay: 400", "warmup: 1, decay: 1")
      .replace("tokens: 100000", "tokens: 100");
    const study = await run({ dir: join(root, "own-parent"), config: parseStudyConfig(recipe, "own-parent.yaml") });
    expect(study.arms.map((one) => [one.id, one.runs.length, firstRun(one).points.map(({ step }) => step)])).toEqual([
      ["dense", 1, [0, 2]],
      ["top2", 1, [0, 2]],
      ["paper", 1, [0, 2]],
    ]);
    expect(firstRun(armOf(study, "top2")).preservation?.maxAbsLogitDiff).toBeLessThan(1e-5);
  });

  it("that was changed in place is named when the study goes on, a copy of it is not", async () => {
    const [parent, dir] = [join(root, "changing"), join(root, "changed")];
    cpSync(parentFolder(), parent, { recursive: true });
    const study = config(
      yaml()
        .replace(/(tokenizer|model|pretrain):.*\n/g, "")
        .replace("seeds: [0, 7]", `seeds: [0]\nparent: ${JSON.stringify(parent)}`)
        .replace(/ {2}(fine|soft|scratch).*\n/g, ""),
    );
    const controller = new AbortController();
    await failure(
      run(
        { dir, config: study, signal: controller.signal },
        (event) => void (event.type === "train" && event.event.type === "step" && controller.abort()),
      ),
    );
    const weights = join(parent, "model.safetensors");
    const bytes = readFileSync(weights);
    writeFileSync(
      weights,
      bytes.map((byte, at) => (at === bytes.length - 1 ? byte ^ 1 : byte)),
    );
    const error = await failure(run({ dir, config: study }));
    expect([error.where, error.exitCode]).toEqual([weights, 2]);
    expect(error.message).toMatch(
      /^changed since this study began: the file had \d+ bytes, \w+, and has \d+ bytes, \w+$/,
    );
    writeFileSync(weights, bytes);
    utimesSync(weights, 1, 1);
    expect((await run({ dir, config: study })).arms.length).toBe(2);
  });

  it("is refused, in one line, if it is no dense model, has no tokenizer, or cannot be cut so", async () => {
    const lines: string[] = [];
    for (const [index, study] of [
      own(join(whole, firstRun(arm("coarse")).path, "last")),
      own(join(root, "nothing")),
      own(parentFolder(), "  odd: {kind: upcycled, recipe: E2G3T3}"),
    ].entries()) {
      const error = await failure(run({ dir: join(root, `refused${index}`), config: study }));
      expect(error.exitCode).toBe(2);
      lines.push(error.line.replaceAll(root, "ROOT"));
    }
    // A refused study made nothing, so its folder can be used for the corrected one.
    expect((await run({ dir: join(root, "refused1"), config: own(parentFolder()) })).arms.length).toBe(2);
    expect(lines).toEqual([
      expect.stringMatching(
        /^ROOT\/whole\/arms\/coarse\/seed-0-[0-9a-f]{15}\/last: this mixtral model is already a mixture of experts, a parent must be dense$/,
      ),
      "ROOT/nothing: no such folder",
      "recipe E2G3T3: the FFN size 32 (layer 0) is not divisible by G = 3; use a G that divides it: 1, 2, 4, 8, 16, " +
        "32; or fill it with zero units (--pad, in files pad: true)",
    ]);
  });

  it("is refused before text is read if it is no dense model, or an arm cannot be made of it", async () => {
    for (const [index, study] of [
      own(join(whole, firstRun(arm("coarse")).path, "last")),
      own(parentFolder(), "  odd: {kind: upcycled, recipe: E2G3T3}"),
    ].entries()) {
      const events: StudyEvent[] = [];
      const dir = join(root, `early${index}`);
      const running = runStudy({
        config: study,
        dir,
        backends: [inThread],
        threads: 2,
        command: "upcycle study own.yaml",
      });
      await failure(resultOf(running, (event) => events.push(event)));
      expect(events).toEqual([]);
    }
  });
});
