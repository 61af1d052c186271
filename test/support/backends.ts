/** Every backend; a new one is added here and runs the whole suite of `engine/backends.ort.test.ts`. */
import { onnxruntimeBackend } from "../../src/engine/onnxruntime/backend.js";
import { referenceBackend } from "../../src/engine/interpreter/backend.js";
import type { Backend } from "../../src/engine/runtime/runtime.js";

export const backends: readonly Backend[] = [onnxruntimeBackend, referenceBackend];
