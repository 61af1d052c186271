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

import { modelsOfSweep, sweepBatch, sweepSequence } from "./sweep.mjs";

const [out, tiny] = process.argv.slice(2);
const sequence = tiny ? 64 : sweepSequence;
const vocab = tiny ? 512 : 32000;
const models = Object.fromEntries(
  Object.entries(modelsOfSweep(tiny !== undefined)).map(([name, { config }]) => [name, config]),
);
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
      batch: sweepBatch,
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
