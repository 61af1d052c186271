/** A study as its report shows it: a finished one, or what there is of one that is under way. */
import { compact } from "../../base/format.js";
import type { StudyResult } from "../../model/results/result.js";

/** A run that has not come to its end. */
export interface RunUnderWay {
  /** Id of its arm. */
  readonly arm: string;
  readonly seed: number;
  readonly step: number;
  readonly steps: number;
  readonly tokens: readonly number[];
  readonly flops: readonly number[];
  /** Held-out losses, in nats per token. */
  readonly losses: readonly number[];
}

/** How far a study is that is under way, or was stopped. */
export interface StudyProgress {
  /** Runs of arms that have come to their ends, and all that the study has. */
  readonly finished: number;
  readonly runs: number;
  /** Tokens after which arms' losses are given, the most that all compared runs reached; null where there are none. */
  readonly tokens: number | null;
  /** Whether runs are compared that have not come to their ends. */
  readonly isEarly: boolean;
  readonly underWay: readonly RunUnderWay[];
  /** What is missing, a sentence each. */
  readonly missing: readonly string[];
}

/** A study's result; one that is under way lacks what is known at its end. */
export interface ShownStudy extends Omit<StudyResult, "text" | "environment"> {
  readonly text?: StudyResult["text"];
  readonly environment?: StudyResult["environment"];
  /** Left out for a finished study. */
  readonly progress?: StudyProgress;
}

/** What the losses are that arms are compared by. */
export function lossName({ progress }: Pick<ShownStudy, "progress">): string {
  if (progress === undefined) return "Final held-out loss";
  return progress.tokens === null ? "Held-out loss" : `Held-out loss after ${compact(progress.tokens)} tokens`;
}
