/** How far a study has come. */
import { trainFlopsPerToken } from "../model/cost/flops.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { RunResult, TrainEvent } from "../train/run.js";
import { tokensOf, type PlannedArm } from "./plan.js";
import type { StudyEvent, StudyRequest } from "./types.js";

/** Share of the study's training that is done, in FLOPs. */
export class FlopMeter {
  private finished = 0;
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
