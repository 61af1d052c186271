/** Two models on made-up subjects of MMLU: one is right in every second question, one has learnt and forgotten. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { resultOf } from "../../../src/base/events.js";
import type { AnsweringModel } from "../../../src/evals/scoring/model.js";
import { DataReader } from "../../../src/evals/suite/data.js";
import { evaluateModel, prepareTasks, type ModelOutcome } from "../../../src/evals/suite/evaluate.js";
import { readTasks } from "../../../src/evals/suite/task-files.js";
import { temporaryFolder } from "../../files/io/temporary.js";

export const folder = temporaryFolder();
const subjects = ["econometrics", "sociology", "security_studies"];
const hostile = '<img src=x onerror="alert(1)">';

export const selection = await readTasks({ tasks: ["mmlu_social_sciences"] });
const all = selection.tasks.map(({ raw }) => String(raw.dataset_name));

for (const [s, subject] of [...subjects, ...all.filter((name) => !subjects.includes(name))].entries()) {
  const place = join(folder, "cais--mmlu", subject);
  mkdirSync(place, { recursive: true });
  const docs = Array.from({ length: 16 }, (_, i) => ({
    question: `${hostile} of ${subject}, number ${i}?`,
    subject,
    choices: ["one", "two", "three", "four"],
    answer: (i + s) % 4,
  }));
  for (const split of ["dev", "test"])
    writeFileSync(join(place, `${split}.jsonl`), docs.map((doc) => JSON.stringify(doc)).join("\n"));
}

const data = new DataReader({ dataFolder: folder, fetchSplit: () => Promise.reject(new Error("no network")) });
const prepared = await prepareTasks(selection, data, {});

/** A model that is right in the questions of which `isRight` says so, and takes the next answer in others. */
const knowing = (isRight: (subject: string, place: number) => boolean): AnsweringModel => ({
  maxLength: 512,
  prepare: (samples) =>
    Promise.resolve({
      tokens: samples.map(() => 1),
      async *answers() {
        yield samples.map(({ doc, requests }, sample) => {
          const gold = Number(doc["answer"]);
          const chosen = isRight(doc["subject"] as string, sample) ? gold : (gold + 1) % 4;
          return {
            sample,
            truncated: 0,
            responses: requests.map((_, i) => ({
              kind: "loglikelihood" as const,
              logLikelihood: i === chosen ? -1 : -2 - i,
              greedy: false,
            })),
          };
        });
      },
    }),
  close: () => Promise.resolve(),
});

const outcomeOf = (isRight: (subject: string, place: number) => boolean): Promise<ModelOutcome> =>
  resultOf(
    evaluateModel({
      model: knowing(isRight),
      prepared,
      selection,
      settings: { bootstrapIterations: 0 },
      logFolder: null,
    }),
    () => undefined,
  );

export const parent = await outcomeOf((_, place) => place % 2 === 0);
// Learnt: econometrics, all of it. Forgotten: sociology, all of it. The others are as they were.
export const child = await outcomeOf((subject, place) =>
  subject === "econometrics" ? true : subject === "sociology" ? false : place % 2 === 0,
);
