import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { UpcycleError } from "../../src/base/errors.js";
import { openCheckpoint } from "../../src/checkpoint/open.js";
import type { Checkpoint } from "../../src/checkpoint/open.js";
import { plannedWeightBytes, writeCheckpoint } from "../../src/checkpoint/write.js";
import type { WriteDtype, WriteOptions } from "../../src/checkpoint/write.js";
import { encodeSafetensors, parseSafetensors } from "../../src/format/safetensors.js";
import type { TensorMeta } from "../../src/format/safetensors.js";
import { previousName } from "../../src/io/atomic.js";
import { fromFloat32, toFloat32 } from "../../src/numeric/dtype.js";
import { namedSlots } from "../../src/tensors/names.js";
import { slotsOf } from "../../src/tensors/slots.js";
import { goldenDir, goldenModels } from "../golden.js";
import { temporaryFolder } from "../io/temporary.js";

const root = temporaryFolder();
let counter = 0;
const fresh = (): string => join(root, String(counter++));

async function withCheckpoint<T>(dir: string, use: (checkpoint: Checkpoint) => Promise<T>): Promise<T> {
  const checkpoint = await openCheckpoint(dir);
  try {
    return await use(checkpoint);
  } finally {
    await checkpoint.close();
  }
}

const rewrite = (source: Checkpoint, dir: string, extra: Partial<WriteOptions> = {}): ReturnType<typeof writeCheckpoint> =>
  writeCheckpoint({ dir, spec: source.spec, dtype: source.dtype as WriteDtype, tensor: ({ key }) => source.readBytes(key), carry: source.dir, ...extra });

const allBytes = async (checkpoint: Checkpoint): Promise<[string, unknown][]> =>
  Promise.all(slotsOf(checkpoint.spec).map(async ({ key }): Promise<[string, unknown]> => [key, await checkpoint.readBytes(key)]));

async function failure(promise: Promise<unknown>): Promise<UpcycleError> {
  const error: unknown = await promise.then(() => undefined, (cause: unknown) => cause);
  expect(error).toBeInstanceOf(UpcycleError);
  expect((error as UpcycleError).line).not.toContain("\n");
  return error as UpcycleError;
}

type Tensor = TensorMeta & { bytes: Uint8Array };

/** A copy of a golden single-file model whose tensors went through `change`. */
function variant(model: string, change: (tensors: Tensor[]) => Tensor[] = (tensors) => tensors): string {
  const dir = fresh();
  cpSync(goldenDir(model), dir, { recursive: true });
  const path = join(dir, "model.safetensors");
  const file = new Uint8Array(readFileSync(path));
  const tensors = [...parseSafetensors(file, path).tensors].map(([name, { dtype, shape, begin, end }]) => ({ name, dtype, shape, bytes: file.slice(begin, end) }));
  writeFileSync(path, encodeSafetensors(change(tensors)));
  return dir;
}

