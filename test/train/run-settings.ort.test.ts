/** Training runs with further settings: frozen parameters, averages, bfloat16 checkpoints, Muon, data mixes. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import { openCheckpoint } from "../../src/files/checkpoint/open.js";
import { meanLoss } from "../../src/evals/compare.js";
import { openModel } from "../../src/evals/model.js";
import type { TrainingBlock } from "../../src/base/schemas/index.js";
import { openTensorFile } from "../../src/files/io/tensor-file.js";
import { slotsOf } from "../../src/model/tensors/slots.js";
import { freshTensor } from "../../src/train/init.js";
import { inThread } from "../support/backend.js";
import { block, changedBackend, finish, moeSpec, remains, runOptions, stopAfter, text } from "../support/runs.js";
import { referenceRun } from "./reference-run.js";

const { whole, fresh } = referenceRun();

describe("a training run with further settings", () => {
  it("leaves frozen parameters as they were, keeps no moments of them, and resumes to the bit", async () => {
    const changes = {
      block: { ...block, freeze: ["layers.0.*"], groups: { router: { freeze: true }, experts: { lr: 0.5 } } },
    };
    const [one, two] = [fresh(), fresh()];
    await finish(runOptions(one, changes));
    await stopAfter(runOptions(two, changes), 5);
    await finish(runOptions(two, changes));
    expect(await remains(two)).toEqual(await remains(one));
    const checkpoint = await openCheckpoint(join(one, "last"));
    const moments = readFileSync(join(one, "last/optimizer.safetensors")).toString("latin1");
    for (const slot of slotsOf(moeSpec)) {
      const frozen = slot.key.startsWith("layers.0.") || slot.key.endsWith("router");
      const same = (await checkpoint.readFloat32(slot.key)).join() === freshTensor(moeSpec, slot, 1).join();
      expect([slot.key, same, moments.includes(`"moment1.${slot.key}"`)]).toEqual([slot.key, frozen, !frozen]);
    }
    await checkpoint.close();
  });

  it.each<[string, Partial<TrainingBlock>]>([
    ["averaged weights", { average: { decay: 0.8, evaluate: false } }],
    ["averaged weights, which are measured", { average: { decay: 0.8, evaluate: true } }],
    ["bfloat16 checkpoints", { checkpoints: "bfloat16", average: { decay: 0.5, evaluate: false } }],
    ["Muon", { optimizer: { ...block.optimizer, method: "muon" } }],
    [
      "Muon, frozen parts and all the rest",
      {
        optimizer: { ...block.optimizer, method: "muon", nesterov: false, muonScale: "spectral" },
        freeze: ["layers.1.*"],
        average: { decay: 0.9, evaluate: true },
        checkpoints: "bfloat16",
      },
    ],
  ])("resumes to the bit with %s", async (_, changes) => {
    const options = { block: { ...block, ...changes } };
    const [one, two] = [fresh(), fresh()];
    const { metrics } = await finish(runOptions(one, options));
    expect(at(metrics.evals, metrics.evals.length - 1).loss).toBeLessThan(at(metrics.evals, 0).loss);
    await stopAfter(runOptions(two, options), 5);
    await finish(runOptions(two, options));
    expect(await remains(two)).toEqual(await remains(one));
    expect(existsSync(join(one, "average"))).toBe(changes.average !== undefined);
  });

  it("averages as the formula says, and leaves the average as a model", async () => {
    const dir = fresh();
    const weights: number[] = [];
    const backend = changedBackend((runtime) => ({
      step: async (batches, settings) => {
        const metrics = await runtime.step(batches, settings);
        weights.push(at(await runtime.read("weight", "layers.0.q"), 7));
        return metrics;
      },
    }));
    const { metrics } = await finish(
      runOptions(dir, { backend, block: { ...block, average: { decay: 0.75, evaluate: true } } }),
    );
    const slot = slotsOf(moeSpec).find(({ key }) => key === "layers.0.q")!;
    const expectedAverage = weights.reduce(
      (average, weight) => 0.75 * average + 0.25 * weight,
      at(freshTensor(moeSpec, slot, 1), 7),
    );
    const model = await openCheckpoint(join(dir, "average"));
    expect(at(await model.readFloat32("layers.0.q"), 7)).toBeCloseTo(expectedAverage, 6);
    await model.close();
    // The measurement at the end is that of the average.
    const opened = await openModel(join(dir, "average"), inThread, 1);
    const measured = await meanLoss(opened, text(150, "held-out"), { sequence: 16, limitTokens: 100 });
    expect(Math.abs(measured.loss - at(metrics.evals, metrics.evals.length - 1).loss)).toBeLessThan(1e-5);
    await opened.close();
  });

  it("saves models in bfloat16 and resumes from float32", async () => {
    const dir = fresh();
    await finish(runOptions(dir, { block: { ...block, checkpoints: "bfloat16" } }));
    const checkpoint = await openCheckpoint(join(dir, "last"));
    expect(checkpoint.dtype).toBe("BF16");
    await checkpoint.close();
    const whole32 = await openCheckpoint(join(whole, "last"));
    const master = await openTensorFile(join(dir, "last", "optimizer.safetensors"));
    for (const { key } of slotsOf(moeSpec))
      expect(new Float32Array((await master.read(`weight.${key}`)).buffer), key).toEqual(
        await whole32.readFloat32(key),
      );
    await whole32.close();
    await master.close();
  });

  it("measures each part of a data mix, and resumes to the bit", async () => {
    const dataMix = {
      text: {
        train: [
          { name: "a", weight: 3, tokens: text(500, "train") },
          { name: "b", weight: 1, tokens: Uint16Array.from(text(200, "other")) },
        ],
        heldOut: [
          { name: "a", weight: 3, tokens: text(150, "held-out") },
          { name: "b", weight: 1, tokens: text(90, "other held-out") },
        ],
      },
    };
    const [one, two] = [fresh(), fresh()];
    const { metrics } = await finish(runOptions(one, dataMix));
    for (const { loss, parts, load } of metrics.evals) {
      expect(loss).toBeCloseTo(0.75 * parts!.a! + 0.25 * parts!.b!, 12);
      for (const layer of load) expect(layer.reduce((a, b) => a + b)).toBeCloseTo(1, 12);
    }
    await stopAfter(runOptions(two, dataMix), 5);
    await finish(runOptions(two, dataMix));
    expect(await remains(two)).toEqual(await remains(one));
  });
});
