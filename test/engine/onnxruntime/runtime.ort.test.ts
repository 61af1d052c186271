import { describe, expect, it } from "vitest";
import { at, entryOf } from "../../../src/base/at.js";
import { backward } from "../../../src/graph/grad/backward.js";
import { openForwardRuntime } from "../../../src/engine/onnxruntime/forward-runtime.js";
import { openTrainRuntime } from "../../../src/engine/onnxruntime/train-runtime.js";
import { logitsProgram, trainProgram } from "../../../src/graph/programs/programs.js";
import { buildDecoder } from "../../../src/graph/nn/decoder.js";
import { goldenTrajectories } from "../../support/golden.js";
import { adamw, goldenRun, openLoaded, readAll } from "../../support/programs.js";

describe("gradient accumulation", () => {
  it.each(goldenTrajectories)("%s: two micro-batches are one batch of twice the size", async (name) => {
    const { spec, batch, sequence, weights, batchAt } = await goldenRun(name);
    const half = batch / 2;
    // The balance loss is not linear in the batch (it multiplies two means), so it belongs to each micro-batch; all
    // else adds up.
    const whole = await openLoaded(trainProgram(spec, { batch, sequence, auxCoef: 0, zCoef: 0.1 }), weights);
    const parts = await openLoaded(trainProgram(spec, { batch: half, sequence, auxCoef: 0, zCoef: 0.1 }), weights, {
      accumulate: true,
    });
    for (let step = 0; step < 3; step++) {
      const optimizer = adamw(step + 1, { learningRate: 1e-4 });
      const a = await whole.step([batchAt(step)], optimizer);
      const b = await parts.step([batchAt(step, 0, half), batchAt(step, half, half)], optimizer);
      expect(Math.abs(a.loss - b.loss)).toBeLessThan(1e-5);
      expect(Math.abs(a.gradNorm / b.gradNorm - 1)).toBeLessThan(1e-4);
      if (a.zLoss !== null) expect(Math.abs(a.zLoss - b.zLoss!)).toBeLessThan(1e-5);
      expect(b.counts).toEqual(a.counts);
    }
    const [a, b] = [await readAll(whole, weights.keys()), await readAll(parts, weights.keys())];
    for (const key of weights.keys()) {
      const [x, y] = [entryOf(a, `weight ${key}`), entryOf(b, `weight ${key}`)];
      x.forEach((value, i) => {
        if (Math.abs(value - at(y, i)) >= 1e-5) expect.fail(`${key}[${i}]: ${value} and ${y[i]}`);
      });
    }
    await whole.close();
    await parts.close();
  });

  it("does not carry one step's gradients into the next, and one micro-batch is a plain step", async () => {
    const { spec, batch, sequence, weights, batchAt } = await goldenRun("train/llama");
    const program = trainProgram(spec, { batch, sequence, auxCoef: 0, zCoef: 0 });
    const plain = await openLoaded(program, weights);
    const accumulating = await openLoaded(program, weights, { accumulate: true });
    for (let step = 0; step < 3; step++) {
      expect(await accumulating.step([batchAt(step)], adamw(step + 1))).toEqual(
        await plain.step([batchAt(step)], adamw(step + 1)),
      );
    }
    expect(await readAll(accumulating, weights.keys())).toEqual(await readAll(plain, weights.keys()));
    await expect(plain.step([batchAt(0), batchAt(1)], adamw(4))).rejects.toThrow("without gradient accumulation");
    await plain.close();
    await accumulating.close();
  });
});

