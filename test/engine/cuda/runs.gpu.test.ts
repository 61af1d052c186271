/** Training runs on a GPU: stopped and resumed, with layers made again, and with a GPU that is lost on the way. */
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { cudaBackend } from "../../../src/engine/cuda/backend.js";
import type { Backend } from "../../../src/engine/runtime/runtime.js";
import type { RunOptions } from "../../../src/train/run.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { cudaMachine } from "../../support/cuda.js";
import {
  block,
  denseSpec,
  failure,
  finish,
  moeSpec,
  remains,
  runOptions,
  savedStep,
  stopAfter,
} from "../../support/runs.js";
import { freshFolders } from "../../train/reference-run.js";

const backend = (): Backend => cudaBackend(0, { precision: "bf16" });
const steps = { ...block, steps: 5, accumulate: 1, evalEvery: 5, saveEvery: 2 };

describe.skipIf(cudaMachine === "no machine").each([
  ["dense", denseSpec],
  ["mixture", moeSpec],
] as const)(`on ${cudaMachine}, a run of a %s model in bfloat16`, (_, spec) => {
  const fresh = freshFolders(temporaryFolder());
  const options = (dir: string, changes: Partial<RunOptions> = {}): RunOptions =>
    runOptions(dir, { backend: backend(), spec, block: steps, ...changes });
  let expected: Awaited<ReturnType<typeof remains>>;
  beforeAll(async () => {
    const whole = fresh();
    await finish(options(whole));
    expected = await remains(whole);
  });
  afterEach(() => void delete process.env["UPCYCLE_EMULATOR_FAIL"]);

  it("leaves the same bytes when it was stopped and resumed", async () => {
    const dir = fresh();
    await stopAfter(options(dir), 3);
    await finish(options(dir));
    expect(await remains(dir)).toEqual(expected);
  });

  it("leaves the same bytes when its layers are made again in the backward pass", async () => {
    const dir = fresh();
    await finish(options(dir, { block: { ...steps, recompute: "layer" } }));
    const { metrics, files } = await remains(dir);
    expect(metrics).toEqual(expected.metrics);
    // The record of the run says that they were.
    expect({ ...files, "run.json": "" }).toEqual({ ...expected.files, "run.json": "" });
  });

  it.skipIf(cudaMachine !== "the CPU")(
    "keeps its last checkpoint when the GPU is lost, and resumes from it",
    async () => {
      const dir = fresh();
      const error = await failure(
        finish(options(dir), (event) => {
          // Every graph that is launched behind the first checkpoint fails.
          if (event.type === "save" && event.step === 2) process.env["UPCYCLE_EMULATOR_FAIL"] = "cuGraphLaunch:719:0";
        }),
      );
      expect(error.kind).toBe("stopped");
      expect(error.line).toMatch(/the GPU failed .*the last checkpoint is kept: resume from it/);
      expect(savedStep(dir)).toBe(2);
      delete process.env["UPCYCLE_EMULATOR_FAIL"];
      await finish(options(dir));
      expect(await remains(dir)).toEqual(expected);
    },
  );
});
