import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { plannedWeightBytes } from "../../../src/files/checkpoint/write.js";
import { fromFloat32, toFloat32 } from "../../../src/files/numeric/dtype.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { golden, goldenFolders } from "../../support/golden.js";
import { allBytes, fresh, rewrite, variant, withCheckpoint } from "./folders.js";

describe("golden models", () => {
  it.each(goldenFolders)("%s opens, and rewriting it changes no byte of any tensor", async (model) => {
    await withCheckpoint(golden(model), async (source) => {
      expect(source.unused).toEqual([]);
      expect(source.dtype).toBe("F32");
      const dir = fresh();
      const { weightBytes, weightFiles } = await rewrite(source, dir);
      expect(weightFiles).toEqual(["model.safetensors"]);
      expect(readFileSync(join(dir, "model.safetensors")).byteLength).toBe(weightBytes);
      expect(weightBytes).toBe(plannedWeightBytes(source.spec, "F32"));
      expect(readdirSync(dir).sort()).toEqual(["config.json", "generation_config.json", "model.safetensors"]);
      await withCheckpoint(dir, async (copy) => {
        expect(copy.spec).toEqual(source.spec);
        expect(copy.unused).toEqual([]);
        expect(await allBytes(copy)).toEqual(await allBytes(source));
      });
    });
  });

  it("give the same weights in shards and in one file", async () => {
    await withCheckpoint(golden("moe/mixtral"), async (source) => {
      const dir = fresh();
      const progress: number[] = [];
      await rewrite(source, dir, { maxShardBytes: 30_000, onProgress: ({ bytes }) => progress.push(bytes) });
      const files = readdirSync(dir).filter((name) => name.endsWith(".safetensors"));
      expect(files.length).toBeGreaterThan(8);
      expect(files[0]).toMatch(/^model-00001-of-000\d\d\.safetensors$/);
      expect(progress).toHaveLength(slotsOf(source.spec).length);
      expect(progress.at(-1)).toBe(61856 * 4);
      expect(plannedWeightBytes(source.spec, "F32", 30_000)).toBe(
        files.reduce((sum, name) => sum + readFileSync(join(dir, name)).byteLength, 0),
      );
      await withCheckpoint(dir, async (copy) => expect(await allBytes(copy)).toEqual(await allBytes(source)));
    });
  });

  it("give values, rows and stored bytes of the same numbers", async () => {
    await withCheckpoint(golden("moe/qwen2_moe"), async (source) => {
      const whole = await source.readFloat32("layers.1.experts.3.down");
      expect(whole).toHaveLength(32 * 16);
      expect(await source.readRows("layers.1.experts.3.down", 5, 2)).toEqual(whole.slice(5 * 16, 7 * 16));
      expect(await source.readRows("layers.0.qBias", 31, 1)).toHaveLength(1);
      expect(await source.readRows("embed", 96, 0)).toHaveLength(0);
      await expect(source.readRows("embed", 96, 1)).rejects.toThrow("rows 96 to 97 of embed, which has 96");
      await expect(source.readFloat32("layers.9.q")).rejects.toThrow("no slot layers.9.q");
      expect(source.tensors.get("model.layers.1.mlp.shared_expert_gate.weight")).toMatchObject({
        file: "model.safetensors",
        dtype: "F32",
        shape: [1, 32],
        bytes: 128,
      });
    });
  });

  it.each(["F16", "BF16"] as const)("%s folders hold the rounded values and say so", async (dtype) => {
    await withCheckpoint(golden("dense/llama"), async (source) => {
      const dir = fresh();
      await rewrite(source, dir, { dtype, weights: ({ key }) => source.readFloat32(key) });
      await withCheckpoint(dir, async (copy) => {
        expect(copy.dtype).toBe(dtype);
        expect(copy.config).toMatchObject({
          dtype: dtype === "F16" ? "float16" : "bfloat16",
          torch_dtype: dtype === "F16" ? "float16" : "bfloat16",
        });
        const values = await source.readFloat32("layers.0.q");
        expect(await copy.readFloat32("layers.0.q")).toEqual(toFloat32(dtype, fromFloat32(dtype, values)));
        expect(await copy.readRows("layers.0.q", 3, 4)).toEqual((await copy.readFloat32("layers.0.q")).slice(96, 224));
      });
    });
  });

  it("are read from GPT-2's first files, which have no prefix, and masks beside the weights", async () => {
    const mask = { name: "h.0.attn.bias", dtype: "F32" as const, shape: [1, 1, 4, 4], bytes: new Uint8Array(64) };
    const dir = variant("dense/gpt2", (tensors) => [
      ...tensors.map((tensor) => ({ ...tensor, name: tensor.name.replace("transformer.", "") })),
      mask,
    ]);
    await withCheckpoint(golden("dense/gpt2"), async (today) => {
      await withCheckpoint(dir, async (old) => {
        expect(old.unused).toEqual([]);
        expect(await allBytes(old)).toEqual(await allBytes(today));
      });
    });
  });

  it("buffers are ignored, and a head beside a tied embedding that differs from it is used", async () => {
    const dir = variant("dense/llama", (tensors) => [
      ...tensors,
      { name: "model.layers.0.self_attn.rotary_emb.inv_freq", dtype: "F32", shape: [4], bytes: new Uint8Array(16) },
    ]);
    await withCheckpoint(dir, async (checkpoint) => expect(checkpoint.unused).toEqual([]));
    const config = join(dir, "config.json");
    writeFileSync(
      config,
      readFileSync(config, "utf8").replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'),
    );
    await withCheckpoint(dir, async ({ unused, spec, notes }) => {
      expect([unused, spec.tiedHead]).toEqual([[], false]);
      expect(notes).toEqual([expect.stringContaining("the head is kept as a matrix of its own")]);
    });
  });
});
