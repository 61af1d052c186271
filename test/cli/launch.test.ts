/** `upcycle launch`: what the papers' launch files say, and arguments beside a checkpoint. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { golden } from "../support/golden.js";
import { upcycle, upcycleJson } from "./upcycle.js";

const root = mkdtempSync(join(tmpdir(), "upcycle-launch-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const file = (name: string, text: string): string => {
  const path = join(root, name);
  writeFileSync(path, text);
  return path;
};

interface Dry {
  readonly make: string;
  readonly arguments: readonly { flag: string; values: string[]; reason: string }[];
  readonly estimates: readonly { gpu: string; gpus: number; fits: boolean; seconds?: number; cost?: number }[];
}

/**
 * Settings as the papers give them, written down here once more. He et al. 2024 (arXiv 2410.07524): 1T tokens, peak
 * 3e-4, cosine to 1/100 of the pre-training minimum, auxiliary loss 1e-2, softmax before top-k, scaled weights; the 2B
 * studies: 0.1T tokens from 2e-4 to 2e-5. Liew et al. 2025 (arXiv 2502.03009), table 7: 8x1B on 37B tokens.
 */
const papers: readonly (readonly [name: string, make: string, settings: Readonly<Record<string, string>>])[] = [
  [
    "nemotron-4-15b-e8g8t8",
    "--recipe E8G8T8 --router softmax-topk --scaling paper",
    {
      ...{ "--lr": "0.0003", "--min-lr": "4.5e-7", "--moe-aux-loss-coeff": "0.01", "--lr-decay-style": "cosine" },
      ...{
        "--num-experts": "64",
        "--moe-router-topk": "8",
        "--moe-ffn-hidden-size": "3072",
        "--train-iters": "211927",
      },
      ...{ "--moe-router-pre-softmax": "", "--squared-relu": "", "--num-layers": "32", "--hidden-size": "6144" },
    },
  ],
  [
    "nemotron-4-15b-e8g1t2",
    "--recipe E8G1T2 --router softmax-topk --scaling paper",
    {
      ...{ "--lr": "0.0003", "--min-lr": "4.5e-7", "--moe-aux-loss-coeff": "0.01", "--train-iters": "211927" },
      ...{ "--num-experts": "8", "--moe-router-topk": "2", "--moe-ffn-hidden-size": "24576" },
      ...{ "--moe-router-pre-softmax": "", "--apply-layernorm-1p": "", "--rotary-percent": "0.5" },
    },
  ],
  [
    "nemotron-2b-e8g1t2",
    "--recipe E8G1T2 --router softmax-topk --scaling paper",
    { "--lr": "0.0002", "--min-lr": "0.00002", "--train-iters": "23841", "--moe-router-pre-softmax": "" },
  ],
  [
    "nemotron-2b-e8g8t8",
    "--recipe E8G8T8 --router softmax-topk --scaling paper",
    {
      ...{ "--lr": "0.0002", "--min-lr": "0.00002", "--num-experts": "64", "--moe-router-topk": "8" },
      "--moe-router-pre-softmax": "",
    },
  ],
  [
    "liew-1b-8x1b",
    "--recipe E8G1T2 --router topk-softmax --scaling exact --target mixtral",
    { "--num-experts": "8", "--moe-router-topk": "2", "--train-iters": "35285" },
  ],
  [
    "llama-3-8b-e8g1t2",
    "hf://meta-llama/Meta-Llama-3-8B --recipe E8G1T2",
    { "--num-experts": "8", "--moe-router-topk": "2", "--rotary-base": "500000", "--seq-length": "8192" },
  ],
  [
    "llama-3-8b-e8g8t8",
    "hf://meta-llama/Meta-Llama-3-8B --recipe E8G8T8",
    { "--num-experts": "64", "--moe-router-topk": "8", "--moe-ffn-hidden-size": "1792" },
  ],
  [
    "qwen3-4b-e8g8t8",
    "hf://Qwen/Qwen3-4B --recipe E8G8T8 --router topk-softmax --scaling exact --target qwen3_moe",
    { "--num-experts": "64", "--moe-ffn-hidden-size": "1216", "--qk-layernorm": "", "--kv-channels": "128" },
  ],
];

