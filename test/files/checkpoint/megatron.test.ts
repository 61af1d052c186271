/** Checkpoints of Megatron-Core in every form: new and old formats, spellings of keys, masters, padded vocabularies. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { openCheckpoint, openMegatron, type Checkpoint } from "../../../src/files/checkpoint/open.js";
import { joinPieces } from "../../../src/files/checkpoint/pieces.js";
import { parseDcpMetadata, writeDcpMetadata, type DcpTensor } from "../../../src/files/formats/dcp-metadata.js";
import { argumentsIn, settingsOfArguments } from "../../../src/model/decoder/megatron-arguments.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { golden } from "../../support/golden.js";
import {
  below,
  part,
  writeDistributed,
  writeRank,
  type Stored,
  type Whole,
} from "../../support/megatron-checkpoints.js";

const root = mkdtempSync(join(tmpdir(), "upcycle-megatron-"));
let made = 0;
const fresh = (): string => {
  const folder = join(root, String(made++));
  mkdirSync(folder);
  return folder;
};
afterAll(() => rmSync(root, { recursive: true, force: true }));

const settings = {
  num_layers: 2,
  hidden_size: 32,
  num_attention_heads: 4,
  kv_channels: 16,
  group_query_attention: true,
  num_query_groups: 2,
  ffn_hidden_size: 48,
  max_position_embeddings: 64,
  position_embedding_type: "rope",
  normalization: "RMSNorm",
  swiglu: true,
  add_bias_linear: false,
  untie_embeddings_and_output_weights: true,
  padded_vocab_size: 128,
  init_method_std: 0.2,
};
const moeSettings = { ...settings, num_experts: 4, moe_ffn_hidden_size: 48, moe_router_pre_softmax: true };

/** Every slot's values, and closes. */
async function valuesOf(opened: Promise<Checkpoint>): Promise<Map<string, Float32Array>> {
  const checkpoint = await opened;
  const values = new Map<string, Float32Array>();
  try {
    for (const { key } of slotsOf(checkpoint.spec)) values.set(key, await checkpoint.readFloat32(key));
    return values;
  } finally {
    await checkpoint.close();
  }
}

/** Stored tensors of a golden save, whole, by key; those with a layer in front cut into layers. */
async function tensorsOf(name: string): Promise<Map<string, Whole>> {
  const checkpoint = await openCheckpoint(golden("megatron", name));
  const found = new Map<string, Whole>();
  for (const [key, tensor] of checkpoint.tensors) {
    const { shape } = tensor;
    const located = tensor as typeof tensor & { read(start: number, count: number): Promise<Uint8Array> };
    const bytes = await located.read(
      0,
      shape.reduce((a, b) => a * b, 1),
    );
    const values = new Float32Array(bytes.slice().buffer);
    if (!key.startsWith("decoder.layers.")) found.set(key, { shape, values });
    else
      for (let layer = 0; layer < shape[0]!; layer++) {
        const size = values.length / shape[0]!;
        const own = values.slice(layer * size, (layer + 1) * size);
        found.set(key.replace("layers.", `layers.${layer}.`), { shape: shape.slice(1), values: own });
      }
  }
  await checkpoint.close();
  return found;
}

