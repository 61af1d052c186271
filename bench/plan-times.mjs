/**
 * GPU hours of published trainings by the planner's speed model, before calibration: the table of docs/planning.md and
 * the numbers `predicted` in src/laws/planner/published-runs.ts. Run after `npm run build`: node bench/plan-times.mjs
 */
import { readFile } from "node:fs/promises";
import { parseHardware } from "../dist/base/schemas/index.js";
import { calibration, predictedHours } from "../dist/laws/planner/calibration.js";
import { gpuOf } from "../dist/laws/planner/hardware.js";
import { publishedRuns } from "../dist/laws/planner/published-runs.js";

const yaml = new URL("../recipes/hardware.yaml", import.meta.url);
const table = parseHardware([{ text: await readFile(yaml, "utf8"), file: "hardware.yaml" }]);
console.log("run                  published GPU h  predicted  ratio  (stored)");
for (const run of publishedRuns) {
  const hours = predictedHours(run, gpuOf(run.gpu, /** @type {any} */ (table.gpus[run.gpu])));
  console.log(
    run.title.padEnd(20),
    String(Math.round(run.published)).padStart(15),
    hours.toPrecision(4).padStart(10),
    (hours / run.published).toFixed(2).padStart(6),
    run.predicted.toPrecision(4).padStart(10),
  );
}
console.log(calibration(0.9));
