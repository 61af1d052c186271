/** Golden models of transformers: logits, losses, first gradients and training trajectories. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { cudaBackend } from "../../../src/engine/cuda/backend.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { logitsProgram, lossProgram, trainProgram } from "../../../src/graph/programs/programs.js";
import { namedSlots } from "../../../src/model/tensors/names.js";
import { cudaMachine, isThorough } from "../../support/cuda.js";
import {
  golden,
  goldenGradient,
  goldenModels,
  goldenTrajectories,
  readTensors,
  relativeError,
  shifted,
  type Trajectory,
} from "../../support/golden.js";
import { adamw, goldenRun } from "../../support/programs.js";

// The emulation is slow: one dense model and one mixture stand for all.
const models = isThorough ? goldenModels : ["dense/llama", "moe/deepseek_v3"];
const trajectories = isThorough ? goldenTrajectories : ["train/mixtral"];
const steps = isThorough ? 12 : 2;

describe.skipIf(cudaMachine === "no machine")(`on ${cudaMachine}, golden models of transformers`, () => {
  it.each(models)("%s: logits and loss", async (name) => {
    const checkpoint = await openCheckpoint(golden(name));
    const expected = readTensors(golden(name, "expected.safetensors"));
    const { data: ids, shape } = expected.get("input_ids")!;
    const [batch, sequence] = shape as [number, number];
    const program = logitsProgram(checkpoint.spec, { batch, sequence });
    const runtime = await cudaBackend().openForward({ threads: 1 });
    for (const { key } of program.params) await runtime.write(key, await checkpoint.readFloat32(key));
    const logits = await runtime.run("all", program, [Int32Array.from(ids)]);
    let worst = 0;
    for (const [i, value] of expected.get("logits")!.data.entries())
      worst = Math.max(worst, Math.abs(value - logits[i]!));
    expect(worst).toBeLessThan(1e-4);
    const text = shifted(ids, sequence);
    const losses = lossProgram(checkpoint.spec, { batch, sequence });
    const graph = { ...losses.graph, outputs: [losses.graph.outputs[losses.outputs.loss]!] };
    const [loss] = await runtime.run("loss", { graph, params: losses.params, picksRows: false }, [
      text.ids,
      text.targets,
    ]);
    expect(Math.abs(loss! - expected.get("loss")!.data[0]!)).toBeLessThan(1e-4);
    await runtime.close();
    await checkpoint.close();
  });

  it.each(trajectories)("%s: first gradients and twelve steps", async (name) => {
    const trajectory = JSON.parse(readFileSync(golden(name, "trajectory.json"), "utf8")) as Trajectory;
    const gradients = readTensors(golden(name, "grads_step0.safetensors"));
    const { spec, weights, batch, sequence, batchAt } = await goldenRun(name);
    const moe = trajectory.steps[0]!.aux_loss !== null;
    const program = trainProgram(spec, { batch, sequence, auxCoef: spec.auxLossCoef, zCoef: 0 });
    const operations = await cudaBackend().openOperations({ threads: 1 });
    const first = batchAt(0);
    const results = await operations.run("train", program.graph, [
      first.ids,
      first.targets,
      ...program.params.map(({ key }) => weights.get(key)!),
    ]);
    await operations.close();
    const names = new Map(namedSlots(spec).map(({ slot, names: [tensor] }) => [slot.key, tensor!]));
    for (const [i, { key }] of program.trained.entries()) {
      const expected = goldenGradient(gradients, names.get(key)!);
      expect(relativeError(results[program.gradients + i]!, expected), key).toBeLessThan(1e-4);
    }

    const runtime = await cudaBackend().openTrain(program, { threads: 1, accumulate: false });
    for (const [key, data] of weights) await runtime.write("weight", key, data);
    const { lr, betas, eps, weight_decay, clip_grad_norm } = trajectory.optimizer;
    for (let step = 0; step < steps; step++) {
      const expected = trajectory.steps[step]!;
      const found = await runtime.step([batchAt(step)], {
        learningRate: lr,
        beta1: betas[0],
        beta2: betas[1],
        eps,
        weightDecay: weight_decay,
        decayOn: "all",
        clipNorm: clip_grad_norm,
        update: step + 1,
      });
      const total = found.loss + spec.auxLossCoef * (found.balanceLoss ?? 0);
      expect(Math.abs(total - expected.loss), `loss at step ${step}`).toBeLessThan(moe && step >= 3 ? 2e-2 : 1e-3);
      if (step === 0) expect(found.gradNorm / expected.grad_norm).toBeCloseTo(1, 4);
    }
    await runtime.close();
  });

  it.each(trajectories)("%s: steps in bfloat16 and TF32 stay near those in float32", async (name) => {
    const { spec, weights, batch, sequence, batchAt } = await goldenRun(name);
    const program = trainProgram(spec, { batch, sequence, auxCoef: spec.auxLossCoef, zCoef: 0 });
    const train = async (precision: "float32" | "tf32" | "bf16"): Promise<number[]> => {
      const runtime = await cudaBackend(0, { precision }).openTrain(program, { threads: 1, accumulate: false });
      for (const [key, data] of weights) await runtime.write("weight", key, data);
      const losses: number[] = [];
      for (let step = 0; step < steps; step++) losses.push((await runtime.step([batchAt(step)], adamw(step + 1))).loss);
      await runtime.close();
      return losses;
    };
    const expected = await train("float32");
    for (const [precision, bound] of [
      ["tf32", 5e-3],
      ["bf16", 2e-2],
    ] as const) {
      const found = await train(precision);
      const worst = Math.max(...found.map((loss, i) => Math.abs(loss - expected[i]!)));
      expect(worst, precision).toBeLessThan(bound);
      expect(found, "a second run has the same bits").toEqual(await train(precision));
    }
  });
});
