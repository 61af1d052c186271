import { cpSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { previousName } from "../../../src/files/io/atomic.js";
import { golden } from "../../support/golden.js";
import { failure, fresh, root, variant } from "./folders.js";

describe("folders that cannot be opened", () => {
  const cases: [string, () => string, string][] = [
    ["no folder", () => join(root, "nowhere"), "nowhere: no such folder"],
    ["a file", () => join(golden("dense/llama"), "config.json"), "this is a file, expected a model folder"],
    [
      "no config",
      () => {
        const dir = variant("dense/llama");
        rmSync(join(dir, "config.json"));
        return dir;
      },
      "folder has no config.json",
    ],
    [
      "broken config",
      () => {
        const dir = variant("dense/llama");
        writeFileSync(join(dir, "config.json"), "{,");
        return dir;
      },
      "config.json: not valid JSON",
    ],
    [
      "no weights",
      () => {
        const dir = variant("dense/llama");
        rmSync(join(dir, "model.safetensors"));
        return dir;
      },
      "weights are in expected.safetensors, a name that is not looked for",
    ],
    [
      "shards without index",
      () => {
        const dir = variant("dense/llama");
        renameSync(join(dir, "model.safetensors"), join(dir, "model-00001-of-00002.safetensors"));
        return dir;
      },
      "folder has model-00001-of-00002.safetensors (1 of 2 shards) but no model.safetensors.index.json",
    ],
    [
      "missing tensor",
      () => variant("dense/llama", (tensors) => tensors.filter(({ name }) => !name.includes("q_proj"))),
      "tensor model.layers.0.self_attn.q_proj.weight and 1 more missing, config.json (llama, 2 layers) asks for 21",
    ],
    [
      "wrong shape",
      () =>
        variant("dense/llama", (tensors) =>
          tensors.map((tensor) => (tensor.name === "model.norm.weight" ? { ...tensor, shape: [4, 8] } : tensor)),
        ),
      "model.safetensors: tensor model.norm.weight has shape [4, 8], config.json asks for [32]",
    ],
    [
      "wrong dtype",
      () =>
        variant("dense/llama", (tensors) =>
          tensors.map((tensor) => (tensor.name === "model.norm.weight" ? { ...tensor, dtype: "I32" } : tensor)),
        ),
      "tensor model.norm.weight is stored as I32, expected F32, BF16, F16, F64, F8_E4M3 or F8_E5M2",
    ],
    [
      "cut short",
      () => {
        const dir = variant("dense/llama");
        truncateSync(join(dir, "model.safetensors"), 50_000);
        return dir;
      },
      "is it cut short?",
    ],
    [
      "cut in the header",
      () => {
        const dir = variant("dense/llama");
        truncateSync(join(dir, "model.safetensors"), 100);
        return dir;
      },
      "the file ends 92 bytes after it",
    ],
    [
      "empty weights",
      () => {
        const dir = variant("dense/llama");
        truncateSync(join(dir, "model.safetensors"), 0);
        return dir;
      },
      "file has 0 bytes, a safetensors file has at least 8",
    ],
    [
      "replaced halfway",
      () => {
        const dir = variant("dense/llama");
        renameSync(dir, previousName(dir));
        return dir;
      },
      "an interrupted replacement left the old version in",
    ],
  ];
  it.each(cases)("refuses a model folder with this fault: %s", async (_, make, line) => {
    const error = await failure(openCheckpoint(make()));
    expect(error.kind).toBe("input");
    expect(error.line).toContain(line);
  });

  it("have an index and files that contradict each other", async () => {
    const sharded = (edit: (map: Record<string, string>) => void): string => {
      const dir = fresh();
      cpSync(golden("moe/mixtral"), dir, { recursive: true });
      const path = join(dir, "model.safetensors.index.json");
      const index = JSON.parse(readFileSync(path, "utf8")) as { weight_map: Record<string, string> };
      edit(index.weight_map);
      writeFileSync(path, JSON.stringify(index));
      return dir;
    };
    const line = async (dir: string): Promise<string> => (await failure(openCheckpoint(dir))).line;
    expect(await line(sharded((map) => void delete map["lm_head.weight"]))).toContain(
      "tensor lm_head.weight is in this file, model.safetensors.index.json does not list it",
    );
    expect(await line(sharded((map) => void (map["lm_head.weight"] = "model-00003-of-00003.safetensors")))).toContain(
      "says model-00003-of-00003.safetensors",
    );
    expect(await line(sharded((map) => void (map["extra"] = "model-00001-of-00003.safetensors")))).toContain(
      "tensor extra is not in this file",
    );
    expect(await line(sharded((map) => void (map["extra"] = "model-00009.safetensors")))).toContain(
      "model-00009.safetensors is missing",
    );
    const dir = sharded(() => undefined);
    rmSync(join(dir, "model-00002-of-00003.safetensors"));
    expect(await line(dir)).toContain(
      "model-00002-of-00003.safetensors is missing, model.safetensors.index.json lists it",
    );
  });
});
