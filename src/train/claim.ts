/** Claiming a run folder: a new one is made, an existing one is proved to hold this very run. */
import { join } from "node:path";
import { inputError, type UpcycleError } from "../base/errors.js";
import type { TrainingBlock } from "../base/schemas/index.js";
import { elements } from "../graph/ir/ir.js";
import { exists, writeJson } from "../files/io/atomic.js";
import { makeFolders } from "../files/io/folders.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { readJson } from "../files/io/ranges.js";
import { requireFreeSpace } from "../files/io/space.js";
import { withBalance } from "../engine/routing/routing.js";
import { firstDifference, learningRateAt } from "../engine/optimizer/schedule.js";
import { isMoe } from "../model/decoder/types.js";
import { slotsOf } from "../model/tensors/slots.js";
import { changeWords, changesBetween } from "./changes.js";
import { requireSameSources, textHash } from "./sources.js";
import type { RunOptions, Sources } from "./types.js";

type Training = Omit<TrainingBlock, "budget">;

/** `run.json`: what this run is. */
export interface RunRecord extends Readonly<Record<string, unknown>> {
  readonly training: Training;
  /** What its sources contained; absent in runs of earlier versions. */
  readonly sources?: Sources;
}

/** Name of the record of what a run is. */
export const runFile = "run.json";

/** What the folder says of its run, or null without a record. Throws inputError for a file that is no record. */
export async function readRunRecord(dir: string): Promise<RunRecord | null> {
  const path = join(dir, runFile);
  if (!(await exists(path))) return null;
  const record = (await readJson(path)) as Partial<RunRecord> | null;
  if (typeof record?.training === "object") return record as RunRecord;
  const hint = "choose another folder, or remove this one to start again";
  throw inputError("this is not the record of a run", { where: path, hint });
}

/** Creates the folder, unless it holds a run already; checks free space before any work. */
export async function claimRunFolder(options: RunOptions): Promise<void> {
  const { dir, spec, block } = options;
  if (await exists(join(dir, runFile))) return;
  // Two checkpoints are on disk while one replaces the other, each with weights, two moments and perhaps averages. Two
  // models without state come on top.
  const weights = 4 * slotsOf(spec).reduce((sum, { shape }) => sum + elements(shape), 0);
  await requireFreeSpace(dir, (block.average === undefined ? 8 : 10) * weights);
  await withFsErrors(dir, "create run folder", () => makeFolders(dir));
  await writeJson(join(dir, runFile), recordOf(options));
}

/**
 * Proves that the folder holds this very run, of which `done` steps are saved. Its future may be another, if its past
 * would have been the same: the record then becomes the new one. Throws inputError that names what differs.
 */
export async function requireSameRun(options: RunOptions, done: number): Promise<void> {
  const { dir } = options;
  const path = join(dir, runFile);
  const [saved, current] = [await readRunRecord(dir), recordOf(options)];
  if (saved === null) throw new Error(`${path} is gone, although this run has claimed the folder`);
  const changes = changesBetween(fixed(isMoe(options.spec) ? balancedThen(saved) : saved), fixed(current));
  // Where the model's settings differ, its shape differs with them and need not be named.
  const model = changes.some(({ key }) => /^model\b/.test(key));
  const others = changes
    .filter(({ key }) => !(model && key.startsWith("spec.")))
    .map((change) => ({ ...change, key: change.key.replace("evaluationTokens", "evaluation.tokens") }));
  if (others.length > 0) throw otherRun(`this folder holds another run: ${changeWords(others)}`, path);
  requireSamePast(saved.training, current.training, { done, key: "training", where: path });
  requireSameSources(saved.sources, current.sources, "run");
  if (changesBetween(saved, current).length > 0) await writeJson(path, current);
}

function recordOf(options: RunOptions): RunRecord {
  const { spec, block, seed, threads, evaluationTokens, identity, sources = {}, text } = options;
  // Tokens and FLOPs of a budget have become steps, and its time may grow.
  const training = { ...block, budget: undefined };
  const contents = { ...sources, ...textHash(text) };
  const record = { ...identity, spec, training, evaluationTokens, seed, threads, sources: contents };
  return JSON.parse(JSON.stringify(record)) as RunRecord;
}

/** A record of an MoE's run. Those that say nothing of the balance loss are of versions that pooled layers. */
const balancedThen = (record: RunRecord): RunRecord => ({ ...record, training: withBalance(record.training, "model") });

/** What may not change from one command to the next. */
function fixed(record: RunRecord): Readonly<Record<string, unknown>> {
  const free = { steps: undefined, lr: undefined, saveEvery: undefined, budget: undefined, recompute: undefined };
  const training = { ...record.training, ...free };
  return { ...record, sources: undefined, training };
}

/** What of a run is done, and where its settings stand. */
interface Past {
  /** Steps that are saved. */
  readonly done: number;
  /** Key of the block in its file. */
  readonly key: string;
  readonly where: string;
}

/**
 * Throws inputError where the steps that are done would have been others with these settings, or are more than the
 * settings allow.
 */
export function requireSamePast(was: Training, is: Training, { done, key, where }: Past): void {
  const changes = changesBetween({ steps: was.steps, lr: was.lr }, { steps: is.steps, lr: is.lr }, key);
  if (changes.length === 0) return;
  const differences = changeWords(changes);
  if (is.steps < done || (is.steps === done && was.steps !== done)) {
    throw otherRun(`${done} steps are done, so the run cannot end after ${is.steps}: ${differences}`, where);
  }
  const step = firstDifference(was, is, done);
  if (step === null) return;
  const rate = (block: Training): string => learningRateAt(block.lr, block.steps, step).toPrecision(4);
  const longer = is.steps > was.steps && JSON.stringify(was.lr) === JSON.stringify(is.lr);
  const schedules = `(${was.lr.schedule} depends on the length; constant does not, wsd only near its end)`;
  const hint = longer
    ? `to train on at the last learning rate, add steps: ${was.steps} to ${key}.lr; ` +
      `or put it back, or choose another folder ${schedules}`
    : "put it back to go on, or choose another folder";
  const rates = `step ${step} would have had another learning rate (${rate(was)} then, ${rate(is)} now)`;
  throw inputError(`${differences}; of the ${done} steps that are done, ${rates}, so this is another run`, {
    where,
    hint,
  });
}

const otherRun = (message: string, where: string): UpcycleError =>
  inputError(message, {
    where,
    hint: "put it back to go on, choose another folder, or remove this one to start again",
  });
