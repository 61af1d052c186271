/** `MODEL+ADAPTER` where a command takes a model: the same as the model that was merged by hand. */
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { at, entryOf } from "../../src/base/at.js";
import { randomStream } from "../../src/base/random.js";
import { encodeSafetensors } from "../../src/files/formats/safetensors.js";
import { weightHashes } from "../surgery/convert/hashes.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { adapterDir, tensorsOf, writeTensors } from "../support/adapters.js";
import { refusalOf } from "./in-process.js";
import { writeText, writeTrainFile } from "./tiny.js";
import { upcycle, upcycleJson } from "./upcycle.js";

const root = temporaryFolder();
const base = join(root, "run", "last");
const text = writeText(root);
const [lora, attention] = [join(root, "lora"), join(root, "attention")];
/** The model's name, which graphs and records carry, is that of the folder: so these two are called alike. */
const [words, merged] = [`${base}+${lora}`, join(root, "merged", "last+lora")];
const factor = 4 / 2;
const input = join(root, "ids.safetensors");

const floats = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.slice().buffer);
const bytesOf = (values: Float32Array): Uint8Array => new Uint8Array(values.buffer);

/** An adapter of rank 2 and alpha 4 on the first layer's modules; its change is about as large as the weights. */
function writeAdapter(dir: string, modules: readonly string[]): void {
  const model = tensorsOf(join(base, "model.safetensors"));
  const draw = (
    name: string,
    shape: readonly number[],
  ): { dtype: "F32"; shape: readonly number[]; bytes: Uint8Array } => {
    const values = new Float32Array(shape.reduce((a, b) => a * b));
    randomStream(5, name).normals(values, 0, 0, 0.2);
    return { dtype: "F32", shape, bytes: bytesOf(values) };
  };
  mkdirSync(dir);
  writeFileSync(join(dir, "adapter_config.json"), JSON.stringify({ peft_type: "LORA", r: 2, lora_alpha: 4 }));
  writeTensors(
    join(dir, "adapter_model.safetensors"),
    new Map(
      modules.flatMap((module) => {
        const [out, width] = entryOf(model, `model.layers.0.${module}.weight`).shape as [number, number];
        return (
          [
            ["lora_A", [2, width]],
            ["lora_B", [out, 2]],
          ] as const
        ).map(
          ([name, shape]) =>
            [`base_model.model.model.layers.0.${module}.${name}.weight`, draw(`${module}.${name}`, shape)] as const,
        );
      }),
    ),
  );
}

/** W + 2 B A in plain loops. */
function mergeByHand(dir: string): void {
  cpSync(base, dir, { recursive: true });
  const path = join(dir, "model.safetensors");
  const [model, adapter] = [tensorsOf(path), tensorsOf(join(lora, "adapter_model.safetensors"))];
  rmSync(path);
  for (const [name, tensor] of model) {
    const [loraA, loraB] = ["lora_A", "lora_B"].map((which) =>
      adapter.get(`base_model.model.${name.replace(/weight$/, `${which}.weight`)}`),
    );
    if (loraA === undefined || loraB === undefined) continue;
    const [w, a, b] = [floats(tensor.bytes), floats(loraA.bytes), floats(loraB.bytes)];
    const [rows, columns] = tensor.shape as [number, number];
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < columns; j++)
        w[i * columns + j] =
          at(w, i * columns + j) + factor * (at(b, 2 * i) * at(a, j) + at(b, 2 * i + 1) * at(a, columns + j));
    model.set(name, { ...tensor, bytes: bytesOf(w) });
  }
  writeTensors(path, model);
}

beforeAll(async () => {
  const { code, stderr } = await upcycle("train", writeTrainFile(root, "train.yaml", { training: { steps: 10 } }));
  expect(code, stderr).toBe(0);
  writeAdapter(lora, ["self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"]);
  writeAdapter(attention, ["self_attn.q_proj", "self_attn.v_proj"]);
  mergeByHand(merged);
  const ids = BigInt64Array.from({ length: 24 }, (_, i) => BigInt((i * 37) % 250));
  writeFileSync(
    input,
    encodeSafetensors([{ name: "input_ids", dtype: "I64", shape: [2, 12], bytes: new Uint8Array(ids.buffer) }]),
  );
});

