/** The run folder: made, or proved to hold this very run. */
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { elements } from "../graph/ir.js";
import { exists, writeJson } from "../io/atomic.js";
import { makeFolders } from "../io/folders.js";
import { withFsErrors } from "../io/fs-errors.js";
import { readJson } from "../io/ranges.js";
import { requireFreeSpace } from "../io/space.js";
import { slotsOf } from "../tensors/slots.js";
import type { RunOptions } from "./run.js";

/** Creates the folder or checks that it holds this very run; checks free space before any work. */
export async function claimFolder(options: RunOptions): Promise<void> {
  const { dir, spec, block, seed, threads, evaluationTokens, identity } = options;
  const path = join(dir, "run.json");
  // More time for a run that has used up its own makes no other run of it.
  const training = { ...block, budget: block.budget === undefined ? undefined : { ...block.budget, time: undefined } };
  const wanted = JSON.parse(JSON.stringify({ ...identity, spec, training, evaluationTokens, seed, threads })) as Record<string, unknown>;
  if (await exists(path)) {
    const found = (await readJson(path)) as Record<string, unknown>;
    const keys = [...new Set([...Object.keys(found), ...Object.keys(wanted)])];
    const other = keys.find((key) => JSON.stringify(found[key]) !== JSON.stringify(wanted[key]));
    if (other !== undefined) {
      throw inputError(`this folder holds another run: its ${other} differs`, { where: path, hint: "choose another folder, or remove this one to start again" });
    }
    return;
  }
  // Two checkpoints are on disk while one replaces the other, each with weights, two moments and perhaps averages; and two models more.
  const weights = 4 * slotsOf(spec).reduce((sum, { shape }) => sum + elements(shape), 0);
  await requireFreeSpace(dir, (block.average === undefined ? 8 : 10) * weights);
  await withFsErrors(dir, "create run folder", () => makeFolders(dir));
  await writeJson(path, wanted);
}
