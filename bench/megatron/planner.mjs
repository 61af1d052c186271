// planner.mjs RESULT.json: the planner beside the sweep of all.py. Constants are set once by runs on one GPU (dense,
// micro-batches 1, 2 and 4): a factor by the time, the reserve by the memory. Then they stay, and the runs on two GPUs
// are predicted. Needs no GPU.
import { readFileSync } from "node:fs";
import { specFromConfig } from "../../dist/model/decoder/config.js";
import { costLayout } from "../../dist/laws/planner/layout.js";
import { defaultSpeed } from "../../dist/laws/planner/speed.js";
import { gpuNamed, hardwareTable } from "../../dist/cli/plan.js";

const { sweep } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const gpu = gpuNamed(await hardwareTable(undefined), "h200-sxm");
const spec = specFromConfig(
  {
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    hidden_size: 4096,
    intermediate_size: 11008,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    num_hidden_layers: 8,
    vocab_size: 32000,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: false,
    hidden_act: "silu",
  },
  "sweep",
);
const sequence = 2048;
const batch = 16;

/** What the name of a run says, as a layout. */
function layoutOf(run) {
  const [, gpus, kind = "tp", degree = "1", micro] = /^dense-(\d)(?:(tp|pp)(\d))?mb(\d)$/.exec(run);
  const [tp, pp] = [kind === "tp" ? Number(degree) : 1, kind === "pp" ? Number(degree) : 1];
  const dp = Number(gpus) / (tp * pp);
  const microBatch = Number(micro);
  const microBatches = batch / (dp * microBatch);
  const degrees = { tp, pp, vpp: 1, cp: 1, ep: 1, etp: 1, dp, edp: dp };
  const layout = { ...degrees, microBatch, microBatches, recompute: "selective" };
  return { gpus: Number(gpus), layout };
}

const cost = (run, speed) => {
  const { gpus, layout } = layoutOf(run);
  return costLayout({ spec, gpu, gpus, sequence, batchTokens: batch * sequence, speed }, layout);
};
const measuredOf = (row) => ({
  seconds: row["median milliseconds of steps 3 to 12"] / 1000,
  bytes: Math.max(...row["device GB in use at the end"]) * 1e9,
});

const dense = sweep.filter(({ run }) => run.startsWith("dense"));
const single = dense.filter(({ ranks }) => ranks === 1);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const slower = Math.exp(
  mean(single.map((row) => Math.log(measuredOf(row).seconds / cost(row.run, defaultSpeed).seconds.total))),
);
const extraBytes = mean(single.map((row) => measuredOf(row).bytes - cost(row.run, defaultSpeed).bytes.total));
const rows = dense.map((row) => {
  const measured = measuredOf(row);
  const { seconds, bytes } = cost(row.run, defaultSpeed);
  const predicted = { seconds: slower * seconds.total, bytes: bytes.total + extraBytes };
  return {
    run: row.run,
    calibrates: row.ranks === 1,
    milliseconds: Math.round(1000 * measured.seconds),
    predicted: Math.round(1000 * predicted.seconds),
    offTime: Number((predicted.seconds / measured.seconds - 1).toFixed(3)),
    GB: Number((measured.bytes / 1e9).toFixed(1)),
    predictedGB: Number((predicted.bytes / 1e9).toFixed(1)),
    offMemory: Number((predicted.bytes / measured.bytes - 1).toFixed(3)),
  };
});
console.log(JSON.stringify({ timesDefault: slower, extraGB: extraBytes / 1e9, rows }, null, 1));
