/** What a study is asked and what it tells on the way. */
import type { ModelSource } from "../files/checkpoint/open.js";
import type { StudyConfig } from "../base/schemas/index.js";
import type { Backend } from "../engine/runtime/runtime.js";
import type { UpcycleRecipe } from "../surgery/planning/recipe.js";
import type { TrainEvent } from "../train/run.js";

/** A study file, whose parent may have become folders: downloaded, with an adapter. */
export interface StudyRequest extends Omit<StudyConfig, "parent"> {
  readonly parent?: ModelSource | undefined;
}

/** What running a study takes. */
export interface StudyOptions {
  readonly config: StudyRequest;
  readonly dir: string;
  readonly backend: Backend;
  readonly threads: number;
  /** Commands that make this study again, as the user would type them. */
  readonly command: string;
  /** The commands that do one arm's conversion alone, for the report. */
  readonly conversionCommands?:
    ((parent: ModelSource, recipe: UpcycleRecipe, out: string) => readonly string[]) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a study tells while it runs. */
export type StudyEvent =
  | { readonly type: "phase"; readonly label: string }
  | { readonly type: "note"; readonly text: string }
  /** `done` and `total` are FLOPs of all trainings of the study. */
  | {
      readonly type: "train";
      readonly run: string;
      readonly event: TrainEvent;
      readonly done: number;
      readonly total: number;
    };
