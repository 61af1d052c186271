/**
 * What a training graph's routers are fed with during a step: drawn numbers, and counts of the step's other
 * micro-batches. The same for every backend.
 */
import type { TrainProgram } from "../../graph/programs/programs.js";
import { elsewhereOf, routingFeeds } from "./routing.js";
import type { Draw, MicroBatch } from "../runtime/runtime.js";

interface StepFeeds {
  /** Of micro-batch `micro`, in the order of the program's feeds. */
  next(micro: number): Float32Array[];
  /**
   * To be told the outputs of each micro-batch before the next one is asked for; `read` gives the numbers of the
   * graph's output at an index.
   */
  done(read: (index: number) => readonly number[]): void;
}

/** Runs `shares.graph` on a micro-batch with its feeds: the numbers of each output. */
export type RunAhead = (batch: MicroBatch, feeds: readonly Float32Array[]) => Promise<readonly (readonly number[])[]>;

/** Feeds of one step. Where shares must be known ahead, runs every micro-batch forward up to its last router. */
export async function stepFeeds(
  { feeds, shares }: TrainProgram,
  batches: readonly MicroBatch[],
  draw: Draw | undefined,
  ahead: RunAhead,
): Promise<StepFeeds> {
  const empty = feeds.flatMap(({ kind, shape }) =>
    kind === "elsewhere" ? [new Array<number>(shape[0]!).fill(0)] : [],
  );
  const tokens = batches[0]!.ids.length;
  const before: (readonly (readonly number[])[])[] = [];
  let all: (readonly (readonly number[])[])[] | null = null;
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
