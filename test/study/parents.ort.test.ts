/** Parents: several that a study trains, and one that the user brings. */
import { cpSync, existsSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import { resultOf } from "../../src/base/events.js";
import { openCheckpoint } from "../../src/files/checkpoint/open.js";
import { parseStudyConfig, type StudyConfig } from "../../src/base/schemas/index.js";
import type { StudyResult } from "../../src/model/results/result.js";
import { runStudy, type StudyEvent } from "../../src/study/run.js";
import { inThread } from "../support/backend.js";
import { armOf, fail, failure, firstRun, mainParent, smallStudy, training, words } from "./small-study.js";

const { root, corpus, yaml, config, run } = smallStudy();
const gridFolder = join(root, "grid");
let grid: StudyResult;

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

beforeAll(async () => {
  grid = await run({ dir: gridFolder, config: gridded(), jobs: 2 });
});

/** Folder of the first parent that the grid has trained, and of a mixture made of it. */
const parentFolder = (): string => join(gridFolder, mainParent(grid).path);
const mixtureFolder = (): string => join(gridFolder, firstRun(armOf(grid, "moe-0.01@small-4")).path, "last");

describe("a study with several parents", () => {
  it("runs every arm on every parent that it names, and pairs runs by parent and seed", async () => {
    const study = grid;
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
    expect(await run({ dir: gridFolder, config: gridded(), jobs: 2 }, (event) => void again.push(event))).toEqual(
      study,
    );
    expect(again).toEqual([{ type: "phase", label: "already finished, nothing was trained" }]);
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
      { balance: "layer", bias: 0.01, capacity: { factor: 1, drop: "probs" } },
    ]);
    const checkpoint = await openCheckpoint(join(of("biased"), "last"));
    expect((await checkpoint.readFloat32("layers.0.routerCorrection")).some((value) => value !== 0)).toBe(true);
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
      own(mixtureFolder()),
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
        /^ROOT\/grid\/arms\/moe-0.01\/small-4-seed-1-[0-9a-f]{15}\/last: this mixtral model is already a mixture of experts, a parent must be dense$/,
      ),
      "ROOT/nothing: no such folder",
      "recipe E2G3T3: the FFN size 32 (layer 0) is not divisible by G = 3; use a G that divides it: 1, 2, 4, 8, 16, " +
        "32; or fill it with zero units (--pad, in files pad: true)",
    ]);
  });

  it("is refused before text is read if it is no dense model, or an arm cannot be made of it", async () => {
    for (const [index, study] of [
      own(mixtureFolder()),
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
