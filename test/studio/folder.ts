/** Folders of runs as `upcycle train` and `upcycle study` write them, made without a training. */
import { appendFileSync, cpSync, mkdirSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { randomStream } from "../../src/base/random.js";
import { specFromConfig } from "../../src/model/decoder/config.js";
import { recordOf } from "../../src/surgery/convert/record.js";
import { planUpcycle } from "../../src/surgery/planning/plan.js";
import { upcycleRecipe } from "../../src/surgery/planning/recipe.js";
import type { EvalRecord, MetricRecord, StepRecord } from "../../src/train/records.js";
import { golden } from "../support/golden.js";

const shape = {
  vocab_size: 64,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  eos_token_id: 0,
};

/** A config.json of a small model. */
export const tinyConfig = (family: "llama" | "mixtral"): Record<string, unknown> => ({
  ...shape,
  model_type: family,
  ...(family === "mixtral" && { num_local_experts: 4, num_experts_per_tok: 2 }),
});
const specs = {
  dense: specFromConfig(tinyConfig("llama"), "config.json"),
  moe: specFromConfig(tinyConfig("mixtral"), "config.json"),
};

export interface RunSettings {
  readonly kind?: "dense" | "moe";
  readonly seed?: number;
  readonly steps?: number;
  /** Steps that are done. */
  readonly done?: number;
  /** What the last held-out loss comes near to. */
  readonly loss?: number;
  readonly evalEvery?: number;
  readonly peak?: number;
}

const tokensPerStep = 32;

/** Steps that fall from 4 nats, with noise that depends on the seed. */
export function stepRecord(
  step: number,
  { loss = 3, seed = 0, steps = 100, kind = "dense" }: RunSettings = {},
): StepRecord {
  const noise = 0.01 * (randomStream(seed, "loss").uniformAt(step) - 0.5);
  return {
    type: "step",
    step,
    tokens: step * tokensPerStep,
    loss: loss + (4 - loss) * Math.exp((-4 * step) / steps) + noise,
    balanceLoss: kind === "moe" ? 1.02 : null,
    zLoss: kind === "moe" ? 0.1 : null,
    gradNorm: 1 + noise,
    learningRate: 1e-3,
    ...(kind === "moe" && { routing: { entropy: [1.3, 1.2], maxViolation: [0.2, 0.3], dead: [[], [3]] } }),
    ms: 10,
  };
}

/** A measurement whose second layer has a dead expert. */
export function evalRecord(step: number, settings: RunSettings = {}): EvalRecord {
  const { loss } = stepRecord(step, settings);
  const isMoe = settings.kind === "moe";
  return {
    type: "eval",
    step,
    tokens: step * tokensPerStep,
    loss: loss + 0.05,
    load: isMoe
      ? [
          [0.3, 0.2, 0.25, 0.25],
          [0.5, 0.3, 0.199, 0.001],
        ]
      : [],
    ...(isMoe && { routing: { entropy: [1.3, 1.2], maxViolation: [0.2, 1], dead: [[], [3]] } }),
    similarity: isMoe ? [1 - step / 1000, 0.99 - step / 1000] : [],
    ...(isMoe && {
      expertSimilarity: [0, 0.01].map((less) => [1, 1, 1, 1].map((_, expert) => 1 - less - (expert * step) / 2000)),
      // With two experts per token the shares of an expert's pairs come to twice its load.
      coactivation: [
        [
          [0, 1, 0.2],
          [0, 2, 0.2],
          [0, 3, 0.2],
          [2, 3, 0.2],
          [1, 2, 0.1],
          [1, 3, 0.1],
        ],
        [
          [0, 1, 0.6],
          [0, 2, 0.398],
          [0, 3, 0.002],
          [1, 2, 0],
          [1, 3, 0],
          [2, 3, 0],
        ],
      ] as const,
    }),
  };
}

/** The log of a run. */
export function recordsOf(settings: RunSettings): MetricRecord[] {
  const { steps = 20, done = steps, evalEvery = 5 } = settings;
  const records: MetricRecord[] = [{ type: "resume", step: 0 }, evalRecord(0, { ...settings, steps })];
  for (let step = 1; step <= done; step++) {
    records.push(stepRecord(step, { ...settings, steps }));
    if (step % evalEvery === 0) records.push(evalRecord(step, { ...settings, steps }));
  }
  if (done === steps) records.push({ type: "done", step: steps, reason: "steps", peakRssBytes: 5e8 });
  return records;
}

/** Writes a run's folder, and a checkpoint that holds nothing. */
export function writeRun(dir: string, settings: RunSettings = {}): void {
  const { kind = "dense", seed = 0, steps = 20, peak = 1e-3 } = settings;
  mkdirSync(join(dir, "last"), { recursive: true });
  writeFileSync(join(dir, "last", "model.safetensors"), "x".repeat(1000));
  const training = {
    steps,
    batch: 2,
    sequence: 16,
    accumulate: 1,
    lr: { peak, schedule: "constant", warmup: 0, final: 1 },
    optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, clip: 1 },
    auxLoss: 0.01,
    zLoss: 0,
    evalEvery: 5,
    saveEvery: 100,
  };
  const record = {
    key: "x",
    kind,
    spec: specs[kind],
    training,
    evaluationTokens: 64,
    seed,
    threads: 1,
    sources: { a: "b" },
  };
  writeFileSync(join(dir, "run.json"), JSON.stringify(record));
  writeFileSync(join(dir, "metrics.jsonl"), linesOf(recordsOf(settings)));
}