describe("torch_dist folders", () => {
  it("of one model saved by two versions give the same values", async () => {
    const [new20, old14] = [golden("megatron/dense"), golden("megatron/dense-0.14")].map(openCheckpoint);
    expect(await valuesOf(old14!)).toEqual(await valuesOf(new20!));
  });

  it("with keys for each layer, and no settings, are read with the arguments of the run", async () => {
    const folder = golden("megatron/superset-moe-perlayer");
    await expect(openCheckpoint(folder)).rejects.toThrow("does not say what model it holds");
    const run = JSON.parse(readFileSync(join(folder, "run.json"), "utf8")) as { loaded_by: { command: string }[] };
    const given = settingsOfArguments(argumentsIn(run.loaded_by[0]!.command));
    const values = await valuesOf(openMegatron(folder, { settings: given }));
    const dense = await valuesOf(openCheckpoint(golden("megatron/superset-dense")));
    for (const [key, value] of dense)
      if (!/^layers\.1\.(gate|up|down)$/.test(key)) expect(values.get(key), key).toEqual(value);
    expect(values.get("layers.1.experts.3.up")).toEqual(dense.get("layers.1.up"));
  });

  it("with a key for each expert and half are read like the others", async () => {
    const stored = new Map<string, Stored>();
    for (const [key, tensor] of await tensorsOf("moe")) {
      if (key.includes("pre_mlp_layernorm")) continue;
      const experts = /^(.*\.experts\.experts)\.(linear_fc[12])\.weight$/.exec(key);
      if (experts === null) {
        stored.set(key, tensor);
        continue;
      }
      const [count = 1, ...shape] = tensor.shape;
      for (let expert = 0; expert < count; expert++) {
        const size = tensor.values.length / count;
        const own = { shape, values: tensor.values.slice(expert * size, (expert + 1) * size) };
        const name = `${experts[1]}.${expert}.${experts[2]}.weight`;
        if (experts[2] === "linear_fc2") stored.set(name, { ...own, boxes: 2 });
        else {
          stored.set(`${name}_w`, part(own, [0, 48]));
          stored.set(`${name}_v`, part(own, [48, 96]));
        }
      }
    }
    const folder = fresh();
    writeDistributed(folder, moeSettings, stored);
    expect(await valuesOf(openCheckpoint(folder))).toEqual(await valuesOf(openCheckpoint(golden("megatron/moe"))));
  });

  it("give the optimizer's float32 masters where they lie beside rounded weights", async () => {
    const stored = new Map<string, Stored>();
    for (const [key, tensor] of await tensorsOf("dense")) {
      stored.set(key, { ...tensor, dtype: "BF16" });
      stored.set(`chained_0.optimizer.state.fp32_param.${key}`, tensor);
      stored.set(`chained_0.optimizer.state.exp_avg.${key}`, tensor);
    }
    const folder = fresh();
    writeDistributed(folder, settings, stored);
    const checkpoint = await openCheckpoint(folder);
    expect([checkpoint.dtype, checkpoint.unused]).toEqual(["F32", []]);
    expect(checkpoint.notes.join()).toContain("float32 master weights");
    await checkpoint.close();
    expect(await valuesOf(openCheckpoint(folder))).toEqual(await valuesOf(openCheckpoint(golden("megatron/dense"))));
  });

  it("leave out the rows that make the vocabulary divisible", async () => {
    const words = async (more: Readonly<Record<string, string | number>>, vocab?: number): Promise<number> => {
      const folder = fresh();
      writeDistributed(folder, { ...settings, ...more }, await tensorsOf("dense"));
      const checkpoint = await openMegatron(folder, { vocab });
      expect((await checkpoint.readFloat32("head")).length).toBe(checkpoint.spec.vocab * 32);
      await checkpoint.close();
      return checkpoint.spec.vocab;
    };
    expect(await words({})).toBe(128);
    expect(await words({ vocab_size: 101 })).toBe(101);
    expect(await words({ vocab_size: 127, tokenizer_type: "NullTokenizer" })).toBe(128);
    expect(await words({ vocab_size: 127, tokenizer_type: "NullTokenizer", layernorm_epsilon: 1e-5 })).toBe(127);
    expect(await words({ vocab_size: 101 }, 99)).toBe(99);
    await expect(words({}, 200)).rejects.toThrow("said to have 200 words, its embedding has 128 rows");
  });

  it("name what is missing, cut short or contradicts .metadata", async () => {
    const copy = async (change: (folder: string) => void): Promise<string> => {
      const folder = fresh();
      writeDistributed(folder, settings, await tensorsOf("dense"));
      change(folder);
      return valuesOf(openCheckpoint(folder)).then(
        () => "read",
        (cause: Error) => cause.message,
      );
    };
    const shard = "__0_0.distcp";
    expect(await copy(() => undefined)).toBe("read");
    expect(await copy((folder) => rmSync(join(folder, shard)))).toContain("no such file");
    const cut = await copy((folder) =>
      writeFileSync(join(folder, shard), readFileSync(join(folder, shard)).subarray(0, 9000)),
    );
    expect(cut).toMatch(/ends at byte \d+, the file has 9000/);
    const swapped = await copy((folder) => {
      const bytes = readFileSync(join(folder, shard));
      bytes.copyWithin(0, bytes.indexOf("PK\x03\x04", 20000), 30000);
      writeFileSync(join(folder, shard), bytes);
    });
    expect(swapped).not.toBe("read");
  });

  it("are found by their tracker, and a save by its own name", async () => {
    const folder = fresh();
    writeDistributed(join(folder, "iter_0000007"), settings, await tensorsOf("dense"));
    writeFileSync(join(folder, "latest_checkpointed_iteration.txt"), "7\n");
    const byTracker = await valuesOf(openCheckpoint(folder));
    expect(await valuesOf(openCheckpoint(join(folder, "iter_0000007")))).toEqual(byTracker);
    writeFileSync(join(folder, "latest_checkpointed_iteration.txt"), "8");
    await expect(openCheckpoint(folder)).rejects.toThrow("there is no checkpoint iter_0000008");
    writeFileSync(join(folder, "latest_checkpointed_iteration.txt"), "../..");
    await expect(openCheckpoint(folder)).rejects.toThrow("expected a number or release");
  });
});

