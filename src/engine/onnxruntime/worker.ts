/**
 * Hosts one runtime in a worker thread: onnxruntime's run() blocks the thread that calls it. Messages are method calls.
 */
import { parentPort } from "node:worker_threads";
import { valueAt } from "../../base/at.js";
import { sentError, type SentError } from "../../base/errors.js";
import { limitError } from "../../files/io/limits.js";
import type { ForwardRuntime, OperationRuntime, TrainRuntime } from "../runtime/runtime.js";
import { openForwardRuntime } from "./forward-runtime.js";
import { openOperationRuntime } from "./operation-runtime.js";
import { openTrainRuntime } from "./train-runtime.js";

/** A method call on its way to the thread. */
export interface Call {
  readonly id: number;
  readonly method: string;
  readonly args: readonly unknown[];
  /** Buffers among the arguments that have moved here; they move back with the reply. */
  readonly given: ArrayBuffer[];
}

/** What a call gave, or how it failed, on its way back. */
export interface Reply {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: SentError;
  readonly returned: readonly ArrayBuffer[];
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
  const methods = runtime as unknown as Readonly<Record<string, (...args: readonly unknown[]) => Promise<unknown>>>;
  return valueAt(methods, method)(...args);
}

const port = parentPort;
port?.on("message", (call: Call) => {
  const reply = (outcome: Pick<Reply, "result" | "error">): void =>
    port.postMessage({ id: call.id, ...outcome, returned: call.given } satisfies Reply, call.given);
  answer(call).then(
    (result) => reply({ result }),
    (error: unknown) => reply({ error: sentError(limitError(error) ?? error) }),
  );
});
