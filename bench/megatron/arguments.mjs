// arguments.mjs OUT [--tiny]: arguments of pretrain_gpt.py as `upcycle launch` gives them, a file for each layout of
// the sweep on one and two GPUs, for a model of 2.4B parameters with experts and a dense one of 1.7B (--tiny: ones that
// processors train). Needs no GPU.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseLaunchConfig } from "../../dist/base/schemas/index.js";
import { launchArguments } from "../../dist/cluster/plan/arguments.js";
import { launchLayout } from "../../dist/cluster/plan/layout.js";
import { specFromConfig } from "../../dist/model/decoder/config.js";
import { gpuNamed, hardwareTable } from "../../dist/cli/plan.js";

const [out, tiny] = process.argv.slice(2);
const [sequence, vocab] = tiny ? [64, 512] : [2048, 32000];
const common = {
  num_hidden_layers: tiny ? 4 : 8,
  vocab_size: vocab,
  max_position_embeddings: sequence,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
  hidden_act: "silu",
};
const sized = (hidden, inner, heads, groups) => ({
  hidden_size: tiny ? 64 : hidden,
  intermediate_size: tiny ? 96 : inner,
  num_attention_heads: tiny ? 4 : heads,
  num_key_value_heads: tiny ? 2 : groups,
});
/**
 * A model with experts and one without: Megatron-LM trains experts with tensor parallelism only with Transformer
 * Engine.
 */
const models = {
  moe: {
    model_type: "mixtral",
    architectures: ["MixtralForCausalLM"],
    ...sized(2048, 5632, 16, 8),
    num_local_experts: 8,
    num_experts_per_tok: 2,
    ...common,
  },
  dense: { model_type: "llama", architectures: ["LlamaForCausalLM"], ...sized(4096, 11008, 32, 8), ...common },
};
const gpu = gpuNamed(await hardwareTable(undefined), "h200-sxm");

/** Runs on one GPU calibrate the planner; the others are predicted. */
const layouts = (model) => [
  { gpus: 1, micro: [1, 2, 4] },
  ...[model === "moe" ? { ep: 2 } : { tp: 2 }, { pp: 2 }, { tp: 1 }].map((degrees) => ({
    gpus: 2,
    degrees,
    micro: [1, 4],
  })),
];

mkdirSync(out, { recursive: true });
const runs = Object.entries(models).flatMap(([model, config]) =>
  layouts(model).flatMap(({ gpus, degrees = {}, micro }) =>
    micro.map((microBatch) => ({ model, spec: specFromConfig(config, model), gpus, degrees, microBatch })),
  ),
);
for (const { model, spec, gpus, degrees, microBatch } of runs) {
  const name = [`${model}-${gpus}`, ...Object.entries(degrees).flat(), "mb", microBatch].join("");
  const text = JSON.stringify({
    out: "run",
    checkpoint: "none",
    data: ["none"],
    tokenizer: "none",
    megatron: ".",
    transformerEngine: false,
    training: {
      batch: 16,
      accumulate: 1,
      sequence,
      steps: 12,
      lr: { peak: 1e-4, warmup: 2 },
      ...(model === "moe" ? { auxLoss: 0.01, routing: { balance: "layer" } } : {}),
    },
    hardware: { gpu: "h200-sxm", gpus },
    layout: { ...degrees, microBatch },
    arguments: {
      "--mock-data": true,
      "--data-path": false,
      "--split": false,
      "--tokenizer-type": "NullTokenizer",
      "--tokenizer-model": false,
      "--vocab-size": vocab,
      "--save-interval": false,
      "--eval-iters": 0,
      "--exit-on-missing-checkpoint": false,
      "--exit-signal-handler": false,
    },
  });
  const launch = parseLaunchConfig(text, name);
  const layout = launchLayout(launch, spec, gpu);
  const words = launchArguments({ config: launch, spec, layout }).flatMap(({ flag, values }) => [flag, ...values]);
  writeFileSync(join(out, `${name}.args`), `${words.join(" ")}\n`);
}