/** Two models that could generate, without weights: a dense one and an MoE. Their words come from `generateProgram`. */
export function writeModels(root: string): void {
  for (const [name, family] of [
    ["dense", "llama"],
    ["moe", "mixtral"],
  ] as const) {
    mkdirSync(join(root, "models", name), { recursive: true });
    writeFileSync(join(root, "models", name, "config.json"), JSON.stringify(tinyConfig(family)));
    writeFileSync(join(root, "models", name, "tokenizer.json"), "{}");
  }
}

/** What makes the MoE of `writeModels` one that was upcycled from the dense model, and what was measured of it. */
export function writeUpcycled(root: string): void {
  const plan = planUpcycle(specs.dense, upcycleRecipe("E4G1T2"));
  const folder = join(root, "models", "moe");
  writeFileSync(join(folder, "upcycle.json"), JSON.stringify(recordOf(plan, ["dense"], "0.1.0", [])));
  const measured = {
    tokens: 256,
    parentLoss: 3.2,
    childLoss: 3.2,
    maxAbsLogitDiff: 2e-6,
    meanAbsLogitDiff: 1e-7,
    maxAbsLogit: 20,
    klDivergence: 1e-13,
    topAgreement: 1,
    layers: [0, 1].map((layer) => ({ layer, relative: (1 + layer) * 1e-7, largest: (2 + layer) * 1e-7 })),
  };
  writeFileSync(join(folder, "preservation.json"), JSON.stringify(measured));
}

/** What `upcycle experts --json` has written of a model whose expert 1 is dead. */
export function writeExpertFile(root: string): void {
  const square = [
    [1, 0.5],
    [0.5, 1],
  ];
  const layer = {
    layer: 3,
    experts: 2,
    topK: 1,
    load: { shares: [2, 0], dead: [1] },
    router: { entropy: 0.61234567, relativeEntropy: 0.9 },
    coactivation: {
      ratios: [
        [null, 1.5],
        [1.5, null],
      ],
    },
    similarity: { weights: square, parent: { weights: [0.99, 0.98] } },
  };
  const head = { upcycle: "0.1.0", version: 1, model: "runs/moe", family: "mixtral" };
  const report = { ...head, parent: null, texts: [{ name: "a.txt" }], tokens: 10, layers: [layer] };
  writeFileSync(join(root, "experts.json"), JSON.stringify(report));
}

/** A training that `upcycle launch` has started on Slurm, with its log so far. */
export function writeJob(root: string): void {
  mkdirSync(join(root, "job", "logs"), { recursive: true });
  writeFileSync(join(root, "job", "run.sh"), "#!/bin/bash\n");
  writeFileSync(join(root, "job", "launch.json"), JSON.stringify({ slurm: ["4711"] }));
  cpSync(golden("megatron", "logs", "moe_scratch.log"), join(root, "job", "logs", "run.log"));
}

/** A conversion at work in this process, as it notes itself. */
export function writeConversion(root: string, name: string, changes: object = {}): void {
  mkdirSync(root, { recursive: true });
  const record = {
    version: 1,
    command: { words: ["upcycle", "convert", "dense", "--recipe", "E8G1T2", "--out", name], folder: "/work" },
    name: "E8G1T2",
    sources: ["dense"],
    phase: "writing",
    tensor: "model.layers.3.mlp.experts.5.up_proj.weight",
    done: 1.5e9,
    total: 6e9,
    found: 0,
    bytesPerSecond: 150e6,
    started: Date.now() - 10_000,
    // It is not to fall silent while a test is slow.
    updated: Date.now() + 3_600_000,
    host: hostname(),
    pid: process.pid,
    ended: null,
    ...changes,
  };
  writeFileSync(join(root, `.${name}.progress.json`), JSON.stringify(record));
}

/**
 * A program in place of `upcycle generate` that says what that says: the MoE parts from the dense model at its third
 * token, texts hold markup, and the prompt "slow" goes on until it is asked to end.
 */
