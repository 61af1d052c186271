import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/checkpoint/open.js";
import { openTrainRuntime } from "../../src/ort/train-runtime.js";
import { planParameters } from "../../src/step/groups.js";
import { trainProgram } from "../../src/step/programs.js";
import { isBuffer, slotsOf } from "../../src/tensors/slots.js";
import { golden, goldenModels, readTensors, shifted } from "../support/golden.js";

const settings = { learningRate: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, decayOn: "all", clipNorm: 1 } as const;

describe("every family with experts learns", () => {
  it.each(goldenModels.filter((name) => name.startsWith("moe/")))("%s: the loss falls, buffers keep every bit and have no moments", async (name) => {
    const checkpoint = await openCheckpoint(golden(name));
    const { spec } = checkpoint;
    const { data, shape } = readTensors(golden(name, "expected.safetensors")).get("input_ids")!;
    const [batch, sequence] = shape as [number, number];
    const { frozen } = planParameters(spec, {});
    const buffers = slotsOf(spec).filter(({ at }) => isBuffer(at)).map(({ key }) => key);
    expect([...frozen]).toEqual(buffers);
    const program = trainProgram(spec, { batch, sequence, auxCoef: spec.auxLossCoef, zCoef: 1e-3, frozen });
    const runtime = await openTrainRuntime(program, { threads: 1, accumulate: false });
    for (const { key } of program.params) await runtime.write("weight", key, await checkpoint.readFloat32(key));
    const losses: number[] = [];
    for (let step = 0; step < 5; step++) {
      const { loss, gradNorm } = await runtime.step([shifted(data, sequence)], { ...settings, update: step + 1 });
      expect(Number.isFinite(gradNorm) && gradNorm > 0).toBe(true);
      losses.push(loss);
    }
    expect(losses.at(-1)! - losses[0]!).toBeLessThan(-0.05);
    for (const { key } of program.params) {
      const same = (await runtime.read("weight", key)).join() === (await checkpoint.readFloat32(key)).join();
      expect([key, same]).toEqual([key, buffers.includes(key)]);
    }
    for (const key of buffers) await expect((async () => runtime.read("moment1", key))()).rejects.toThrow(`${key} has no moment1`);
    await runtime.close();
    await checkpoint.close();
  });
});
