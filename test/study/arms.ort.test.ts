/** Arms of every kind: recipes that are measured on text, multiplied mixtures, several devices, Megatron-LM. */
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { at, entryOf } from "../../src/base/at.js";
import { UpcycleError } from "../../src/base/errors.js";
import { resultOf } from "../../src/base/events.js";
import { randomStream } from "../../src/base/random.js";
import { parseStudyConfig, type StudyConfig } from "../../src/base/schemas/index.js";
import type { Backend } from "../../src/engine/runtime/runtime.js";
import { openCheckpoint } from "../../src/files/checkpoint/open.js";
import { gpuOf } from "../../src/laws/planner/hardware.js";
import type { StudyResult } from "../../src/model/results/result.js";
import { outlookOf, runStudy, type StudyEvent, type StudyOptions } from "../../src/study/run.js";
import { inThread } from "../support/backend.js";
import { temporaryFolder } from "../files/io/temporary.js";

const root = temporaryFolder();
const corpus = join(root, "corpus.jsonl");
const words = "the whale ship sea of in and union state people year congress captain white great night".split(" ");

beforeAll(() => {
  const stream = randomStream(3, "corpus");
  let index = 0;
  const word = (): string => at(words, Math.floor(stream.uniformAt(index++) ** 2 * words.length));
  const lines = Array.from({ length: 60 }, () => JSON.stringify({ text: Array.from({ length: 48 }, word).join(" ") }));
  writeFileSync(corpus, `${lines.join("\n")}\n`);
});

const training = (steps: number): string =>
  `{steps: ${steps}, batch: 4, sequence: 16, lr: {peak: 1e-2, schedule: constant}, evalEvery: 3}`;

const config = (arms: string, more = ""): StudyConfig =>
  parseStudyConfig(
    `
name: arms
seeds: [0]
text: {files: [${JSON.stringify(corpus)}], heldOut: 0.1}
tokenizer: {vocab: 300}
model: {hidden: 16, layers: 2, heads: 2, kvHeads: 1, inner: 32, maxPositions: 64}
pretrain: ${training(6)}
continue: ${training(3)}
evaluation: {tokens: 200}
calibration: {tokens: 640}
${more}
arms:
${arms}`,
    "study.yaml",
  );

const store = join(root, "store");
const optionsFor = (study: StudyConfig, dir: string, changes: Partial<StudyOptions> = {}): StudyOptions => ({
  config: study,
  dir: join(root, dir),
  store,
  backends: [inThread],
  threads: 1,
  command: "upcycle study arms.yaml",
  ...changes,
});
const events: StudyEvent[] = [];
const run = (study: StudyConfig, dir: string, changes: Partial<StudyOptions> = {}): Promise<StudyResult> =>
  resultOf(runStudy(optionsFor(study, dir, changes)), (event) => void events.push(event));
const armOf = ({ arms }: StudyResult, id: string): StudyResult["arms"][number] =>
  entryOf(new Map(arms.map((arm) => [arm.id, arm])), id);
const firstRun = (result: StudyResult, id: string): StudyResult["arms"][number]["runs"][number] =>
  at(armOf(result, id).runs, 0);
async function refusal(promise: Promise<unknown>): Promise<string> {
  const cause: unknown = await promise.catch((error: unknown) => error);
  if (!(cause instanceof UpcycleError)) throw new Error(`expected an UpcycleError, got ${String(cause)}`);
  return cause.line;
}

describe("recipes that are measured on text", () => {
  const measured = config(`
  centroids: {kind: upcycled, recipe: E4G1T2, router: {order: topk-softmax, init: centroids}}
  calibrated: {kind: upcycled, recipe: E4G1T1, router: softmax-topk, scaling: calibrated, routerStd: 1}
  clustered: {kind: upcycled, recipe: E1G4T3, shared: 16, split: activation}
  ungrouped: {kind: upcycled, recipe: E4G4T4, routerGroups: false, routerStd: 1}
  grouped: {kind: upcycled, recipe: E4G4T4, routerStd: 1}`);
  let result: StudyResult;
  beforeAll(async () => {
    result = await run(measured, "measured");
  });

  const recordOf = async (id: string): Promise<Record<string, unknown>> => {
    const { schedule } = await outlookOf(optionsFor(measured, "measured"));
    const { path } = schedule.runs.find(({ path: one }) => one.startsWith(`arms/${id}/`))!;
    return JSON.parse(readFileSync(join(store, path, "run.json"), "utf8")) as Record<string, unknown>;
  };

  it("are all trained", () => {
    expect(result.arms.map(({ id }) => id)).toEqual(["centroids", "calibrated", "clustered", "ungrouped", "grouped"]);
    for (const { runs } of result.arms) expect(at(runs, 0).finalLoss).toBeGreaterThan(0);
  });

  it("keep the function with centroids, and lose it without groups of router rows", () => {
    const change = (id: string): number => firstRun(result, id).preservation?.maxAbsLogitDiff ?? NaN;
    expect(change("centroids")).toBeLessThan(1e-4);
    expect(change("grouped")).toBeLessThan(1e-4);
    expect(change("ungrouped")).toBeGreaterThan(0.01);
  });

  it("depend on how much text is measured, others do not", async () => {
    const keys = async (study: StudyConfig): Promise<ReadonlyMap<string, string>> =>
      new Map((await outlookOf(optionsFor(study, "other"))).plan.runs.map(({ arm, key }) => [arm.id, key]));
    const [now, then] = [await keys(measured), await keys({ ...measured, calibration: { tokens: 320 } })];
    const changed = [...now].filter(([id, key]) => then.get(id) !== key).map(([id]) => id);
    expect(changed).toEqual(["centroids", "calibrated", "clustered"]);
  });

  it("are recorded as the arms' own", async () => {
    expect(await recordOf("ungrouped")).toMatchObject({ recipe: { routerGroups: false } });
    expect(await recordOf("centroids")).toMatchObject({ recipe: { routerInit: { kind: "centroids" } } });
  });
});

