import { describe, expect, it } from "vitest";
import { at, entryOf } from "../../src/base/at.js";
import { openCheckpoint } from "../../src/files/checkpoint/open.js";
import { randomStream } from "../../src/base/random.js";
import { prune } from "../../src/graph/ir/passes.js";
import { evaluate } from "../../src/graph/ir/reference.js";
import { evaluateOnce } from "../engine/onnxruntime/evaluate-once.js";
import { openTrainRuntime } from "../../src/engine/onnxruntime/train-runtime.js";
import { planParameters } from "../../src/engine/optimizer/groups.js";
import { trainProgram } from "../../src/graph/programs/programs.js";
import { isBuffer, slotsOf } from "../../src/model/tensors/slots.js";
import { golden, goldenModels, readTensors, shifted } from "../support/golden.js";

const settings = {
  learningRate: 3e-3,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-8,
  weightDecay: 0.1,
  decayOn: "all",
  clipNorm: 1,
} as const;

describe("every family learns", () => {
  it.each(goldenModels)("%s: the loss falls, buffers keep every bit and have no moments", async (name) => {
    const checkpoint = await openCheckpoint(golden(name));
    const { spec } = checkpoint;
    const { data, shape } = entryOf(readTensors(golden(name, "expected.safetensors")), "input_ids");
    const [batch, sequence] = shape as [number, number];
    const { frozen } = planParameters(spec, {});
    const buffers = slotsOf(spec)
      .filter((slot) => isBuffer(slot.at))
      .map(({ key }) => key);
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
    expect(at(losses, losses.length - 1) - at(losses, 0)).toBeLessThan(-0.05);
    for (const { key } of program.params) {
      const same = (await runtime.read("weight", key)).join() === (await checkpoint.readFloat32(key)).join();
      expect([key, same]).toEqual([key, buffers.includes(key)]);
    }
    for (const key of buffers)
      await expect((async () => runtime.read("moment1", key))()).rejects.toThrow(`${key} has no moment1`);
    await runtime.close();
    await checkpoint.close();
  });
});

const norm = (x: Float64Array): number => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));
/** Key without layer and expert. */
const partOf = (key: string): string => key.replace(/[0-9]+/g, "*");
const dot = (x: Float64Array, y: Float64Array): number => x.reduce((sum, value, i) => sum + value * at(y, i), 0);

describe("gradients of every family", () => {
  const [tokens, step, auxCoef, zCoef] = [8, 1e-5, 0.02, 1e-3];
  it.each(goldenModels)(
    "%s: of every parameter, those of finite differences in float64, and onnxruntime's are the reference's",
    async (name) => {
      const checkpoint = await openCheckpoint(golden(name));
      const { spec } = checkpoint;
      const { frozen } = planParameters(spec, {});
      const program = trainProgram(spec, { batch: 1, sequence: tokens, auxCoef, zCoef, frozen });
      const { graph, params, trained, outputs } = program;
      const weights: Float32Array[] = [];
      for (const { key } of params) weights.push(await checkpoint.readFloat32(key));
      await checkpoint.close();
      const { ids, targets } = shifted(
        entryOf(readTensors(golden(name, "expected.safetensors")), "input_ids").data.subarray(0, tokens),
        tokens,
      );
      const feeds = [ids, targets, ...weights];
      const exact: readonly Float64Array[] = feeds.map((feed) => Float64Array.from(feed));
      const expected = evaluate(graph, exact).slice(program.gradients);
      const actual = (await evaluateOnce(graph, feeds)).slice(program.gradients);
      const losses = [
        [outputs.loss, 1],
        [outputs.balance, auxCoef],
        [outputs.z, zCoef],
      ].filter((part): part is [number, number] => part[0] !== null);
      const forward = prune({ ...graph, outputs: losses.map(([index]) => at(graph.outputs, index)) });
      const lossWith = (position: number, data: Float64Array): number =>
        evaluate(forward, exact.with(position, data)).reduce(
          (sum, { data: [value] }, i) => sum + value! * at(losses, i)[1],
          0,
        );
      const parts = new Set(trained.map(({ key }) => partOf(key)));
      // Without rope a bias of the keys moves all scores of a query alike, which softmax does not see.
      const still =
        spec.layers.every(({ rope }) => rope === null) && parts.has("layers.*.kBias") ? ["layers.*.kBias"] : [];
      const largest = Math.max(...expected.map(({ data }) => norm(data)));
      const moved = new Set<string>();
      trained.forEach(({ key }, i) => {
        const gradient = at(expected, i).data;
        const size = norm(gradient);
        // Experts without a token have no gradient.
        if (size > 1e-9) moved.add(partOf(key));
        // A gradient that is zero is a sum of terms that cancel: float32 leaves their rounding.
        const rounding = still.includes(partOf(key)) ? 1e-6 * largest : 1e-9;
        expect(norm(gradient.map((g, place) => at(at(actual, i).data, place) - g)), key).toBeLessThan(
          1e-4 * size + rounding,
        );
        const random = new Float64Array(gradient.length);
        randomStream(1, key).normals(random, 0);
        const length = norm(random);
        // Along the gradient, so that the slope is not small by chance, and across it.
        const direction = gradient.map((g, place) => (size === 0 ? 0 : g / size) + at(random, place) / length);
        const position = 2 + params.findIndex((param) => param.key === key);
        const lossAt = (by: number): number =>
          lossWith(
            position,
            at(exact, position).map((w, n) => w + by * at(direction, n)),
          );
        const numeric = (lossAt(step) - lossAt(-step)) / (2 * step);
        const slope = dot(gradient, direction);
        expect(Math.abs(numeric - slope), key).toBeLessThan(1e-4 * Math.abs(slope) + 1e-9);
      });
      expect([...parts].filter((part) => !moved.has(part))).toEqual(still);
    },
  );
});
