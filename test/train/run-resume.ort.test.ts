/** Training runs that were stopped or failed to save, and runs that are to be longer or shorter. */
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { beforeAll, describe, expect, it } from "vitest";
import { inputError } from "../../src/base/errors.js";
import type { StateKind } from "../../src/engine/runtime/runtime.js";
import { slotsOf } from "../../src/model/tensors/slots.js";
import type { TrainEvent } from "../../src/train/run.js";
import {
  block,
  changedBackend,
  failure,
  finish,
  hiddenEntries,
  remains,
  runOptions,
  savedStep,
  stopAfter,
} from "../support/runs.js";
import { referenceRun } from "./reference-run.js";

const { root, whole, fresh, expected } = referenceRun();

describe("a run that a signal stopped and that resumed", () => {
  it.each([0, 1, 3, 4, 7, 11])(
    "gives the same numbers and the same bytes when it was stopped after step %i",
    async (step) => {
      const dir = fresh();
      const controller = new AbortController();
      const stopped = await failure(
        finish(runOptions(dir, { signal: controller.signal }), (event) => {
          if ((event.type === "step" && event.step === step) || (event.type === "eval" && step === 0))
            controller.abort();
        }),
      );
      expect(stopped).toMatchObject({ kind: "interrupted", message: `stopped after step ${step} of 12` });
      expect(savedStep(dir)).toBe(step);
      // Stopped again at once: nothing moves.
      expect((await failure(finish(runOptions(dir, { signal: AbortSignal.abort() })))).kind).toBe("interrupted");
      const opened: number[] = [];
      await finish(runOptions(dir), (event) => void (event.type === "open" && opened.push(event.step)));
      expect(opened).toEqual([step]);
      expect(await remains(dir)).toEqual(expected());
    },
  );

  it("gives the same numbers and the same bytes when it was stopped after every second step", async () => {
    const dir = fresh();
    for (let step = 2; step < 12; step += 2) {
      await stopAfter(runOptions(dir), step);
    }
    await finish(runOptions(dir));
    expect(await remains(dir)).toEqual(expected());
  });
});

describe("a checkpoint that cannot be written", () => {
  const full = (): Error => Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });

  it.each([0, 20, 70])("leaves the one before as it was when the disk is full after %i tensors", async (tensors) => {
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
    expect(savedStep(dir)).toBe(3);
    expect(readdirSync(join(dir, "last")).sort()).toEqual(Object.keys(before).sort());
    for (const [name, bytes] of Object.entries(before))
      expect(readFileSync(join(dir, "last", name)).equals(bytes), name).toBe(true);
    expect(hiddenEntries(dir)).toEqual([]);
    await finish(runOptions(dir));
    expect(await remains(dir)).toEqual(expected());
  });
});

/** A runtime whose steps queue, and whose copies of the state are read when so many more steps were asked for. */
const copying = (later: number, { fail = null as Error | null, nanAt = 0, log = [] as string[] } = {}) =>
  changedBackend((runtime) => {
    const waiting: { at: number; resolve: () => void }[] = [];
    let asked = 0;
    let copies = 0;
    // The runtime in this thread takes one step at a time.
    let last: Promise<unknown> = Promise.resolve();
    return {
      queues: true,
      step: (batches, settings) => {
        const number = ++asked;
        log.push(`asked ${number}`);
        for (const { at, resolve } of waiting) if (asked >= at) resolve();
        const step = last.then(async () => {
          const metrics = await runtime.step(batches, settings);
          log.push(`answered ${number}`);
          return number === nanAt ? { ...metrics, loss: NaN, applied: false } : metrics;
        });
        last = step.catch(() => undefined);
        return step;
      },
      snapshot: () => {
        const copy = last.then(takeCopy);
        last = copy.catch(() => undefined);
        const from = asked + later;
        const ready = new Promise<void>((resolve) => waiting.push({ at: from, resolve }));
        const read = async (kind: StateKind, key: string): Promise<Float32Array> => {
          await ready;
          if (fail !== null && from > 3 + later) throw fail;
          return (await copy).get(`${kind}.${key}`) ?? Promise.reject(new Error(`no ${kind} of ${key} was copied`));
        };
        return Promise.resolve({ read, close: () => Promise.resolve(void copies--) });
      },
    };
    async function takeCopy(): Promise<Map<string, Float32Array>> {
      if (++copies > 1) throw new Error("the first copy was not given back");
      const state = new Map<string, Float32Array>();
      for (const { key } of slotsOf(runOptions("").spec))
        for (const kind of ["weight", "moment1", "moment2"] as const)
          state.set(`${kind}.${key}`, await runtime.read(kind, key));
      return state;
    }
  });

