/** The models that one conversion starts from: the base first. */
import { openCheckpoint, type Checkpoint, type ModelSource } from "../../files/checkpoint/open.js";
import { adapterFolderOf, modelFolderOf } from "../../files/checkpoint/model-source.js";
import { modelName } from "../../files/hub/reference.js";
import type { AdapterFacts } from "./card.js";
import { readParentCard } from "./parent-card.js";

/** The sources of one conversion, the base first. */
export type ParentSources = readonly [ModelSource, ...ModelSource[]];

/** The open models of one conversion, the base first. */
export type Parents = readonly [Checkpoint, ...Checkpoint[]];

/** Opens all models, or none. Throws like `openCheckpoint`. */
export async function openParents([base, ...others]: ParentSources): Promise<Parents> {
  const opened: [Checkpoint, ...Checkpoint[]] = [await openCheckpoint(base)];
  try {
    for (const source of others) opened.push(await openCheckpoint(source));
    return opened;
  } catch (cause) {
    await closeParents(opened);
    throw cause;
  }
}

/** Closes all models of a conversion. */
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

/** What the model card says of the adapter that is merged into a model; null if there is none. */
export async function adapterFacts(parent: Pick<Checkpoint, "adapter">): Promise<AdapterFacts | null> {
  const { adapter } = parent;
  if (adapter === null) return null;
  const card = await readParentCard(adapter.dir, {});
  return { name: modelName(adapter.dir), words: wordsOfAdapter(adapter), card };
}

/** What is merged into a model, in a few words; null: nothing. */
export function adapterWords({ adapter }: Pick<Checkpoint, "adapter">): string | null {
  return adapter === null ? null : wordsOfAdapter(adapter);
}

/** An adapter in a few words: its name, its ranks, how many matrices it changes, and what it brings as a whole. */
export function wordsOfAdapter({ dir, ranks, changed, wholes }: NonNullable<Checkpoint["adapter"]>): string {
  const [least, most] = ranks;
  const instead =
    wholes.length === 0
      ? ""
      : `, ${wholes.length === 1 ? "1 tensor" : `${wholes.length} tensors`} in place of the model's`;
  return (
    `${modelName(dir)}, LoRA of ${least === most ? `rank ${least}` : `ranks ${least} to ${most}`} merged into ` +
    `${changed.length === 1 ? "1 matrix" : `${changed.length} matrices`}${instead}`
  );
}