describe("folders of ranks (the old format)", () => {
  /** Names of modules as a rank saves them; `te`: norms inside the linear layers. */
  const moduleName = (key: string, te: boolean): string =>
    te
      ? key
      : key
          .replace("self_attention.linear_qkv.layer_norm_", "input_layernorm.")
          .replace("mlp.linear_fc1.layer_norm_", "pre_mlp_layernorm.");

  /** The rank's part of a tensor. */
  function shard(key: string, tensor: Whole, rank: number, of: number): Whole {
    const share = (whole: number): [number, number] => [(rank * whole) / of, ((rank + 1) * whole) / of];
    if (/linear_proj|linear_fc2/.test(key)) return part(tensor, share(tensor.shape[1]!), 1);
    if (/linear_fc1\.weight/.test(key)) {
      const half = tensor.shape[0]! / 2;
      return below(part(part(tensor, [0, half]), share(half)), part(part(tensor, [half, 2 * half]), share(half)));
    }
    return /linear_qkv\.weight|word_embeddings|output_layer/.test(key) ? part(tensor, share(tensor.shape[0]!)) : tensor;
  }

  async function writeRanks(
    name: string,
    sizes: { tensor: number; pipeline: number; expert: number },
    { te = false, fused = false } = {},
  ): Promise<string> {
    const folder = fresh();
    const { tensor: tp, pipeline: pp, expert: ep } = sizes;
    const own = { ...(name === "moe" ? moeSettings : settings), layernorm_epsilon: 1e-5 };
    const args = {
      ...own,
      tensor_model_parallel_size: tp,
      pipeline_model_parallel_size: pp,
      expert_model_parallel_size: ep,
    };
    const tensors = await tensorsOf(name);
    const [layers, experts] = [2 / pp, 4 / ep];
    for (let t = 0; t < tp; t++)
      for (let p = 0; p < pp; p++)
        for (let e = 0; e < ep; e++) {
          const mine = new Map<string, Whole>();
          for (const [key, tensor] of tensors) {
            if (key.includes("pre_mlp_layernorm")) continue;
            const layer = /layers\.(\d+)\./.exec(key)?.[1];
            if (layer === undefined) {
              const last = /final|output/.test(key);
              if (last ? p === pp - 1 : p === 0) mine.set(key, shard(key, tensor, t, tp));
              continue;
            }
            if (Math.floor(Number(layer) / layers) !== p) continue;
            const local = key.replace(`layers.${layer}.`, `layers.${Number(layer) % layers}.`);
            const matrix = /experts\.experts\.linear_fc([12])\.weight/.exec(local)?.[1];
            if (matrix === undefined) {
              mine.set(moduleName(local, te), shard(key, tensor, t, tp));
              continue;
            }
            const size = tensor.values.length / 4;
            const all: Whole[] = Array.from({ length: experts }, (_, i) => {
              const at = (e * experts + i) * size;
              const whole = { shape: tensor.shape.slice(1), values: tensor.values.slice(at, at + size) };
              return shard(`linear_fc${matrix}.weight`, whole, t, tp);
            });
            const prefix = local.replace(/experts\.experts\..*$/, "experts");
            if (fused) mine.set(`${prefix}.weight${matrix}`, fuse(all, Number(matrix)));
            else
              all.forEach((one, i) =>
                mine.set(
                  te
                    ? `${prefix}.linear_fc${matrix}.weight${i}`
                    : `${prefix}.local_experts.${i}.linear_fc${matrix}.weight`,
                  one,
                ),
              );
          }
          const digits = (one: number): string => `_${String(one).padStart(3, "0")}`;
          const rank = `mp_rank_${String(t).padStart(2, "0")}${pp > 1 ? digits(p) : ""}${ep > 1 ? digits(e) : ""}`;
          writeRank(join(folder, "iter_0000007", rank), args, mine);
        }
    writeFileSync(join(folder, "latest_checkpointed_iteration.txt"), "7");
    return folder;
  }

  /** [in, out] matrices of all experts, one behind the other in memory. */
  function fuse(experts: readonly Whole[], matrix: number): Whole {
    const [out = 1, inside = 1] = experts[0]!.shape;
    const values = new Float32Array(experts.length * out * inside);
    experts.forEach(({ values: own }, e) => {
      for (let i = 0; i < out; i++)
        for (let j = 0; j < inside; j++) values[e * out * inside + j * out + i] = own[i * inside + j]!;
    });
    return { shape: matrix === 1 ? [inside, experts.length * out] : [experts.length * inside, out], values };
  }

  const layouts = [1, 2].flatMap((tensor) =>
    [1, 2].flatMap((pipeline) => [1, 2].map((expert) => ({ tensor, pipeline, expert }))),
  );

  it.each(layouts)("with %o ranks give the values of the new format", async (sizes) => {
    const wanted = await valuesOf(openCheckpoint(golden("megatron/moe")));
    expect(await valuesOf(openCheckpoint(await writeRanks("moe", sizes)))).toEqual(wanted);
    expect(await valuesOf(openCheckpoint(await writeRanks("moe", sizes, { te: true })))).toEqual(wanted);
  });

  it("of a dense model, and of experts fused into one matrix, are read too", async () => {
    const dense = await writeRanks("dense", { tensor: 2, pipeline: 2, expert: 1 });
    expect(await valuesOf(openCheckpoint(dense))).toEqual(await valuesOf(openCheckpoint(golden("megatron/dense"))));
    const fused = await writeRanks("moe", { tensor: 1, pipeline: 1, expert: 2 }, { fused: true });
    expect(await valuesOf(openCheckpoint(fused))).toEqual(await valuesOf(openCheckpoint(golden("megatron/moe"))));
  });

  it("say which part of which tensor a missing rank leaves open", async () => {
    const folder = await writeRanks("dense", { tensor: 2, pipeline: 1, expert: 1 });
    rmSync(join(folder, "iter_0000007", "mp_rank_01"), { recursive: true });
    await expect(valuesOf(openCheckpoint(folder))).rejects.toThrow("lie in no shard");
  });
});

