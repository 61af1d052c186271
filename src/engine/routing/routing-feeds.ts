/**
 * What a training graph's routers are fed with during a step: drawn numbers, and counts of the step's other
 * micro-batches. The same for every backend.
 */
import { at } from "../../base/at.js";
import type { TrainProgram } from "../../graph/programs/programs.js";
import { elsewhereOf, routingFeeds, type Counts } from "./routing.js";
import type { Draw, MicroBatch } from "../runtime/runtime.js";

/** The numbers that a step's micro-batches are fed with, one micro-batch after the other. */
interface StepFeeds {
  /** Numbers for micro-batch `micro`, in the order of the program's feeds. */
  next(micro: number): Float32Array[];
  /**
   * Takes the outputs of a micro-batch; to be called before the next one's numbers are asked for. `read` gives the
   * numbers of the graph's output at an index.
   */
  done(read: (index: number) => readonly number[]): void;
}

/** Runs `shares.graph` on a micro-batch with its feeds: the numbers of each output. */
export type RunAhead = (batch: MicroBatch, feeds: readonly Float32Array[]) => Promise<Counts>;

/** Feeds of one step. Where shares must be known ahead, runs every micro-batch forward up to its last router. */
export async function stepFeeds(
  { feeds, shares }: TrainProgram,
  batches: readonly MicroBatch[],
  draw: Draw | undefined,
  ahead: RunAhead,
): Promise<StepFeeds> {
  const empty = feeds.flatMap(({ kind, shape }) =>
    kind === "elsewhere" ? [new Array<number>(at(shape, 0)).fill(0)] : [],
  );
  const tokens = at(batches, 0).ids.length;
  const before: Counts[] = [];
  let all: Counts[] | null = null;
  if (shares?.ahead === true) {
    all = [];
    for (const [micro, batch] of batches.entries())
      all.push(await ahead(batch, routingFeeds(feeds, draw, micro, { counts: empty, tokens })));
  }
  return {
    next: (micro) =>
      routingFeeds(feeds, draw, micro, shares === null ? null : elsewhereOf(micro, tokens, { before, all, empty })),
    done(read) {
      if (shares !== null) before.push(shares.counts.map(read));
    },
  };
}
