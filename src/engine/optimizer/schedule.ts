/** Learning-rate schedules: a pure function of the step. */

/** A learning-rate schedule. */
export interface Schedule {
  /** Largest learning rate. */
  readonly peak: number;
  readonly schedule: "constant" | "linear" | "cosine" | "wsd";
  /** Steps over which the rate rises in a line from 0 to the peak. */
  readonly warmup: number;
  /** Rate at the last step as a fraction of the peak (ignored by `constant`). */
  readonly final: number;
  /** `wsd` only: steps of the final fall; a fifth of all steps if left out. */
  readonly decay?: number | undefined;
  /** Length of the schedule, if it is not that of the training; beyond it the rate stays at its last value. */
  readonly steps?: number | undefined;
}

/**
 * Learning rate of update `step` in 1..trained. The peak is reached at update `warmup` (at 1 without warm-up), the
 * final rate at the last update. Re-warming after upcycling is a new schedule with its own warm-up (He et al. 2024,
 * section 3.2).
 */
export function learningRateAt(lr: Schedule, trained: number, step: number): number {
  const steps = lr.steps ?? trained;
  if (step > steps) return lr.schedule === "constant" ? lr.peak : learningRateAt(lr, trained, steps);
  if (step <= lr.warmup) return (lr.peak * step) / lr.warmup;
  const low = lr.peak * lr.final;
  // A run of a single step has no way to fall.
  const between = (from: number): number => (steps === from ? 0 : (step - from) / (steps - from));
  const first = Math.max(1, lr.warmup);
  switch (lr.schedule) {
    case "constant":
      return lr.peak;
    case "linear":
      return lr.peak + (low - lr.peak) * between(first);
    case "cosine":
      return low + 0.5 * (lr.peak - low) * (1 + Math.cos(Math.PI * between(first)));
    case "wsd": {
      // Warm-up, stable, decay (Hu et al. 2024, MiniCPM, section 4.1), with a linear fall.
      const start = Math.max(first, steps - (lr.decay ?? Math.max(1, Math.round(steps / 5))));
      return step <= start ? lr.peak : lr.peak + (low - lr.peak) * between(start);
    }
  }
}

/** A training's schedule and its number of steps. */
interface ScheduledSteps {
  readonly lr: Schedule;
  readonly steps: number;
}

/**
 * The first of the `done` updates that another schedule would have made with another learning rate, or null: the run
 * could have been begun with either.
 */
export function firstDifference(was: ScheduledSteps, is: ScheduledSteps, done: number): number | null {
  for (let step = 1; step <= done; step++) {
    if (learningRateAt(was.lr, was.steps, step) !== learningRateAt(is.lr, is.steps, step)) return step;
  }
  return null;
}
