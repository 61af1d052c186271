// Folders of runs as a training of an MoE with 8 layers and 8 experts writes them, made without a training.
import { appendFileSync, mkdirSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { specFromConfig } from "../../dist/model/decoder/config.js";

const layers = Array.from({ length: 8 }, (_, layer) => layer);
const tokensPerStep = 2048;
const spec = specFromConfig(
  {
    model_type: "mixtral",
    vocab_size: 1024,
    hidden_size: 96,
    intermediate_size: 256,
    num_hidden_layers: layers.length,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    num_local_experts: 8,
    num_experts_per_tok: 2,
  },
  "config.json",
);

/** A number between 0 and 1 with as many digits as a measured one. */
const noise = (i, seed) => (Math.sin(i * 12.9898 + seed * 78.233) + 1) / 2;

/** A step of a log: a loss that falls, with noise. */
export function step(i, steps, seed) {
  const routing = {
    entropy: layers.map((layer) => 1.8 + 0.2 * noise(i, seed + layer)),
    maxViolation: layers.map((layer) => 0.4 * noise(i, seed - layer)),
    dead: layers.map(() => []),
  };
  return {
    type: "step",
    step: i,
    tokens: i * tokensPerStep,
    loss: 2.5 + 4 * Math.exp((-5 * i) / steps) + 0.1 * noise(i, seed),
    balanceLoss: 1 + 0.02 * noise(i, seed + 1),
    zLoss: 0.2 + 0.02 * noise(i, seed + 2),
    gradNorm: 1 + 0.1 * noise(i, seed + 3),
    learningRate: 1e-3 * Math.cos((1.5 * i) / steps),
    routing,
    ms: 100 + Math.round(5 * noise(i, seed + 4)),
  };
}

/** A measurement on held-out text. */
export function evaluation(i, steps, seed) {
  const { loss, routing } = step(i, steps, seed);
  const load = layers.map((layer) => layers.map((expert) => (0.9 + 0.2 * noise(i, layer * 8 + expert)) / 8));
  return {
    type: "eval",
    step: i,
    tokens: i * tokensPerStep,
    loss: loss + 0.1,
    load,
    routing,
    similarity: Array(8).fill(0.98),
  };
}

/** Records of the steps `from` to `to`, with a measurement after every `every` of them. */
export function records(from, to, { steps = to, seed = 0, every }) {
  /** @type {any[]} */
  const found = from === 1 ? [evaluation(0, steps, seed)] : [];
  for (let i = from; i <= to; i++) {
    found.push(step(i, steps, seed));
    if (i % every === 0) found.push(evaluation(i, steps, seed));
  }
  return found;
}

const lines = (list) => list.map((record) => `${JSON.stringify(record)}\n`).join("");

/** Writes a run of so many steps. Returns its folder. */
export function writeRun(dir, { steps, seed, every, planned = steps }) {
  mkdirSync(dir, { recursive: true });
  const training = { steps: planned, batch: 16, sequence: 128, accumulate: 1, lr: { peak: 1e-3 + seed * 1e-6 } };
  writeFileSync(join(dir, "run.json"), JSON.stringify({ key: dir, spec, training, seed, kind: "upcycled" }));
  writeFileSync(join(dir, "metrics.jsonl"), lines(records(1, steps, { steps: planned, seed, every })));
  return dir;
}

/** Adds records to a run's log, as its training does. */
export const addRecords = (dir, list) => appendFileSync(join(dir, "metrics.jsonl"), lines(list));

/** Runs in the folders of twenty studies, as they were left an hour ago. */
export function writeStudies(root, count) {
  const then = Date.now() / 1000 - 3600;
  for (let i = 0; i < count; i++) {
    const dir = join(root, `study-${i % 20}`, "arms", `arm-${i % 10}`, `seed-${i}`);
    writeRun(dir, { steps: 200, seed: i, every: 50 });
    utimesSync(join(dir, "metrics.jsonl"), then, then);
  }
}
