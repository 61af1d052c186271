/** The CUDA backend: runs every program on one NVIDIA GPU, through FFI. */
import type { Backend } from "../runtime/runtime.js";
import { device } from "./device.js";
import { CudaForwardRuntime } from "./forward-runtime.js";
import { CudaOperationRuntime } from "./operation-runtime.js";
import { CudaTrainRuntime } from "./train-runtime.js";

/**
 * The backend of GPU number `ordinal`. Its functions throw inputError where driver, libraries or the GPU are missing,
 * with what to do, and stopError where the GPU fails or its memory is full.
 */
export function cudaBackend(ordinal = 0): Backend {
  return {
    name: `cuda:${ordinal}`,
    openTrain: async (program, options) => CudaTrainRuntime.open(await device(ordinal), program, options),
    openForward: async () => new CudaForwardRuntime(await device(ordinal)),
    openOperations: async () => new CudaOperationRuntime(await device(ordinal)),
  };
}
