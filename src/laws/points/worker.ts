/** A thread that fits: the first message is the ground of all jobs, each further one a job. */
import { parentPort } from "node:worker_threads";
import { openRunner, type Ground, type Job, type Runner } from "./jobs.js";

export type Request = { readonly ground: Ground } | { readonly id: number; readonly job: Job };

export interface Reply {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: { readonly message: string; readonly stack?: string };
}

let run: Runner | undefined;

parentPort?.on("message", (request: Request) => {
  if ("ground" in request) {
    run = openRunner(request.ground);
    return;
  }
  const { id, job } = request;
  try {
    if (run === undefined) throw new Error("a job before its ground");
    parentPort!.postMessage({ id, result: run(job) } satisfies Reply);
  } catch (error) {
    const { message, stack } = error as Error;
    parentPort!.postMessage({ id, error: { message, ...(stack !== undefined && { stack }) } } satisfies Reply);
  }
});
