/** How far a study has come. */
import { trainFlopsPerToken } from "../model/cost/flops.js";
import type { RunResult, TrainEvent } from "../train/run.js";
import { tokensOf, type StudyPlan } from "./plan.js";
import { distinct } from "./schedule.js";
import type { StudyEvent } from "./types.js";

/** Counts the FLOPs of a study's trainings, so that its progress is told as a share of the whole. */
export class FlopMeter {
  /** FLOPs done by run; several may be under way. */
  private readonly done = new Map<string, number>();
  /** FLOPs of all trainings of the study. */
  readonly total: number;

  constructor({ parents, runs }: Pick<StudyPlan, "parents" | "runs">) {
    let total = 0;
    for (const { parent, spec } of parents) {
      if (parent.kind === "trained")
        total += tokensOf(parent.pretrain) * trainFlopsPerToken(spec, parent.pretrain.sequence);
    }
    for (const { run, isFirst } of distinct(runs))
      if (isFirst) total += tokensOf(run.arm.training) * run.arm.flopsPerToken;
    this.total = total;
  }

  /**
   * Passes on the events of the training `run`, with the FLOPs of the study done so far, and returns its result.
   * `notes` are what it has said beside them, and are told with the next event.
   */
  async *watch(
    { run, flopsPerToken }: { readonly run: string; readonly flopsPerToken: number },
    events: AsyncGenerator<TrainEvent, RunResult>,
    notes: string[] = [],
  ): AsyncGenerator<StudyEvent, RunResult> {
    let tokens = 0;
    for (;;) {
      const next = await events.next();
      for (const text of notes.splice(0)) yield { type: "note", text: `${run}: ${text}` };
      if (next.done === true) return next.value;
      const event = next.value;
      if (event.type === "open") tokens = event.step * event.tokensPerStep;
      else if (event.type === "step") tokens = event.tokens;
      else if (event.type === "done") tokens = event.result.metrics.steps.at(-1)?.tokens ?? tokens;
      this.done.set(run, tokens * flopsPerToken);
      const done = [...this.done.values()].reduce((sum, flops) => sum + flops, 0);
      yield { type: "train", run, event, done, total: this.total };
    }
  }
}
