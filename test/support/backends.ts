/** Every backend; a new one is added here and runs the whole suite of `step/backends.ort.test.ts`. */
import { onnxruntimeBackend } from "../../src/ort/backend.js";
import { referenceBackend } from "../../src/reference/backend.js";
import type { Backend } from "../../src/step/runtime.js";

export const backends: readonly Backend[] = [onnxruntimeBackend, referenceBackend];
