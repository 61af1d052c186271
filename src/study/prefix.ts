/**
 * A run may begin where another one has ended: the steps of a shorter training are the first steps of a longer one, as
 * long as every learning rate so far would have been the same (constant, or the stable part of wsd).
 */
import { cp, readdir } from "node:fs/promises";
import { join } from "node:path";
import { firstDifference } from "../engine/optimizer/schedule.js";
import type { TrainingBlock } from "../base/schemas/index.js";
import { completeFolder, exists, stageDirectory, writeJson } from "../files/io/atomic.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { isFolderLocked } from "../files/io/lock.js";
import { entryAt } from "../files/io/model-folder.js";
import { readRunRecord, runFile } from "../train/claim.js";
import { metricsFile } from "../train/records.js";
import { savedProgress } from "../train/saved.js";
import { hasWeights } from "./pieces.js";

/** What a run that has not begun yet may take from others. */
interface PrefixOptions {
  /** Its folder. */
  readonly dir: string;
  /** What its record says of it; `prefix` is its `prefixKey`. */
  readonly identity: { readonly key: string; readonly prefix: string };
  readonly training: TrainingBlock;
}

/** A run that shares so many steps with another. */
interface Found {
  readonly path: string;
  readonly steps: number;
}

/** The runs of a store and what they may share with others; read once, since neither changes. */
export class Prefixes {
  private readonly known = new Map<string, string | null>();

  constructor(private readonly store: string) {}

  /**
   * Copies the checkpoint and the log of the run that shares the most steps; does nothing where the run has begun or
   * where there is no such run. The other run stays as it is.
   */
  async adopt({ dir, identity, training }: PrefixOptions): Promise<void> {
    if (await exists(dir)) return;
    let best: Found | null = null;
    for (const path of await this.candidates(identity.prefix)) {
      const record = await readRunRecord(path);
      const steps = (await savedProgress(join(path, "last")))?.step ?? 0;
      const fits =
        record !== null && steps <= training.steps && firstDifference(record.training, training, steps) === null;
      if (!fits || steps <= (best?.steps ?? 0) || !(await hasWeights(path))) continue;
      if (!(await isFolderLocked(path))) best = { path, steps };
    }
    if (best === null) return;
    const isCopied = await copyRun(best, dir, { ...identity, training }).catch(async (cause: unknown) => {
      // Another command may have begun the same run meanwhile.
      if (!(await exists(dir))) throw cause;
      return true;
    });
    if (!isCopied) await this.adopt({ dir, identity, training });
  }

  private async candidates(prefix: string): Promise<string[]> {
    const arms = join(this.store, "arms");
    for (const arm of await namesIn(arms)) {
      for (const name of await namesIn(join(arms, arm))) {
        const path = join(arms, arm, name);
        if (this.known.has(path)) continue;
        const record = await readRunRecord(path);
        if (record !== null) this.known.set(path, typeof record["prefix"] === "string" ? record["prefix"] : null);
      }
    }
    return [...this.known].flatMap(([path, known]) => (known === prefix ? [path] : []));
  }
}

async function namesIn(folder: string): Promise<string[]> {
  if (!(await exists(folder))) return [];
  const entries = await withFsErrors(folder, "read folder", () => readdir(folder, { withFileTypes: true }));
  return entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith(".")).map(({ name }) => name);
}

/**
 * The run under a new name, as the one that `changes` say. False where another command has gone on with it meanwhile:
 * what was copied is then of two checkpoints, and is thrown away.
 */
async function copyRun({ path: from, steps }: Found, to: string, changes: object): Promise<boolean> {
  const record = { ...(await readRunRecord(from)), ...(JSON.parse(JSON.stringify(changes)) as object) };
  const last = await completeFolder(join(from, "last"));
  const mark = await folderMark(last);
  const isReplaced = async (): Promise<boolean> => (await folderMark(last)) !== mark;
  const staged = await stageDirectory(to);
  try {
    if ((await savedProgress(last))?.step !== steps) return false;
    try {
      await withFsErrors(from, "copy run", async () => {
        await cp(last, join(staged.path, "last"), { recursive: true });
        await cp(join(from, metricsFile), join(staged.path, metricsFile));
      });
    } catch (cause) {
      if (await isReplaced()) return false;
      throw cause;
    }
    if (await isReplaced()) return false;
    await writeJson(join(staged.path, runFile), record);
    await staged.commit();
    return true;
  } finally {
    await staged.discard();
  }
}

/** What changes where another folder takes the place of this one; null where there is none. */
async function folderMark(path: string): Promise<string | null> {
  const entry = await entryAt(path);
  return entry === null ? null : `${entry.ino} ${entry.birthtimeMs} ${entry.mtimeMs}`;
}
