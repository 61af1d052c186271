/** The tasks whose documents come along: chance is exact, and models that do not read are at chance. */
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { resultOf } from "../../../src/base/events.js";
import type { AnsweringModel } from "../../../src/evals/scoring/model.js";
import { DataReader } from "../../../src/evals/suite/data.js";
import { evaluateModel, prepareTasks, type ModelOutcome } from "../../../src/evals/suite/evaluate.js";
import { readTasks } from "../../../src/evals/suite/task-files.js";
import type { Sample } from "../../../src/evals/tasks/prompt.js";

const selection = await readTasks({ tasks: ["offline"] });
const data = new DataReader({ fetchSplit: () => Promise.reject(new Error("nothing is downloaded")) });
const prepared = await prepareTasks(selection, data, {});

/** A model that says of each text what `score` says. */
const saying = (score: (context: string, continuation: string) => number): AnsweringModel => ({
  maxLength: 1000,
  prepare: (samples: readonly Sample[]) =>
    Promise.resolve({
      tokens: samples.map(() => 1),
      async *answers() {
        yield samples.map(({ requests }, sample) => ({
          sample,
          truncated: 0,
          responses: requests.map((request) => ({
            kind: "loglikelihood" as const,
            logLikelihood: request.kind === "loglikelihood" ? score(request.context, request.continuation) : 0,
            greedy: false,
          })),
        }));
      },
    }),
  close: () => Promise.resolve(),
});

const asked = (score: (context: string, continuation: string) => number): Promise<ModelOutcome> =>
  resultOf(
    evaluateModel({ model: saying(score), prepared, selection, settings: { bootstrapIterations: 0 }, logFolder: null }),
    () => undefined,
  );

const accuracies = ({ tasks, groups }: ModelOutcome): Record<string, number> =>
  Object.fromEntries(
    [...groups, ...tasks.map(({ result }) => result)].flatMap(({ name, metrics }) =>
      metrics.map(({ value }) => [name, value]),
    ),
  );

const chance = {
  offline_pairs: 0.5,
  offline_questions: 0.25,
  offline_plurals: 0.5,
  offline_verbs: 0.5,
  offline_word_order: 0.5,
  offline_wrong_word: 0.5,
  offline_definitions: 0.25,
  offline_capitals: 0.25,
  offline_continents: 0.25,
};

describe("tasks whose documents come along", () => {
  it("need no network, and have documents in pairs or fours whose choices are each right once", () => {
    expect(prepared.map(({ task }) => task.config.name).sort()).toEqual(
      Object.keys(chance)
        .filter((name) => !["offline_pairs", "offline_questions"].includes(name))
        .sort(),
    );
    for (const { task, samples } of prepared) {
      const size = task.choices(at(samples, 0).doc).length;
      expect(samples.length % size).toBe(0);
      for (let i = 0; i < samples.length; i += size) {
        const own = samples.slice(i, i + size);
        expect(own.map(({ doc }) => doc["label"])).toEqual(own.map((_, label) => label));
        if (size === 4) expect(new Set(own.map(({ doc }) => JSON.stringify(task.choices(doc)))).size).toBe(1);
        for (const { doc } of own) expect(new Set(task.choices(doc)).size).toBe(size);
      }
      const texts = samples.map(({ doc }) => JSON.stringify(doc));
      expect(new Set(texts).size, task.config.name).toBe(texts.length);
    }
  });

  it("find a model at chance that likes all choices alike", async () => {
    expect(accuracies(await asked(() => -1))).toEqual(chance);
  });

  it("find a model at chance that reads answers without their context", async () => {
    const { offline_word_order: order, ...others } = accuracies(
      await asked((_, continuation) => [...continuation].reduce((sum, letter) => sum - letter.codePointAt(0)!, 0)),
    );
    // The two orders of one sentence have the same letters.
    expect(order).toBe(0.5);
    for (const [name, value] of Object.entries(others))
      if (!["offline_pairs", "offline_questions"].includes(name))
        expect(Math.abs(value - chance[name as keyof typeof chance]), name).toBeLessThan(1e-12);
  });

  it("say on top that such a model guesses", async () => {
    const { tasks } = await asked(() => -1);
    for (const { warnings } of tasks) {
      expect(warnings.join()).toContain("none was preferred");
      expect(warnings.join()).toContain("not distinguishable from guessing");
    }
  });
});
