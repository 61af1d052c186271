/** Worker thread of fits. The first message sets law, points and loss; every later one is a job to answer. */
import { parentPort } from "node:worker_threads";
import { openRunner, type FitTask, type Job, type Runner } from "./jobs.js";

/** What the thread is sent: the task first, then jobs. */
export type FitWorkerRequest = { readonly task: FitTask } | { readonly id: number; readonly job: Job };

/** The answer to a job: its result, or what it threw. */
export interface FitWorkerReply {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: { readonly message: string; readonly stack?: string };
}

let runner: Runner | undefined;
const port = parentPort;

port?.on("message", (request: FitWorkerRequest) => {
  if ("task" in request) runner = openRunner(request.task);
  else port.postMessage(replyTo(request.id, request.job));
});

function replyTo(id: number, job: Job): FitWorkerReply {
  try {
    if (runner === undefined) throw new Error("a job before its task");
    return { id, result: runner(job) };
  } catch (error) {
    const { message, stack } = error as Error;
    return { id, error: { message, ...(stack !== undefined && { stack }) } };
  }
}
