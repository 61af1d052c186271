/** A training run from its start to its end: what it tells, reads, measures and leaves. */
import { existsSync, readFileSync, readdirSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { at } from "../../src/base/at.js";
import { meanLoss } from "../../src/evals/compare.js";
import { openModel } from "../../src/evals/model.js";
import { learningRateAt } from "../../src/engine/optimizer/schedule.js";
import { openBatches } from "../../src/text/tokens/batches.js";
import { trainRun, type RunOptions, type TrainEvent } from "../../src/train/run.js";
import { inThread } from "../support/backend.js";
import {
  block,
  changedBackend,
  denseSpec,
  failure,
  finish,
  hiddenEntries,
  moeSpec,
  remains,
  runOptions,
  savedStep,
  stopAfter,
  text,
} from "../support/runs.js";
import { referenceRun } from "./reference-run.js";

const { whole, fresh, expected } = referenceRun();

describe("a training run", () => {
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
    expect(at(evals, evals.length - 1).loss).toBeLessThan(at(evals, 0).loss);
    expect(result.finalLoss).toBe(at(evals, evals.length - 1).loss);
    for (const { load } of evals) for (const layer of load) expect(layer.reduce((a, b) => a + b)).toBeCloseTo(1, 12);
    for (const { routing } of evals) {
      expect(routing!.entropy.every((value) => value > 0 && value <= Math.log(4) + 1e-6)).toBe(true);
      expect([routing!.entropy.length, routing!.maxViolation.length, routing!.dead.length]).toEqual([2, 2, 2]);
    }
    expect(done).toMatchObject({ step: 12, machine: { node: process.versions.node } });
    expect(result.peakRssBytes).toBeGreaterThan(1e7);
    expect(await remains(dir)).toEqual(expected());
    expect(hiddenEntries(dir)).toEqual([]);
    // best/ holds the weights of the lowest held-out loss.
    const model = await openModel(join(dir, "best"), inThread, 1);
    const measured = await meanLoss(model, text(150, "held-out"), { sequence: 16, limitTokens: 100 });
    expect(Math.abs(measured.loss - Math.min(...evals.map(({ loss }) => loss)))).toBeLessThan(1e-5);
    expect(model.spec).toEqual(moeSpec);
    await model.close();
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
    expect(hiddenEntries(dir)).toEqual([]);
    const moved = fresh();
    renameSync(join(dir, "last"), moved);
    symlinkSync(moved, join(dir, "last"));
    expect((await failure(finish(runOptions(dir, options)))).line).toContain(
      `${join(dir, "last")}: this is a link, which a new folder would take the place of`,
    );
  });

  it("feeds each step its own micro-batches, in the order of the data, also when it resumes", async () => {
    const dir = fresh();
    const batchesRead: Int32Array[] = [];
    const backend = changedBackend((runtime) => ({
      step: (batches, optimizer) => (
        batchesRead.push(...batches.flatMap(({ ids, targets }) => [ids, targets])),
        runtime.step(batches, optimizer)
      ),
    }));
    await stopAfter(runOptions(dir, { backend }), 5);
    await finish(runOptions(dir, { backend }));
    const batches = openBatches(text(800, "train"), { batch: 2, sequence: 16, seed: 4 });
    expect(batchesRead).toEqual(
      Array.from({ length: 24 }, (_, i) => batches.at(i)).flatMap(({ inputs, targets }) => [inputs, targets]),
    );
  });

  it("keeps the weights of the lowest held-out loss, also when that was before it resumed", async () => {
    // The held-out losses by step: the second is the lowest.
    const heldOutLosses = new Map([
      [0, 9],
      [4, 3],
      [8, 5],
      [12, 4],
    ]);
    const dir = fresh();
    let step = 0;
    const backend = changedBackend((runtime) => ({
      step: (batches, optimizer) => ((step = optimizer.update), runtime.step(batches, optimizer)),
      evaluate: async (batch) => ({ ...(await runtime.evaluate(batch)), loss: heldOutLosses.get(step) ?? 1 }),
    }));
    const bestIsFourth: string[] = [];
    const watch = (event: TrainEvent): void => {
      if (event.type === "step")
        bestIsFourth.push(
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
    expect(bestIsFourth).toEqual([...Array<string>(4).fill("none"), ...Array<string>(8).fill("true")]);
    expect(readFileSync(join(dir, "best/model.safetensors")).equals(readFileSync(join(dir, "four")))).toBe(true);
  });

  it("ends in good order when its time is up, and resumes when it gets more", async () => {
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
      expect(savedStep(dir)).toBe(5);
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
    expect(files["last/model.safetensors"]).toBe(expected().files["last/model.safetensors"]);
  });

  it("says that it is finished without computing when it is run again", async () => {
    const untouched = changedBackend(() => ({ step: () => Promise.reject(new Error("computed")) }));
    const events: string[] = [];
    const result = await finish(runOptions(whole, { backend: untouched }), ({ type }) => void events.push(type));
    expect(events).toEqual(["done"]);
    expect(result.metrics.steps.length).toBe(12);
  });

  it("closes its runtime when the consumer stops reading events and when the first weights fail", async () => {
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

  it("measures expert similarity with every evaluation", async () => {
    const sizes: string[] = [];
    const result = await finish(
      runOptions(fresh(), {
        block: { ...block, steps: 4 },
        similarity: async (read) => {
          sizes.push(String((await read("layers.0.router")).length));
          return { layers: [0.5, 0.25], experts: [[0.5], [0.2, 0.3]] };
        },
      }),
    );
    expect(sizes).toEqual(["64", "64"]);
    expect(result.metrics.evals.map(({ similarity }) => similarity)).toEqual([
      [0.5, 0.25],
      [0.5, 0.25],
    ]);
    expect(result.metrics.evals.at(-1)?.expertSimilarity).toEqual([[0.5], [0.2, 0.3]]);
  });

  it("logs no expert load and no router losses for a dense model", async () => {
    const { metrics } = await finish(
      runOptions(fresh(), { spec: denseSpec, block: { ...block, steps: 2, accumulate: 1 } }),
    );
    expect(metrics.evals.every(({ load }) => load.length === 0)).toBe(true);
    expect(metrics.steps.every(({ balanceLoss, zLoss }) => balanceLoss === null && zLoss === null)).toBe(true);
  });
});
