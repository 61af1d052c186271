/** The worker-thread backend, as built: `npm run build` comes first. */
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { onnxruntimeBackend } from "../../../src/engine/onnxruntime/backend.js";
import { logitsProgram, trainProgram } from "../../../src/graph/programs/programs.js";
import { golden } from "../../support/golden.js";
import { built, runScript } from "../../support/built.js";
import { adamw, goldenRun, load, openLoaded, readAll } from "../../support/programs.js";

describe("a runtime in a worker thread", () => {
  it.each(["train/llama", "train/mixtral"])(
    "%s: computes what the runtime in this thread computes, bit by bit",
    async (name) => {
      const { spec, batch, sequence, weights, batchAt } = await goldenRun(name);
      const program = trainProgram(spec, { batch: batch / 2, sequence, auxCoef: 0.01, zCoef: 0.001 });
      const here = await openLoaded(program, weights, { accumulate: true });
      const there = await load(await onnxruntimeBackend.openTrain(program, { threads: 1, accumulate: true }), weights);
      for (let step = 0; step < 4; step++) {
        const batches = [batchAt(step, 0, batch / 2), batchAt(step, batch / 2, batch / 2)];
        expect(await there.step(batches, adamw(step + 1))).toEqual(await here.step(batches, adamw(step + 1)));
        expect(await there.evaluate(at(batches, 0))).toEqual(await here.evaluate(at(batches, 0)));
      }
      expect(await readAll(there, weights.keys())).toEqual(await readAll(here, weights.keys()));
      expect(await there.peakMemory()).toBeGreaterThan(1e6);
      await here.close();
      await there.close();
    },
  );

  it("keeps this thread's event loop free while it works", async () => {
    const { spec, batch, sequence, weights, batchAt } = await goldenRun("train/llama");
    const runtime = await load(
      await onnxruntimeBackend.openTrain(trainProgram(spec, { batch, sequence, auxCoef: 0, zCoef: 0 }), {
        threads: 1,
        accumulate: true,
      }),
      weights,
    );
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    await runtime.step(
      Array.from({ length: 48 }, (_, i) => batchAt(i % 12)),
      adamw(1),
    );
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(5);
    await runtime.close();
  });

  it("rejects the call that failed with the worker's message and goes on", async () => {
    const { spec, batch, sequence, weights, batchAt } = await goldenRun("train/llama");
    const program = trainProgram(spec, { batch, sequence, auxCoef: 0, zCoef: 0 });
    const runtime = await load(await onnxruntimeBackend.openTrain(program, { threads: 1, accumulate: false }), weights);
    await expect(runtime.write("weight", "embed", new Float32Array(2))).rejects.toThrow(
      /embed has \d+ elements, got 2/,
    );
    await expect(runtime.read("weight", "nothing")).rejects.toThrow("no parameter nothing");
    await expect(runtime.step([batchAt(0), batchAt(1)], adamw(1))).rejects.toThrow("without gradient accumulation");
    const here = await openLoaded(program, weights);
    expect(await runtime.step([batchAt(0)], adamw(1))).toEqual(await here.step([batchAt(0)], adamw(1)));
    await here.close();
    await runtime.close();
    await expect(runtime.step([batchAt(0)], adamw(2))).rejects.toThrow("the runtime is closed");
    await runtime.close();
  });

  it("rejects a program that does not compile", async () => {
    const { spec } = await goldenRun("train/llama");
    const program = trainProgram(spec, { batch: 1, sequence: 2, auxCoef: 0, zCoef: 0 });
    const broken = { ...program, graph: { ...program.graph, nodes: program.graph.nodes.slice(5) } };
    await expect(onnxruntimeBackend.openTrain(broken, { threads: 1, accumulate: false })).rejects.toThrow(
      "never lowered",
    );
  });

  it("answers forward calls made at once, each program sent only once", async () => {
    const { spec, weights, batchAt } = await goldenRun("train/mixtral");
    const runtime = await onnxruntimeBackend.openForward({ threads: 1 });
    for (const [key, data] of weights) await runtime.write(key, data);
    const program = logitsProgram(spec, { batch: 1, sequence: 32 });
    const feeds = [0, 1, 2].map((row) => [batchAt(0, row, 1).ids]);
    const together = await Promise.all(feeds.map((feed) => runtime.run("p", program, feed)));
    for (const [i, feed] of feeds.entries()) expect(await runtime.run("p", program, feed)).toEqual(together[i]);
    await runtime.close();
    await expect(runtime.run("p", program, at(feeds, 0))).rejects.toThrow("the runtime is closed");
  });
});

describe("the process that opened a runtime", () => {
  const script = (after: string): string => `
    import { openModel } from "${built("evals/model.js")}";
    import { onnxruntimeBackend } from "${built("engine/onnxruntime/backend.js")}";
    const model = await openModel(${JSON.stringify(golden("dense/llama"))}, onnxruntimeBackend, 1);
    const logits = await model.logits(Int32Array.of(1, 2, 3), { batch: 1, sequence: 3 });
    console.log("logits", logits.length);
    ${after}`;
  it.each([
    ["ends by itself after closing it", "await model.close();", 0, "logits 288\n"],
    ["ends by itself even where nobody closes it", "", 0, "logits 288\n"],
    [
      "stays alive while a call is under way",
      `model.logits(Int32Array.of(5), { batch: 1, sequence: 1 }).then(() => console.log("late"));`,
      0,
      "logits 288\nlate\n",
    ],
  ])("%s", async (_, after, code, stdout) => {
    expect(await runScript(script(after)).ended).toMatchObject({ code, signal: null, stdout, stderr: "" });
  });
});
