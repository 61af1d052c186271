/** The models that one conversion starts from: the base first. */
import { openCheckpoint, type Checkpoint, type ModelSource } from "../../files/checkpoint/open.js";
import { adapterFolderOf, modelFolderOf } from "../../files/checkpoint/model-source.js";
import { modelName } from "../../files/hub/reference.js";
import type { AdapterFacts } from "./card.js";
import { readParentCard } from "./parent-card.js";

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

/** For the model card: what is merged into a model; null: nothing. */
export async function adapterFacts(parent: Pick<Checkpoint, "adapter">): Promise<AdapterFacts | null> {
  const { adapter } = parent;
  return adapter === null
    ? null
    : { name: modelName(adapter.dir), words: adapterWords(parent)!, card: await readParentCard(adapter.dir, {}) };
}

/** What is merged into a model, in a few words; null: nothing. */
export function adapterWords({ adapter }: Pick<Checkpoint, "adapter">): string | null {
  if (adapter === null) return null;
  const {
    dir,
    ranks: [least, most],
    changed,
  } = adapter;
  return (
    `${modelName(dir)}, LoRA of ${least === most ? `rank ${least}` : `ranks ${least} to ${most}`} merged into ` +
    `${changed.length === 1 ? "1 matrix" : `${changed.length} matrices`}`
  );
}
