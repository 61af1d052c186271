/** Results of two models as `upcycle eval` writes them, for the folder of a studio. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { writeResults } from "../../src/evals/suite/write-results.js";
import { child, parent, selection } from "../report/evals/models.js";

/** When they were written. */
export const evaluationDate = new Date("2026-11-30T12:00:00Z");

/** Writes the results of a parent and its child as `upcycle eval` does. Returns the names of both files. */
export async function writeEvaluations(dir: string): Promise<readonly [parent: string, child: string]> {
  for (const [name, outcome] of Object.entries({ parent, child })) {
    const model = { name, maxLength: 512, device: "onnxruntime", version: "0", chat: null };
    mkdirSync(join(dir, name), { recursive: true });
    const settings = { bootstrapIterations: 0 };
    await writeResults(join(dir, name), model, outcome, { selection, settings, date: evaluationDate });
  }
  const results = "results_2026-11-30T12-00-00.000000.json";
  return [`parent/${results}`, `child/${results}`];
}