describe("what is claimed", () => {
  const copied = (): string => {
    const folder = join(root, `claimed${made++}`);
    cpSync(golden("megatron/dense/iter_0000012"), folder, { recursive: true });
    return folder;
  };
  const rewrite = (folder: string, change: (tensor: DcpTensor) => DcpTensor): void => {
    const path = join(folder, ".metadata");
    const { tensors, objects } = parseDcpMetadata(new Uint8Array(readFileSync(path)), path);
    const changed = [...tensors].map(([key, tensor]) => [key, key === "output_layer.weight" ? change(tensor) : tensor]);
    writeFileSync(path, writeDcpMetadata({ tensors: new Map(changed as [string, DcpTensor][]), objects }));
  };

  it("must be there: a chunk larger than its bytes, or behind the end of its file, is refused at once", async () => {
    const large = copied();
    rewrite(large, ({ dtype, chunks: [chunk] }) => ({
      ...{ dtype, shape: [2 ** 30, 2 ** 20] },
      chunks: [{ ...chunk!, offsets: [0, 0], sizes: [2 ** 30, 2 ** 20] }],
    }));
    await expect(openCheckpoint(large)).rejects.toThrow(/too few for \[1073741824, 1048576\]/);
    const behind = copied();
    rewrite(behind, ({ chunks: [chunk], ...tensor }) => ({ ...tensor, chunks: [{ ...chunk!, offset: 2 ** 40 }] }));
    await expect(openCheckpoint(behind)).rejects.toThrow(/an item of __0_0.distcp ends at byte \d+, the file has \d+/);
  });

  it("by settings is compared with what is stored before every expert gets a name", async () => {
    const folder = join(root, `claimed${made++}`);
    const values = new Float32Array(64);
    const many = {
      ...{ num_layers: 2, hidden_size: 8, num_attention_heads: 2, ffn_hidden_size: 8, max_position_embeddings: 8 },
      ...{ padded_vocab_size: 8, num_experts: 2 ** 20, position_embedding_type: "rope" },
    };
    writeDistributed(folder, many, new Map([["embedding.word_embeddings.weight", { shape: [8, 8], values }]]));
    await expect(openCheckpoint(folder)).rejects.toThrow(/the settings are those of \d+ parameters, 64 are stored/);
  });
});

