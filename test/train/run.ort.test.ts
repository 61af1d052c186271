import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it, vi } from "vitest";
import { openCheckpoint } from "../../src/files/checkpoint/open.js";
import { meanLoss } from "../../src/evals/compare.js";
import { openModel } from "../../src/evals/model.js";
import { UpcycleError } from "../../src/base/errors.js";
import type { TrainingBlock } from "../../src/base/schemas/index.js";
import { openTensorFile } from "../../src/files/io/tensor-file.js";
import { learningRateAt } from "../../src/engine/optimizer/schedule.js";
import { openBatches } from "../../src/text/tokens/batches.js";
import { slotsOf } from "../../src/model/tensors/slots.js";
import { freshTensor } from "../../src/train/init.js";
import { readMetrics } from "../../src/train/records.js";
import { trainRun, type RunOptions, type TrainEvent } from "../../src/train/run.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { inThread } from "../support/backend.js";
import { block, changedBackend, denseSpec, finish, moeSpec, remains, runOptions, text } from "../support/runs.js";

const root = temporaryFolder();
let made = 0;
const fresh = (): string => join(root, `run${made++}`);
const whole = join(root, "whole");
let expected: Awaited<ReturnType<typeof remains>>;

beforeAll(async () => {
  await finish(runOptions(whole));
  expected = await remains(whole);
});

async function failure(promise: Promise<unknown>): Promise<UpcycleError> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  if (!(error instanceof UpcycleError)) throw new Error(`expected an UpcycleError, got ${String(error)}`);
  return error;
}

const progressOf = (dir: string): { step: number } =>
  JSON.parse(readFileSync(join(dir, "last/training.json"), "utf8")) as { step: number };
const partials = (dir: string): string[] => readdirSync(dir).filter((name) => name.startsWith("."));

