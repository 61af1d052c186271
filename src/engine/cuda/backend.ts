/** The CUDA backend: runs every program on one NVIDIA GPU, through FFI. */
import type { Backend } from "../runtime/runtime.js";
import { device } from "./device.js";
import type { Precision } from "./lowering/options.js";
import { CudaForwardRuntime } from "./forward-runtime.js";
import { CudaOperationRuntime } from "./operation-runtime.js";
import { CudaTrainRuntime } from "./train-runtime.js";

/** How a GPU computes. */
export interface CudaOptions {
  /** `float32` if left out; see `LowerOptions`. */
  readonly precision?: Precision | undefined;
}

/** Operations take weights in float32 that pass once: rounding them would cost more than it gains. */
const operationPrecision = (precision: Precision): Precision => (precision === "bf16" ? "tf32" : precision);

/**
 * The backend of GPU number `ordinal`. Its functions throw inputError where driver, libraries or the GPU are missing,
 * with what to do, and stopError where the GPU fails or its memory is full.
 */
export function cudaBackend(ordinal = 0, { precision = "float32" }: CudaOptions = {}): Backend {
  return {
    name: `cuda:${ordinal}`,
    numerics: `cuda ${precision}`,
    openTrain: async (program, options) =>
      CudaTrainRuntime.open(await device(ordinal), program, { ...options, precision }),
    openForward: async () => new CudaForwardRuntime(await device(ordinal), { precision }),
    openOperations: async () =>
      new CudaOperationRuntime(await device(ordinal), { precision: operationPrecision(precision) }),
  };
}
