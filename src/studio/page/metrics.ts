/** What measures are called, and how their values are written. */
import { compact, fixed, percent, significant } from "../../base/format.js";
import type { CurveAxis, Metric } from "../data/types.js";

interface MetricWords {
  readonly title: string;
  readonly format: (value: number) => string;
  readonly logY?: boolean;
  /** Values are counts. */
  readonly isCount?: boolean;
}

const three = (value: number): string => fixed(value, 3);

/** Measures in the order in which a run shows them. */
export const metricWords: Readonly<Record<Metric, MetricWords>> = {
  "eval/loss": { title: "Held-out loss (nats per token)", format: (value) => fixed(value, 4) },
  "train/loss": { title: "Training loss (nats per token)", format: (value) => fixed(value, 4) },
  "train/tokens_per_second": { title: "Speed (tokens per second)", format: (value) => `${compact(value)}/s` },
  "train/learning_rate": { title: "Learning rate", format: (value) => significant(value, 3) },
  "train/grad_norm": { title: "Gradient norm before clipping", format: (value) => significant(value, 3), logY: true },
  "train/balance_loss": { title: "Load-balancing loss", format: three },
  "train/z_loss": { title: "Router z-loss", format: (value) => significant(value, 3) },
  "train/router_entropy": { title: "Router entropy in training, mean of layers (nats)", format: three },
  "train/max_violation": { title: "Largest load over the mean less 1 in training, worst layer", format: three },
  "train/dead_experts": { title: "Dead experts in training steps", format: (value) => fixed(value, 0), isCount: true },
  "train/dropped": { title: "Choices dropped by the capacity", format: (value) => percent(value) },
  "eval/router_entropy": { title: "Router entropy, mean of layers (nats)", format: three },
  "eval/max_violation": { title: "Largest load over the mean less 1, worst layer", format: three },
  "eval/dead_experts": { title: "Dead experts", format: (value) => fixed(value, 0), isCount: true },
  "eval/similarity": { title: "Similarity of experts to the parent (mean cosine)", format: (value) => fixed(value, 4) },
};

/** What an axis is called. */
export const axisWords: Readonly<Record<CurveAxis, string>> = {
  step: "training step",
  tokens: "training tokens",
  hours: "hours of training",
};
