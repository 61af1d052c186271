import { describe, expect, it } from "vitest";
import { onnxruntimeBackend } from "../../src/engine/onnxruntime/backend.js";
import { machineOf } from "../../src/train/machine.js";
import { environment } from "../../src/study/environment.js";
import type { ArmRun } from "../../src/model/results/result.js";

const options = { threads: 2, backends: [onnxruntimeBackend] } as const;
const machine = {
  node: "22.0.0",
  platform: "linux 6.1 x64",
  cpu: "A processor x 16",
  device: "cuda bf16 on cuda:0",
};
const run = (more: Partial<ArmRun>): ArmRun => ({
  ...{ seed: 0, path: "x", preservation: null, points: [], finalLoss: 1, tokensPerSecond: 1, peakRssBytes: null },
  ...{ load: [], similarity: [], ...more },
});

describe("the environment of a study's result", () => {
  it("is the machine that its runs were trained on, not the one that compares them", async () => {
    const found = await environment(options, [{ runs: [run({ machine }), run({ machine })] }, { runs: [run({})] }]);
    expect(found).toMatchObject({ ...machine, threads: 2 });
  });

  it("names all machines where there were several", async () => {
    const other = { ...machine, cpu: "Another x 8" };
    const found = await environment(options, [{ runs: [run({ machine }), run({ machine: other })] }]);
    expect(found).toMatchObject({ ...machine, cpu: "A processor x 16; Another x 8" });
  });

  it("is this machine where no log says it", async () => {
    expect(await environment(options, [{ runs: [run({})] }])).toMatchObject(machineOf([onnxruntimeBackend]));
  });
});