describe("a checkpoint that is written while steps go on", () => {
  it("holds the state as it was, and is complete when the run says so", async () => {
    const dir = fresh();
    const seen: string[] = [];
    await finish(runOptions(dir, { backend: copying(2) }), (event) => {
      if (event.type === "step" || event.type === "save") seen.push(`${event.type} ${event.step}`);
      if (event.type === "save") expect(savedStep(dir)).toBe(event.step);
    });
    expect(await remains(dir)).toEqual(expected());
    // Saved every third step: the steps behind it were not waited for.
    expect(seen.indexOf("save 3")).toBeGreaterThan(seen.indexOf("step 5"));
    expect(seen.at(-1)).toBe("save 12");
  });

  it("gives the same numbers and the same bytes when the run was stopped while it was written", async () => {
    const dir = fresh();
    const controller = new AbortController();
    await failure(
      finish(runOptions(dir, { backend: copying(1), signal: controller.signal }), (event) => {
        if (event.type === "step" && event.step === 4) controller.abort();
      }),
    );
    await finish(runOptions(dir));
    expect(await remains(dir)).toEqual(expected());
  });

  it("stops the run at the next step when it cannot be written, and leaves the one before", async () => {
    const dir = fresh();
    const fail = inputError("cannot write: permission denied", { where: "weights", hint: "use another path" });
    const steps: number[] = [];
    const error = await failure(
      finish(runOptions(dir, { backend: copying(1, { fail }) }), async (event) => {
        if (event.type !== "step") return;
        steps.push(event.step);
        // Steps this small would be over before the file system has answered.
        if (event.step === 7) await setTimeout(300);
      }),
    );
    // It fails while step 7 is under way; the next checkpoint would be that of step 9.
    expect(steps.at(-1)).toBeLessThan(9);
    expect(error.line).toBe(
      "weights: cannot write: permission denied; the last checkpoint (step 3) is kept; use another path",
    );
    expect(error.exitCode).toBe(1);
    expect(savedStep(dir)).toBe(3);
    expect(hiddenEntries(dir)).toEqual([]);
    await finish(runOptions(dir));
    expect(await remains(dir)).toEqual(expected());
  });
});

describe("a checkpoint of steps that queue", () => {
  it("has the next step asked for before its own has answered, and needs no evaluation of its own", async () => {
    const dir = fresh();
    const log: string[] = [];
    const backend = copying(1, { log });
    let evaluations = 0;
    const counted: typeof backend = {
      ...backend,
      openTrain: async (...asked) => {
        const runtime = await backend.openTrain(...asked);
        const evaluate = runtime.evaluate.bind(runtime);
        runtime.evaluate = (...given) => (evaluations++, evaluate(...given));
        return runtime;
      },
    };
    const usual = runOptions(dir, { backend: counted });
    await finish({ ...usual, block: { ...usual.block, evalEvery: 12, saveEvery: 6 } });
    expect(log.indexOf("asked 7")).toBeLessThan(log.indexOf("answered 6"));
    const before = evaluations;
    const other = runOptions(fresh(), { backend: counted });
    await finish({ ...other, block: { ...other.block, evalEvery: 12, saveEvery: 12 } });
    expect(evaluations - before).toBe(before);
  });

  it("is not written where the step behind it shows that its weights give no loss", async () => {
    const dir = fresh();
    const usual = runOptions(dir, { backend: copying(1, { nanAt: 4 }) });
    const error = await failure(finish({ ...usual, block: { ...usual.block, evalEvery: 12, saveEvery: 3 } }));
    expect(error.message).toContain("step 4: loss NaN");
    expect(existsSync(join(dir, "last"))).toBe(false);
    expect(hiddenEntries(dir)).toEqual([]);
  });
});

describe("a run that is to be another length", () => {
  const constant = { ...block, lr: { ...block.lr, schedule: "constant" as const } };
  const wsd = { ...block, lr: { ...block.lr, schedule: "wsd" as const, decay: 4 } };
  let straight: string;
  beforeAll(async () => {
    straight = fresh();
    await finish(runOptions(straight, { block: constant }));
  });

  it("resumes when it was finished and its rate is constant, to the bits of a run of that length", async () => {
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

  it("resumes when it was stopped, longer, shorter, or with another interval of saving", async () => {
    const dir = fresh();
    await stopAfter(runOptions(dir, { block: { ...constant, steps: 40, saveEvery: 5 } }), 6);
    await finish(runOptions(dir, { block: constant }));
    expect(await remains(dir)).toEqual(await remains(straight));
  });

  it("resumes from the stable phase of a WSD schedule, whose fall then comes later", async () => {
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

  it("is refused where its steps would have had other rates, naming both lengths, both rates and what would be allowed", async () => {
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
    expect(await remains(whole)).toEqual(expected());
  });

  it("resumes at the last rate of a schedule that ended before it", async () => {
    const dir = fresh();
    await finish(runOptions(dir, { block: { ...block, steps: 8 } }));
    const { metrics } = await finish(runOptions(dir, { block: { ...block, lr: { ...block.lr, steps: 8 } } }));
    const rates = metrics.steps.slice(7).map(({ learningRate }) => learningRate);
    expect([rates.length, new Set(rates).size]).toEqual([5, 1]);
    expect(rates[0]).toBeCloseTo(3e-4, 12);
  });
});
