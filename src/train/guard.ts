/**
 * The spike guard: a step whose loss or gradient norm stands far out from the recent steps is skipped. What it goes by
 * is a pure function of those steps and is saved with the run, so that a resumed run skips the same steps.
 */
import type { GuardConfig } from "../base/schemas/index.js";

/** State of the spike guard: recent losses and gradient norms, saved with the run. */
export interface GuardState {
  /** Updates made: AdamW's bias correction counts these, not the skipped steps. */
  readonly updates: number;
  /** Losses of the last applied steps, oldest first, at most a window of them. */
  readonly losses: readonly number[];
  readonly gradNorms: readonly number[];
  /** Skipped steps since the last applied one. */
  readonly skipped: number;
}

/** The state of the spike guard before the first step. */
export const freshGuard: GuardState = { updates: 0, losses: [], gradNorms: [], skipped: 0 };

/**
 * A window that hardly varies must not make a spike of the smallest rise: deviations are at least this share of the
 * mean.
 */
const LEAST_DEVIATION = 0.01;

/** Mean plus `deviations` standard deviations. */
function limitOf(values: readonly number[], deviations: number): number {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return mean + deviations * Math.max(Math.sqrt(variance), LEAST_DEVIATION * Math.abs(mean));
}

/** Limits of the next step; none until the window is full. */
export function guardLimits(
  { losses, gradNorms }: GuardState,
  { window, deviations }: GuardConfig,
): { readonly loss: number; readonly gradNorm: number } | undefined {
  if (losses.length < window) return undefined;
  return { loss: limitOf(losses, deviations), gradNorm: limitOf(gradNorms, deviations) };
}

/** The state of the spike guard after one more step. */
export function afterStep(
  state: GuardState,
  { window }: GuardConfig,
  step: { readonly loss: number; readonly gradNorm: number; readonly applied: boolean },
): GuardState {
  if (!step.applied) return { ...state, skipped: state.skipped + 1 };
  const push = (values: readonly number[], value: number): number[] => [...values, value].slice(-window);
  return {
    updates: state.updates + 1,
    losses: push(state.losses, step.loss),
    gradNorms: push(state.gradNorms, step.gradNorm),
    skipped: 0,
  };
}
