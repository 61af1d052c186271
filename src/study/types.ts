/** What running a study takes, and the events that it yields. */
import type { ModelSource } from "../files/checkpoint/open.js";
import type { StudyConfig } from "../base/schemas/index.js";
import type { Backend } from "../engine/runtime/runtime.js";
import type { UpcycleRecipe } from "../surgery/planning/recipe.js";
import type { TrainEvent } from "../train/run.js";

/** A study file whose parent may be a folder, or a folder and that of an adapter, in place of a name. */
export interface StudyRequest extends Omit<StudyConfig, "parent"> {
  readonly parent?: ModelSource | undefined;
}

/** What running a study takes. */
export interface StudyOptions {
  readonly config: StudyRequest;
  /** The run folder. One that holds this study already is resumed. */
  readonly dir: string;
  readonly backend: Backend;
  /** Threads of the engine. They are part of the study: other threads give other last bits. */
  readonly threads: number;
  /** The command that makes this study again, for the report. */
  readonly command: string;
  /** The commands that do one arm's conversion alone, for the report. */
  readonly conversionCommands?:
    ((parent: ModelSource, recipe: UpcycleRecipe, out: string) => readonly string[]) | undefined;
  /** Aborting finishes the step in hand, saves and throws interruptedError. */
  readonly signal?: AbortSignal | undefined;
}

/** What a study tells while it runs, in the order in which it happens. */
export type StudyEvent =
  /** A piece of work begins. */
  | { readonly type: "phase"; readonly label: string }
  /** What a piece of work has found, in words. */
  | { readonly type: "note"; readonly text: string }
  /** An event of the training `run`; `done` and `total` are FLOPs of all trainings of the study. */
  | {
      readonly type: "train";
      readonly run: string;
      readonly event: TrainEvent;
      readonly done: number;
      readonly total: number;
    };