/** What a command reports of the three models, times left out. */
async function reports(
  command: string,
  ...args: readonly string[]
): Promise<{ adapted: unknown; byHand: unknown; bare: unknown }> {
  const run = async (model: string): Promise<unknown> => {
    const { tokensPerSecond, promptTokensPerSecond, peakRssBytes, seconds, ...facts } = await upcycleJson(
      command,
      model,
      ...args,
    );
    expect([tokensPerSecond, promptTokensPerSecond, peakRssBytes, seconds].some((one) => one !== undefined)).toBe(true);
    return facts;
  };
  return { adapted: await run(words), byHand: await run(merged), bare: await run(base) };
}

describe("a model with its adapter computes what the merged model computes", () => {
  it("in perplexity: the loss, and so the perplexity, of a text", async () => {
    const { adapted, byHand, bare } = await reports("perplexity", text, "--sequence", "32", "--threads", "1");
    expect(adapted).toEqual(byHand);
    expect((adapted as { loss: number }).loss).not.toBeCloseTo((bare as { loss: number }).loss, 3);
  });

  it("in generate: the same text from the same draws", async () => {
    const { adapted, byHand, bare } = await reports(
      "generate",
      "--prompt",
      "the whale",
      "--max-new-tokens",
      "24",
      "--seed",
      "3",
      "--threads",
      "1",
    );
    expect(adapted).toEqual(byHand);
    expect(adapted).not.toEqual(bare);
  });

  it("in forward: every logit, to the last bit", async () => {
    const logits = async (model: string, name: string): Promise<Uint8Array> => {
      const output = join(root, `${name}.safetensors`);
      await upcycleJson("forward", model, "--input-ids", input, "--output", output, "--threads", "1");
      return entryOf(tensorsOf(output), "logits").bytes;
    };
    const [adapted, byHand, bare] = [
      await logits(words, "adapted"),
      await logits(merged, "by-hand"),
      await logits(base, "bare"),
    ];
    expect(adapted).toEqual(byHand);
    expect(adapted).not.toEqual(bare);
  });

  it("in export-onnx: the file, to the last byte", async () => {
    const exported = async (model: string, name: string): Promise<Buffer> => {
      const out = join(root, `${name}.onnx`);
      await upcycleJson("export-onnx", model, "--out", out, "--sequence", "8");
      return readFileSync(out);
    };
    const [adapted, byHand, bare] = [
      await exported(words, "adapted"),
      await exported(merged, "by-hand"),
      await exported(base, "bare"),
    ];
    expect(adapted.equals(byHand)).toBe(true);
    expect(adapted.equals(bare)).toBe(false);
  });

  it("in diff and verify: no difference, but from the model without it", async () => {
    expect(await upcycle("diff", words, merged, "--exit-code")).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^no difference: /) as string,
    });
    const { tensors, equal } = (await upcycleJson("diff", base, words)) as {
      tensors: { name: string; equal: boolean }[];
      equal: boolean;
    };
    expect(equal).toBe(false);
    expect(
      tensors
        .filter((one) => !one.equal)
        .map(({ name }) => name.replace("model.layers.0.", ""))
        .sort(),
    ).toEqual(["mlp.down_proj.weight", "mlp.gate_proj.weight", "self_attn.o_proj.weight", "self_attn.q_proj.weight"]);
    expect(await upcycle("diff", base, words, "--exit-code")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`\nupcycle: ${base}, ${words}: the models differ\n`) as string,
    });
    expect(await upcycleJson("verify", merged, words, "--tokens", "64", "--threads", "1")).toMatchObject({
      maxAbsLogitDiff: 0,
    });
    expect(
      await upcycle("verify", base, words, "--tokens", "64", "--threads", "1", "--tolerance", "1e-3"),
    ).toMatchObject({ code: 1, stderr: expect.stringContaining(`upcycle: ${words}: the logits differ by`) as string });
  });

  it("at the start of a training, which belongs to that adapter", async () => {
    const run = async (model: string, out: string): Promise<{ evals: unknown; steps: unknown }> => {
      const file = writeTrainFile(root, "further.yaml", { model, tokenizer: undefined, training: { steps: 3 } });
      const { evals, steps } = await upcycleJson("train", file, "--out", join(root, out));
      return { evals, steps };
    };
    const [adapted, byHand] = [await run(words, "train-adapted"), await run(merged, "train-by-hand")];
    expect(adapted).toEqual(byHand);
    expect(adapted.steps).toBe(3);
    // A finished run is found again; it is not another's.
    expect(await run(words, "train-adapted")).toEqual(adapted);
    await expect(run(`${base}+${attention}`, "train-adapted")).rejects.toThrow(
      "this folder holds another run: model.adapter was",
    );
    await expect(run(base, "train-adapted")).rejects.toThrow("this folder holds another run: model was");
  });

  it("as the parent of a study: every loss", async () => {
    interface Result {
      parents: Record<string, unknown>[];
      arms: { id: string; runs: { preservation: unknown; points: unknown }[] }[];
      commands: string[];
    }
    const run = async (parent: string, out: string): Promise<Result> => {
      const file = join(root, "study.yaml");
      const training = { steps: 2, batch: 2, sequence: 16, lr: { peak: 0.001 }, evalEvery: 1 };
      const arms = { dense: { kind: "dense" }, moe: { kind: "upcycled", recipe: "E2G2T2" } };
      writeFileSync(
        file,
        JSON.stringify({
          name: "tiny",
          threads: 1,
          parent,
          text: { files: [text], heldOut: 0.1 },
          continue: training,
          evaluation: { tokens: 200 },
          arms,
        }),
      );
      return (await upcycleJson("study", file, "--out", join(root, out))) as unknown as Result;
    };
    const [adapted, byHand] = [await run(words, "study-adapted"), await run(merged, "study-by-hand")];
    const losses = ({ parents, arms }: Result): unknown => [
      parents.map(({ loss }) => loss),
      arms.map(({ id, runs }) => [id, runs.map(({ preservation, points }) => [preservation, points])]),
    ];
    expect(losses(adapted)).toEqual(losses(byHand));
    expect(adapted.parents).toMatchObject([{ label: words, path: words }]);
    expect(adapted.commands.slice(1)).toEqual([
      expect.stringContaining(`upcycle convert ${words} --recipe E2G2T2 `),
      expect.stringContaining(`upcycle verify ${words} `),
    ]);
    // Another adapter is another parent: what is there of the first one's is not taken for it.
    expect(losses(await run(`${base}+${attention}`, "study-adapted"))).not.toEqual(losses(adapted));
  });
});

