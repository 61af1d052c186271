/** Every backend; a new one is added here and runs the whole suite of `engine/backends.ort.test.ts`. */
import { cudaBackend } from "../../src/engine/cuda/backend.js";
import { onnxruntimeBackend } from "../../src/engine/onnxruntime/backend.js";
import { referenceBackend } from "../../src/engine/interpreter/backend.js";
import type { Backend } from "../../src/engine/runtime/runtime.js";
import { cudaMachine } from "./cuda.js";

/**
 * CUDA is there on a machine with a GPU. Its emulation (test/support/cuda.ts) takes minutes for this suite, so it must
 * be asked for by UPCYCLE_CUDA_TESTS=cpu.
 */
const withCuda = cudaMachine === "a GPU" || process.env["UPCYCLE_CUDA_TESTS"] === "cpu";

export const backends: readonly Backend[] = [
  onnxruntimeBackend,
  referenceBackend,
  ...(withCuda ? [cudaBackend()] : []),
];