describe("a run", () => {
  it("tells what it does, learns, and leaves an ordinary model", async () => {
    const events: TrainEvent[] = [];
    const dir = fresh();
    const result = await finish(runOptions(dir), (event) => void events.push(event));
    expect(events.map((event) => ("step" in event ? `${event.type} ${event.step}` : event.type))).toEqual([
      "open 0",
      "eval 0",
      "step 1",
      "step 2",
      "step 3",
      "save 3",
      "step 4",
      "eval 4",
      "step 5",
      "step 6",
      "save 6",
      "step 7",
      "step 8",
      "eval 8",
      "step 9",
      "save 9",
      "step 10",
      "step 11",
      "step 12",
      "eval 12",
      "save 12",
      "done",
    ]);
    const { steps, evals, done } = result.metrics;
    expect(steps.map(({ tokens }) => tokens)).toEqual(Array.from({ length: 12 }, (_, i) => 64 * (i + 1)));
    expect(steps.map(({ learningRate }) => learningRate)).toEqual(
      steps.map(({ step }) => learningRateAt(block.lr, 12, step)),
    );
    expect(evals.at(-1)!.loss).toBeLessThan(evals[0]!.loss);
    expect(result.finalLoss).toBe(evals.at(-1)!.loss);
    for (const { load } of evals) for (const layer of load) expect(layer.reduce((a, b) => a + b)).toBeCloseTo(1, 12);
    for (const { routing } of evals) {
      expect(routing!.entropy.every((value) => value > 0 && value <= Math.log(4) + 1e-6)).toBe(true);
      expect([routing!.entropy.length, routing!.maxViolation.length, routing!.dead.length]).toEqual([2, 2, 2]);
    }
    expect(done).toMatchObject({ step: 12 });
    expect(result.peakRssBytes).toBeGreaterThan(1e7);
    expect(await remains(dir)).toEqual(expected);
    expect(partials(dir)).toEqual([]);
    // best/ holds the weights of the lowest held-out loss.
    const model = await openModel(join(dir, "best"), inThread, 1);
    const measured = await meanLoss(model, text(150, "held-out"), { sequence: 16, limitTokens: 100 });
    expect(Math.abs(measured.loss - Math.min(...evals.map(({ loss }) => loss)))).toBeLessThan(1e-5);
    expect(model.spec).toEqual(moeSpec);
    await model.close();
  });

  it("takes no folder that holds something by the names it gives", async () => {
    for (const name of ["last", "best", "average", "metrics.jsonl"]) {
      const dir = fresh();
      mkdirSync(join(dir, name), { recursive: true });
      writeFileSync(join(dir, name, "thesis.txt"), "mine");
      const { line, exitCode } = await failure(finish(runOptions(dir)));
      expect([line, exitCode]).toEqual([
        `${dir}: the folder has no run.json of a run, but holds ${name}, which would be replaced or taken for ` +
          "this one's; choose another folder, or move that away first",
        2,
      ]);
      expect(readdirSync(dir, { recursive: true }).sort()).toEqual([name, join(name, "thesis.txt")]);
    }
  });

  it("gives every checkpoint the texts it is given, and keeps what somebody has put beside them", async () => {
    const dir = fresh();
    const controller = new AbortController();
    const options = { texts: { "README.md": "a card" } };
    await failure(
      finish(
        runOptions(dir, { ...options, signal: controller.signal }),
        (event) => void (event.type === "step" && event.step === 5 && controller.abort()),
      ),
    );
    writeFileSync(join(dir, "last", "thesis.txt"), "mine");
    symlinkSync("thesis.txt", join(dir, "last", "link"));
    await finish(runOptions(dir, options));
    expect(readFileSync(join(dir, "last", "thesis.txt"), "utf8")).toBe("mine");
    expect(readdirSync(join(dir, "last"))).toContain("link");
    for (const name of ["last", "best"]) expect(readFileSync(join(dir, name, "README.md"), "utf8")).toBe("a card");
    expect(partials(dir)).toEqual([]);
    const moved = fresh();
    renameSync(join(dir, "last"), moved);
    symlinkSync(moved, join(dir, "last"));
    expect((await failure(finish(runOptions(dir, options)))).line).toContain(
      `${join(dir, "last")}: this is a link, which a new folder would take the place of`,
    );
  });

  it("feeds each step its own micro-batches, in the order of the data, also after going on", async () => {
    const dir = fresh();
    const fed: Int32Array[] = [];
    const backend = changedBackend((runtime) => ({
      step: (batches, optimizer) => (
        fed.push(...batches.flatMap(({ ids, targets }) => [ids, targets])),
        runtime.step(batches, optimizer)
      ),
    }));
    const controller = new AbortController();
    await failure(
      finish(
        runOptions(dir, { backend, signal: controller.signal }),
        (event) => void (event.type === "step" && event.step === 5 && controller.abort()),
      ),
    );
    await finish(runOptions(dir, { backend }));
    const { at } = openBatches(text(800, "train"), { batch: 2, sequence: 16, seed: 4 });
    expect(fed).toEqual(
      Array.from({ length: 24 }, (_, i) => at(i)).flatMap(({ inputs, targets }) => [inputs, targets]),
    );
  });

  it("keeps the weights of the lowest held-out loss, also when it was before going on", async () => {
    // Held-out losses as given, by step: the second is the lowest.
    const given = new Map([
      [0, 9],
      [4, 3],
      [8, 5],
      [12, 4],
    ]);
    const dir = fresh();
    let step = 0;
    const backend = changedBackend((runtime) => ({
      step: (batches, optimizer) => ((step = optimizer.update), runtime.step(batches, optimizer)),
      evaluate: async (batch) => ({ ...(await runtime.evaluate(batch)), loss: given.get(step) ?? 1 }),
    }));
    const kept: string[] = [];
    const watch = (event: TrainEvent): void => {
      if (event.type === "step")
        kept.push(
          existsSync(join(dir, "best"))
            ? String(readFileSync(join(dir, "best/model.safetensors")).equals(readFileSync(join(dir, "four"))))
            : "none",
        );
    };
    const controller = new AbortController();
    await failure(
      finish(runOptions(dir, { backend, signal: controller.signal }), (event) => {
        if (event.type === "eval" && event.step === 4)
          writeFileSync(join(dir, "four"), readFileSync(join(dir, "best/model.safetensors")));
        if (event.type === "step" && event.step === 6) controller.abort();
        watch(event);
      }),
    );
    await finish(runOptions(dir, { backend }), watch);
    expect(kept).toEqual([...Array<string>(4).fill("none"), ...Array<string>(8).fill("true")]);
    expect(readFileSync(join(dir, "best/model.safetensors")).equals(readFileSync(join(dir, "four")))).toBe(true);
  });

  it("leaves frozen parameters as they were, keeps no moments of them, and goes on exactly", async () => {
    const changes = {
      block: { ...block, freeze: ["layers.0.*"], groups: { router: { freeze: true }, experts: { lr: 0.5 } } },
    };
    const [one, two] = [fresh(), fresh()];
    await finish(runOptions(one, changes));
    const controller = new AbortController();
    await failure(
      finish(
        runOptions(two, { ...changes, signal: controller.signal }),
        (event) => void (event.type === "step" && event.step === 5 && controller.abort()),
      ),
    );
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

  it("skips spikes, says so, counts updates without them, and goes on exactly", async () => {
    // Before two of the steps the last norm is blown up, so that loss and gradient stand out; afterwards it is put
    // back.
    const guard = { window: 8, deviations: 6, patience: 3 };
    const changes = (): Partial<RunOptions> => ({
      block: { ...block, steps: 24, guard, lr: { ...block.lr, peak: 1e-2 }, saveEvery: 5 },
      backend: changedBackend((runtime) => ({
        step: async (batches, settings) => {
          seen.push(settings.update);
          const good = await runtime.read("weight", "finalNorm");
          const bad = fed === 14 || fed === 18;
          fed++;
          if (bad)
            await runtime.write(
              "weight",
              "finalNorm",
              good.map((x, at) => (at % 2 === 0 ? 90 : -90) * x),
            );
          const metrics = await runtime.step(batches, settings);
          if (bad) await runtime.write("weight", "finalNorm", good);
          return metrics;
        },
      })),
    });
    const seen: number[] = [];
    let fed = 0;
    const [one, two] = [fresh(), fresh()];
    const { metrics } = await finish(runOptions(one, changes()));
    expect(
      metrics.steps.filter(({ skipped }) => skipped !== undefined).map(({ step, skipped }) => [step, skipped]),
    ).toEqual([
      [15, "loss"],
      [19, "loss"],
    ]);
    expect(seen).toEqual([...Array.from({ length: 15 }, (_, i) => i + 1), 15, 16, 17, 18, 18, 19, 20, 21, 22]);
    fed = 0;
    const controller = new AbortController();
    await failure(
      finish(
        runOptions(two, { ...changes(), signal: controller.signal }),
        (event) => void (event.type === "step" && event.step === 16 && controller.abort()),
      ),
    );
    await finish(runOptions(two, changes()));
    expect(await remains(two)).toEqual(await remains(one));
  });

  it("stops when all that comes is spikes", async () => {
    const dir = fresh();
    const backend = changedBackend((runtime) => ({
      step: (batches, settings) =>
        runtime.step(
          batches,
          settings.limits === undefined ? settings : { ...settings, limits: { loss: 1e9, gradNorm: 0 } },
        ),
    }));
    const stopped = await failure(
      finish(runOptions(dir, { backend, block: { ...block, guard: { window: 8, deviations: 6, patience: 3 } } })),
    );
    expect(stopped.kind).toBe("stopped");
    expect(stopped.message).toMatch(
      /^3 steps in a row were skipped as spikes, the last with loss [\d.]+ and gradient norm [\d.]+$/,
    );
    expect(stopped.hint).toContain("the last checkpoint (step 9) is kept");
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
  ])("with %s goes on exactly", async (_, changes) => {
    const options = { block: { ...block, ...changes } };
    const [one, two] = [fresh(), fresh()];
    const { metrics } = await finish(runOptions(one, options));
    expect(metrics.evals.at(-1)!.loss).toBeLessThan(metrics.evals[0]!.loss);
    const controller = new AbortController();
    await failure(
      finish(
        runOptions(two, { ...options, signal: controller.signal }),
        (event) => void (event.type === "step" && event.step === 5 && controller.abort()),
      ),
    );
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
        weights.push((await runtime.read("weight", "layers.0.q"))[7]!);
        return metrics;
      },
    }));
    const { metrics } = await finish(
      runOptions(dir, { backend, block: { ...block, average: { decay: 0.75, evaluate: true } } }),
    );
    const slot = slotsOf(moeSpec).find(({ key }) => key === "layers.0.q")!;
    const expectedAverage = weights.reduce(
      (average, weight) => 0.75 * average + 0.25 * weight,
      freshTensor(moeSpec, slot, 1)[7]!,
    );
    const model = await openCheckpoint(join(dir, "average"));
    expect((await model.readFloat32("layers.0.q"))[7]!).toBeCloseTo(expectedAverage, 6);
    await model.close();
    // What was measured at the end is the average.
    const opened = await openModel(join(dir, "average"), inThread, 1);
    const measured = await meanLoss(opened, text(150, "held-out"), { sequence: 16, limitTokens: 100 });
    expect(Math.abs(measured.loss - metrics.evals.at(-1)!.loss)).toBeLessThan(1e-5);
    await opened.close();
  });

  it("saves models in bfloat16 and goes on from float32", async () => {
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

  it("on a mixture measures each part, and goes on exactly", async () => {
    const mixture = {
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
    const { metrics } = await finish(runOptions(one, mixture));
    for (const { loss, parts, load } of metrics.evals) {
      expect(loss).toBeCloseTo(0.75 * parts!.a! + 0.25 * parts!.b!, 12);
      for (const layer of load) expect(layer.reduce((a, b) => a + b)).toBeCloseTo(1, 12);
    }
    const controller = new AbortController();
    await failure(
      finish(
        runOptions(two, { ...mixture, signal: controller.signal }),
        (event) => void (event.type === "step" && event.step === 5 && controller.abort()),
      ),
    );
    await finish(runOptions(two, mixture));
    expect(await remains(two)).toEqual(await remains(one));
  });

  it("ends in good order when its time is up, and goes on when it gets more", async () => {
    const dir = fresh();
    const limited = (time: string): Partial<RunOptions> => ({ block: { ...block, budget: { time } } });
    // Each step counts as 10 s.
    const slow = changedBackend((runtime) => ({
      step: (batches, optimizer) => ((clock += 10_000), runtime.step(batches, optimizer)),
    }));
    let clock = 0;
    const real = performance.now.bind(performance);
    const spy = vi.spyOn(performance, "now").mockImplementation(() => real() + clock);
    try {
      const first = await finish(runOptions(dir, { ...limited("45s"), backend: slow }));
      expect(first.metrics.done).toMatchObject({ step: 5, reason: "time" });
      expect(first.metrics.evals.map(({ step }) => step)).toEqual([0, 4, 5]);
      expect(progressOf(dir).step).toBe(5);
      expect(
        (
          await finish(
            runOptions(dir, {
              ...limited("45s"),
              backend: changedBackend(() => ({ step: () => Promise.reject(new Error("computed")) })),
            }),
          )
        ).metrics.steps.length,
      ).toBe(5);
      const second = await finish(runOptions(dir, { ...limited("1h"), backend: slow }));
      expect(second.metrics.done).toMatchObject({ step: 12, reason: "steps" });
    } finally {
      spy.mockRestore();
    }
    const { files } = await remains(dir);
    expect(files["last/model.safetensors"]).toBe(expected.files["last/model.safetensors"]);
  });

  it("that is finished says so again without computing", async () => {
    const untouched = changedBackend(() => ({ step: () => Promise.reject(new Error("computed")) }));
    const events: string[] = [];
    const result = await finish(runOptions(whole, { backend: untouched }), ({ type }) => void events.push(type));
    expect(events).toEqual(["done"]);
    expect(result.metrics.steps.length).toBe(12);
  });

  it("closes its runtime and log whoever walks away", async () => {
    let closed = 0;
    const backend = changedBackend((runtime) => ({ close: () => (closed++, runtime.close()) }));
    const events = trainRun(runOptions(fresh(), { backend }));
    for await (const event of events) if (event.type === "step") break;
    expect(closed).toBe(1);
    await expect(
      finish(runOptions(fresh(), { backend, initial: () => Promise.reject(new Error("no weights")) })),
    ).rejects.toThrow("no weights");
    expect(closed).toBe(2);
  });

  it("measures similarity with every evaluation", async () => {
    const seen: string[] = [];
    const result = await finish(
      runOptions(fresh(), {
        block: { ...block, steps: 4 },
        similarity: async (read) => {
          seen.push(String((await read("layers.0.router")).length));
          return [0.5, 0.25];
        },
      }),
    );
    expect(seen).toEqual(["64", "64"]);
    expect(result.metrics.evals.map(({ similarity }) => similarity)).toEqual([
      [0.5, 0.25],
      [0.5, 0.25],
    ]);
  });

  it("of a dense model has no expert load", async () => {
    const { metrics } = await finish(
      runOptions(fresh(), { spec: denseSpec, block: { ...block, steps: 2, accumulate: 1 } }),
    );
    expect(metrics.evals.every(({ load }) => load.length === 0)).toBe(true);
    expect(metrics.steps.every(({ balanceLoss, zLoss }) => balanceLoss === null && zLoss === null)).toBe(true);
  });
});

describe("stopping by signal and going on", () => {
  it.each([0, 1, 3, 4, 7, 11])("after step %i gives the same numbers and the same bytes", async (at) => {
    const dir = fresh();
    const controller = new AbortController();
    const stopped = await failure(
      finish(runOptions(dir, { signal: controller.signal }), (event) => {
        if ((event.type === "step" && event.step === at) || (event.type === "eval" && at === 0)) controller.abort();
      }),
    );
    expect(stopped).toMatchObject({ kind: "interrupted", message: `stopped after step ${at} of 12` });
    expect(progressOf(dir).step).toBe(at);
    // Stopped again at once: nothing moves.
    expect((await failure(finish(runOptions(dir, { signal: AbortSignal.abort() })))).kind).toBe("interrupted");
    const opened: number[] = [];
    await finish(runOptions(dir), (event) => void (event.type === "open" && opened.push(event.step)));
    expect(opened).toEqual([at]);
    expect(await remains(dir)).toEqual(expected);
  });

  it("after every second step gives the same numbers and the same bytes", async () => {
    const dir = fresh();
    for (let step = 2; step < 12; step += 2) {
      const controller = new AbortController();
      await failure(
        finish(
          runOptions(dir, { signal: controller.signal }),
          (event) => void (event.type === "step" && event.step === step && controller.abort()),
        ),
      );
    }
    await finish(runOptions(dir));
    expect(await remains(dir)).toEqual(expected);
  });
});

describe("a loss that is not finite", () => {
  /** Weights become NaN right before (0) or right after (1) computing step `at`. */
  const poisoned = (at: number, when: 0 | 1) =>
    changedBackend((runtime) => {
      let step = 0;
      const poison = (): Promise<void> => runtime.write("weight", "finalNorm", new Float32Array(16).fill(NaN));
      return {
        async step(batches, optimizer) {
          step++;
          if (step === at && when === 0) await poison();
          const metrics = await runtime.step(batches, optimizer);
          if (step === at && when === 1) await poison();
          return metrics;
        },
      };
    });

  it.each([
    ["in a step", poisoned(5, 0), {}, 3, /^step 5: loss NaN, gradient norm NaN/],
    ["in the held-out text", poisoned(8, 1), {}, 6, /^the held-out loss after step 8 is NaN/],
    ["about to be saved", poisoned(6, 1), {}, 3, /^the loss after step 6 is NaN/],
  ])(
    "%s stops the run and keeps the last good checkpoint, from which it can go on",
    async (_, backend, changes, kept, message) => {
      const dir = fresh();
      const stopped = await failure(finish(runOptions(dir, { backend, ...changes })));
      expect(stopped.kind).toBe("stopped");
      expect(stopped.message).toMatch(message);
      expect(stopped.hint).toContain(`the last good checkpoint (step ${kept}) is kept`);
      expect(progressOf(dir).step).toBe(kept);
      await finish(runOptions(dir));
      expect(await remains(dir)).toEqual(expected);
    },
  );

  it("from a learning rate beyond reason", async () => {
    const dir = fresh();
    const stopped = await failure(
      finish(runOptions(dir, { block: { ...block, saveEvery: 1, lr: { ...block.lr, peak: 1e30 } } })),
    );
    expect(stopped).toMatchObject({ kind: "stopped", exitCode: 1 });
    expect(stopped.line).toContain("lower the learning rate (peak 1e+30)");
    expect(stopped.line).not.toContain("\n");
    expect(stopped.hint).not.toContain("step 0");
  });
});

describe("a checkpoint that cannot be written", () => {
  const full = (): Error => Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });

  it.each([0, 20, 70])("after %i tensors leaves the one before as it was", async (tensors) => {
    const dir = fresh();
    let saves = 0;
    let reads = 0;
    const backend = changedBackend((runtime) => ({
      peakMemory: () => (saves++, (reads = 0), runtime.peakMemory()),
      // The second save of last/ fails; similarity is not measured here, so every read belongs to a save.
      read: (kind, key) => (saves === 2 && reads++ === tensors ? Promise.reject(full()) : runtime.read(kind, key)),
    }));
    const before: Record<string, Buffer> = {};
    await expect(
      finish(runOptions(dir, { backend }), (event) => {
        if (event.type === "save")
          for (const name of readdirSync(event.dir)) before[name] = readFileSync(join(event.dir, name));
      }),
    ).rejects.toThrow("no space left");
    expect(progressOf(dir).step).toBe(3);
    expect(readdirSync(join(dir, "last")).sort()).toEqual(Object.keys(before).sort());
    for (const [name, bytes] of Object.entries(before))
      expect(readFileSync(join(dir, "last", name)).equals(bytes), name).toBe(true);
    expect(partials(dir)).toEqual([]);
    await finish(runOptions(dir));
    expect(await remains(dir)).toEqual(expected);
  });
});