export const generateProgram = `
const say = (line) => console.log(JSON.stringify(line));
const words = process.argv.slice(2);
const isMoe = /moe$/.test(words[1]);
const prompt = words[words.indexOf("--prompt") + 1];
if (prompt === "fail") { console.error("upcycle: models/moe: the weights are not there"); process.exit(2); }
const layers = isMoe ? [{ layer: 0, experts: 4, topK: 2 }, { layer: 1, experts: 4, topK: 2 }] : [];
say({ type: "prompt", row: 0, tokens: [{ id: 1, text: prompt }, { id: 2, text: " <b>x</b>" }], layers });
const chosen = (place) => layers.map(({ layer }) => ({ layer, experts: [(place + layer) % 4, (place + layer + 2) % 4], weights: [0.75, 0.25] }));
const read = (place) => isMoe && say({ type: "experts", row: 0, place, layers: chosen(place) });
const token = (place, id, text, logProbability) => say({ type: "token", row: 0, place, id, text, logProbability, alternatives: [{ id, text, logProbability }, { id: 90, text: "<i>other</i>", logProbability: -3 }] });
read(0); read(1);
token(2, 10, " whale", isMoe ? -0.105 : -0.1); read(2);
token(3, 11, "\\n<img src=x onerror=alert(1)>", -0.2); read(3);
token(4, isMoe ? 12 : 13, isMoe ? " sea" : " ship", -0.7); read(4);
if (prompt === "slow") {
  let place = 5;
  const timer = setInterval(() => { token(place, 20, " on", -0.1); place++; }, 20);
  process.on("SIGINT", () => { clearInterval(timer); process.exitCode = 130; });
} else say({ type: "done", prompt, text: "", tokens: 3, tokensPerSecond: 42 });
`;

/**
 * A program in place of `upcycle train` that goes on with the run in `--out`, step by step: up to step 30, where it
 * waits until it is asked to save and stop, and from there to the last of 40.
 */
export const trainProgram = `
import { appendFileSync, readFileSync } from "node:fs";
const words = process.argv.slice(2);
const log = words[words.indexOf("--out") + 1] + "/metrics.jsonl";
const records = readFileSync(log, "utf8").trim().split("\\n").map((line) => JSON.parse(line));
let { step } = records.filter(({ type }) => type === "step").at(-1);
const add = (record) => appendFileSync(log, JSON.stringify(record) + "\\n");
add({ type: "resume", step });
console.log("goes on behind step " + step);
const last = step < 30 ? 30 : 40;
const timer = setInterval(() => {
  if (step < last) {
    step++;
    add({ type: "step", step, tokens: 32 * step, loss: 3, balanceLoss: null, zLoss: null, gradNorm: 1, learningRate: 1e-3, ms: 10 });
  } else if (last === 40) {
    add({ type: "done", step, reason: "steps", peakRssBytes: 5e8 });
    clearInterval(timer);
  }
}, 10);
process.on("SIGINT", () => { clearInterval(timer); console.log("saved"); process.exitCode = 130; });
`;

export const linesOf = (records: readonly unknown[]): string =>
  records.map((record) => `${JSON.stringify(record)}\n`).join("");

export const addLines = (dir: string, ...records: readonly unknown[]): void =>
  appendFileSync(join(dir, "metrics.jsonl"), linesOf(records));

/** A study of a parent and two arms with three seeds, the MoE 0.2 nats ahead; a run of its own; a report. */
export function writeStudy(root: string): void {
  writeRun(join(root, "study", "parents", "parent-0123456789abcdef"));
  for (const seed of [0, 1, 2]) {
    writeRun(join(root, "study", "arms", "dense", `seed-${seed}-0123456789abcdef`), { seed, loss: 3.2 });
    writeRun(join(root, "study", "arms", "coarse", `seed-${seed}-0123456789abcdef`), {
      seed,
      loss: 3,
      kind: "moe",
      peak: 2e-3,
    });
  }
  writeFileSync(join(root, "study", "study.json"), JSON.stringify({ version: 2, config: { name: "study" } }));
  writeFileSync(
    join(root, "study", "command.json"),
    JSON.stringify({ version: 1, words: ["upcycle", "study", "my study.yaml"], folder: "/home/me" }),
  );
  writeFileSync(
    join(root, "study", "report.html"),
    '<!doctype html>\n<html lang="en"><head><meta name="generator" content="upcycle 0.1.0">' +
      "<title>study &lt;b&gt; · Upcycle study</title></head><body><h1>Report</h1>" +
      "<script>fetch('/api/runs').then(() => { document.title = 'reached'; }).catch(() => { document.title = 'kept'; });</script></body></html>",
  );
  writeRun(join(root, "alone"), { steps: 40, done: 12 });
}
