/** What all measurements on a dense model's layers are given, and ask of the model. */
import { join } from "node:path";
import { inputError } from "../../base/errors.js";
import type { Backend } from "../../engine/runtime/runtime.js";
import { modelFolderOf, type ModelSource } from "../../files/checkpoint/model-source.js";
import { exists } from "../../files/io/atomic.js";
import type { UpcycleRecipe } from "../planning/recipe.js";

/** What to measure for, and what runs the model. */
export interface LayerWork {
  /** The dense model, with its tokenizer where it is to read text. */
  readonly source: ModelSource;
  readonly recipe: UpcycleRecipe;
  readonly backend: Backend;
  readonly threads: number;
  readonly signal?: AbortSignal | undefined;
  readonly onLayer?: ((done: number, total: number) => void) | undefined;
}

/** Throws inputError for a model that cannot read text; `what` says in words what the text is for. */
export async function requireTokenizer(
  source: ModelSource,
  what: string,
  hint = "put its tokenizer beside it",
): Promise<void> {
  const dir = modelFolderOf(source);
  if (await exists(join(dir, "tokenizer.json"))) return;
  throw inputError(`${what}, but the model has no tokenizer.json`, { where: dir, hint });
}
