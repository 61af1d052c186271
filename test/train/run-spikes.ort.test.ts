/** Training runs whose loss or gradient is out of bounds: spikes are skipped, NaN and infinity stop the run. */
import { describe, expect, it } from "vitest";
import type { RunOptions } from "../../src/train/run.js";
import { block, changedBackend, failure, finish, remains, runOptions, savedStep, stopAfter } from "../support/runs.js";
import { referenceRun } from "./reference-run.js";

const { fresh, expected } = referenceRun();

describe("the spike guard of a run", () => {
  it("skips spikes, logs them, counts updates without them, and resumes to the bit", async () => {
    // Before two of the steps the last norm is blown up, so that loss and gradient stand out; afterwards it is put
    // back.
    const guard = { window: 8, deviations: 6, patience: 3 };
    const changes = (): Partial<RunOptions> => ({
      block: { ...block, steps: 24, guard, lr: { ...block.lr, peak: 1e-2 }, saveEvery: 5 },
      backend: changedBackend((runtime) => ({
        step: async (batches, settings) => {
          updates.push(settings.update);
          const good = await runtime.read("weight", "finalNorm");
          const bad = step === 14 || step === 18;
          step++;
          if (bad)
            await runtime.write(
              "weight",
              "finalNorm",
              good.map((x, i) => (i % 2 === 0 ? 90 : -90) * x),
            );
          const metrics = await runtime.step(batches, settings);
          if (bad) await runtime.write("weight", "finalNorm", good);
          return metrics;
        },
      })),
    });
    const updates: number[] = [];
    let step = 0;
    const [one, two] = [fresh(), fresh()];
    const { metrics } = await finish(runOptions(one, changes()));
    expect(
      metrics.steps.filter(({ skipped }) => skipped !== undefined).map(({ step, skipped }) => [step, skipped]),
    ).toEqual([
      [15, "loss"],
      [19, "loss"],
    ]);
    expect(updates).toEqual([...Array.from({ length: 15 }, (_, i) => i + 1), 15, 16, 17, 18, 18, 19, 20, 21, 22]);
    step = 0;
    await stopAfter(runOptions(two, changes()), 16);
    await finish(runOptions(two, changes()));
    expect(await remains(two)).toEqual(await remains(one));
  });

  it("stops the run after `patience` spikes in a row", async () => {
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
});

describe("a loss that is not finite", () => {
  /** Weights become NaN right before (0) or right after (1) computing step `bad`. */
  const poisoned = (bad: number, when: 0 | 1) =>
    changedBackend((runtime) => {
      let step = 0;
      const poison = (): Promise<void> => runtime.write("weight", "finalNorm", new Float32Array(16).fill(NaN));
      return {
        async step(batches, optimizer) {
          step++;
          if (step === bad && when === 0) await poison();
          const metrics = await runtime.step(batches, optimizer);
          if (step === bad && when === 1) await poison();
          return metrics;
        },
      };
    });

  it.each([
    ["in a step", poisoned(5, 0), {}, 3, /^step 5: loss NaN, gradient norm NaN/],
    ["in the held-out text", poisoned(8, 1), {}, 6, /^the held-out loss after step 8 is NaN/],
    ["about to be saved", poisoned(6, 1), {}, 3, /^the loss after step 6 is NaN/],
  ])(
    "%s stops the run and keeps the last good checkpoint, from which it can resume",
    async (_, backend, changes, checkpoint, message) => {
      const dir = fresh();
      const stopped = await failure(finish(runOptions(dir, { backend, ...changes })));
      expect(stopped.kind).toBe("stopped");
      expect(stopped.message).toMatch(message);
      expect(stopped.hint).toContain(`the last good checkpoint (step ${checkpoint}) is kept`);
      expect(savedStep(dir)).toBe(checkpoint);
      await finish(runOptions(dir));
      expect(await remains(dir)).toEqual(expected());
    },
  );

  it("from a learning rate of 1e30 stops the run and names the rate", async () => {
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
