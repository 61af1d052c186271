import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import type { AnsweringModel, Answered } from "../../../src/evals/scoring/model.js";
import { DataReader } from "../../../src/evals/suite/data.js";
import { evaluateModel, prepareTasks, type EvaluationEvent } from "../../../src/evals/suite/evaluate.js";
import { readTasks } from "../../../src/evals/suite/task-files.js";
import { temporaryFolder } from "../../files/io/temporary.js";

const selection = await readTasks({ tasks: ["offline_plurals"] });
const data = new DataReader({ fetchSplit: () => Promise.reject(new Error("the documents come along")) });
const prepared = await prepareTasks(selection, data, { limit: 6 });
const samples = at(prepared, 0).samples;

/** Batches of two samples; `onBatch` is told before each of them is given. */
function modelOf(onBatch: (batch: number) => void): AnsweringModel {
  return {
    maxLength: 64,
    prepare: () =>
      Promise.resolve({
        tokens: samples.map(() => 1),
        async *answers(isDone, signal) {
          for (let first = 0; first < samples.length; first += 2) {
            const batch = [first, first + 1];
            if (batch.every(isDone)) continue;
            await Promise.resolve();
            onBatch(first / 2);
            if (signal?.aborted === true) return;
            yield batch.map((sample): Answered => {
              const responses = at(samples, sample).requests.map((_, i) => ({
                kind: "loglikelihood" as const,
                logLikelihood: -1 - i,
                greedy: false,
              }));
              return { sample, responses, truncated: 0 };
            });
          }
        },
      }),
    close: () => Promise.resolve(),
  };
}

interface Asked {
  readonly model: AnsweringModel;
  readonly logFolder: string;
  readonly signal?: AbortSignal;
}

const evaluated = (asked: Asked): ReturnType<typeof evaluateModel> =>
  evaluateModel({ ...asked, prepared, selection, settings: { bootstrapIterations: 0 } });

const linesOf = (folder: string): number =>
  readdirSync(folder).reduce(
    (sum, name) => sum + readFileSync(join(folder, name), "utf8").trim().split("\n").filter(Boolean).length,
    0,
  );

describe("an evaluation", () => {
  it("has the next batch computed while the answers of one are written", async () => {
    const seen: string[] = [];
    const model = modelOf((batch) => seen.push(`computed ${batch}`));
    const events: EvaluationEvent[] = [];
    for await (const event of evaluated({ model, logFolder: join(temporaryFolder(), "log") })) {
      events.push(event);
      if (event.type === "progress") seen.push(`told ${event.samples}`);
    }
    expect(seen).toEqual(["computed 0", "computed 1", "told 2", "computed 2", "told 4", "told 6"]);
  });

  it("that is stopped keeps every batch that was finished, and goes on with the others", async () => {
    const logFolder = join(temporaryFolder(), "log");
    const controller = new AbortController();
    const stopping = modelOf((batch) => void (batch === 2 && controller.abort()));
    const running = evaluated({ model: stopping, logFolder, signal: controller.signal });
    await expect(
      (async () => {
        for await (const event of running) void event;
      })(),
    ).rejects.toThrow("stopped after 4 of 6 samples");
    expect(linesOf(logFolder)).toBe(4);
    const computed: number[] = [];
    for await (const event of evaluated({ model: modelOf((batch) => void computed.push(batch)), logFolder }))
      void event;
    expect(computed).toEqual([2]);
    expect(linesOf(logFolder)).toBe(6);
  });
});
