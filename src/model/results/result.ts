import type { UnseenCollapse } from "./collapse.js";
import type { Machine } from "./machine.js";

/**
 * What a study found, as plain data: written as `result.json` by `study/`, read by the HTML report and the terminal
 * table. Losses are mean next-token cross entropy in nats; tokens are training tokens after the parent; FLOPs count
 * forward and backward (2 per multiply-add) of the further training of one arm.
 */
export interface StudyResult {
  readonly version: 2;
  readonly name: string;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly seconds: number;
  /**
   * The programs, and the machine that the runs were trained on: each fact of several machines with semicolons between.
   * Of runs whose logs do not say it, it is the machine that compared them.
   */
  readonly environment: Omit<Machine, "device"> & {
    readonly upcycle: string;
    readonly onnxruntime: string;
    readonly threads: number;
    /** Absent in results of earlier versions. */
    readonly device?: string;
  };
  readonly text: {
    readonly sources: readonly { readonly name: string; readonly documents: number; readonly bytes: number }[];
    readonly trainDocuments: number;
    readonly heldOutDocuments: number;
    readonly trainTokens: number;
    readonly heldOutTokens: number;
    /** Held-out tokens that each loss is measured on. */
    readonly judgedTokens: number;
    readonly vocab: number;
    readonly bytesPerToken: number;
  };
  /** At least one. */
  readonly parents: readonly ParentResult[];
  /** One for each arm of the file and each parent that it starts from. */
  readonly arms: readonly ArmResult[];
  /** What was asked beforehand. */
  readonly questions: readonly QuestionResult[];
  /** Sentences, most important first; computed, never hoped for. */
  readonly findings: readonly string[];
  /** What the parent and the arms answer to tasks; only where a study asks for it. */
  readonly tasks?: readonly TaskScore[] | undefined;
  /** Shell commands, in order, that make the same numbers again. */
  readonly commands: readonly string[];
  readonly seeds: readonly number[];
}

/** A dense model that arms start from. */
export interface ParentResult {
  /** Name in the study file; `parent` where it names one parent only. */
  readonly id: string;
  readonly label: string;
  /** Folder, relative to the run folder where it lies inside it. */
  readonly path: string;
  /** Tokens this study trained it on; null for a parent that the user brought. */
  readonly tokens: number | null;
  readonly params: ParamTotals;
  readonly loss: number;
  /** Held-out loss while the parent was trained; empty for a parent that the user brought. */
  readonly points: readonly LossPoint[];
}

/** What was published about a comparison: a difference, or only on which side of the second arm the first one is. */
export interface PublishedEffect {
  readonly difference?: number | undefined;
  /** The difference is a share of the second arm's value. */
  readonly relative: boolean;
  readonly direction?: "lower" | "higher" | undefined;
  readonly source: string;
}

/** A comparison that the study file names, with the numbers of every pair of runs. */
export interface QuestionResult {
  readonly ask: string;
  readonly compare: string;
  readonly with: string;
  readonly measure: "loss" | "loss-at-equal-flops" | "start-loss" | "worst-loss" | "dead-experts" | "similarity";
  readonly published: PublishedEffect | null;
  /** One for each parent and seed; a number that a run does not have (it diverged) is null. */
  readonly pairs: readonly {
    readonly parent: string;
    readonly seed: number;
    readonly a: number | null;
    readonly b: number | null;
  }[];
}

/** Accuracy on one evaluation task, or on a group of tasks. */
export interface TaskScore {
  readonly task: string;
  /** How many groups it stands in; left out by earlier versions. */
  readonly level?: number | undefined;
  /** Whether it is a group, of the tasks that follow at a deeper level. */
  readonly isGroup?: boolean | undefined;
  readonly samples: number;
  /** What guessing gives. */
  readonly chance: number;
  readonly parent: number;
  /** One run of each arm, the first that came to its end. */
  readonly arms: readonly {
    readonly id: string;
    readonly value: number;
    /** 95 % interval of the difference from the parent on the same samples; null where it has none. */
    readonly interval: readonly [low: number, high: number] | null;
    /** p-value of the exact sign test of that difference; left out by earlier versions. */
    readonly p?: number | undefined;
  }[];
}

/** Parameters of a model. */
export interface ParamTotals {
  readonly total: number;
  /** Used for one token, both embeddings included. */
  readonly active: number;
}

/** A held-out loss in the course of a training. */
export interface LossPoint {
  readonly step: number;
  readonly tokens: number;
  readonly flops: number;
  readonly loss: number;
}

/** Child against parent on held-out text, before any training step. */
export interface Preservation {
  readonly tokens: number;
  readonly parentLoss: number;
  readonly childLoss: number;
  readonly maxAbsLogitDiff: number;
  readonly meanAbsLogitDiff: number;
  /** Largest absolute logit of the parent: the scale of the differences. */
  readonly maxAbsLogit: number;
}

/** An arm with its runs. */
export interface ArmResult {
  /** `dense`, `coarse`, ...: the name in the file; with several parents `dense@small`. */
  readonly id: string;
  /** The name in the file, with what a grid has set; the same for every parent. */
  readonly arm: string;
  /** Id of the parent. */
  readonly parent: string;
  readonly label: string;
  readonly kind: "dense" | "upcycled" | "scratch" | "multiplied";
  /** `E8G1T2`, or null for a dense arm. */
  readonly recipe: string | null;
  /** Router order, scaling and router std in words, or null for a dense arm. */
  readonly router: string | null;
  readonly params: ParamTotals;
  /** Forward and backward, per token. */
  readonly flopsPerToken: number;
  readonly runs: readonly ArmRun[];
}

/** One training of an arm, with one seed. */
export interface ArmRun {
  readonly seed: number;
  /** Folder inside the run folder. */
  readonly path: string;
  /** Null where there is no parent function to preserve (dense, from scratch). */
  readonly preservation: Preservation | null;
  /** Held-out loss; the first point is before the first step. */
  readonly points: readonly LossPoint[];
  /** NaN, in JSON null, of a run that diverged. */
  readonly finalLoss: number;
  /** What a run said that diverged; absent where it came to its end. */
  readonly diverged?: string;
  readonly tokensPerSecond: number;
  /** Most memory taken, of a GPU under Megatron-LM; null where the log does not say it (0 in earlier versions). */
  readonly peakRssBytes: number | null;
  /** Load per expert, by MoE layer, as fractions of all assignments (each row sums to 1); empty for dense. */
  readonly load: readonly { readonly step: number; readonly layers: readonly (readonly number[])[] }[];
  /**
   * Mean cosine similarity of each expert's weights to the part of the parent's FFN it came from, by MoE layer; empty
   * where there is no parent.
   */
  readonly similarity: readonly { readonly step: number; readonly layers: readonly number[] }[];
  /** Layers that have collapsed while the load-balancing loss did not show it, when first measured; else absent. */
  readonly unseenCollapse?: UnseenCollapse & { readonly step: number };
  /** Where it was trained; absent where the log does not say it. */
  readonly machine?: Machine;
}
