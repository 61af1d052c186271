/** What running a study takes, and the events that it yields. */
import type { ModelSource } from "../files/checkpoint/open.js";
import type { GridConfig } from "../base/schemas/index.js";
import type { Gpu } from "../laws/planner/hardware.js";
import type { Backend } from "../engine/runtime/runtime.js";
import type { UpcycleRecipe } from "../surgery/planning/recipe.js";
import type { NotedCommand } from "../files/io/command-file.js";
import type { LogFormat } from "../train/exported-logs.js";
import type { TrainEvent } from "../train/run.js";

/** A study file whose parents may be a folder, or a folder and that of an adapter, in place of a name. */
export type StudyRequest = GridConfig<ModelSource>;

/** What running a study takes. */
export interface StudyOptions {
  readonly config: StudyRequest;
  /** The study's folder: one that holds a study of this name is gone on with. */
  readonly dir: string;
  /** Folder that runs are kept in, which several studies may share; the study's own if left out. */
  readonly store?: string | undefined;
  /** What runs trainings. Of several, each training runs on one; they compute alike and are no part of a run. */
  readonly backends: readonly [Backend, ...Backend[]];
  /** Threads of the engine for one run. They are part of a run: other threads give other last bits. */
  readonly threads: number;
  /**
   * Names of the pieces to train: arms, `ARM/SEED`, parents; all if left out. With none of them nothing is trained, and
   * the result is that of the runs that are there.
   */
  readonly only?: readonly string[] | undefined;
  /** Runs at once; 1 if left out. */
  readonly jobs?: number | undefined;
  /** Further forms in which every run's metrics are written. */
  readonly log?: readonly LogFormat[] | undefined;
  /** The command that makes this study again, for the report. */
  readonly command: string;
  /** Noted in the study's folder: the words of the command that goes on with it. */
  readonly given?: NotedCommand | undefined;
  /** The commands that do one arm's conversion alone, for the report. */
  readonly conversionCommands?:
    ((parent: ModelSource, recipe: UpcycleRecipe, out: string) => readonly string[]) | undefined;
  /** The kind of GPU that a name stands for, for arms that Megatron-LM trains; throws inputError for an unknown one. */
  readonly gpuOf?: ((name: string) => Promise<Gpu>) | undefined;
  /** Aborting finishes the steps in hand, saves and throws interruptedError. */
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
