import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { cudaBackend } from "../../../src/engine/cuda/backend.js";
import { onnxruntimeBackend } from "../../../src/engine/onnxruntime/backend.js";
import type { Backend } from "../../../src/engine/runtime/runtime.js";
import { modelIdentity } from "../../../src/evals/suite/models.js";
import { temporaryFolder } from "../../files/io/temporary.js";

const root = temporaryFolder();
const folder = join(root, "model");
cpSync(new URL("../../../models/tiny", import.meta.url), folder, { recursive: true });

const identity = (backend: Backend, maxLength = 128, source = folder): Promise<string> =>
  modelIdentity(source, { backend, maxLength });

describe("the identity of a model's answers", () => {
  it("is one for all GPUs of a machine, and another for each kind of device, precision and length", async () => {
    const gpu = await identity(cudaBackend(0));
    expect(await identity(cudaBackend(1))).toBe(gpu);
    const others = await Promise.all([
      identity(onnxruntimeBackend),
      identity(cudaBackend(0, { precision: "tf32" })),
      identity(cudaBackend(0, { precision: "bf16" })),
      identity(cudaBackend(0), 64),
    ]);
    expect(new Set([gpu, ...others]).size).toBe(5);
  });

  it("is that of a copy, until a file that answers depend on is another", async () => {
    const copy = join(root, "copy");
    cpSync(folder, copy, { recursive: true });
    const before = await identity(onnxruntimeBackend);
    writeFileSync(join(copy, "README.md"), "A card is no part of it.");
    expect(await identity(onnxruntimeBackend, 128, copy)).toBe(before);
    writeFileSync(join(copy, "special_tokens_map.json"), "{}\n\n");
    expect(await identity(onnxruntimeBackend, 128, copy)).not.toBe(before);
  });
});