describe("a multiplied arm", () => {
  const arms = `
  coarse: {kind: upcycled, recipe: E4G1T2}
  equal: {kind: multiplied, of: coarse, copies: 2}
  useful: {kind: multiplied, of: coarse, copies: 2, by: load}`;
  let result: StudyResult;
  beforeAll(async () => {
    result = await run(config(arms), "multiplied", { jobs: 2 });
  });

  it("begins with what the other arm has ended with, function and all", () => {
    const end = firstRun(result, "coarse").finalLoss;
    const { points, preservation } = firstRun(result, "equal");
    expect(at(points, 0).loss).toBeCloseTo(end, 5);
    expect(preservation?.maxAbsLogitDiff).toBeLessThan(1e-4);
  });

  it("has more experts, chosen as its recipe says", () => {
    expect(result.arms.map(({ kind, recipe }) => [kind, recipe])).toEqual([
      ["upcycled", "E4G1T2"],
      ["multiplied", "E8G1T4"],
      ["multiplied", "E8G1T2"],
    ]);
    expect(at(at(firstRun(result, "useful").load, 0).layers, 0)).toHaveLength(8);
  });

  it("measures how far its experts are from the parent's FFN", () => {
    const [own, before] = ["equal", "coarse"].map((id) => firstRun(result, id).similarity);
    // Before its first step they are those of the arm it starts from.
    expect(at(at(own!, 0).layers, 0)).toBeCloseTo(at(before!.at(-1)!.layers, 0), 5);
  });

  it.each([
    ["of: nothing", 'there is no arm "nothing"'],
    ["of: dense", 'arm "dense" is dense, it has no experts to multiply'],
    ["of: equal", 'arm "equal" is itself multiplied'],
  ])("is refused with %s", (of, why) => {
    const wrong = `
  dense: {kind: dense}
  coarse: {kind: upcycled, recipe: E4G1T2}
  equal: {kind: multiplied, of: coarse, copies: 2}
  odd: {kind: multiplied, ${of}, copies: 2}`;
    expect(() => config(wrong)).toThrow(why);
  });
});

describe("a study on several devices", () => {
  it("pins each worker's trainings to one, and calls a run the same on all", async () => {
    const trained: string[] = [];
    const device = (name: string): Backend => ({
      ...inThread,
      name,
      openTrain: (program, options) => {
        trained.push(name);
        return inThread.openTrain(program, options);
      },
    });
    const study = config(
      "  moe: {kind: upcycled, recipe: E2G1T1, router: softmax-topk, vary: {continue.lr.peak: [1e-3, 2e-3, 3e-3]}}",
    );
    const both = { backends: [device("gpu:0"), device("gpu:1")] as const, jobs: 2, store: join(root, "devices") };
    const result = await run(study, "devices", both);
    expect([...new Set(trained)].sort()).toEqual(["gpu:0", "gpu:1"]);
    expect(trained).toHaveLength(4);
    expect(result.environment.device).toBe("onnxruntime in this thread on gpu:0; onnxruntime in this thread on gpu:1");
    const { schedule } = await outlookOf(
      optionsFor(study, "elsewhere", { store: both.store, backends: [device("gpu:7")] }),
    );
    expect(schedule.flops).toBe(0);
  });
});

