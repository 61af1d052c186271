/** The engine in this thread: the same computation as the worker's, with no need of a build. */
import { openForwardRuntime } from "../../src/engine/onnxruntime/forward-runtime.js";
import { openOperationRuntime } from "../../src/engine/onnxruntime/operation-runtime.js";
import { openTrainRuntime } from "../../src/engine/onnxruntime/train-runtime.js";
import type { Backend } from "../../src/engine/runtime/runtime.js";

export const inThread: Backend = {
  name: "onnxruntime in this thread",
  numerics: "onnxruntime in this thread",
  openTrain: openTrainRuntime,
  openForward: (options) => Promise.resolve(openForwardRuntime(options)),
  openOperations: (options) => Promise.resolve(openOperationRuntime(options)),
};
