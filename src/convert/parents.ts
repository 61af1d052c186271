/** The dense models of one conversion: the base first. */
import { openCheckpoint, type Checkpoint, type ModelSource } from "../checkpoint/open.js";
import { adapterFolderOf, modelFolderOf } from "../checkpoint/model-source.js";
import { modelName } from "../hub/reference.js";

/** Opens all models, or none. Throws like `openCheckpoint`. */
export async function openParents(sources: readonly ModelSource[]): Promise<Checkpoint[]> {
  const opened: Checkpoint[] = [];
  try {
    for (const source of sources) opened.push(await openCheckpoint(source));
    return opened;
  } catch (cause) {
    await closeParents(opened);
    throw cause;
  }
}

export async function closeParents(parents: readonly Checkpoint[]): Promise<void> {
  await Promise.all(parents.map((parent) => parent.close()));
}

/** Where an open model came from. */
export function sourceOf({ dir, adapter }: Pick<Checkpoint, "dir" | "adapter">): ModelSource {
  return adapter === null ? dir : { model: dir, adapter: adapter.dir };
}

/** What to call a model: its own name, or `model+adapter`, as mergekit writes it. */
export function sourceName(source: ModelSource): string {
  const adapter = adapterFolderOf(source);
  const model = modelName(modelFolderOf(source));
  return adapter === null ? model : `${model}+${modelName(adapter)}`;
}

/** The folders that it is read from. */
export function foldersOf(source: ModelSource): string[] {
  return typeof source === "string" ? [source] : [source.model, source.adapter];
}

/** What is merged into a model, in a few words; null: nothing. */
export function adapterWords({ adapter }: Pick<Checkpoint, "adapter">): string | null {
  if (adapter === null) return null;
  const { dir, ranks: [least, most], changed } = adapter;
  return `${modelName(dir)}, LoRA of ${least === most ? `rank ${least}` : `ranks ${least} to ${most}`} merged into ${changed.length === 1 ? "1 matrix" : `${changed.length} matrices`}`;
}
