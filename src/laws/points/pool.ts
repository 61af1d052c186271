/** Jobs over worker threads. Which thread does a job never matters to its result. */
import { at } from "../../base/at.js";
import { Worker } from "node:worker_threads";
import { limitError, moduleArguments, threadsThatFit } from "../../files/io/limits.js";
import { openRunner, type FitTask, type Job, type JobResult } from "./jobs.js";
import type { FitWorkerReply, FitWorkerRequest } from "./worker.js";

interface Pool {
  /** Results in the order of the jobs. */
  run<J extends Job>(jobs: readonly J[], progress?: (done: number) => void): Promise<JobResult<J>[]>;
  close(): Promise<void>;
}

/**
 * One thread: this one, between which and the next job others get their turn. Of several as many as the system lets us
 * have.
 */
export function openPool(task: FitTask, threads: number): Pool {
  const fitting = threads <= 1 ? 1 : threadsThatFit(threads);
  return fitting <= 1 ? ownThread(task) : workers(task, fitting);
}

function ownThread(task: FitTask): Pool {
  const runner = openRunner(task);
  return {
    async run(jobs, progress) {
      const results: JobResult<(typeof jobs)[number]>[] = [];
      for (const job of jobs) {
        results.push(runner(job));
        progress?.(results.length);
        await new Promise((resolve) => setImmediate(resolve));
      }
      return results;
    },
    close: () => Promise.resolve(),
  };
}

function workers(task: FitTask, threads: number): Pool {
  // Tests run the sources; the worker needs compiled code, which the build has put beside them.
  const here = import.meta.url;
  const file = here.endsWith(".ts")
    ? new URL("../../../dist/laws/points/worker.js", here)
    : new URL("./worker.js", here);
  const pool: Worker[] = [];
  const open = (): void => {
    const worker = new Worker(file, { execArgv: moduleArguments() });
    worker.postMessage({ task } satisfies FitWorkerRequest);
    pool.push(worker);
  };
  return {
    run<J extends Job>(jobs: readonly J[], progress?: (done: number) => void) {
      while (pool.length < Math.min(threads, jobs.length)) open();
      return new Promise<JobResult<J>[]>((resolve, reject) => {
        const results = new Array<JobResult<J>>(jobs.length);
        let next = 0;
        let done = 0;
        if (jobs.length === 0) resolve(results);
        for (const worker of pool) {
          worker.removeAllListeners();
          const give = (): void => {
            if (next < jobs.length) worker.postMessage({ id: next, job: at(jobs, next++) } satisfies FitWorkerRequest);
          };
          worker.on("message", ({ id, result, error }: FitWorkerReply) => {
            if (error !== undefined) {
              reject(Object.assign(new Error(error.message), { stack: error.stack }));
              return;
            }
            results[id] = result as JobResult<J>;
            done += 1;
            progress?.(done);
            if (done === jobs.length) resolve(results);
            else give();
          });
          worker.on("error", (error: Error) => reject(limitError(error) ?? error));
          worker.on("exit", (code) => reject(new Error(`a fitting thread ended with code ${code}`)));
          give();
        }
      });
    },
    async close() {
      for (const worker of pool) worker.removeAllListeners();
      await Promise.all(pool.map((worker) => worker.terminate()));
    },
  };
}
