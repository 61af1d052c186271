/** Memory, time and cost of a run on other numbers and kinds of GPUs, by upcycle plan's model. Pure. */
import type { LaunchConfig } from "../../base/schemas/index.js";
import type { Gpu } from "../../laws/planner/hardware.js";
import { bestLayout } from "../../laws/planner/layout.js";
import type { ParallelLayout } from "../../laws/planner/layout-types.js";
import { defaultSpeed } from "../../laws/planner/speed.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { globalBatch, iterations } from "./arguments.js";
import { searchLimits } from "./layout.js";

/** A run on one number of GPUs of one kind. */
export interface RunEstimate {
  readonly gpu: Gpu;
  readonly gpus: number;
  /** Null: the model does not fit. */
  readonly run: {
    readonly layout: ParallelLayout;
    /** Bytes on the fullest GPU. */
    readonly bytes: number;
    readonly secondsPerStep: number;
    /** Of all iterations. */
    readonly seconds: number;
    /** In the currency of the table of GPUs. */
    readonly cost: number;
  } | null;
  /** The fewest bytes that a GPU would need. */
  readonly leastBytes: number;
}

/** Each kind of GPU with each number of them, in that order. */
export function estimateRuns(
  config: LaunchConfig,
  spec: DecoderSpec,
  gpus: readonly Gpu[],
  counts: readonly number[],
): RunEstimate[] {
  const { training } = config;
  const limits = searchLimits(config, spec);
  return gpus.flatMap((gpu) =>
    counts.map((count): RunEstimate => {
      const { best, leastBytes } = bestLayout({
        spec,
        gpu,
        gpus: count,
        sequence: training.sequence,
        batchTokens: globalBatch(training) * training.sequence,
        speed: defaultSpeed,
        ...limits,
      });
      if (best === null) return { gpu, gpus: count, run: null, leastBytes };
      const tokens = iterations(training) * globalBatch(training) * training.sequence;
      const seconds = tokens / best.tokensPerSecond;
      const run = {
        layout: best.layout,
        bytes: best.bytes.total,
        secondsPerStep: best.seconds.total,
        seconds,
        cost: (count * gpu.price * seconds) / 3600,
      };
      return { gpu, gpus: count, run, leastBytes };
    }),
  );
}