describe("a run that is to be another length", () => {
  const constant = { ...block, lr: { ...block.lr, schedule: "constant" as const } };
  const wsd = { ...block, lr: { ...block.lr, schedule: "wsd" as const, decay: 4 } };
  const stopAfter = async (options: RunOptions, at: number): Promise<void> => {
    const controller = new AbortController();
    await failure(
      finish(
        { ...options, signal: controller.signal },
        (event) => void (event.type === "step" && event.step === at && controller.abort()),
      ),
    );
  };
  let straight: string;
  beforeAll(async () => {
    straight = fresh();
    await finish(runOptions(straight, { block: constant }));
  });

  it("goes on when it was finished and its rate is constant, to the bits of a run of that length", async () => {
    const dir = fresh();
    expect((await finish(runOptions(dir, { block: { ...constant, steps: 8 } }))).found).toBe(false);
    expect((await finish(runOptions(dir, { block: { ...constant, steps: 8 } }))).found).toBe(true);
    const opened: TrainEvent[] = [];
    expect(
      (
        await finish(
          runOptions(dir, { block: constant }),
          (event) => void (event.type === "open" && opened.push(event)),
        )
      ).found,
    ).toBe(false);
    expect(opened).toMatchObject([{ step: 8, steps: 12 }]);
    expect(await remains(dir)).toEqual(await remains(straight));
  });

  it("goes on when it was stopped, longer, shorter, or with another interval of saving", async () => {
    const dir = fresh();
    await stopAfter(runOptions(dir, { block: { ...constant, steps: 40, saveEvery: 5 } }), 6);
    await finish(runOptions(dir, { block: constant }));
    expect(await remains(dir)).toEqual(await remains(straight));
  });

  it("goes on from the stable phase of a WSD schedule, whose fall then comes later", async () => {
    const [dir, whole] = [fresh(), fresh()];
    await stopAfter(runOptions(dir, { block: wsd }), 7);
    await finish(runOptions(dir, { block: { ...wsd, steps: 14 } }));
    await finish(runOptions(whole, { block: { ...wsd, steps: 14 } }));
    expect(await remains(dir)).toEqual(await remains(whole));
  });

  it("falls from a constant rate when that is asked for later", async () => {
    const [dir, whole] = [fresh(), fresh()];
    await stopAfter(runOptions(dir, { block: constant }), 7);
    await finish(runOptions(dir, { block: wsd }));
    await finish(runOptions(whole, { block: wsd }));
    expect(await remains(dir)).toEqual(await remains(whole));
  });

  it("is refused where its steps would have had other rates, with both lengths, both rates and what goes", async () => {
    const longer = { ...block, steps: 20 };
    const error = await failure(finish(runOptions(whole, { block: longer })));
    expect(error.line.replace(root, "ROOT")).toBe(
      "ROOT/whole/run.json: training.steps was 12 and is 20; of the 12 steps that are done, step 3 would have " +
        "had another learning rate (0.002934 then, 0.002979 now), so this is another run; " +
        ("to train on at the last learning rate, add steps: 12 to training.lr; or put it back, or choose " +
          "another folder (cosine depends on the length; constant does not, wsd only near its end)"),
    );
    expect(error.exitCode).toBe(2);
    expect(
      (await failure(finish(runOptions(whole, { block: { ...block, lr: { ...block.lr, peak: 1 } } })))).message,
    ).toMatch(/^training\.lr\.peak was 0\.003 and is 1; of the 12 steps/);
    expect((await failure(finish(runOptions(straight, { block: { ...constant, steps: 9 } })))).message).toBe(
      "12 steps are done, so the run cannot end after 9: training.steps was 12 and is 9",
    );
    expect(await remains(whole)).toEqual(expected);
  });

  it("goes on at the last rate of a schedule of its own length", async () => {
    const dir = fresh();
    await finish(runOptions(dir, { block: { ...block, steps: 8 } }));
    const { metrics } = await finish(runOptions(dir, { block: { ...block, lr: { ...block.lr, steps: 8 } } }));
    const rates = metrics.steps.slice(7).map(({ learningRate }) => learningRate);
    expect([rates.length, new Set(rates).size]).toEqual([5, 1]);
    expect(rates[0]).toBeCloseTo(3e-4, 12);
  });
});

