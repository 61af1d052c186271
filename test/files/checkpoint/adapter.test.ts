/** LoRA adapters merged in: bytes against torch's, every way to read them, and what is refused. */
import { at, entryOf } from "../../../src/base/at.js";
import { matrixShape } from "../../../src/files/numeric/rectangles.js";
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { openCheckpoint, type Checkpoint } from "../../../src/files/checkpoint/open.js";
import { parseAdapterConfig, rankAndScale } from "../../../src/base/schemas/index.js";
import { convertBytes, toFloat32 } from "../../../src/files/numeric/dtype.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { temporaryFolder } from "../io/temporary.js";
import {
  adapterBases,
  adapterCases,
  adapterDir,
  baseDir,
  changedAdapter,
  rounded,
  storedBytes,
  type AdapterCase,
} from "../../support/adapters.js";
import { golden } from "../../support/golden.js";

const root = temporaryFolder();
let folderCount = 0;
const fresh = (): string => join(root, `adapter${folderCount++}`);
const sha = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const expected = JSON.parse(readFileSync(golden("adapters", "expected.json"), "utf8")) as Record<
  AdapterCase,
  Record<string, { F32: string; BF16: string }>
>;

describe.each(adapterCases)("the adapter %s", (name) => {
  let merged: Checkpoint;
  let plain: Checkpoint;
  beforeAll(async () => {
    plain = await openCheckpoint(baseDir(name));
    merged = await openCheckpoint({ model: baseDir(name), adapter: adapterDir(name) });
  });
  afterAll(() => Promise.all([plain.close(), merged.close()]));

  it("gives the bytes that torch gives in float32", async () => {
    expect([...(merged.adapter?.changed ?? [])].sort()).toEqual(Object.keys(expected[name]).sort());
    for (const [tensor, { F32 }] of Object.entries(expected[name]))
      expect(sha(await storedBytes(merged, tensor)), tensor).toBe(F32);
  });

  it("gives the bytes that torch gives on a bfloat16 base, rounded once", async () => {
    const model = rounded(`dense/${adapterBases[name]}`, fresh(), "BF16");
    const low = await openCheckpoint({ model, adapter: adapterDir(name) });
    expect(low.dtype).toBe("BF16");
    for (const [tensor, { BF16 }] of Object.entries(expected[name]))
      expect(sha(convertBytes("F32", "BF16", await storedBytes(low, tensor))), tensor).toBe(BF16);
    await low.close();
  });

  it("is read alike as a whole, by rows and by rectangles; what it does not change is the model's", async () => {
    let changed = 0;
    for (const { key, shape } of slotsOf(merged.spec)) {
      const [rows, stride] = matrixShape(shape);
      const whole = await merged.readFloat32(key);
      const same =
        merged.dtypeOf(key) === plain.dtypeOf(key) &&
        sha(new Uint8Array(whole.slice().buffer)) ===
          sha(new Uint8Array((await plain.readFloat32(key)).slice().buffer));
      if (!same) changed++;
      const { dtype, bytes } = await merged.readBytes(key);
      expect(toFloat32(dtype, bytes), key).toEqual(whole);
      const count = Math.min(3, rows);
      expect(await merged.readRows(key, rows - count, count, new ArrayBuffer(4 * count * stride)), key).toEqual(
        whole.slice((rows - count) * stride),
      );
      const [columnStart, columnCount] = [Math.floor(stride / 3), Math.max(1, Math.floor(stride / 2))];
      for (const into of [undefined, new Uint8Array(4 * count * columnCount)]) {
        const rectangle = await merged.readRectangle(
          { key, rowStart: rows - count, rowCount: count, columnStart, columnCount, stride },
          into,
        );
        const values = Array.from({ length: count * columnCount }, (_, i) =>
          at(whole, (rows - count + Math.floor(i / columnCount)) * stride + columnStart + (i % columnCount)),
        );
        expect([...toFloat32(rectangle.dtype, rectangle.bytes)], key).toEqual(values);
      }
    }
    expect(changed).toBeGreaterThanOrEqual(Object.keys(expected[name]).length);
  });
});