describe("golden models", () => {
  test.each(goldenModels)("%s opens, and rewriting it changes no byte of any tensor", async (model) => {
    await withCheckpoint(goldenDir(model), async (source) => {
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

  test("sharded and whole give the same", async () => {
    await withCheckpoint(goldenDir("moe/mixtral"), async (source) => {
      const dir = fresh();
      const progress: number[] = [];
      await rewrite(source, dir, { maxShardBytes: 30_000, onProgress: ({ bytes }) => progress.push(bytes) });
      const files = readdirSync(dir).filter((name) => name.endsWith(".safetensors"));
      expect(files.length).toBeGreaterThan(8);
      expect(files[0]).toMatch(/^model-00001-of-000\d\d\.safetensors$/);
      expect(progress).toHaveLength(slotsOf(source.spec).length);
      expect(progress.at(-1)).toBe(61856 * 4);
      expect(plannedWeightBytes(source.spec, "F32", 30_000)).toBe(files.reduce((sum, name) => sum + readFileSync(join(dir, name)).byteLength, 0));
      await withCheckpoint(dir, async (copy) => expect(await allBytes(copy)).toEqual(await allBytes(source)));
    });
  });

  test("reads values, rows and stored bytes", async () => {
    await withCheckpoint(goldenDir("moe/qwen2_moe"), async (source) => {
      const whole = await source.readFloat32("layers.1.experts.3.down");
      expect(whole).toHaveLength(32 * 16);
      expect(await source.readRows("layers.1.experts.3.down", 5, 2)).toEqual(whole.slice(5 * 16, 7 * 16));
      expect(await source.readRows("layers.0.qBias", 31, 1)).toHaveLength(1);
      expect(await source.readRows("embed", 96, 0)).toHaveLength(0);
      await expect(source.readRows("embed", 96, 1)).rejects.toThrow("rows 96 to 97 of embed, which has 96");
      await expect(source.readFloat32("layers.9.q")).rejects.toThrow("no slot layers.9.q");
      expect(source.tensors.get("model.layers.1.mlp.shared_expert_gate.weight")).toEqual({ file: "model.safetensors", dtype: "F32", shape: [1, 32], bytes: 128 });
    });
  });

  test.each(["F16", "BF16"] as const)("%s folders hold the rounded values and say so", async (dtype) => {
    await withCheckpoint(goldenDir("dense/llama"), async (source) => {
      const dir = fresh();
      await rewrite(source, dir, { dtype, tensor: ({ key }) => source.readFloat32(key) });
      await withCheckpoint(dir, async (copy) => {
        expect(copy.dtype).toBe(dtype);
        expect(copy.config).toMatchObject({ dtype: dtype === "F16" ? "float16" : "bfloat16", torch_dtype: dtype === "F16" ? "float16" : "bfloat16" });
        const values = await source.readFloat32("layers.0.q");
        expect(await copy.readFloat32("layers.0.q")).toEqual(toFloat32(dtype, fromFloat32(dtype, values)));
        expect(await copy.readRows("layers.0.q", 3, 4)).toEqual((await copy.readFloat32("layers.0.q")).slice(96, 224));
      });
    });
  });

  test("buffers are ignored, and a head beside a tied embedding is named as unused", async () => {
    const dir = variant("dense/llama", (tensors) => [...tensors, { name: "model.layers.0.self_attn.rotary_emb.inv_freq", dtype: "F32", shape: [4], bytes: new Uint8Array(16) }]);
    await withCheckpoint(dir, async (checkpoint) => expect(checkpoint.unused).toEqual([]));
    const config = join(dir, "config.json");
    writeFileSync(config, readFileSync(config, "utf8").replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'));
    await withCheckpoint(dir, async (checkpoint) => expect(checkpoint.unused).toEqual(["lm_head.weight"]));
  });
});

describe("folders that cannot be opened", () => {
  const cases: [string, () => string, string][] = [
    ["no folder", () => join(root, "nowhere"), "nowhere: no such folder"],
    ["a file", () => join(goldenDir("dense/llama"), "config.json"), "this is a file, expected a model folder"],
    ["no config", () => {
      const dir = variant("dense/llama");
      rmSync(join(dir, "config.json"));
      return dir;
    }, "folder has no config.json"],
    ["broken config", () => {
      const dir = variant("dense/llama");
      writeFileSync(join(dir, "config.json"), "{,");
      return dir;
    }, "config.json: not valid JSON"],
    ["only pickled weights", () => {
      const dir = variant("dense/llama");
      renameSync(join(dir, "model.safetensors"), join(dir, "pytorch_model.bin"));
      return dir;
    }, "weights are only in pytorch_model.bin, expected safetensors; convert them first"],
    ["no weights", () => {
      const dir = variant("dense/llama");
      rmSync(join(dir, "model.safetensors"));
      return dir;
    }, "folder has no model.safetensors and no model.safetensors.index.json"],
    ["shards without index", () => {
      const dir = variant("dense/llama");
      renameSync(join(dir, "model.safetensors"), join(dir, "model-00001-of-00002.safetensors"));
      return dir;
    }, "folder has model-00001-of-00002.safetensors but no model.safetensors.index.json"],
    ["missing tensor", () => variant("dense/llama", (tensors) => tensors.filter(({ name }) => !name.includes("q_proj"))),
      "tensor model.layers.0.self_attn.q_proj.weight and 1 more missing, config.json (llama, 2 layers) asks for 21"],
    ["wrong shape", () => variant("dense/llama", (tensors) => tensors.map((tensor) => (tensor.name === "model.norm.weight" ? { ...tensor, shape: [4, 8] } : tensor))),
      "model.safetensors: tensor model.norm.weight has shape [4, 8], config.json asks for [32]"],
    ["wrong dtype", () => variant("dense/llama", (tensors) => tensors.map((tensor) => (tensor.name === "model.norm.weight" ? { ...tensor, dtype: "I32" } : tensor))),
      "tensor model.norm.weight is stored as I32, expected F32, F16, BF16 or F64"],
    ["cut short", () => {
      const dir = variant("dense/llama");
      truncateSync(join(dir, "model.safetensors"), 50_000);
      return dir;
    }, "is it cut short?"],
    ["cut in the header", () => {
      const dir = variant("dense/llama");
      truncateSync(join(dir, "model.safetensors"), 100);
      return dir;
    }, "the file ends 92 bytes after it"],
    ["empty weights", () => {
      const dir = variant("dense/llama");
      truncateSync(join(dir, "model.safetensors"), 0);
      return dir;
    }, "file has 0 bytes, a safetensors file has at least 8"],
    ["replaced halfway", () => {
      const dir = variant("dense/llama");
      renameSync(dir, previousName(dir));
      return dir;
    }, "an interrupted replacement left the old version in"],
  ];
  test.each(cases)("%s", async (_, make, line) => {
    const error = await failure(openCheckpoint(make()));
    expect(error.kind).toBe("input");
    expect(error.line).toContain(line);
  });

  test("index and files must agree", async () => {
    const sharded = (edit: (map: Record<string, string>) => void): string => {
      const dir = fresh();
      cpSync(goldenDir("moe/mixtral"), dir, { recursive: true });
      const path = join(dir, "model.safetensors.index.json");
      const index = JSON.parse(readFileSync(path, "utf8")) as { weight_map: Record<string, string> };
      edit(index.weight_map);
      writeFileSync(path, JSON.stringify(index));
      return dir;
    };
    const line = async (dir: string): Promise<string> => (await failure(openCheckpoint(dir))).line;
    expect(await line(sharded((map) => void delete map["lm_head.weight"]))).toContain("tensor lm_head.weight is in this file, model.safetensors.index.json does not list it");
    expect(await line(sharded((map) => void (map["lm_head.weight"] = "model-00003-of-00003.safetensors")))).toContain("says model-00003-of-00003.safetensors");
    expect(await line(sharded((map) => void (map["extra"] = "model-00001-of-00003.safetensors")))).toContain("tensor extra is not in this file");
    expect(await line(sharded((map) => void (map["extra"] = "model-00009.safetensors")))).toContain("model-00009.safetensors is missing");
    const dir = sharded(() => undefined);
    rmSync(join(dir, "model-00002-of-00003.safetensors"));
    expect(await line(dir)).toContain("model-00002-of-00003.safetensors is missing, model.safetensors.index.json lists it");
  });
});

describe("writing", () => {
  const zeros: WriteOptions["tensor"] = ({ shape }) => Promise.resolve(new Float32Array(shape.reduce((a, b) => a * b, 1)));
  const spec = (): Promise<Checkpoint["spec"]> => withCheckpoint(goldenDir("dense/qwen3"), (checkpoint) => Promise.resolve(checkpoint.spec));

  test("asks for every slot once, in write order, and copies carried and further files", async () => {
    const source = variant("dense/qwen3");
    writeFileSync(join(source, "tokenizer.json"), "{}");
    writeFileSync(join(source, "modeling_x.py"), "");
    const asked: string[] = [];
    const dir = fresh();
    const model = await spec();
    await writeCheckpoint({
      dir, spec: model, dtype: "BF16", carry: source, files: { "README.md": "hello", "generation_config.json": "{}" },
      tensor: (slot) => {
        asked.push(slot.key);
        return zeros(slot);
      },
    });
    expect(asked).toEqual(namedSlots(model).map(({ slot }) => slot.key));
    expect(readdirSync(dir).sort()).toEqual(["README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]);
    expect(readFileSync(join(dir, "generation_config.json"), "utf8")).toBe("{}");
  });

  test("a taken folder is refused, or replaced as a whole", async () => {
    const dir = variant("dense/llama");
    const before = readdirSync(dir);
    const model = await spec();
    expect((await failure(writeCheckpoint({ dir, spec: model, dtype: "F32", tensor: zeros }))).message).toContain("folder exists and is not empty");
    expect(readdirSync(dir)).toEqual(before);
    await writeCheckpoint({ dir, spec: model, dtype: "F32", tensor: zeros, overwrite: true, carry: dir });
    expect(readdirSync(dir).sort()).toEqual(["config.json", "generation_config.json", "model.safetensors"]);
    await withCheckpoint(dir, (checkpoint) => Promise.resolve(expect(checkpoint.spec).toEqual(model)));
    expect(existsSync(previousName(dir))).toBe(false);
  });

  test("an open model can be replaced by what is read from it", async () => {
    const dir = variant("dense/llama");
    await withCheckpoint(dir, async (source) => {
      const before = await allBytes(source);
      await rewrite(source, dir, { overwrite: true });
      await withCheckpoint(dir, async (copy) => expect(await allBytes(copy)).toEqual(before));
    });
  });

  test("a failure in the middle leaves nothing, or the old folder", async () => {
    const model = await spec();
    let calls = 0;
    const failing: WriteOptions["tensor"] = (slot) => (++calls % 7 === 0 ? Promise.reject(new Error("boom")) : zeros(slot));
    const parent = fresh();
    mkdirSync(parent);
    await expect(writeCheckpoint({ dir: join(parent, "m"), spec: model, dtype: "F32", tensor: failing })).rejects.toThrow("boom");
    expect(readdirSync(parent)).toEqual([]);
    const dir = variant("dense/llama");
    await expect(writeCheckpoint({ dir, spec: model, dtype: "F32", tensor: failing, overwrite: true })).rejects.toThrow("boom");
    await withCheckpoint(dir, (checkpoint) => Promise.resolve(expect(checkpoint.spec.family).toBe("llama")));
  });

  test("what a killed writer leaves is not a model", async () => {
    const model = await spec();
    const parent = fresh();
    const states: string[] = [];
    await writeCheckpoint({
      dir: join(parent, "m"), spec: model, dtype: "F32", maxShardBytes: 20_000,
      tensor: async (slot) => {
        expect(existsSync(join(parent, "m"))).toBe(false);
        const partial = readdirSync(parent);
        expect(partial).toHaveLength(1);
        expect(partial[0]).toMatch(/^\.m\.partial-\d+$/);
        states.push((await failure(openCheckpoint(join(parent, partial[0]!)))).message);
        return zeros(slot);
      },
    });
    expect(new Set(states)).toEqual(new Set(["folder has no config.json"]));
    expect(readdirSync(parent)).toEqual(["m"]);
  });

  test("places that cannot be written to", async () => {
    const model = await spec();
    const file = fresh();
    writeFileSync(file, "");
    const write = (dir: string): Promise<unknown> => writeCheckpoint({ dir, spec: model, dtype: "F32", tensor: zeros });
    expect((await failure(write(join(file, "below")))).kind).toBe("input");
    expect((await failure(write(file))).message).toContain("this is a file");
    expect((await failure(write("/proc/none/m"))).line).toContain("/proc/none/m");
  });

  test("too large for the disk is known before anything is written", async () => {
    const model = await spec();
    const dir = fresh();
    const layers = Array.from({ length: 9000 }, () => ({ window: null, ffn: { kind: "dense", inner: 2 ** 29, bias: false } as const }));
    const error = await failure(writeCheckpoint({ dir, spec: { ...model, layers }, dtype: "F32", tensor: zeros }));
    expect(error.kind).toBe("stopped");
    expect(error.line).toMatch(/not enough disk space: \d+\.\d GB needed/);
    expect(existsSync(dir)).toBe(false);
  });

  test("a wrong amount of data, and names that are taken", async () => {
    const model = await spec();
    await expect(writeCheckpoint({ dir: fresh(), spec: model, dtype: "F32", tensor: () => Promise.resolve(new Float32Array(3)) })).rejects.toThrow("embed: got 12 bytes, F32 [96, 32] takes 12288");
    for (const name of ["config.json", "model.safetensors", "../x", ""]) {
      expect((await failure(writeCheckpoint({ dir: fresh(), spec: model, dtype: "F32", tensor: zeros, files: { [name]: "" } }))).message).toContain("cannot be a further file");
    }
  });
});
