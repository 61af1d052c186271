/** Routing in training, of whole runs. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import { openCheckpoint } from "../../src/files/checkpoint/open.js";
import { meanLoss } from "../../src/evals/compare.js";
import { openModel } from "../../src/evals/model.js";
import type { RoutingConfig, TrainingBlock } from "../../src/base/schemas/index.js";
import { openTrainRuntime } from "../../src/engine/onnxruntime/train-runtime.js";
import { sigmoidRouter, softmaxRouter, type DecoderSpec } from "../../src/model/decoder/types.js";
import { trainProgram } from "../../src/graph/programs/programs.js";
import { routingSettings } from "../../src/engine/routing/routing.js";
import type { MicroBatch, TrainRuntime } from "../../src/engine/runtime/runtime.js";
import { slotsOf } from "../../src/model/tensors/slots.js";
import { openBatches } from "../../src/text/tokens/batches.js";
import { freshTensor } from "../../src/train/init.js";
import type { RunMetrics } from "../../src/train/records.js";
import type { RunOptions } from "../../src/train/run.js";
import { trainingView } from "../../src/cli/progress.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { inThread } from "../support/backend.js";
import { adamw } from "../support/programs.js";
import {
  block,
  changedBackend,
  denseSpec,
  finish,
  moeSpec,
  remains,
  routed,
  runOptions,
  stopAfter,
  text,
} from "../support/runs.js";

const root = temporaryFolder();
let folders = 0;
const fresh = (): string => join(root, `run${folders++}`);

const corrected = routed(sigmoidRouter({ groups: null, renormalised: true, scaling: 1 }));

const runs: readonly (readonly [string, RoutingConfig, DecoderSpec, Partial<TrainingBlock>?])[] = [
  ["a loss over layers", { balance: "layer" }, moeSpec],
  ["a loss over sequences", { balance: "sequence" }, moeSpec],
  ["a loss over the step", { balance: "global" }, moeSpec],
  ["a loss over micro-batches so far", { balance: "running" }, moeSpec],
  ["an expert bias", { bias: 0.01 }, corrected],
  [
    "an expert bias, averages and bfloat16",
    { bias: 0.001, balance: "sequence" },
    corrected,
    { checkpoints: "bfloat16", average: { decay: 0.9, evaluate: true } },
  ],
  ["Sinkhorn", { sinkhorn: true }, routed(softmaxRouter("softmax-topk"), 1), { auxLoss: 0 }],
  ["capacity", { capacity: { factor: 0.75, drop: "probs" } }, moeSpec],
  ["jitter", { jitter: 0.1 }, moeSpec],
  [
    "everything that goes together",
    { jitter: 0.05, capacity: { factor: 1, drop: "position" }, balance: "global", bias: 0.01 },
    corrected,
  ],
];

describe.each(runs.map(([name, routing, spec, more = {}]) => [name, routing, spec, more] as const))(
  "with %s",
  (_, routing, spec, more) => {
    const options = { spec, block: { ...block, ...more, routing } };

    it("a run learns, logs its routing, and goes on exactly", async () => {
      const [one, two] = [fresh(), fresh()];
      const { metrics } = await finish(runOptions(one, options));
      expect(at(metrics.evals, metrics.evals.length - 1).loss).toBeLessThan(at(metrics.evals, 0).loss);
      for (const { step, routing: record } of metrics.steps) {
        expect([record!.entropy.length, record!.maxViolation.length, record!.dead.length]).toEqual([2, 2, 2]);
        for (const entropy of record!.entropy) expect(entropy).toBeGreaterThan(0);
        expect(record!.load === undefined).toBe(step % 4 !== 0);
        for (const [l, layer] of (record!.load ?? []).entries()) {
          expect(layer.reduce((a, b) => a + b)).toBeCloseTo(1, 12);
          expect(Math.max(...layer) * 4 - 1).toBeCloseTo(at(record!.maxViolation, l), 12);
        }
        expect(record!.dropped?.length).toBe(routing.capacity === undefined ? undefined : 2);
        for (const share of record!.dropped ?? []) expect(share >= 0 && share < 1).toBe(true);
      }
      // Four experts have room for three quarters of the choices.
      if (routing.capacity?.factor === 0.75)
        for (const { routing: record } of metrics.steps)
          for (const share of record!.dropped!) expect(share).toBeGreaterThanOrEqual(0.25);
      const controller = new AbortController();
      const stopped = finish(
        runOptions(two, { ...options, signal: controller.signal }),
        (event) => void (event.type === "step" && event.step === 5 && controller.abort()),
      );
      await expect(stopped).rejects.toThrow("stopped after step 5");
      await finish(runOptions(two, options));
      expect(await remains(two)).toEqual(await remains(one));
    });
  },
);

describe("the expert bias", () => {
  it(
    "moves after each applied step by the counts of its micro-batches, lies in the checkpoint, and evaluation " +
      "goes by it",
    async () => {
      const dir = fresh();
      const expectedBias = [new Float32Array(4), new Float32Array(4)];
      const backend = changedBackend((runtime) => ({
        async step(batches, settings) {
          const metrics = await runtime.step(batches, settings);
          metrics.counts.forEach((counts, l) => {
            const mean = counts.reduce((a, b) => a + b) / 4;
            counts.forEach((count, e) => (at(expectedBias, l)[e]! += count < mean ? 0.05 : count > mean ? -0.05 : 0));
          });
          return metrics;
        },
      }));
      const { metrics } = await finish(
        runOptions(dir, { spec: corrected, backend, block: { ...block, routing: { bias: 0.05 } } }),
      );
      const checkpoint = await openCheckpoint(join(dir, "last"));
      for (const [l, bias] of expectedBias.entries()) {
        expect(await checkpoint.readFloat32(`layers.${l}.routerCorrection`)).toEqual(bias);
        expect(bias.some((value) => value !== 0)).toBe(true);
      }
      await checkpoint.close();
      // The last held-out loss is that of the saved model, bias and all.
      const model = await openModel(join(dir, "last"), inThread, 1);
      const measured = await meanLoss(model, text(150, "held-out"), { sequence: 16, limitTokens: 100 });
      expect(Math.abs(measured.loss - at(metrics.evals, metrics.evals.length - 1).loss)).toBeLessThan(1e-5);
      await model.close();
    },
  );

  it("balances experts without a loss", async () => {
    const violation = async (routing: RoutingConfig | undefined): Promise<number> => {
      // A bias to begin with that sends every token to the first expert.
      const initial = (slot: Parameters<typeof freshTensor>[1]): Promise<Float32Array> => {
        const data = freshTensor(corrected, slot, 1);
        return Promise.resolve(slot.at.part === "routerCorrection" ? Float32Array.of(0.6, 0, 0, 0) : data);
      };
      const { metrics } = await finish(
        runOptions(fresh(), {
          spec: corrected,
          initial,
          block: { ...block, steps: 30, evalEvery: 30, saveEvery: 30, auxLoss: 0, routing },
        }),
      );
      const last = metrics.steps.slice(-5).flatMap(({ routing: record }) => record!.maxViolation);
      return last.reduce((a, b) => a + b, 0) / last.length;
    };
    expect(await violation(undefined)).toBeGreaterThan(0.95);
    expect(await violation({ bias: 0.04 })).toBeLessThan(0.5);
  });

  it("stays where a step is skipped", async () => {
    const dir = fresh();
    const backend = changedBackend((runtime) => ({
      step: async (batches, settings) => ({
        ...(await runtime.step(batches, settings)),
        applied: false,
        spike: "loss" as const,
      }),
    }));
    await finish(
      runOptions(dir, {
        spec: corrected,
        backend,
        block: { ...block, steps: 2, guard: { window: 8, deviations: 6, patience: 100 }, routing: { bias: 0.05 } },
      }),
    );
    const checkpoint = await openCheckpoint(join(dir, "last"));
    expect(await checkpoint.readFloat32("layers.0.routerCorrection")).toEqual(new Float32Array(4));
    await checkpoint.close();
  });
});

describe("shares over several micro-batches", () => {
  const sequence = 16;
  const batches = openBatches(text(800, "train"), { batch: 2, sequence, seed: 4 });
  const micro = (i: number): MicroBatch => ({ ids: batches.at(i).inputs, targets: batches.at(i).targets });
  const join2 = (a: Int32Array, b: Int32Array): Int32Array => Int32Array.of(...a, ...b);

  async function open(
    spec: DecoderSpec,
    batch: number,
    balance: RoutingConfig["balance"],
    accumulate: number,
  ): Promise<TrainRuntime> {
    const routing = routingSettings({ accumulate, routing: { balance } });
    const runtime = await openTrainRuntime(trainProgram(spec, { batch, sequence, auxCoef: 0.5, zCoef: 0, routing }), {
      threads: 1,
      accumulate: accumulate > 1,
    });
    for (const slot of slotsOf(spec)) {
      const data = freshTensor(spec, slot, 1);
      await runtime.write(
        "weight",
        slot.key,
        slot.at.part === "router"
          ? data.map((value) => 10 * value)
          : slot.at.part === "routerCorrection"
            ? data.map((_, e) => 0.1 * e)
            : data,
      );
    }
    return runtime;
  }

  it.each([
    ["softmax", moeSpec],
    ["sigmoid with a bias", corrected],
  ] as const)("%s: over the step, two micro-batches are one batch of twice the size", async (_, spec) => {
    const whole = await open(spec, 4, "layer", 1);
    const parts = await open(spec, 2, "global", 2);
    for (let step = 0; step < 3; step++) {
      const [a, b] = [micro(2 * step), micro(2 * step + 1)];
      const together = await whole.step(
        [{ ids: join2(a.ids, b.ids), targets: join2(a.targets, b.targets) }],
        adamw(step + 1, { learningRate: 1e-4 }),
      );
      const apart = await parts.step([a, b], adamw(step + 1, { learningRate: 1e-4 }));
      expect(apart.balanceLoss).toBeCloseTo(together.balanceLoss!, 5);
      expect(apart.gradNorm / together.gradNorm).toBeCloseTo(1, 5);
      expect(apart.counts).toEqual(together.counts);
    }
    for (const { key } of slotsOf(spec)) {
      const [x, y] = [await whole.read("weight", key), await parts.read("weight", key)];
      x.forEach((value, i) => expect(Math.abs(value - at(y, i)), `${key}[${i}]`).toBeLessThan(1e-5));
    }
    await whole.close();
    await parts.close();
  });

  it("so far: the first micro-batch goes by its own, the last by all", async () => {
    const still = adamw(1, { learningRate: 0 });
    const lossOf = async (balance: RoutingConfig["balance"], ...batches: MicroBatch[]): Promise<number> => {
      const runtime = await open(moeSpec, 2, balance, 2);
      const { balanceLoss } = await runtime.step(batches, still);
      await runtime.close();
      return balanceLoss!;
    };
    const [a, b] = [micro(0), micro(7)];
    const alone = [await lossOf("layer", a), await lossOf("layer", b)] as const;
    const running = [await lossOf("running", a, b), await lossOf("running", b, a)] as const;
    // Each order has one micro-batch by its own shares and the other by those of both.
    expect(await lossOf("global", a, b)).toBeCloseTo(running[0] + running[1] - (alone[0] + alone[1]) / 2, 5);
    expect(Math.abs(running[0] - running[1])).toBeGreaterThan(1e-5);
    expect(await lossOf("running", a, a)).toBeCloseTo(alone[0], 5);
  });
});

it("evaluation knows no jitter, no capacity and no Sinkhorn", async () => {
  const plain = await finish(runOptions(fresh(), { block: { ...block, steps: 1 } }));
  const changed = await finish(
    runOptions(fresh(), {
      block: {
        ...block,
        steps: 1,
        auxLoss: 0,
        routing: { jitter: 0.5, capacity: { factor: 0.1, drop: "probs" }, sinkhorn: true },
      },
    }),
  );
  expect(changed.metrics.evals[0]).toEqual(plain.metrics.evals[0]);
  expect(at(changed.metrics.steps, 0).loss).not.toBe(at(plain.metrics.steps, 0).loss);
});

it("is refused for a dense model before a folder is made", async () => {
  await expect(
    finish(runOptions(fresh(), { spec: denseSpec, block: { ...block, routing: { jitter: 0.1 } } })),
  ).rejects.toThrow("this model is dense");
});

describe("layers that have collapsed onto other experts each", () => {
  const apart = routed(softmaxRouter("topk-softmax"), 1);
  const spec: DecoderSpec = { ...apart, layers: [...apart.layers, ...apart.layers] };
  /** What every layer reads has a part that is the same for all tokens, by which layer i chooses expert i. */
  const initial: RunOptions["initial"] = async (slot) => {
    const { key } = slot;
    const data = await Promise.resolve(freshTensor(spec, slot, 1));
    if (key === "embed") return data.map((value) => 1 + value);
    const layer = /^layers\.(\d)\.router$/.exec(key)?.[1];
    return layer === undefined ? data : data.map((_, i) => (Math.floor(i / spec.hidden) === Number(layer) ? 1 : -1));
  };
  const steady = { ...block, steps: 8, evalEvery: 2, saveEvery: 2, lr: { ...block.lr, peak: 1e-6 } };
  const options = (dir: string, balance: RoutingConfig["balance"]): RunOptions =>
    runOptions(dir, { spec, initial, block: { ...steady, routing: { balance } } });
  const told = (metrics: RunMetrics) =>
    metrics.evals.flatMap(({ step, unseenCollapse }) =>
      unseenCollapse === undefined ? [] : [{ step, unseenCollapse }],
    );

  it("are told of once where their loss is taken over all layers together, also by a run that goes on", async () => {
    const notes: string[] = [];
    const view = trainingView({ note: (line: string) => notes.push(line), progress: () => undefined } as never, "run");
    const [whole, stopped] = [fresh(), fresh()];
    const { metrics } = await finish(options(whole, "model"), (event) => view(event));
    expect(told(metrics)).toEqual([
      { step: 2, unseenCollapse: { layers: [0, 1, 2, 3], balanceLoss: expect.closeTo(1, 2) as number, balanced: 1 } },
    ]);
    expect(notes.filter((line) => line.includes("warning"))).toEqual([
      expect.stringMatching(/^run {2}warning: more than half of the experts of MoE layers 0, 1, 2 and 3 /),
    ]);
    await stopAfter(options(stopped, "model"), 5);
    expect(told((await finish(options(stopped, "model"))).metrics)).toEqual(told(metrics));
  });

  it("are not told of where each layer has its own loss, which shows them", async () => {
    expect(told((await finish(options(fresh(), "layer"))).metrics)).toEqual([]);
  });
});