describe("what a run is made from", () => {
  const sources = { "models/a/model.safetensors": "10 bytes, aa", "notes.txt": "3 bytes, bb" };

  it.each([
    [
      { ...sources, "models/a/model.safetensors": "10 bytes, cc" },
      "models/a/model.safetensors: changed since this run began: the file had 10 bytes, aa, and has 10 bytes, cc; ",
    ],
    [
      { "notes.txt": "4 bytes, bb" },
      "models/a/model.safetensors: changed since this run began: the file is gone (and 1 more file); ",
    ],
    [{ ...sources, "more.txt": "4 bytes, bb" }, "more.txt: changed since this run began: the file is new; "],
  ])("is noticed when it was changed in place", async (now, line) => {
    const dir = fresh();
    await finish(runOptions(dir, { sources, block: { ...block, steps: 2 } }));
    const error = await failure(finish(runOptions(dir, { sources: now, block: { ...block, steps: 2 } })));
    expect(error.line).toBe(`${line}put it back to go on, or begin a run of its own in another folder`);
    expect(error.exitCode).toBe(2);
  });

  it("is noticed by its tokens, whatever changed them", async () => {
    const { heldOut, train } = runOptions("").text;
    for (const changed of [
      { train: train.with(700, 1 + train[700]!), heldOut },
      { train, heldOut: heldOut.with(3, 1 + heldOut[3]!) },
    ]) {
      expect((await failure(finish(runOptions(whole, { text: changed })))).line).toMatch(
        /^text: the text gives other tokens than when this run began; has the tokenizer changed/,
      );
    }
  });

  it("is not asked of runs that an earlier version began; they go on, and are known from then on", async () => {
    const dir = fresh();
    const controller = new AbortController();
    await failure(
      finish(
        runOptions(dir, { signal: controller.signal }),
        (event) => void (event.type === "step" && event.step === 6 && controller.abort()),
      ),
    );
    const path = join(dir, "run.json");
    const record = JSON.parse(readFileSync(path, "utf8")) as { training: object };
    writeFileSync(
      path,
      JSON.stringify({ ...record, sources: undefined, training: { ...record.training, budget: { tokens: 768 } } }),
    );
    await finish(runOptions(dir, { sources }));
    expect(JSON.parse(readFileSync(path, "utf8"))).toMatchObject({ sources });
    expect((await remains(dir)).metrics).toEqual(expected.metrics);
  });
});

