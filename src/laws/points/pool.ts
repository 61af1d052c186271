/** Jobs over worker threads. Which thread does a job never matters to its result. */
import { Worker } from "node:worker_threads";
import { limitError, moduleArguments, threadsThatFit } from "../../files/io/limits.js";
import { threadModule } from "../../files/io/thread-module.js";
import { openRunner, type FitTask, type Job, type JobResult } from "./jobs.js";
import type { FitWorkerReply, FitWorkerRequest } from "./worker.js";

/** Threads that do the jobs of one task. */
export interface Pool {
  /** Results in the order of the jobs; `progress` is called with the number of finished jobs after each. */
  run<J extends Job>(jobs: readonly J[], progress?: (finished: number) => void): Promise<JobResult<J>[]>;
  close(): Promise<void>;
}

/**
 * A pool of at most `threads` threads, or as many as the system lets us have. A single one is this thread, which lets
 * others have their turn between two jobs.
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
  const pool: Worker[] = [];
  return {
    run<J extends Job>(jobs: readonly J[], progress: (finished: number) => void = () => undefined) {
      while (pool.length < Math.min(threads, jobs.length)) pool.push(openWorker(task));
      return jobs.length === 0 ? Promise.resolve<JobResult<J>[]>([]) : runOn(pool, jobs, progress);
    },
    async close() {
      for (const worker of pool) worker.removeAllListeners();
      await Promise.all(pool.map((worker) => worker.terminate()));
    },
  };
}

function openWorker(task: FitTask): Worker {
  const worker = new Worker(threadModule("laws/points/worker.js"), { execArgv: moduleArguments() });
  worker.postMessage({ task } satisfies FitWorkerRequest);
  return worker;
}

/** Gives every worker a job, and the next one to whichever is ready first. */
function runOn<J extends Job>(
  pool: readonly Worker[],
  jobs: readonly J[],
  progress: (finished: number) => void,
): Promise<JobResult<J>[]> {
  return new Promise((resolve, reject) => {
    const results = new Array<JobResult<J>>(jobs.length);
    const waiting = jobs.entries();
    let finished = 0;
    const giveNext = (worker: Worker): void => {
      const { value: entry } = waiting.next();
      if (entry !== undefined) worker.postMessage({ id: entry[0], job: entry[1] } satisfies FitWorkerRequest);
    };
    const take = (worker: Worker, { id, result, error }: FitWorkerReply): void => {
      if (error !== undefined) {
        reject(Object.assign(new Error(error.message), { stack: error.stack }));
        return;
      }
      results[id] = result as JobResult<J>;
      finished += 1;
      progress(finished);
      if (finished === jobs.length) resolve(results);
      else giveNext(worker);
    };
    for (const worker of pool) {
      worker.removeAllListeners();
      worker.on("message", (reply: FitWorkerReply) => take(worker, reply));
      worker.on("error", (error: Error) => reject(limitError(error) ?? error));
      worker.on("exit", (code) => reject(new Error(`a fitting thread ended with code ${code}`)));
      giveNext(worker);
    }
  });
}
