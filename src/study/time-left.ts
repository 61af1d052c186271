/**
 * How long a study still takes. Its steps say how fast this machine is; what lies between them (compiling, converting,
 * measuring) comes on top. Both say little while there were few steps: the first one is slow, and the first training
 * compiles for seconds before it, as every other does once. So the first guess counts as some seconds of steps.
 */

/** FLOP/s of one thread that a first guess goes by: half of what a core with AVX2 does in a large product. */
const guessedSpeed = 25e9;

/** Seconds that `flops` may take on so many threads, before any step was made. */
export const guessedSeconds = (flops: number, threads: number): number => flops / (guessedSpeed * threads);

/** Time of steps that the first guess counts as, in milliseconds. */
const guessWeight = 2000;

/** Time of steps for which the time between steps is taken to be none, in milliseconds. */
const patience = 30_000;

/** Judges the time left from the steps that this command has made. */
export class TimeLeft {
  private flops: number;
  private stepMs = guessWeight;

  constructor(threads: number) {
    this.flops = (guessedSpeed * threads * guessWeight) / 1000;
  }

  /** Counts a step of so many FLOPs that took `ms`. */
  add(flops: number, ms: number): void {
    this.flops += flops;
    this.stepMs += ms;
  }

  /** Seconds for the FLOPs that are left, `elapsedMs` after the first training began. */
  seconds(flopsLeft: number, elapsedMs: number): number {
    const betweenSteps = (Math.max(elapsedMs, this.stepMs) + patience) / (this.stepMs + patience);
    return ((flopsLeft / this.flops) * this.stepMs * betweenSteps) / 1000;
  }
}
