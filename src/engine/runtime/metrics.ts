/** From the outputs of a program to what a step reports and decides: the same for every backend. */
import type { LossOutputs } from "../../graph/programs/programs.js";
import type { LossMetrics, StepMetrics, StepSettings } from "./runtime.js";

/** As torch.nn.utils.clip_grad_norm_ has it. */
const CLIP_EPS = 1e-6;

/** `read` gives the numbers of the graph's output at an index. */
export function readLosses(outputs: LossOutputs, read: (index: number) => readonly number[]): LossMetrics {
  const scalar = (index: number | null): number | null => (index === null ? null : read(index)[0]!);
  return {
    loss: scalar(outputs.loss)!,
    balanceLoss: scalar(outputs.balance),
    zLoss: scalar(outputs.z),
    counts: outputs.counts.map(read),
    kept: outputs.kept.map(read),
    entropy: outputs.entropy.map((index) => scalar(index)!),
  };
}

/** Losses of a step: means over its micro-batches, sums of what is counted. */
export function averageLosses(parts: readonly LossMetrics[]): LossMetrics {
  const mean = (pick: (part: LossMetrics) => number | null): number | null =>
    pick(parts[0]!) === null ? null : parts.reduce((sum, part) => sum + pick(part)! / parts.length, 0);
  const total = (pick: (part: LossMetrics) => readonly (readonly number[])[]): number[][] =>
    pick(parts[0]!).map((layer, l) => layer.map((_, e) => parts.reduce((sum, part) => sum + pick(part)[l]![e]!, 0)));
  return {
    loss: mean((part) => part.loss)!,
    balanceLoss: mean((part) => part.balanceLoss),
    zLoss: mean((part) => part.zLoss),
    entropy: parts[0]!.entropy.map((_, l) => mean((part) => part.entropy[l]!)!),
    counts: total((part) => part.counts),
    kept: total((part) => part.kept),
  };
}

/** Whether a step with these losses and this gradient norm is applied, and what exceeded its limit if not. */
export function judge(
  losses: LossMetrics,
  gradNorm: number,
  limits: StepSettings["limits"],
): Pick<StepMetrics, "applied" | "spike"> {
  const finite = Number.isFinite(gradNorm) && Number.isFinite(losses.loss);
  const spike =
    !finite || limits === undefined
      ? null
      : losses.loss > limits.loss
        ? "loss"
        : gradNorm > limits.gradNorm
          ? "gradient"
          : null;
  return { applied: finite && spike === null, spike };
}

/** Factor on gradients of this norm. */
export function clipFactor(gradNorm: number, clipNorm: number | null): number {
  return clipNorm === null ? 1 : Math.min(1, clipNorm / (gradNorm + CLIP_EPS));
}
