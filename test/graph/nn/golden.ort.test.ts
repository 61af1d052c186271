import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { at, entryOf } from "../../../src/base/at.js";
import { openCheckpoint, type Checkpoint } from "../../../src/files/checkpoint/open.js";
import { openForwardRuntime } from "../../../src/engine/onnxruntime/forward-runtime.js";
import { openTrainRuntime } from "../../../src/engine/onnxruntime/train-runtime.js";
import { evaluateOnce } from "../../engine/onnxruntime/evaluate-once.js";
import { isBuffer } from "../../../src/model/tensors/slots.js";
import { storedTensors, type Placement } from "../../../src/model/tensors/placement.js";
import { putSlot } from "../../support/put-slot.js";
import { logitsProgram, lossProgram, trainProgram, type ParamInfo } from "../../../src/graph/programs/programs.js";
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

async function weightsOf(checkpoint: Checkpoint, params: readonly ParamInfo[]): Promise<Float32Array[]> {
  return Promise.all(params.map(({ key }) => checkpoint.readFloat32(key)));
}

describe("golden models of transformers", () => {
  for (const name of goldenModels) {
    it(`${name}: logits and loss`, async () => {
      const checkpoint = await openCheckpoint(golden(name));
      const expected = readTensors(golden(name, "expected.safetensors"));
      const { data: ids, shape } = entryOf(expected, "input_ids");
      const [batch, sequence] = shape as [number, number];

      const program = logitsProgram(checkpoint.spec, { batch, sequence });
      const runtime = openForwardRuntime({ threads: 1 });
      for (const { key } of program.params) await runtime.write(key, await checkpoint.readFloat32(key));
      const logits = await runtime.run("all", program, [Int32Array.from(ids)]);
      const expectedLogits = entryOf(expected, "logits").data;
      let worst = 0;
      expectedLogits.forEach((value, i) => (worst = Math.max(worst, Math.abs(value - at(logits, i)))));
      expect(worst).toBeLessThan(1e-4);

      const rows = logitsProgram(checkpoint.spec, { batch, sequence, rows: 2 });
      const picked = await runtime.run("rows", rows, [Int32Array.from(ids), Int32Array.of(3, batch * sequence - 1)]);
      const vocab = checkpoint.spec.vocab;
      expect(relativeError(picked.subarray(0, vocab), logits.subarray(3 * vocab, 4 * vocab))).toBeLessThan(1e-6);
      expect(relativeError(picked.subarray(vocab), logits.subarray(-vocab))).toBeLessThan(1e-6);
      await runtime.close();

      const text = shifted(ids, sequence);
      const losses = lossProgram(checkpoint.spec, { batch, sequence });
      const [loss] = await evaluateOnce(losses.graph, [
        text.ids,
        text.targets,
        ...(await weightsOf(checkpoint, losses.params)),
      ]);
      expect(Math.abs(at(loss!.data, 0) - at(entryOf(expected, "loss").data, 0))).toBeLessThan(1e-4);
      await checkpoint.close();
    });
  }
});

describe("golden models with gradients", () => {
  for (const name of goldenModels.filter((model) => existsSync(golden(model, "gradients.safetensors")))) {
    it(`${name}: the gradient of every tensor`, async () => {
      const checkpoint = await openCheckpoint(golden(name));
      const { data: ids, shape } = entryOf(readTensors(golden(name, "expected.safetensors")), "input_ids");
      const [batch, sequence] = shape as [number, number];
      const text = shifted(ids, sequence);
      const program = trainProgram(checkpoint.spec, { batch, sequence, auxCoef: 0, zCoef: 0 });
      const weights = await weightsOf(checkpoint, program.params);
      const results = await evaluateOnce(program.graph, [text.ids, text.targets, ...weights]);
      const gradients = readTensors(golden(name, "gradients.safetensors"));
      const ours = new Map(
        program.trained.map(({ key }, i) => [key, Float32Array.from(at(results, program.gradients + i).data)]),
      );
      const places = storedTensors(checkpoint.spec);
      for (const [tensor, { data }] of gradients) {
        const stored = new Float32Array(data.length);
        for (const place of entryOf(places, tensor)) putFloats(place, stored, entryOf(ours, place.slot.key));
        // A bias of keys without rope moves all scores of a query alike: its gradient is rounding.
        const isRounding = Math.max(...data.map(Math.abs), ...stored.map(Math.abs)) < 1e-7;
        if (!isRounding) expect(relativeError(stored, data), tensor).toBeLessThan(1e-4);
      }
      // Every trained tensor was compared.
      expect([...gradients.keys()].sort()).toEqual(
        [...places].flatMap(([tensor, [place]]) => (isBuffer(place!.slot.at) ? [] : [tensor])).sort(),
      );
      await checkpoint.close();
    });
  }
});

