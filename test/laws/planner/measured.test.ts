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

  interface Compared {
    readonly rows: readonly { run: string; calibrates: boolean; predicted: number; offTime: number }[];
    readonly best: Readonly<Record<string, { planner: string; measured: string; slower: number }>>;
    readonly failures: readonly string[];
  }

  function compared(...words: string[]): { readonly code: number | null; readonly result: Compared } {
    const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...words], { encoding: "utf8" });
    expect(stderr).toBe("");
    return { code: status, result: JSON.parse(stdout) as Compared };
  }

  /** A run as all.py sums it up: twelve steps, two of warm-up, and the memory of each rank. */
  const row = (name: string, ms: number, gigabytes: number, code = 0): object => ({
    ...{ name: `sweep-${name}`, version: "0.20", ranks: Number(name.split("-")[1]![0]), code, seconds: 40 },
    milliseconds: [9 * ms, 2 * ms, ...Array.from({ length: 10 }, (_, i) => ms + (i % 2))],
    memory: [{ rank: 0, allocated: 1, reserved: 2, device: gigabytes * 1e9 }],
  });

  it("sets its constants by one GPU, and is within 20 % of what two GPUs took", () => {
    const { code, result } = compared(measured);
    expect(code).toBe(0);
    expect(result.failures).toEqual([]);
    expect(result.rows.filter(({ calibrates }) => !calibrates).length).toBe(3);
    for (const { offTime } of result.rows) expect(Math.abs(offTime)).toBeLessThan(0.1);
    expect(result.best["dense"]).toMatchObject({ planner: "dense-2tp1mb4", measured: "dense-2tp1mb4", slower: 0 });
  });

  it("reads a summary of all.py, and names the runs that are off and a layout that is too slow", () => {
    const folder = mkdtempSync(join(tmpdir(), "upcycle-sweep-"));
    const summary = join(folder, "summary.json");
    const predicted = (rows: readonly object[]): Compared["rows"] => {
      writeFileSync(
        summary,
        JSON.stringify([...rows, row("moe-2pp2mb1", 1, 1, 124), { name: "te-bf16-one-x", code: 0 }]),
      );
      return compared(summary, "--single", measured).result.rows;
    };
    const runs = ["moe-2ep2mb4", "moe-2pp2mb4", "moe-2tp1mb4"];
    const first = predicted(runs.map((run) => row(run, 1000, 40)));
    // A run that failed is left out; runs on one GPU are those of the earlier result.
    expect(first.map(({ run }) => run).filter((run) => run.startsWith("moe"))).toEqual([
      ...runs,
      ...["moe-1mb4", "moe-1mb1", "moe-1mb2"],
    ]);
    const timeOf = (run: string): number => first.find((one) => one.run === run)!.predicted;
    const best = runs.toSorted((a, b) => timeOf(a) - timeOf(b))[0]!;
    const second = runs.map((run) => row(run, run === best ? 1.5 * timeOf(run) : timeOf(run), 40));
    writeFileSync(summary, JSON.stringify(second));
    const { code, result } = compared(summary, "--single", measured);
    expect(code).toBe(1);
    expect(result.failures.some((line) => line.startsWith(`${best}: time off by -0.33`))).toBe(true);
    expect(result.failures.at(-1)).toMatch(new RegExp(`^the planner's ${best} is 0\\.\\d+ slower than moe-2`));
    // Without runs on one GPU nothing is predicted, which is no success.
    const alone = compared(summary);
    expect(alone.code).toBe(1);
    expect(alone.result.failures.filter((line) => line.includes("time off by NaN")).length).toBe(3);
    writeFileSync(summary, JSON.stringify([row("moe-1mb4", 1000, 60)]));
    expect(compared(summary).result.failures).toEqual(["no run on two GPUs"]);
    rmSync(folder, { recursive: true });
  });
});
