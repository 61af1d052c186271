/**
 * A run that only evaluates, on tokens that are the same in whatever order Megatron-LM draws its samples: one document
 * that is exactly one batch of windows. Its loss can be computed beforehand. Source: NVIDIA/Megatron-LM@d98e8a64,
 * `training/training.py` (get_train_valid_test_num_samples), `core/datasets/gpt_dataset.py`. Pure.
 */
import { globalBatch, type ReasonedArgument } from "./arguments.js";
import type { LaunchPlan } from "./scripts.js";

/** Sequences, and tokens of each, that a check evaluates. */
export interface CheckSize {
  readonly windows: number;
  readonly sequence: number;
}

/** Longest sequence of a check: a broken load shows on few tokens. */
const longest = 128;

/** As little as all ranks can share. */
export function checkSize({ config, layout }: Pick<LaunchPlan, "config" | "layout">): CheckSize {
  const { dp, cp, tp, pp, vpp } = layout;
  // Context parallelism cuts a sequence in twice as many parts, sequence parallelism in one for each rank.
  const unit = 2 * cp * tp;
  const sequence = Math.min(config.training.sequence, Math.ceil(longest / unit) * unit);
  // Stages in chunks want a micro-batch each.
  return { windows: Math.min(dp * (vpp > 1 ? pp : 1), globalBatch(config.training)), sequence };
}

/** What names data, batches and lengths is replaced. */
const replaced: ReadonlySet<string> = new Set([
  "--data-path",
  "--split",
  "--mock-data",
  "--train-data-path",
  "--valid-data-path",
  "--test-data-path",
  "--seq-length",
  "--micro-batch-size",
  "--global-batch-size",
  "--eval-iters",
  "--eval-interval",
  "--save-interval",
  "--exit-duration-in-mins",
]);

/** The plan of the check: it evaluates the data set at `prefix` in its own folder, so that no run is mixed with it. */
export function checkPlan(plan: LaunchPlan, out: string, prefix: string, { windows, sequence }: CheckSize): LaunchPlan {
  const why = "the check: one document that is one batch, so that the order of samples cannot matter";
  const given = (flag: string, ...values: (string | number)[]): ReasonedArgument => ({
    flag,
    values: values.map(String),
    reason: why,
  });
  return {
    ...plan,
    config: { ...plan.config, out },
    arguments: [
      ...plan.arguments.filter(({ flag }) => !replaced.has(flag)),
      given("--train-data-path", prefix),
      given("--valid-data-path", prefix),
      given("--test-data-path", prefix),
      given("--seq-length", sequence),
      given("--micro-batch-size", 1),
      given("--global-batch-size", windows),
      given("--eval-iters", 1),
      given("--eval-interval", 1_000_000_000),
      given("--skip-train"),
    ],
  };
}