describe("ranks and factors", () => {
  const config = (more: object): ReturnType<typeof parseAdapterConfig> =>
    parseAdapterConfig(JSON.stringify({ peft_type: "LORA", r: 4, lora_alpha: 8, ...more }), "adapter_config.json");

  it("follow PEFT's patterns: the first that fits the end of the path", () => {
    const of = config({
      rank_pattern: { q_proj: 2, "layers\\.[01]\\.mlp\\.up_proj": 16, up_proj: 3 },
      alpha_pattern: { "mlp.*": 1 },
    });
    expect(rankAndScale(of, "model.layers.0.self_attn.q_proj")).toEqual({ rank: 2, scale: 4 });
    expect(rankAndScale(of, "model.layers.1.mlp.up_proj")).toEqual({ rank: 16, scale: 1 / 16 });
    expect(rankAndScale(of, "model.layers.12.mlp.up_proj")).toEqual({ rank: 3, scale: 1 / 3 });
    // A pattern fits whole names of the path only.
    expect(rankAndScale(of, "model.layers.0.self_attn.my_q_proj")).toEqual({ rank: 4, scale: 2 });
  });

  it("are stabilized by the root of the rank", () => {
    expect(rankAndScale(config({ use_rslora: true }), "x")).toEqual({ rank: 4, scale: 4 });
  });
});

