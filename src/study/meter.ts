/** How far a study has come. */
import { trainFlopsPerToken } from "../model/cost/flops.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { RunResult, TrainEvent } from "../train/run.js";
import { tokensOf, type PlannedArm } from "./plan.js";
import type { StudyEvent, StudyRequest } from "./types.js";

/** Counts the FLOPs of a study's trainings, so that its progress is told as a share of the whole. */
export class FlopMeter {
  /** FLOPs of the trainings that have ended. */
  private finished = 0;
  /** FLOPs of all trainings of the study. */
  readonly total: number;

  constructor(config: StudyRequest, parent: DecoderSpec, arms: readonly PlannedArm[]) {
    const pretrain =
      config.pretrain === undefined
        ? 0
        : tokensOf(config.pretrain) * trainFlopsPerToken(parent, config.pretrain.sequence);
    this.total =
      pretrain +
      arms.reduce((sum, arm) => sum + config.seeds.length * tokensOf(config.continue) * arm.flopsPerToken, 0);
  }

  /** Passes on the events of the training `run`, with the FLOPs of the study done so far, and returns its result. */
  async *watch(
    run: string,
    flopsPerToken: number,
    events: AsyncGenerator<TrainEvent, RunResult>,
  ): AsyncGenerator<StudyEvent, RunResult> {
    let tokens = 0;
    for (;;) {
      const next = await events.next();
      if (next.done === true) {
        this.finished += tokens * flopsPerToken;
        return next.value;
      }
      const event = next.value;
      if (event.type === "open") tokens = event.step * event.tokensPerStep;
      else if (event.type === "step") tokens = event.tokens;
      else if (event.type === "done") tokens = event.result.metrics.steps.at(-1)?.tokens ?? tokens;
      yield { type: "train", run, event, done: this.finished + tokens * flopsPerToken, total: this.total };
    }
  }
}
