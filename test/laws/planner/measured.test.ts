/** The planner beside trainings of Megatron-LM on two H200s (bench/results/2026-11-30-megatron-two.json). */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { parseHardware } from "../../../src/base/schemas/index.js";
import { gpuOf } from "../../../src/laws/planner/hardware.js";
import { costLayout } from "../../../src/laws/planner/layout.js";
import { defaultSpeed } from "../../../src/laws/planner/speed.js";
import { specFromConfig } from "../../../src/model/decoder/config.js";
import { present } from "../../support/present.js";

const read = (path: string): string => readFileSync(new URL(`../../../${path}`, import.meta.url), "utf8");
const table = parseHardware([{ text: read("recipes/hardware.yaml"), file: "hardware.yaml" }]);
const gpu = gpuOf("h200-sxm", { ...present(table.gpus["h200-sxm"]), sources: {} });
/** Set once by runs of the same model on one GPU, without Transformer Engine, with micro-batches of 1, 2 and 4. */
const [slower, moreBytes] = [1.928430459708504, 1.7978647466666668 * 1e9];

const spec = specFromConfig(
  {
    ...{ model_type: "llama", architectures: ["LlamaForCausalLM"], hidden_size: 4096, intermediate_size: 11008 },
    ...{ num_attention_heads: 32, num_key_value_heads: 8, num_hidden_layers: 8, vocab_size: 32000 },
    ...{ max_position_embeddings: 2048, rms_norm_eps: 1e-5, rope_theta: 10000, tie_word_embeddings: false },
    hidden_act: "silu",
  },
  "measured",
);

const rows = (
  JSON.parse(read("bench/results/2026-11-30-megatron-two.json")) as {
    sweep: Record<string, string | number | number[]>[];
  }
).sweep.flatMap((row) => {
  const found = /^dense-2(tp|pp)(\d)mb(\d)$/.exec(String(row["run"]));
  if (found === null) return [];
  const [tp, pp] = found[1] === "tp" ? [Number(found[2]), 1] : [1, Number(found[2])];
  const [dp, microBatch] = [2 / (tp * pp), Number(found[3])];
  const layout = {
    ...{ tp, pp, vpp: 1, cp: 1, ep: 1, etp: 1, dp, edp: dp, microBatch, microBatches: 16 / (dp * microBatch) },
    recompute: "selective" as const,
  };
  const request = { spec, gpu, gpus: 2, sequence: 2048, batchTokens: 16 * 2048, speed: defaultSpeed };
  const { seconds, bytes } = costLayout(request, layout);
  return [
    {
      run: String(row["run"]),
      seconds: Number(row["median milliseconds of steps 3 to 12"]) / 1000,
      predicted: slower * seconds.total,
      bytes: Math.max(...(row["device GB in use at the end"] as number[])) * 1e9,
      predictedBytes: bytes.total + moreBytes,
    },
  ];
});

describe("the planner, with constants set by runs on one GPU", () => {
  it.each(rows)("is within 20 % of the measured step and memory of $run", (row) => {
    expect(Math.abs(row.predicted / row.seconds - 1)).toBeLessThan(0.2);
    expect(Math.abs(row.predictedBytes / row.bytes - 1)).toBeLessThan(0.2);
  });

  it("ranks the three layouts as they were measured", () => {
    const order = (key: "seconds" | "predicted"): string[] =>
      rows.toSorted((a, b) => a[key] - b[key]).map(({ run }) => run);
    expect(rows.length).toBe(3);
    expect(order("predicted")).toEqual(order("seconds"));
  });
});

describe("bench/megatron/planner.mjs", () => {
  const script = fileURLToPath(new URL("../../../bench/megatron/planner.mjs", import.meta.url));
  const measured = fileURLToPath(new URL("../../../bench/results/2026-11-30-megatron-two.json", import.meta.url));

  it("sets its constants by one GPU, and is within 20 % of the time and 10 % of the memory of two GPUs", () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [script, measured], { encoding: "utf8" });
    expect(stderr).toBe("");
    expect(status).toBe(0);
    const found = JSON.parse(stdout) as {
      readonly rows: readonly { calibrates: boolean; offTime: number; offMemory: number }[];
      readonly best: Readonly<Record<string, object>>;
      readonly failures: readonly string[];
    };
    expect(found.failures).toEqual([]);
    expect(found.rows.filter(({ calibrates }) => !calibrates).length).toBe(3);
    for (const { offTime, offMemory } of found.rows) {
      expect(Math.abs(offTime)).toBeLessThan(0.1);
      expect(Math.abs(offMemory)).toBeLessThan(0.1);
    }
    expect(found.best["dense on 2 GPUs"]).toEqual({ planner: "dense-2tp1mb4", measured: "dense-2tp1mb4", slower: 0 });
  });

  it("predicts nothing without runs on one GPU, which is no success", () => {
    const folder = mkdtempSync(join(tmpdir(), "upcycle-sweep-"));
    const file = join(folder, "result.json");
    const { sweep } = JSON.parse(readFileSync(measured, "utf8")) as { sweep: { run: string }[] };
    writeFileSync(file, JSON.stringify({ sweep: sweep.filter(({ run }) => run.startsWith("dense-2")) }));
    const { status, stdout } = spawnSync(process.execPath, [script, file], { encoding: "utf8" });
    rmSync(folder, { recursive: true });
    expect(status).toBe(1);
    const { failures } = JSON.parse(stdout) as { readonly failures: readonly string[] };
    expect(failures.filter((line) => line.includes("step time off by NaN")).length).toBe(3);
  });
});