describe("an adapter is refused", () => {
  const lineOf = async (adapter: string, model = golden("dense/llama")): Promise<string> => {
    const error: unknown = await openCheckpoint({ model, adapter }).then(
      (open) => open.close().then(() => "no error"),
      (cause: unknown) => cause,
    );
    if (!(error instanceof UpcycleError)) return String(error);
    expect(error.kind).toBe("input");
    return error.line.replace(/^.*?adapter\d+/, "ADAPTER").replace(/^\S*golden/, "GOLDEN");
  };
  const merge = "merge it into the model with PEFT (merge_and_unload, save_pretrained) and use that";

  it.each([
    [{ use_dora: true }, "DoRA rescales the merged weights"],
    [{ bias: "lora_only" }, "trained biases are not merged here"],
    [{ lora_bias: true }, "biases of lora_B are not merged here"],
    [{ peft_type: "IA3" }, "this is no LoRA"],
    [
      { init_lora_weights: "pissa_niter_4" },
      "an initialization that changes the model's own weights (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA)",
    ],
    [{ trainable_token_indices: [3] }, "single trained tokens are not taken over"],
    [{ target_parameters: ["experts.down_proj"] }, "parameters outside linear modules are not merged here"],
    [{ layer_replication: [[0, 1]] }, "replicated layers make another model"],
    [{ alora_invocation_tokens: [1] }, "an activated LoRA has no merged weights"],
    [{ use_qalora: true }, "QALoRA pools its inputs"],
    [{ kasa_config: { beta: 1 } }, "a key of PEFT that may change what the adapter computes"],
    [{ rank_pattern: { "(": 2 } }, "this is no pattern that can be read"],
  ])("that says %j", async (config, words) => {
    const line = await lineOf(changedAdapter("llama", fresh(), config));
    expect(line).toContain(words);
    expect(line).toContain(merge);
    expect(line).toContain("adapter_config.json:");
    expect(line).toContain(Object.keys(config)[0]!);
  });

  it("that changes packed experts, as PEFT saves it, with and without the key that says so", async () => {
    const place = golden("found/adapter_of_parameters");
    const source = { model: golden("moe/mixtral"), adapter: place };
    const line = async (adapter: string): Promise<string> =>
      openCheckpoint({ ...source, adapter }).then(
        () => "no error",
        (cause: UpcycleError) => cause.line,
      );
    expect(await line(place)).toContain("(target_parameters): parameters outside linear modules are not merged here");
    const silent = fresh();
    cpSync(place, silent, { recursive: true });
    const file = join(silent, "adapter_config.json");
    const config = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
    writeFileSync(file, JSON.stringify({ ...config, target_parameters: null }));
    expect(await line(silent)).toContain("mlp.experts");
  });

  it("that names a module trained as a whole, and does not have it", async () => {
    expect(await lineOf(changedAdapter("llama", fresh(), { modules_to_save: ["lm_head"] }))).toContain(
      "modules_to_save names lm_head, and the adapter has no such tensor of this model",
    );
  });

  it("whose numbers make no sense", async () => {
    expect(await lineOf(changedAdapter("llama", fresh(), { r: 0 }))).toContain("(r)");
    expect(await lineOf(changedAdapter("llama", fresh(), { r: 5 }))).toMatch(
      /tensor \S+lora_A\.weight has shape \[4, 32\], expected \[5, 32\] for rank 5/,
    );
  });

  const q = "base_model.model.model.layers.0.self_attn.q_proj";
  it("that holds anything but pairs of factors, or factors of another model", async () => {
    const rename = (to: string, from = `${q}.lora_A.weight`): string =>
      changedAdapter("llama", fresh(), {}, (tensors) => {
        tensors.set(to, entryOf(tensors, from));
        tensors.delete(from);
      });
    expect(await lineOf(rename(`${q}.lora_magnitude_vector.weight`))).toContain("is of DoRA");
    expect(await lineOf(rename(`${q}.lora_B.bias`))).toContain("is a bias of LoRA");
    expect(await lineOf(rename(`${q}.lora_E`))).toContain("is no factor of LoRA that is known here");
    expect(await lineOf(rename("base_model.model.lm_head.weight"))).toContain(
      "the adapter resizes the vocabulary, but has no model.embed_tokens.weight of the new size",
    );
    expect(await lineOf(rename(`${q}.lora_A.default.weight`))).toBe("no error");
    expect(
      await lineOf(changedAdapter("llama", fresh(), {}, (tensors) => tensors.delete(`${q}.lora_B.weight`))),
    ).toContain(`tensor ${q}.lora_A.weight has no lora_B beside it`);
    expect(
      await lineOf(
        changedAdapter("llama", fresh(), {}, (tensors) =>
          tensors.set(`${q}.lora_A.default.weight`, entryOf(tensors, `${q}.lora_A.weight`)),
        ),
      ),
    ).toContain("are of one module");
    expect(await lineOf(changedAdapter("llama", fresh(), {}, (tensors) => tensors.clear()))).toContain(
      "the adapter has no tensors",
    );
    expect(
      await lineOf(
        changedAdapter("llama", fresh(), {}, (tensors) =>
          tensors.set(`${q}.lora_A.weight`, { dtype: "I32", shape: [2, 32], bytes: new Uint8Array(256) }),
        ),
      ),
    ).toMatch(/is stored as I32|has shape/);
    expect(await lineOf(adapterDir("phi3"))).toContain(
      "the adapter changes model.layers.0.mlp.gate_up_proj, the model (llama, 2 layers) has no matrix",
    );
    expect(await lineOf(adapterDir("rslora"), golden("dense/llama_tied"))).toContain(
      "which embedding and head of this model share",
    );
  });

  it("that is not there, or lacks a file", async () => {
    expect(await lineOf(golden("dense/llama"))).toContain("folder has no adapter_config.json");
    const dir = changedAdapter("llama", fresh(), {});
    rmSync(join(dir, "adapter_model.safetensors"));
    expect(await lineOf(dir)).toContain("folder has no adapter_model.safetensors and no adapter_model.bin");
    const empty = fresh();
    mkdirSync(empty);
    writeFileSync(join(empty, "adapter_config.json"), "{");
    expect(await lineOf(empty)).toContain("this is not valid YAML");
    writeFileSync(join(empty, "adapter_config.json"), "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    expect(await lineOf(empty)).toContain("adapter_config.json: this is a Git LFS pointer");
  });
});

it("an adapter in the model's own folder is not merged in unasked, and a note says so", async () => {
  const dir = fresh();
  cpSync(golden("dense/llama"), dir, { recursive: true });
  cpSync(adapterDir("llama"), dir, { recursive: true });
  const [plain, merged] = [await openCheckpoint(dir), await openCheckpoint({ model: dir, adapter: dir })];
  expect(plain.notes).toEqual([expect.stringMatching(/^adapter_config\.json lies beside the model: .* not merged in/)]);
  expect(merged.notes).toEqual([]);
  await Promise.all([plain.close(), merged.close()]);
});
