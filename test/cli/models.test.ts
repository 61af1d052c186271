/**
 * The commands that read or make a model folder, as a user meets them. The file is long because it has a section for
 * each.
 */
import { existsSync, readFileSync, statSync, readdirSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { describe, expect, it } from "vitest";
import { entryOf, valueAt } from "../../src/base/at.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { golden, readTensors } from "../support/golden.js";
import { refusalOf } from "./in-process.js";
import { copyModel, editHeader, upcycle, upcycleJson } from "./upcycle.js";

const dir = temporaryFolder();
const llama = golden("dense/llama");

describe("convert, inspect and verify", () => {
  const moe = join(dir, "moe");

  it("make an MoE, describe it and find the parent's function in it", async () => {
    const conversion = await upcycle(
      "convert",
      llama,
      "--recipe",
      "E4G2T4",
      "--target",
      "mixtral",
      "--out",
      moe,
      "--no-report",
    );
    expect(conversion.code).toBe(0);
    expect(conversion.stdout.trimEnd().split("\n").slice(-2)).toEqual([
      `to measure: upcycle verify ${relative(process.cwd(), llama)} ${moe}`,
      `model: ${moe}`,
    ]);
    expect(conversion.stdout).toContain("kept exactly");

    const facts = await upcycleJson("inspect", moe);
    expect(facts).toMatchObject({
      dir: moe,
      dtype: "F32",
      unused: [],
      weightFiles: ["model.safetensors"],
      layers: [{ first: 0, last: 1, layer: { ffn: { kind: "moe", experts: 8, topK: 4, shared: null } } }],
      upcycle: { name: "E4G2T4", parent: { name: "llama", family: "llama" } },
    });
    expect(facts).not.toHaveProperty("tensors");

    const report = await upcycleJson("verify", llama, moe, "--tokens", "200", "--sequence", "32", "--threads", "1");
    expect(Object.keys(report)).toEqual([
      "maxAbsLogitDiff",
      "meanAbsLogitDiff",
      "denseLoss",
      "moeLoss",
      "maxAbsLogit",
      "relative",
      "tokens",
      "source",
      "sequence",
      "klDivergence",
      "topAgreement",
      "streamed",
      "precision",
      "layers",
      "verdict",
    ]);
    expect(report).toMatchObject({ tokens: 200, source: "random token ids (the model has no tokenizer.json)" });
    expect(report.relative).toBeLessThanOrEqual(1e-5);
    expect(report.moeLoss).toBeCloseTo(report.denseLoss as number, 5);
  });

  it("end with a report, in the folder, in the card and on the screen", async () => {
    const out = join(dir, "proven");
    const conversion = await upcycle("convert", llama, "--recipe", "E4G1T2", "--out", out, "--threads", "1");
    expect(conversion.code).toBe(0);
    expect(conversion.stdout).toContain("The two models compute the same function, up to rounding.");
    expect(conversion.stderr).toContain(
      "measuring on 256 tokens of random token ids (the model has no tokenizer.json), weights streamed from disk",
    );
    expect(conversion.stdout).not.toContain("to measure:");
    expect(Math.max(...conversion.stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
    const report = JSON.parse(readFileSync(join(out, "preservation.json"), "utf8")) as Record<string, unknown>;
    expect(report).toMatchObject({ version: 1, tokens: 256, streamed: true, verdict: { kind: "same" } });
    expect(readFileSync(join(out, "README.md"), "utf8")).toContain("Measured on 256 tokens of random token ids");
    const plain = await upcycleJson(
      "convert",
      llama,
      "--recipe",
      "E4G1T2",
      "--out",
      join(dir, "unproven"),
      "--no-report",
    );
    expect(plain).not.toHaveProperty("preservation");
    expect(existsSync(join(dir, "unproven", "preservation.json"))).toBe(false);
    expect(readFileSync(join(dir, "unproven", "README.md"), "utf8")).toContain("Not measured");
    // Complete, but not measured: the same command with a report measures it; once it has, the folder is taken.
    const before = statSync(join(dir, "unproven", "model.safetensors")).mtimeMs;
    const later = await upcycle("convert", llama, "--recipe", "E4G1T2", "--out", join(dir, "unproven"));
    expect(later.code, later.stderr).toBe(0);
    expect(later.stdout).toContain("1 weight file found, of the same conversion");
    expect(existsSync(join(dir, "unproven", "preservation.json"))).toBe(true);
    expect(statSync(join(dir, "unproven", "model.safetensors")).mtimeMs).toBe(before);
    for (const recipe of ["E4G1T2", "E8G1T2"]) {
      const again = await upcycle("convert", llama, "--recipe", recipe, "--out", join(dir, "unproven"));
      expect([again.code, again.stderr.includes("folder exists and is not empty")]).toEqual([2, true]);
    }
  });

  it("leave the model where it cannot be measured, and look at the text before anything is made", async () => {
    const source = copyModel(llama, join(dir, "broken-tokenizer"));
    writeFileSync(join(source, "tokenizer.json"), "{}");
    const out = join(dir, "unmeasured");
    const conversion = await upcycle("convert", source, "--recipe", "E2G1T1", "--out", out, "--json");
    expect(conversion.code).toBe(0);
    expect(JSON.parse(conversion.stdout)).toMatchObject({ model: out, preservation: null });
    expect((await upcycle("inspect", out)).code).toBe(0);
    const missing = await upcycle(
      "convert",
      llama,
      "--recipe",
      "E2G1T1",
      "--out",
      join(dir, "never"),
      "--text",
      join(dir, "no.txt"),
    );
    expect(missing.code).toBe(2);
    expect(existsSync(join(dir, "never"))).toBe(false);
  });

  it("end in one line where the tokenizer's pattern gives up on a prompt", async () => {
    const source = copyModel(llama, join(dir, "hostile-tokenizer"));
    writeFileSync(
      join(source, "tokenizer.json"),
      JSON.stringify({
        version: "1.0",
        truncation: null,
        padding: null,
        added_tokens: [],
        normalizer: null,
        post_processor: null,
        decoder: null,
        pre_tokenizer: { type: "Split", pattern: { Regex: "(a+)+$" }, behavior: "Isolated", invert: false },
        model: { type: "BPE", vocab: { a: 0, "!": 1 }, merges: [] },
      }),
    );
    const { code, stdout, stderr } = await upcycle(
      "generate",
      source,
      "--prompt",
      `${"a".repeat(40)}!`,
      "--threads",
      "1",
    );
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(
      /^upcycle: [^\n]*tokenizer\.json: encoding a text of 41 characters failed, because one of its patterns cannot be run on it \([^\n]*\n$/,
    );
  });

  it("say in words what verify measured", async () => {
    const same = await upcycle("verify", llama, llama, "--tokens", "64", "--threads", "1");
    expect(same).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("The two models compute the same function, to the last bit."),
    });
    const other = await upcycle("verify", llama, golden("dense/mistral"), "--tokens", "64", "--threads", "1");
    expect(other).toMatchObject({ code: 0, stdout: expect.stringContaining("do not compute the same function") });
  });

  it("verify streams what does not fit, and fails where a promise or a tolerance is not kept", async () => {
    const options = ["--tokens", "64", "--threads", "1"];
    const report = await upcycleJson("verify", llama, moe, ...options, "--memory", "1MB");
    expect(report).toMatchObject({
      streamed: true,
      precision: { parent: "F32", child: "F32" },
      verdict: { tolerance: 1e-5 },
    });
    expect((report.layers as { relative: number }[]).map(({ relative }) => relative <= 1e-6)).toEqual([true, true]);
    // Another model's child: the record promises its own parent's function.
    const otherParent = await upcycle("verify", golden("dense/llama_tied"), moe, ...options);
    expect(otherParent.code).toBe(1);
    expect(otherParent.stdout).toContain("do not compute the same function");
    expect(otherParent.stderr).toMatch(
      /moe: the logits differ by .* of the largest, but upcycle.json promises the function of llama; is this the parent/,
    );
    expect((await upcycle("verify", golden("dense/llama_tied"), moe, ...options, "--tolerance", "1e9")).code).toBe(0);
    const strict = await upcycle("verify", llama, moe, ...options, "--tolerance", "1e-30", "--json");
    expect(strict).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/of the largest, more than --tolerance 1e-30\n$/),
    });
    expect(JSON.parse(strict.stdout)).toMatchObject({ tokens: 64 });
  });

  it("write shards in another precision, and nothing in a dry run", async () => {
    const options = [
      "convert",
      llama,
      "--recipe",
      "E2G1T1",
      "--router",
      "softmax-topk",
      "--router-std",
      "0",
      "--seed",
      "7",
      "--dtype",
      "bfloat16",
    ];
    const shardDir = join(dir, "sharded");
    const dry = await upcycleJson(...options, "--dry-run");
    expect(dry).toMatchObject({
      dryRun: true,
      name: "E2G1T1",
      dtype: "bfloat16",
      recipe: { target: "qwen2_moe", seed: 7 },
      expected: { exactAtStart: true },
    });
    const conversion = await upcycleJson(...options, "--out", shardDir, "--shard-size", "40KB");
    expect(conversion).toMatchObject({ dryRun: false, model: shardDir, params: dry.params });
    expect((conversion.weightFiles as string[]).length).toBeGreaterThan(1);
    const again = await upcycle(...options, "--out", shardDir);
    expect(again.stderr).toMatch(/folder exists and is not empty/);
    expect(again.code).toBe(2);
    expect((await upcycle(...options, "--out", shardDir, "--overwrite")).code).toBe(0);
    expect(readdirSync(shardDir)).toContain("model.safetensors");
  });

  it("list tensors for people and for programs", async () => {
    const text = await upcycle("inspect", golden("moe/qwen3_moe_mixed"), "--tensors");
    expect(text.stdout).toMatch(/^layer 0 +dense, FFN 64\nlayer 1 +MoE, 8 experts of 16, top 2/m);
    expect(text.stdout).toContain("model.layers.1.mlp.experts.7.up_proj.weight");
    expect(Math.max(...text.stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
    const { tensors } = await upcycleJson("inspect", llama, "--tensors");
    expect(tensors).toContainEqual({
      name: "model.norm.weight",
      file: "model.safetensors",
      dtype: "F32",
      shape: [32],
      bytes: 128,
    });
  });
});

describe("upcycle forward", () => {
  it.each(["dense/qwen3", "moe/mixtral"])("writes the logits that transformers computes for %s", async (name) => {
    const expected = golden(name, "expected.safetensors");
    const output = join(dir, `${name.replace("/", "-")}.safetensors`);
    const { shape } = await upcycleJson(
      "forward",
      golden(name),
      "--input-ids",
      expected,
      "--output",
      output,
      "--threads",
      "1",
    );
    expect(shape).toEqual([2, 24, 96]);
    const [reference, logits] = [expected, output].map((path) => entryOf(readTensors(path), "logits"));
    expect(logits?.shape).toEqual(reference?.shape);
    const differences = reference?.data.map((value, i) => Math.abs(value - (logits?.data[i] ?? NaN))) ?? [NaN];
    expect(Math.max(...differences)).toBeLessThanOrEqual(1e-4);
  });
});

describe("upcycle export-onnx", () => {
  it("writes a file, says what goes in and comes out, and refuses what does not go together", async () => {
    const out = join(dir, "exported.onnx");
    const options = ["export-onnx", golden("moe/mixtral"), "--out", out, "--batch", "2", "--sequence", "8"];
    const outcome = await upcycle(...options);
    expect(outcome.code, outcome.stderr).toBe(0);
    expect(outcome.stdout).toMatch(
      /^\S+ parameters, \S+ [kM]B, written in .*\ninputs: ids \[2, 8\]\noutputs: logits \[2, 8, 96\]\nmodel: .*exported\.onnx\n$/,
    );
    expect(readFileSync(out).subarray(0, 2)).toEqual(Buffer.from([8, 9]));
    const training = await upcycleJson(...options, "--training", "--overwrite", "--weights", "beside");
    expect(training).toMatchObject({
      out,
      data: `${out}.data`,
      graph: { kind: "training", batch: 2, sequence: 8, zCoef: 0 },
    });
    expect((training.outputs as { name: string }[]).map(({ name }) => name).slice(0, 5)).toEqual([
      "loss",
      "balance_loss",
      "z_loss",
      "expert_counts.0",
      "expert_counts.1",
    ]);
    for (const [more, line] of [
      [[], `upcycle: ${out}: file exists; choose another name, or replace it (--overwrite)`],
      [
        ["--overwrite", "--z-loss", "1"],
        "upcycle: --z-loss: is only for a training graph; add --training, or leave it out",
      ],
      [
        ["--training", "--rows", "last"],
        "upcycle: --rows: a training graph has no logits; leave out --rows or --training",
      ],
    ] as const) {
      const { code, stderr } = await upcycle(...options, ...more);
      expect([code, stderr.trimEnd()]).toEqual([2, line]);
    }
  });
});

describe("a model that cannot be used is one line and exit 2", () => {
  const weights = "model.safetensors";
  const damagedCopy = (name: string, damage: (folder: string) => void): string => {
    const folder = copyModel(llama, join(dir, name));
    damage(folder);
    return folder;
  };

  it.each<[string, () => string, string]>([
    ["missing folder", () => join(dir, "none"), ": no such folder"],
    ["no model", () => dir, ": folder has no config.json; expected a Hugging Face model folder"],
    [
      "missing tensor",
      () =>
        damagedCopy("missing", (folder) =>
          editHeader(join(folder, weights), (header) => {
            header["model.other.weight"] = valueAt(header, "model.norm.weight");
            delete header["model.norm.weight"];
          }),
        ),
      ": tensor model.norm.weight missing, config.json (llama, 2 layers) asks for 21; the weights do not " +
        "belong to this config.json, or the download is incomplete",
    ],
    [
      "truncated file",
      () =>
        damagedCopy("short", (folder) =>
          writeFileSync(join(folder, weights), readFileSync(join(folder, weights)).subarray(0, 90_000)),
        ),
      "/model.safetensors: tensor model.layers.1.self_attn.k_proj.weight: data ends at byte 88576, but the " +
        "file holds only 87896 bytes of data (is it cut short?)",
    ],
    [
      "wrong dtype",
      () =>
        damagedCopy("dtype", (folder) =>
          editHeader(join(folder, weights), (header) => void (valueAt(header, "model.norm.weight").dtype = "I32")),
        ),
      "/model.safetensors: tensor model.norm.weight is stored as I32, expected F32, BF16, F16, F64, F8_E4M3 or " +
        "F8_E5M2; use the unquantized model it was made from",
    ],
  ])("named in the line: %s", async (_, make, line) => {
    const folder = make();
    for (const command of [
      ["inspect", folder],
      ["convert", folder, "--recipe", "E4G1T2", "--out", join(dir, "never")],
    ]) {
      const said = (await refusalOf(command)).replaceAll("\\", "/");
      expect(said.startsWith(`${folder.replaceAll("\\", "/")}${line}`), said).toBe(true);
    }
    expect(existsSync(join(dir, "never"))).toBe(false);
  });

  it.each<[string, string[], string]>([
    [
      "T not a multiple of G",
      ["convert", llama, "--recipe", "E4G4T6", "--out", join(dir, "never")],
      "recipe E4G4T6: T = 6 is not a multiple of G = 4, so tokens would get incomplete copies of the FFN; use " +
        "T4 or T8, or insist (--allow-uneven-topk, in a study allowUnevenTopK: true) and expect to start far " +
        "from the parent",
    ],
    [
      "convert under a file",
      ["convert", llama, "--recipe", "E4G1T2", "--out", join(llama, "config.json", "moe")],
      `${join(llama, "config.json", "moe")}: cannot create folder: a part of this path is a file, expected a folder`,
    ],
    [
      "forward under a file",
      [
        "forward",
        llama,
        "--input-ids",
        golden("dense/llama", "expected.safetensors"),
        "--output",
        join(llama, "config.json", "x"),
      ],
      `${join(llama, "config.json", "x")}: cannot write file: a part of this path is a file, expected a folder`,
    ],
    [
      "ids that are none",
      ["forward", llama, "--input-ids", golden("dense/llama", "model.safetensors"), "--output", join(dir, "never")],
      `${golden("dense/llama", "model.safetensors")}: no tensor input_ids, found lm_head.weight`,
    ],
    [
      "text without tokenizer",
      ["verify", llama, llama, "--text", join(dir, "none.txt")],
      `${llama}: the folder has no tokenizer.json`,
    ],
  ])("named in the line: %s", async (_, args, line) => {
    const said = await refusalOf(args);
    expect(said.startsWith(line), said).toBe(true);
    expect(existsSync(join(dir, "never"))).toBe(false);
  });

  it("and nothing else is written, by the program as a whole", async () => {
    const { code, stdout, stderr } = await upcycle("inspect", join(dir, "none"));
    expect([code, stdout, stderr]).toEqual([2, "", `upcycle: ${join(dir, "none")}: no such folder\n`]);
  });
});
