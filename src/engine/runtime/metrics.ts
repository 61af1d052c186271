/** From the outputs of a program to what a step reports and decides: the same for every backend. */
import { at } from "../../base/at.js";
import type { LossOutputs } from "../../graph/programs/programs.js";
import type { LossMetrics, StepMetrics, StepSettings } from "./runtime.js";

/** What torch.nn.utils.clip_grad_norm_ adds to the norm, so that it can be divided by. */
const CLIP_EPS = 1e-6;

/** `read` gives the numbers of the graph's output at an index. */
export function readLosses(outputs: LossOutputs, read: (index: number) => readonly number[]): LossMetrics {
  const scalar = (index: number): number => at(read(index), 0);
  const optional = (index: number | null): number | null => (index === null ? null : scalar(index));
  return {
    loss: scalar(outputs.loss),
    balanceLoss: optional(outputs.balance),
    zLoss: optional(outputs.z),
    counts: outputs.counts.map(read),
    kept: outputs.kept.map(read),
    entropy: outputs.entropy.map(scalar),
    chosen: outputs.chosen.map(read),
  };
}

/** Losses of a step: means over its micro-batches, sums of what is counted. */
export function averageLosses(parts: readonly LossMetrics[]): LossMetrics {
  const first = at(parts, 0);
  const mean = (pick: (part: LossMetrics) => number): number =>
    parts.reduce((sum, part) => sum + pick(part) / parts.length, 0);
  /** What one micro-batch has, all have. */
  const optional = (key: "balanceLoss" | "zLoss"): number | null =>
    first[key] === null ? null : mean((part) => part[key] ?? 0);
  const total = (key: "counts" | "kept"): number[][] =>
    first[key].map((layer, l) =>
      layer.map((_, expert) => parts.reduce((sum, part) => sum + at(at(part[key], l), expert), 0)),
    );
  return {
    loss: mean((part) => part.loss),
    balanceLoss: optional("balanceLoss"),
    zLoss: optional("zLoss"),
    entropy: first.entropy.map((_, l) => mean((part) => at(part.entropy, l))),
    counts: total("counts"),
    kept: total("kept"),
    chosen: [],
  };
}

/** Whether a step with these losses and this gradient norm is applied, and what exceeded its limit if not. */
export function judge(
  losses: LossMetrics,
  gradNorm: number,
  limits: StepSettings["limits"],
): Pick<StepMetrics, "applied" | "spike"> {
  const finite = Number.isFinite(gradNorm) && Number.isFinite(losses.loss);
  const spike = finite && limits !== undefined ? exceeded(losses.loss, gradNorm, limits) : null;
  return { applied: finite && spike === null, spike };
}

function exceeded(loss: number, gradNorm: number, limits: NonNullable<StepSettings["limits"]>): StepMetrics["spike"] {
  if (loss > limits.loss) return "loss";
  return gradNorm > limits.gradNorm ? "gradient" : null;
}

/** Factor on gradients of this norm. */
export function clipFactor(gradNorm: number, clipNorm: number | null): number {
  return clipNorm === null ? 1 : Math.min(1, clipNorm / (gradNorm + CLIP_EPS));
}