describe("one step", () => {
  it("clips to the norm it reports, and not below it", async () => {
    const { spec, batch, sequence, weights, batchAt } = await goldenRun("train/llama");
    const program = trainProgram(spec, { batch, sequence, auxCoef: 0, zCoef: 0 });
    const moments = async (clipNorm: number | null): Promise<{ norm: number; first: Float32Array }> => {
      const runtime = await openLoaded(program, weights);
      const { gradNorm } = await runtime.step([batchAt(0)], adamw(1, { clipNorm }));
      const first = await runtime.read("moment1", "layers.0.q");
      await runtime.close();
      return { norm: gradNorm, first };
    };
    const free = await moments(null);
    expect(await moments(free.norm * 2)).toEqual(free);
    const { norm, first } = await moments(free.norm / 4);
    expect(norm).toBe(free.norm);
    // m = 0.1 g, with g scaled by clip / (norm + 1e-6) as torch does.
    first.forEach((value, i) =>
      expect(Math.abs(value - (at(free.first, i) * (free.norm / 4)) / (free.norm + 1e-6))).toBeLessThan(1e-7),
    );
  });

  it("touches nothing when the loss is not finite", async () => {
    const { spec, batch, sequence, weights, batchAt } = await goldenRun("train/llama");
    const runtime = await openLoaded(trainProgram(spec, { batch, sequence, auxCoef: 0, zCoef: 0 }), weights);
    await runtime.write("weight", "finalNorm", new Float32Array(spec.hidden).fill(NaN));
    const before = await readAll(runtime, weights.keys());
    const metrics = await runtime.step([batchAt(0)], adamw(1));
    expect(metrics.applied).toBe(false);
    expect(metrics.loss).toBeNaN();
    expect(await readAll(runtime, weights.keys())).toEqual(before);
    await runtime.close();
  });

  it.each(["train/mixtral", "train/qwen3_moe"])(
    "%s gives the same bits every time, with one and with two threads",
    async (name) => {
      const { spec, batch, sequence, weights, batchAt } = await goldenRun(name);
      const program = trainProgram(spec, { batch, sequence, auxCoef: 0.01, zCoef: 0.001 });
      for (const threads of [1, 2]) {
        const runs = [];
        for (let run = 0; run < 3; run++) {
          const runtime = await openLoaded(program, weights, { threads });
          const metrics = [];
          for (let step = 0; step < 3; step++) metrics.push(await runtime.step([batchAt(step)], adamw(step + 1)));
          runs.push({ metrics, state: await readAll(runtime, weights.keys()) });
          await runtime.close();
        }
        expect(runs[1]).toEqual(runs[0]);
        expect(runs[2]).toEqual(runs[0]);
      }
    },
  );

  it("evaluates without changing anything, and as the step measures", async () => {
    const { spec, batch, sequence, weights, batchAt } = await goldenRun("train/mixtral");
    const runtime = await openLoaded(trainProgram(spec, { batch, sequence, auxCoef: 0.01, zCoef: 0 }), weights);
    const [one, two] = await Promise.all([runtime.evaluate(batchAt(0)), runtime.evaluate(batchAt(0))]);
    expect(two).toEqual(one);
    const { loss, balanceLoss, zLoss, counts } = await runtime.step([batchAt(0)], adamw(1));
    expect(Math.abs(loss - one.loss)).toBeLessThan(1e-6);
    expect(Math.abs(balanceLoss! - one.balanceLoss!)).toBeLessThan(1e-6);
    expect(Math.abs(zLoss! - one.zLoss!)).toBeLessThan(1e-6);
    expect(counts).toEqual(one.counts);
    expect(at(counts, 0).reduce((a, b) => a + b)).toBe(batch * sequence * 2);
    await runtime.close();
  });
});

describe("forward runtime", () => {
  it("compiles a program once for calls made at once, and tells of unwritten weights", async () => {
    const { spec, weights, batchAt } = await goldenRun("train/llama");
    const runtime = openForwardRuntime({ threads: 1 });
    const program = logitsProgram(spec, { batch: 1, sequence: 32 });
    const { ids } = batchAt(0, 0, 1);
    await expect(runtime.run("a", program, [ids])).rejects.toThrow("weight embed was never written");
    for (const [key, data] of weights) await runtime.write(key, data);
    const [a, b] = await Promise.all([runtime.run("a", program, [ids]), runtime.run("a", null as never, [ids])]);
    expect(b).toEqual(a);
    await runtime.close();
  });
});

it("refuses a weight of the wrong size, naming it", async () => {
  const { spec } = await goldenRun("train/llama");
  const runtime = await openTrainRuntime(trainProgram(spec, { batch: 1, sequence: 2, auxCoef: 0, zCoef: 0 }), {
    threads: 1,
    accumulate: false,
  });
  await expect(async () => runtime.write("weight", "finalNorm", new Float32Array(3))).rejects.toThrow(
    "finalNorm has 32 elements, got 3",
  );
  await runtime.close();
});

it("a loss must be a scalar", async () => {
  const { spec } = await goldenRun("train/llama");
  const { builder, hidden, params } = buildDecoder(spec, { batch: 1, sequence: 2 });
  expect(() => backward(builder, hidden, [at(params, 0).id])).toThrow("the loss must be a scalar, got [2,32]");
});