describe("a mixture with an adapter", () => {
  const moe = join(root, "moe");
  const adapted = `${moe}+${attention}`;
  beforeAll(() => upcycleJson("convert", base, "--recipe", "E4G1T2", "--no-report", "--out", moe));

  it("is measured as such: what upcycle.json promises is said of the mixture alone", async () => {
    const report = await upcycleJson("verify", base, adapted, "--tokens", "64", "--threads", "1");
    expect(report.relative).toBeGreaterThan(1e-3);
    expect(
      (await upcycleJson("verify", `${base}+${attention}`, adapted, "--tokens", "64", "--threads", "1")).relative,
    ).toBeLessThanOrEqual(1e-5);
  });

  it("is merged back into the parent with the adapter", async () => {
    const out = join(root, "merged-back");
    await upcycleJson("merge", adapted, "--out", out);
    expect(await upcycle("diff", `${base}+${attention}`, out, "--exit-code")).toMatchObject({ code: 0 });
    expect(JSON.parse(readFileSync(join(out, "merge.json"), "utf8"))).toMatchObject({
      from: { name: "moe+attention" },
    });
    const card = readFileSync(join(out, "README.md"), "utf8");
    expect(card).toContain("# moe+attention merged");
    expect(card).toContain("| its adapter | attention, LoRA of rank 2 merged into 2 matrices; licence: not stated");
    expect(await upcycle("merge", adapted, "--out", attention, "--overwrite")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("this is the source folder itself") as string,
    });
  });

  it("has its experts multiplied with the adapter merged in", async () => {
    const out = join(root, "multiplied");
    const { preservation } = (await upcycleJson(
      "convert",
      adapted,
      "--expert-multiply",
      "2",
      "--out",
      out,
      "--threads",
      "1",
    )) as { preservation: { relative: number } };
    expect(preservation.relative).toBeLessThanOrEqual(1e-5);
    expect(JSON.parse(readFileSync(join(out, "multiply.json"), "utf8"))).toMatchObject({
      from: { name: "moe+attention" },
    });
    await upcycleJson("convert", moe, "--expert-multiply", "2", "--out", join(root, "multiplied-bare"), "--no-report");
    expect(weightHashes(out)).not.toEqual(weightHashes(join(root, "multiplied-bare")));
  });
});