describe("a folder", () => {
  it.each([
    ["seed was 4 and is 5", { seed: 5 }],
    [
      "training.batch was 2 and is 4, training.evalEvery was 4 and is 6",
      { block: { ...block, batch: 4, evalEvery: 6 } },
    ],
    ['spec.family was "mixtral" and is "llama", spec.layers was ', { spec: denseSpec }],
    ["evaluation.tokens was 100 and is 99", { evaluationTokens: 99 }],
    ["threads was 1 and is 2", { threads: 2 }],
    ['model was "tiny" and is "other"', { identity: { model: "other" } }],
    ['parent is new ("new")', { identity: { model: "tiny", parent: "new" } }],
    [
      'training.guard is new ({"window":8,"deviations":6,"patience":3})',
      { block: { ...block, guard: { window: 8, deviations: 6, patience: 3 } } },
    ],
  ])("of another run is refused, naming what differs: %s", async (what, changes) => {
    const error = await failure(finish(runOptions(whole, changes)));
    expect(
      error.line.replace(root, "ROOT").startsWith(`ROOT/whole/run.json: this folder holds another run: ${what}`),
      error.line,
    ).toBe(true);
    expect(error.hint).toBe("put it back to go on, choose another folder, or remove this one to start again");
    expect(error.exitCode).toBe(2);
    expect(await remains(whole)).toEqual(expected);
  });

  it("that cannot be made is bad input", async () => {
    writeFileSync(join(root, "file"), "");
    expect((await failure(finish(runOptions(join(root, "file", "run"))))).kind).toBe("input");
  });

  it("whose log ends in half a line, or lacks what the checkpoint outlived, goes on", async () => {
    for (const torn of ['{"type":"step","step":7,"to', '{"type":"step"', "\u0000\u0000\u0000\n"]) {
      const dir = fresh();
      const controller = new AbortController();
      await failure(
        finish(
          runOptions(dir, { signal: controller.signal }),
          (event) => void (event.type === "step" && event.step === 6 && controller.abort()),
        ),
      );
      appendFileSync(join(dir, "metrics.jsonl"), torn);
      await finish(runOptions(dir));
      expect(await remains(dir)).toEqual(expected);
    }
  });

  it("whose last checkpoint is damaged says so", async () => {
    const dir = fresh();
    const controller = new AbortController();
    await failure(
      finish(
        runOptions(dir, { signal: controller.signal }),
        (event) => void (event.type === "step" && event.step === 6 && controller.abort()),
      ),
    );
    const path = join(dir, "last/optimizer.safetensors");
    writeFileSync(path, readFileSync(path).subarray(0, 5000));
    const error = await failure(finish(runOptions(dir)));
    expect(error.kind).toBe("input");
    expect(error.line).toContain("optimizer.safetensors");
    writeFileSync(join(dir, "last/training.json"), "{}");
    expect((await failure(finish(runOptions(dir)))).message).toBe("this is not the progress of a run");
  });

  it("whose checkpoint was being replaced when the power went gets the old one back", async () => {
    const dir = fresh();
    const controller = new AbortController();
    await failure(
      finish(
        runOptions(dir, { signal: controller.signal }),
        (event) => void (event.type === "step" && event.step === 6 && controller.abort()),
      ),
    );
    renameSync(join(dir, "last"), join(dir, ".last.previous"));
    const opened: number[] = [];
    await finish(runOptions(dir), (event) => void (event.type === "open" && opened.push(event.step)));
    expect(opened).toEqual([6]);
    expect(await remains(dir)).toEqual(expected);
    expect(existsSync(join(dir, ".last.previous"))).toBe(false);
  });

  it("that lost its checkpoints starts again and counts each step once", async () => {
    const dir = fresh();
    const controller = new AbortController();
    await failure(
      finish(
        runOptions(dir, { signal: controller.signal }),
        (event) => void (event.type === "step" && event.step === 6 && controller.abort()),
      ),
    );
    rmSync(join(dir, "last"), { recursive: true });
    await finish(runOptions(dir));
    expect(await remains(dir)).toEqual(expected);
    expect((await readMetrics(dir)).steps.length).toBe(12);
  });

  it("holds moments that a run needs to go on, and weights that anyone can open", async () => {
    const checkpoint = await openCheckpoint(join(whole, "last"));
    expect(checkpoint.unused).toEqual([]);
    expect(checkpoint.dtype).toBe("F32");
    await checkpoint.close();
  });
});