/** Puts a slot's values where they lie in its stored tensor. */
function putFloats(place: Placement, stored: Float32Array, own: Float32Array): void {
  putSlot(place, new Uint8Array(stored.buffer), new Uint8Array(own.buffer), 4);
}

describe("golden training runs of transformers", () => {
  for (const name of goldenTrajectories) {
    it(`${name}: first gradients and twelve steps`, async () => {
      const checkpoint = await openCheckpoint(golden(name));
      const trajectory = JSON.parse(readFileSync(golden(name, "trajectory.json"), "utf8")) as Trajectory;
      const gradients = readTensors(golden(name, "grads_step0.safetensors"));
      const { data, shape } = entryOf(readTensors(golden(name, "batches.safetensors")), "input_ids");
      const [steps, batch, sequence] = shape as [number, number, number];
      const batchAt = (step: number): { ids: Int32Array; targets: Int32Array } =>
        shifted(data.subarray(step * batch * sequence, (step + 1) * batch * sequence), sequence);
      const moe = at(trajectory.steps, 0).aux_loss !== null;
      const auxCoef = checkpoint.spec.auxLossCoef;
      const program = trainProgram(checkpoint.spec, { batch, sequence, auxCoef, zCoef: 0 });

      const weights = await weightsOf(checkpoint, program.params);
      const first = batchAt(0);
      const results = await evaluateOnce(program.graph, [first.ids, first.targets, ...weights]);
      const { namedSlots } = await import("../../../src/model/tensors/names.js");
      const names = new Map(namedSlots(checkpoint.spec).map(({ slot, names: [tensor] }) => [slot.key, tensor!]));
      program.params.forEach(({ key }, i) => {
        const expected = goldenGradient(gradients, entryOf(names, key));
        expect(relativeError(at(results, program.gradients + i).data, expected), key).toBeLessThan(1e-4);
      });

      const runtime = await openTrainRuntime(program, { threads: 1, accumulate: false });
      for (const [i, { key }] of program.params.entries()) await runtime.write("weight", key, at(weights, i));
      const { lr, betas, eps, weight_decay, clip_grad_norm } = trajectory.optimizer;
      for (let step = 0; step < steps; step++) {
        const expected = at(trajectory.steps, step);
        const got = await runtime.step([batchAt(step)], {
          learningRate: lr,
          beta1: betas[0],
          beta2: betas[1],
          eps,
          weightDecay: weight_decay,
          decayOn: "all",
          clipNorm: clip_grad_norm,
          update: step + 1,
        });
        const total = got.loss + auxCoef * (got.balanceLoss ?? 0);
        const bound = moe && step >= 3 ? 2e-2 : 1e-3;
        expect(Math.abs(total - expected.loss), `loss at step ${step}`).toBeLessThan(bound);
        if (step === 0) expect(got.gradNorm / expected.grad_norm).toBeCloseTo(1, 4);
        if (moe)
          expect(Math.abs(got.balanceLoss! - expected.aux_loss!), `auxiliary loss at step ${step}`).toBeLessThan(
            step < 3 ? 2e-3 : 0.1,
          );
      }
      await runtime.close();
      await checkpoint.close();
    });
  }
});
