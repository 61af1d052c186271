/** Every backend; a new one is added here and runs the whole suite of `engine/backends.ort.test.ts`. */
import { cudaBackend } from "../../src/engine/cuda/backend.js";
import { onnxruntimeBackend } from "../../src/engine/onnxruntime/backend.js";
import { referenceBackend } from "../../src/engine/interpreter/backend.js";
import type { Backend } from "../../src/engine/runtime/runtime.js";
import { cudaMachine } from "./cuda.js";

/** CUDA is there where a machine can run it: on a GPU, or emulated on the CPU (test/support/cuda.ts). */
export const backends: readonly Backend[] = [
  onnxruntimeBackend,
  referenceBackend,
  ...(cudaMachine === "no machine" ? [] : [cudaBackend()]),
];
