/** Folders that are no model that can be read: what is said of them. */
import { cpSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { encodeSafetensors } from "../../../src/files/formats/safetensors.js";
import { tensorsOf, writeTensors } from "../../support/adapters.js";
import { golden } from "../../support/golden.js";
import { temporaryFolder } from "../io/temporary.js";

const root = temporaryFolder();
let folders = 0;

/** A copy of a small model, changed. */
function folder(change: (dir: string) => void, model = "dense/llama"): string {
  const dir = join(root, `found${folders++}`);
  cpSync(golden(model), dir, { recursive: true });
  change(dir);
  return dir;
}

async function lineOf(dir: string): Promise<string> {
  const error: unknown = await openCheckpoint(dir).then(
    (checkpoint) => checkpoint.close().then(() => "opened"),
    (cause: unknown) => cause,
  );
  return error instanceof UpcycleError ? error.line.replaceAll(dir, "DIR") : String(error);
}

const weights = "model.safetensors";
const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n";
/** Another file with the weights' bytes in place of them. */
const renamed = (to: string) => (dir: string) => renameSync(join(dir, weights), join(dir, to));
const written =
  (text: string, name = weights) =>
  (dir: string) =>
    writeFileSync(join(dir, name), text);
/** Further tensors, and some that are gone. */
const withTensors =
  (added: Record<string, readonly number[]>, gone: RegExp = /^$/, config: Record<string, unknown> = {}) =>
  (dir: string): void => {
    const tensors = new Map([...tensorsOf(join(dir, weights))].filter(([name]) => !gone.test(name)));
    for (const [name, shape] of Object.entries(added))
      tensors.set(name, { dtype: "I32", shape, bytes: new Uint8Array(4 * shape.reduce((a, b) => a * b, 1)) });
    writeTensors(join(dir, weights), tensors);
    editConfig(dir, config);
  };

function editConfig(dir: string, change: Record<string, unknown>): void {
  const path = join(dir, "config.json");
  const config = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
  writeFileSync(path, JSON.stringify({ ...config, ...change }));
}

const q = "model.layers.0.self_attn.q_proj";

describe("a folder that cannot be read says what it is", () => {
  it.each([
    ["a Git LFS pointer", written(pointer), "git lfs pull"],
    ["a config that is one", written(pointer, "config.json"), "git lfs pull"],
    [
      "an index that is one",
      (dir: string) => (rmSync(join(dir, weights)), written(pointer, `${weights}.index.json`)(dir)),
      "index.json: this is a Git LFS pointer",
    ],
    ["a pointer of git-annex", written("/annex/objects/SHA256E-s123--00.safetensors\n"), "git annex get"],
    ["a refusal as JSON", written('{"error":"Access to model org/name is restricted"}'), "a server's refusal"],
    ["a web page", written("<!DOCTYPE html><html><body>Sign in</body></html>"), "this is a web page"],
    ["a refusal of the Hub", written("Access to model org/name is restricted"), "a server's refusal"],
    ["a GGUF file by another name", written("GGUF\u0003\0\0\0"), "a GGUF file of llama.cpp"],
    ["GGUF alone", renamed("model-q4_k.gguf"), "GGUF of llama.cpp, which is not read here"],
    ["Mistral's own form", renamed("consolidated.safetensors"), "the maker's own form"],
    ["Meta's own form", renamed("consolidated.00.pth"), "the maker's own form"],
    ["a download under way", renamed("model.safetensors.incomplete"), "a download that has not ended"],
    ["TensorFlow's weights", renamed("tf_model.h5"), "weights of another framework"],
    [
      "DeepSpeed's states",
      (dir: string) => (rmSync(join(dir, weights)), mkdirSync(join(dir, "global_step100"))),
      "merge it first",
    ],
    ["weights of another name", renamed("weights.safetensors"), "a name that is not looked for"],
    [
      "some of three shards",
      renamed("model-00002-of-00003.safetensors"),
      "(1 of 3 shards) but no model.safetensors.index",
    ],
    ["some of two old shards", renamed("pytorch_model-00001-of-00002.bin"), "(1 of 2 shards) but no pytorch_model.bin"],
    ["ZeRO-3 without gathering", withTensors({ [`${q}.weight`]: [0] }), "DeepSpeed's ZeRO-3 saves a model so"],
    ["GPTQ", withTensors({ [`${q}.qweight`]: [2, 2], [`${q}.g_idx`]: [2] }, /q_proj.weight/), "quantized by GPTQ"],
    [
      "AWQ",
      withTensors({ [`${q}.qweight`]: [2, 2], [`${q}.qzeros`]: [2] }, /q_proj.weight/),
      "quantized by GPTQ or AWQ",
    ],
    ["bitsandbytes, 4 bits", withTensors({ [`${q}.weight.absmax`]: [2] }), "quantized by bitsandbytes"],
    ["bitsandbytes, 8 bits", withTensors({ [`${q}.SCB`]: [2] }), "quantized by bitsandbytes"],
    [
      "compressed-tensors",
      withTensors({ [`${q}.weight_packed`]: [2] }, /q_proj.weight/),
      "quantized by compressed-tensors",
    ],
    ["NVFP4", withTensors({ [`${q}.weight_scale_2`]: [2] }), "quantized by NVFP4"],
    [
      "MLX",
      withTensors({ [`${q}.scales`]: [2], [`${q}.biases`]: [2] }, /^$/, { quantization: { bits: 4 } }),
      'quantized by MLX, although config.json does not say so (quantization is {"bits":4})',
    ],
  ])("%s", async (_, change, words) => {
    expect(await lineOf(folder(change))).toContain(words);
  });

  it("a folder of a training, of the Hub's cache, of llama.cpp, without config.json", async () => {
    const bare = (...names: string[]): string => {
      const dir = join(root, `bare${folders++}`);
      for (const name of names) mkdirSync(join(dir, name), { recursive: true });
      return dir;
    };
    expect(await lineOf(bare("checkpoint-500", "checkpoint-1000"))).toContain(
      "its models are in checkpoint-1000 and more",
    );
    expect(await lineOf(bare("blobs", "refs", "snapshots"))).toContain("a model's folder in the cache of the Hub");
    const gguf = bare("x");
    writeFileSync(join(gguf, "model.gguf"), "GGUF");
    expect(await lineOf(gguf)).toContain("GGUF of llama.cpp");
  });
});

describe("a config with NaN", () => {
  it("is read, as transformers reads it, unless the key is one that counts", async () => {
    const put = (key: string) => (dir: string) => {
      const path = join(dir, "config.json");
      const text = readFileSync(path, "utf8").replace(new RegExp(`"${key}":[^,]*,`), "");
      writeFileSync(path, text.replace("{", `{"${key}": NaN,`));
    };
    expect(await lineOf(folder(put("router_z_loss_coef")))).toBe("opened");
    expect(await lineOf(folder(put("rms_norm_eps")))).toContain("rms_norm_eps is NaN, expected a number above 0");
  });
});

describe("names that could be two things", () => {
  const both = (dir: string): void => {
    const tensors = tensorsOf(join(dir, weights));
    const all = [...tensors].flatMap(([name, tensor]) => [
      { name: `student.${name}`, ...tensor },
      { name: `teacher.${name}`, ...tensor },
    ]);
    writeFileSync(join(dir, weights), encodeSafetensors(all));
  };
  it("are refused", async () => {
    expect(await lineOf(folder(both))).toContain(
      "2 tensors could be the same part of the decoder (student.model.layers.0",
    );
  });

  it("are refused where experts are there one by one and packed", async () => {
    const packed = tensorsOf(golden("found/packed/mixtral", weights));
    const twice = (dir: string): void => {
      const tensors = new Map(packed);
      const { dtype } = [...packed.values()][0]!;
      for (let layer = 0; layer < 2; layer++)
        for (let expert = 0; expert < 4; expert++)
          for (const [part, shape] of [
            ["w1", [24, 16]],
            ["w3", [24, 16]],
            ["w2", [16, 24]],
          ] as const)
            tensors.set(`model.layers.${layer}.block_sparse_moe.experts.${expert}.${part}.weight`, {
              dtype,
              shape,
              bytes: new Uint8Array(4 * 16 * 24),
            });
      writeTensors(join(dir, weights), tensors);
    };
    expect(await lineOf(folder(twice, "found/packed/mixtral"))).toContain("both hold layers.0.experts.0.gate");
  });

  it("a head of its own that is missing is named, with what to do", async () => {
    expect(await lineOf(folder(withTensors({}, /^lm_head/)))).toBe(
      "DIR: tensor lm_head.weight is missing, and config.json says that it is not tied to the embedding; if the " +
        "embedding is the head of this model, set tie_word_embeddings to true in config.json; if not, this is no " +
        "language model, or the download is incomplete",
    );
  });
});
