/** Where a model comes from. */

/**
 * A model folder, or one with the LoRA adapter of another folder merged into its weights as they are read. Before the
 * folders have been looked for, these are their names as the user writes them.
 */
export type ModelSource = string | { readonly model: string; readonly adapter: string };

/** The folder of config, tokenizer and weights. */
export function modelFolderOf(source: ModelSource): string {
  return typeof source === "string" ? source : source.model;
}

/** The folder of the adapter; null without one. */
export function adapterFolderOf(source: ModelSource): string | null {
  return typeof source === "string" ? null : source.adapter;
}

/** All folders that the model is read from. */
export function foldersOf(source: ModelSource): string[] {
  return typeof source === "string" ? [source] : [source.model, source.adapter];
}
