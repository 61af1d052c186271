/** Hosts one runtime in a worker thread: onnxruntime's run() blocks the thread that calls it. Messages are method calls. */
import { parentPort } from "node:worker_threads";
import type { ForwardRuntime, OperationRuntime, TrainRuntime } from "../step/runtime.js";
import { openForwardRuntime } from "./forward-runtime.js";
import { openOperationRuntime } from "./operation-runtime.js";
import { openTrainRuntime } from "./train-runtime.js";

export interface Call {
  readonly id: number;
  readonly method: string;
  readonly args: readonly unknown[];
}

export interface Reply {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: { readonly message: string; readonly stack?: string };
}

let runtime: TrainRuntime | ForwardRuntime | OperationRuntime | undefined;

async function answer({ method, args }: Call): Promise<unknown> {
  if (method === "openTrain") {
    runtime = await openTrainRuntime(...(args as Parameters<typeof openTrainRuntime>));
    return undefined;
  }
  if (method === "openForward") {
    runtime = openForwardRuntime(...(args as Parameters<typeof openForwardRuntime>));
    return undefined;
  }
  if (method === "openOperations") {
    runtime = openOperationRuntime(...(args as Parameters<typeof openOperationRuntime>));
    return undefined;
  }
  if (runtime === undefined) throw new Error(`${method} before open`);
  return (runtime as unknown as Record<string, (...args: readonly unknown[]) => Promise<unknown>>)[method]!(...args);
}

parentPort?.on("message", (call: Call) => {
  answer(call).then(
    (result) => parentPort!.postMessage({ id: call.id, result } satisfies Reply),
    (error: Error) => parentPort!.postMessage({ id: call.id, error: { message: error.message, stack: error.stack } } satisfies Reply),
  );
});
