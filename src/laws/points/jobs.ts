/** Work that fits into one message: fits from a list of starts, and bootstrap draws. Plain data in and out. */
import { bootstrapDraws } from "../fitting/bootstrap.js";
import type { SolverLimits } from "../solvers/box.js";
import { lawOf, type LawName } from "../fitting/catalogue.js";
import { problemOf } from "../fitting/fit.js";
import { fitFrom, type LocalFit, type Problem } from "../solvers/local-fit.js";
import type { Loss } from "../solvers/loss.js";
import type { Points } from "../forms/types.js";

/** What all jobs of one fit share; sent once to each thread. */
export interface FitTask {
  readonly law: LawName;
  readonly points: Points;
  readonly loss: Loss;
}

/** A piece of work that one thread does. */
export type Job =
  | { readonly type: "starts"; readonly starts: readonly Float64Array[]; readonly limits?: SolverLimits }
  | {
      readonly type: "bootstrap";
      readonly optimum: Float64Array;
      readonly seed: number;
      readonly from: number;
      readonly to: number;
    };

/** A job's result: local fits of its starts, or internal parameters [draws * p] of its draws. */
export type JobResult<J extends Job> = J extends { type: "starts" } ? readonly LocalFit[] : Float64Array;

/** Does jobs of one task. */
export type Runner = <J extends Job>(job: J) => JobResult<J>;

/** Binds the task's law to its points, once for all jobs. */
export function openRunner({ law, points, loss }: FitTask): Runner {
  const problem: Problem = problemOf(lawOf(law).bind(points), points, loss);
  return <J extends Job>(job: J) =>
    (job.type === "starts"
      ? job.starts.map((start) => fitFrom(problem, start, null, job.limits))
      : bootstrapDraws(problem, job.optimum, points.cluster, job)) as JobResult<J>;
}