describe("the papers' launch files", () => {
  it.each(papers)("%s says what its paper says, before any checkpoint is there", async (name, make, settings) => {
    const dry = (await upcycleJson("launch", `recipes/papers/${name}.yaml`, "--dry-run")) as unknown as Dry;
    expect(dry.make).toContain(make);
    const given = Object.fromEntries(dry.arguments.map(({ flag, values }) => [flag, values.join(" ")]));
    expect(given).toMatchObject(settings);
    expect(given).not.toHaveProperty(
      settings["--moe-router-pre-softmax"] === undefined ? "--moe-router-pre-softmax" : "-",
    );
    // What could not be read at its source says so.
    const reasons = dry.arguments.map(({ reason }) => reason).join("\n");
    if (name !== "qwen3-4b-e8g8t8") expect(reasons).toMatch(/\((unverified|.*: .*unverified)/);
    const counted = dry.estimates.filter(({ gpu }) => gpu === "h100-sxm" || gpu === "h200-sxm");
    expect(counted.map(({ gpus }) => gpus)).toEqual([8, 64, 512, 8, 64, 512]);
    for (const { gpus, fits, seconds, cost } of counted)
      if (fits) expect(cost! / (gpus * seconds!)).toBeGreaterThan(0.0005);
  });

  it("are not started without their checkpoint, and say what makes it", async () => {
    const { code, stderr } = await upcycle("launch", "recipes/papers/qwen3-4b-e8g8t8.yaml");
    expect(code).toBe(2);
    expect(stderr).toContain("the checkpoint is not there");
    expect(stderr).toContain("upcycle convert hf://Qwen/Qwen3-4B --recipe E8G8T8");
  });

  it("name a model that is none", async () => {
    const text = `out: r
checkpoint: ${join(root, "none")}
from: { model: nothing-3b }
data: [d]
tokenizer: t
megatron: m
training: { batch: 1, sequence: 64, steps: 10, lr: { peak: 1e-4, warmup: 1 } }
`;
    const { code, stderr } = await upcycle("launch", file("none.yaml", text), "--dry-run");
    expect(code).toBe(2);
    expect(stderr).toContain('"nothing-3b" is no config.json, no model folder and no preset');
    expect(stderr).toContain("llama-3.1-8b");
  });
});

describe("upcycle launch --lint beside a checkpoint", () => {
  const script = (words: string): string =>
    file(
      "run.sh",
      `torchrun pretrain_gpt.py --num-experts 4 --moe-router-topk 2 --load x --finetune --lr 1e-4 \\
  --exit-on-missing-checkpoint --lr-warmup-iters 10 --make-vocab-size-divisible-by 1 ${words}\n`,
    );
  const rules = async (words: string, ...more: string[]): Promise<string[]> => {
    const { stdout } = await upcycle("launch", "--lint", script(words), "--json", ...more);
    return (JSON.parse(stdout) as { findings: { rule: string }[] }).findings.map(({ rule }) => rule);
  };

  it("finds keys by layer, the order that weights were scaled for, and a version that cannot read it", async () => {
    const moe = golden("megatron/moe");
    const before = "--moe-router-pre-softmax";
    expect(await rules(before, "--checkpoint", moe, "--core", "0.19")).toEqual([]);
    expect(await rules("--moe-layer-freq '([1]*2)'", "--checkpoint", moe, "--core", "0.18")).toEqual([
      ...["scaling-order", "layer-keys", "version"],
    ]);
  });

  it("ends with 1 and a line for each error, in words", async () => {
    const { code, stdout } = await upcycle("launch", "--lint", script("--expert-model-parallel-size 3"));
    expect(code).toBe(1);
    expect(stdout).toContain("error (ep-divides): --expert-model-parallel-size 3 does not divide 4 experts");
  });
});
