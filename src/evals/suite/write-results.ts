/** Writes results and samples of a model into its folder, in the harness's layouts. */
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { reservePartial, writeJson } from "../../files/io/atomic.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { openJsonl } from "../../files/io/jsonl.js";
import type { Selection } from "../tasks/select.js";
import { fileName, type EvaluationSettings, type ModelOutcome } from "./evaluate.js";
import { dateId, resultsFile, sampleLines, type EvaluatedModel } from "./harness-files.js";

/** Where the results went. */
export interface WrittenResults {
  readonly results: string;
  readonly samples: readonly string[];
}

/** Writes `results_DATE.json` last, when the `samples_TASK_DATE.jsonl` beside it are complete. */
export async function writeResults(
  folder: string,
  model: EvaluatedModel,
  outcome: ModelOutcome,
  context: { readonly selection: Selection; readonly settings: EvaluationSettings; readonly date: Date },
): Promise<WrittenResults> {
  const id = dateId(context.date);
  const samples: string[] = [];
  for (const task of outcome.tasks) {
    const path = join(folder, `samples_${fileName(task.result.name)}_${id}.jsonl`);
    const { partial, place } = await reservePartial(path);
    try {
      const writer = await openJsonl(partial);
      try {
        for (const line of sampleLines(task)) await writer.append(line);
        await writer.sync();
      } finally {
        await writer.close();
      }
      await withFsErrors(path, "name file", () => rename(partial, place));
    } catch (cause) {
      await rm(partial, { force: true }).catch(() => undefined);
      throw cause;
    }
    samples.push(path);
  }
  const results = join(folder, `results_${id}.json`);
  await writeJson(results, resultsFile(model, outcome, context));
  return { results, samples };
}