describe("an arm that Megatron-LM trains", () => {
  const before = process.env["PATH"];
  afterAll(() => {
    process.env["PATH"] = before;
  });
  const megatron = join(root, "Megatron-LM");
  const row = {
    ...{ title: "a GPU", peakTflops: { bf16: 989 }, memoryGB: 80, hbmTBs: 3.35, intraGBs: 450, interGBs: 50 },
    ...{ gpusPerNode: 8, pricePerHour: 1, sources: {} },
  };
  const gpus = { gpuOf: (name: string) => Promise.resolve(gpuOf(name, row)) };
  const arms = `
  ours: {kind: upcycled, recipe: E4G1T2}
  theirs: {kind: upcycled, recipe: E4G1T2, engine: megatron}`;
  const block = `megatron: {megatron: ${JSON.stringify(megatron)}, transformerEngine: false, precision: fp32, hardware: {gpus: 1}}`;

  /** torchrun runs the stand-in for pretrain_gpt.py; the weights that it was given stand for those it would save. */
  function writeTorchrun(): void {
    const bin = join(root, "bin");
    for (const folder of [bin, megatron]) mkdirSync(folder, { recursive: true });
    writeFileSync(join(megatron, "pretrain_gpt.py"), "");
    const stub = fileURLToPath(new URL("../support/stub-trainer.mjs", import.meta.url));
    writeFileSync(
      join(bin, "torchrun"),
      `#!/bin/bash
while [ "$1" != pretrain_gpt.py ]; do shift; done
echo "$*" >> ${root}/asked
if [ ! -e ${root}/failed ]; then touch ${root}/failed; export STUB_FAIL_AFTER=2; fi
export STUB_MOE=1
${process.execPath} ${stub} "$@"; code=$?
while [ "$1" != --save ]; do shift; done
for save in "$2"/iter_*; do cp -r "$2"/../../begin/release/. "$save"/; done
exit $code
`,
    );
    chmodSync(join(bin, "torchrun"), 0o755);
    process.env["PATH"] = `${bin}:${before}`;
  }

  it("is started, started again where it fails, and measured as any other", { timeout: 60_000 }, async () => {
    writeTorchrun();
    const result = await run(config(arms, block), "megatron", gpus);
    const own = firstRun(result, "theirs");
    const asked = readFileSync(join(root, "asked"), "utf8").trim().split("\n");
    expect(asked).toHaveLength(2);
    expect(asked[0]).toContain("--train-iters 3");
    expect(asked[0]).toContain("--num-experts 4");
    // The stand-in learns nothing, so both ends are the model that it was given.
    expect(own.points.map(({ step }) => step)).toEqual([0, 3]);
    expect(at(own.points, 1).loss).toBe(at(own.points, 0).loss);
    expect(at(own.points, 0).loss).toBeCloseTo(at(firstRun(result, "ours").points, 0).loss, 5);
    expect(at(own.load, 1).layers.map((layer) => layer.length)).toEqual([4, 4]);
    expect(at(own.similarity, 1).layers).toEqual(at(own.similarity, 0).layers);
    const folder = join(root, "megatron", own.path);
    const steps = readFileSync(join(folder, "metrics.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { type: string; loss?: number; balanceLoss?: number })
      .filter(({ type }) => type === "step");
    expect(steps.length).toBe(3);
    for (const [i, { loss }] of steps.entries()) expect(loss).toBeCloseTo(2 + 8 / Math.sqrt(i + 1), 5);
    // Megatron-LM logs the mean of both layers; a record has their sum.
    expect(steps.map(({ balanceLoss }) => balanceLoss)).toEqual([2.1, 2.1, 2.1]);
    expect(own.peakRssBytes).toBe(200.25 * 2 ** 20);
    expect(existsSync(join(folder, "launch.yaml"))).toBe(true);
    const last = await openCheckpoint(join(folder, "last"));
    await last.close();
    expect(last.spec.family).toBe("mixtral");
    expect(events.some((event) => event.type === "note" && event.text.includes("(restart 2)"))).toBe(true);
  });

  it("is not trained again", async () => {
    cpSync(join(root, "asked"), join(root, "asked before"));
    const again = await run(config(`${arms}\n  dense: {kind: dense}`, block), "megatron", gpus);
    expect(firstRun(again, "theirs").finalLoss).toBeGreaterThan(0);
    expect(readFileSync(join(root, "asked"), "utf8")).toBe(readFileSync(join(root, "asked before"), "utf8"));
  });

  it("is another run than that of this program, and than one of another precision", async () => {
    const keyOf = async (text: string): Promise<readonly string[]> =>
      (await outlookOf(optionsFor(config(arms, text), "keys", gpus))).plan.runs.map(({ key }) => key);
    const [ours, theirs] = await keyOf(block);
    const [same, other] = await keyOf(block.replace("fp32", "bf16"));
    expect(new Set([ours, theirs, other]).size).toBe(3);
    expect(same).toBe(ours);
  });

  it.each([
    ["without the block megatron", arms, "", 'there is no block "megatron"'],
    [
      "from scratch",
      "  one: {kind: upcycled, recipe: E4G1T2}\n  new: {kind: scratch, like: one, engine: megatron}",
      block,
      "an arm from scratch has none",
    ],
  ])("is refused %s", (_, some, text, why) => {
    expect(() => config(some, text)).toThrow(why);
  });

  it("is refused before anything is trained where Megatron-LM has no such setting", async () => {
    const odd = config(
      arms.replace("engine: megatron", "engine: megatron, continue: {optimizer: {method: muon}}"),
      block,
    );
    expect(await refusal(outlookOf(optionsFor(odd, "odd", gpus)))).toContain("optimizer.method");
  });
});