describe("a tensor in pieces", () => {
  it("gives any run of its elements, however it is cut", async () => {
    const size = fc.integer({ min: 1, max: 6 });
    await fc.assert(
      fc.asyncProperty(
        fc.tuple(size, size, size),
        fc.tuple(fc.nat(5), fc.nat(5)),
        fc.nat(200),
        fc.nat(200),
        async (shape, cuts, a, b) => {
          const [x, y, z] = shape;
          const whole = Float32Array.from({ length: x * y * z }, (_, i) => i);
          const pieces = grid(shape, [Math.min(cuts[0], y), Math.min(cuts[1], z)], whole);
          const tensor = joinPieces({ file: "f", dtype: "F32", shape, pieces, where: "w" });
          const start = a % whole.length;
          const count = b % (whole.length - start + 1);
          expect(new Float32Array((await tensor.read(start, count)).slice().buffer)).toEqual(
            whole.slice(start, start + count),
          );
        },
      ),
    );
  });

  it("is refused where pieces lie over each other, though as many elements are there as it has", () => {
    const read = (): Promise<Uint8Array<ArrayBuffer>> => Promise.resolve(new Uint8Array(0));
    const at = (offsets: number[], sizes: number[]): Parameters<typeof joinPieces>[0]["pieces"][number] => ({
      offsets,
      sizes,
      read,
    });
    const join = (...pieces: ReturnType<typeof at>[]): unknown =>
      joinPieces({ file: "f", dtype: "F32", shape: [4, 4], pieces, where: "w" });
    expect(() => join(at([0, 0], [2, 4]), at([0, 0], [2, 4]))).toThrow("the piece at [0, 0] lies over another one");
    expect(() => join(at([0, 0], [3, 4]), at([2, 2], [2, 2]))).toThrow("the piece at [2, 2] lies over another one");
    expect(() => join(at([0, 0], [2, 4]), at([2, 0], [1, 4]), at([3, 0], [1, 4]))).not.toThrow();
  });

  /** One piece for each index of the first axis, the others cut once where `cuts` says. */
  function grid(
    [x, y, z]: readonly [number, number, number],
    [row, column]: readonly number[],
    whole: Float32Array,
  ): Parameters<typeof joinPieces>[0]["pieces"] {
    const spans = (size: number, at: number): [number, number][] =>
      (
        [
          [0, at],
          [at, size],
        ] as [number, number][]
      ).filter(([from, to]) => to > from);
    return Array.from({ length: x }, (_, i) => i).flatMap((i) =>
      spans(y, row!).flatMap(([r0, r1]) =>
        spans(z, column!).map(([c0, c1]) => {
          const own: number[] = [];
          for (let r = r0; r < r1; r++) for (let c = c0; c < c1; c++) own.push(whole[(i * y + r) * z + c]!);
          return {
            offsets: [i, r0, c0],
            sizes: [1, r1 - r0, c1 - c0],
            read: async (start: number, count: number) =>
              new Uint8Array(Float32Array.from(own.slice(start, start + count)).buffer),
          };
        }),
      ),
    );
  }
});
