/** Whether a folder is what a conversion would make: for one that was stopped after its model was complete, before it was measured. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { adapterConfigFile } from "../checkpoint/adapter.js";
import type { Checkpoint } from "../checkpoint/open.js";
import { planFiles, type SlotDtype } from "../checkpoint/plan-files.js";
import { exists } from "../io/atomic.js";
import { readText } from "../io/ranges.js";
import type { DecoderSpec } from "../spec/types.js";

export interface Expected {
  readonly spec: DecoderSpec;
  readonly dtype: SlotDtype;
  readonly maxShardBytes: number | undefined;
  /** Texts that the conversion writes beside the weights; a card that has been measured since differs. */
  readonly files: Readonly<Record<string, string>>;
}

/** Names of the weight files, or null: equal texts, weight files of the right sizes, and no file of the source changed since. */
export async function finishedFiles(dir: string, { spec, dtype, maxShardBytes, files }: Expected, sources: readonly Checkpoint[]): Promise<string[] | null> {
  const config = join(dir, "config.json");
  // What is wrong with the path is said where the folder is made.
  const made = (await stat(config).catch(() => null))?.mtimeMs;
  if (made === undefined) return null;
  for (const [name, text] of Object.entries(files)) {
    const path = join(dir, name);
    if (!(await exists(path)) || (await readText(path)) !== text) return null;
  }
  const weights = planFiles(spec, dtype, maxShardBytes).files;
  for (const { file, header } of weights) {
    if ((await stat(join(dir, file)).catch(() => null))?.size !== header.fileBytes) return null;
  }
  const folders = sources.flatMap((source) => [{ ...source, config: "config.json" }, ...(source.adapter === null ? [] : [{ ...source.adapter, config: adapterConfigFile }])]);
  for (const { dir: folder, config: settings, tensors } of folders) {
    for (const file of new Set([settings, ...[...tensors.values()].map((tensor) => tensor.file)])) {
      if ((await stat(join(folder, file))).mtimeMs > made) return null;
    }
  }
  return weights.map(({ file }) => file);
}
