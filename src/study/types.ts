/** What a study is asked and what it tells on the way. */
import type { StudyConfig } from "../config/index.js";
import type { Backend } from "../step/runtime.js";
import type { UpcycleRecipe } from "../surgery/recipe.js";
import type { TrainEvent } from "../train/run.js";

export interface StudyOptions {
  readonly config: StudyConfig;
  readonly dir: string;
  readonly backend: Backend;
  readonly threads: number;
  /** Commands that make this study again, as the user would type them. */
  readonly command: string;
  /** The commands that do one arm's conversion alone, for the report. */
  readonly conversionCommands?: ((parent: string, recipe: UpcycleRecipe, out: string) => readonly string[]) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type StudyEvent =
  | { readonly type: "phase"; readonly label: string }
  | { readonly type: "note"; readonly text: string }
  /** `done` and `total` are FLOPs of all trainings of the study. */
  | { readonly type: "train"; readonly run: string; readonly event: TrainEvent; readonly done: number; readonly total: number };