describe("inspect and targets of a model with an adapter", () => {
  it("say what is merged into what", async () => {
    const { stdout } = await upcycle("inspect", words, "--tensors");
    expect(stdout).toMatch(/^adapter +lora, LoRA of rank 2 merged into 4 matrices$/m);
    expect(stdout).toMatch(/^model\.layers\.0\.self_attn\.q_proj\.weight +F32 \+ LoRA /m);
    expect(stdout).toMatch(/^model\.layers\.0\.self_attn\.k_proj\.weight +F32 +\[/m);
    const { adapter, ...facts } = await upcycleJson("inspect", words);
    expect(adapter).toEqual({
      dir: lora,
      words: "lora, LoRA of rank 2 merged into 4 matrices",
      ranks: [2, 2],
      changed: expect.arrayContaining(["model.layers.0.mlp.down_proj.weight"]) as string[],
    });
    expect({ ...facts, adapter: null }).toEqual(await upcycleJson("inspect", base));
    expect(await upcycle("targets", words)).toEqual(await upcycle("targets", base));
  });
});

describe("an adapter that cannot be merged is refused in one line and with exit code 2", () => {
  const train = (model: string): string =>
    writeTrainFile(root, "refused.yaml", { model, tokenizer: undefined, out: join(root, "never") });
  const study = (parent: string): string => {
    const file = join(root, "refused-study.yaml");
    const block = { steps: 1, batch: 1, sequence: 16, lr: { peak: 0.001 } };
    writeFileSync(
      file,
      JSON.stringify({
        name: "never",
        parent,
        text: { files: [text], heldOut: 0.1 },
        continue: block,
        arms: { dense: { kind: "dense" } },
      }),
    );
    return file;
  };
  const never = join(root, "never");
  const takers: Readonly<Record<string, (model: string) => readonly string[]>> = {
    convert: (model) => ["convert", model, "--recipe", "E4G1T2", "--out", never],
    inspect: (model) => ["inspect", model],
    targets: (model) => ["targets", model],
    diff: (model) => ["diff", base, model],
    experts: (model) => ["experts", model],
    verify: (model) => ["verify", model, base],
    perplexity: (model) => ["perplexity", model, text],
    generate: (model) => ["generate", model, "--prompt", "a"],
    forward: (model) => ["forward", model, "--input-ids", input, "--output", `${never}.safetensors`],
    "export-onnx": (model) => ["export-onnx", model, "--out", `${never}.onnx`],
    merge: (model) => ["merge", model, "--out", never],
    multiply: (model) => ["convert", model, "--expert-multiply", "2", "--out", never],
    train: (model) => ["train", train(model)],
    study: (model) => ["study", study(model), "--out", never],
  };

  it.each(Object.entries(takers))(
    "%s refuses an adapter that is not there, and one of another model",
    async (_, taker) => {
      const nowhere = await refusalOf(taker(`${base}+${join(root, "nowhere")}`));
      expect(nowhere).toContain(`no such adapter: "${join(root, "nowhere")}"`);
      const foreign = await refusalOf(taker(`${base}+${adapterDir("phi3")}`));
      expect(foreign).toContain("is this adapter of another model");
      expect(`${nowhere}${foreign}`).not.toContain("\n");
    },
  );

  it("an adapter without its file of weights, a model where an adapter should stand, and an adapter alone", async () => {
    const bare = join(root, "bare-adapter");
    mkdirSync(bare);
    cpSync(join(lora, "adapter_config.json"), join(bare, "adapter_config.json"));
    expect(await refusalOf(["generate", `${base}+${bare}`, "--prompt", "a"])).toBe(
      `${bare}: folder has no adapter_model.safetensors and no adapter_model.bin; expected a LoRA ` +
        "adapter as PEFT saves it",
    );
    expect(await refusalOf(["generate", `${base}+${merged}`, "--prompt", "a"])).toBe(
      `${merged}: folder has no adapter_config.json; expected a LoRA adapter as PEFT saves it`,
    );
    expect(await refusalOf(["inspect", lora])).toBe(
      `${lora}: folder has no config.json; this is an adapter, which goes behind its model: MODEL+ADAPTER`,
    );
    expect(await refusalOf(["inspect", `${lora}+${base}`])).toContain(
      "this is an adapter, which goes behind its model",
    );
  });

  it("plan takes none, and says why", async () => {
    expect(await refusalOf(["plan", words, "--d1", "1B", "--tokens", "1B", "--recipe", "E4G1T2"])).toBe(
      `${words}: a plan reads config.json alone, in which an adapter changes nothing; leave it out: ${base}`,
    );
  });
});
