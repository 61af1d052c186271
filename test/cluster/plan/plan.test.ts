/** Arguments of pretrain_gpt.py, scripts that start it, and what is found in those that others wrote. */
import { describe, expect, it } from "vitest";
import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { UpcycleError } from "../../../src/base/errors.js";
import { parseLaunchConfig, type LaunchConfig } from "../../../src/base/schemas/index.js";
import {
  addedRows,
  environmentOf,
  iterations,
  launchArguments,
  type ReasonedArgument,
} from "../../../src/cluster/plan/arguments.js";
import { checkSize } from "../../../src/cluster/plan/check.js";
import { launchLayout } from "../../../src/cluster/plan/layout.js";
import { lintArguments, type LintContext } from "../../../src/cluster/plan/lint.js";
import {
  argumentLines,
  kubernetesManifest,
  localScript,
  slurmScript,
  type LaunchPlan,
} from "../../../src/cluster/plan/scripts.js";
import { argumentsIn, settingsOfArguments } from "../../../src/model/decoder/megatron-arguments.js";
import { megatronObstacles, specFromMegatron } from "../../../src/model/decoder/megatron.js";
import { specFromConfig } from "../../../src/model/decoder/config.js";
import type { DecoderSpec } from "../../../src/model/decoder/types.js";
import { golden, goldenModels } from "../../support/golden.js";

const specOf = (name: string): DecoderSpec =>
  specFromConfig(JSON.parse(readFileSync(golden(name, "config.json"), "utf8")), name);

const config = (more = "", training = ""): LaunchConfig =>
  parseLaunchConfig(
    `out: /runs/a b
checkpoint: /ckpt
data: [/data/x_text_document]
tokenizer: /tok
megatron: /opt/Megatron-LM
${more}
training:
  batch: 4
  accumulate: 8
  sequence: 64
  steps: 100
  lr: { peak: 3e-4, warmup: 10 }
${training}`,
    "launch.yaml",
  );

const layout = {
  tp: 1,
  pp: 1,
  vpp: 1,
  cp: 1,
  ep: 1,
  etp: 1,
  dp: 2,
  edp: 2,
  microBatch: 1,
  microBatches: 16,
  recompute: "none",
} as const;
const argumentsFor = (name: string, asked: LaunchConfig, more = {}): ReasonedArgument[] =>
  launchArguments({ config: asked, spec: specOf(name), layout: { ...layout, ...more } });
const textOf = (given: readonly ReasonedArgument[]): string =>
  given.map(({ flag, values }) => [flag, ...values].join(" ")).join("\n");

describe("arguments of pretrain_gpt.py", () => {
  const held = goldenModels.filter((name) => megatronObstacles(specOf(name)).length === 0);

  it.each(held)("describe %s: read back they give its network", (name) => {
    const spec = specOf(name);
    const given = argumentsFor(name, config());
    const lines = argumentLines({ arguments: given }).map((line) => (line.includes("#") ? "" : line));
    const back = specFromMegatron(settingsOfArguments(argumentsIn(lines.join(" "))), name, spec.vocab);
    expect(back.attn).toEqual(spec.attn);
    expect(back.norm).toEqual(spec.norm);
    expect(back.layers.map(({ window, rope, ffn }) => [window, rope, ffn.kind, ffn.ffnDim])).toEqual(
      spec.layers.map(({ window, rope, ffn }) => [window, rope, ffn.kind, ffn.ffnDim]),
    );
  });

  it("each have a reason, and always stop a run without its checkpoint", () => {
    const given = argumentsFor("moe/mixtral", config());
    expect(given.every(({ reason }) => reason.length > 3)).toBe(true);
    expect(given.map(({ flag }) => flag)).toContain("--exit-on-missing-checkpoint");
    expect(new Set(given.map(({ flag }) => flag)).size).toBe(given.length);
  });

  it("say what the training says", () => {
    const text = textOf(
      argumentsFor(
        "moe/mixtral",
        config(
          "",
          `  zLoss: 0.001
  resetAttention: true
  budget: { time: 90m, tokens: 102400 }
  routing: { balance: sequence, capacity: { factor: 1.5, drop: position }, jitter: 0.01 }
`,
        ),
      ),
    );
    for (const line of [
      "--micro-batch-size 1",
      "--global-batch-size 32",
      "--train-iters 50",
      "--exit-duration-in-mins 90",
      "--lr 0.0003",
      "--min-lr 0.00003",
      "--lr-warmup-iters 10",
      "--moe-router-load-balancing-type seq_aux_loss",
      // Two MoE layers: Megatron-LM adds their z-losses up, a training of ours takes the mean.
      "--moe-z-loss-coeff 0.0005",
      "--moe-expert-capacity-factor 1.5",
      "--moe-token-drop-policy position",
      "--moe-input-jitter-eps 0.01",
      "--reset-position-ids",
      "--use-distributed-optimizer",
      "--moe-grouped-gemm",
    ])
      expect(text.split("\n")).toContain(line);
    expect(iterations(config().training)).toBe(100);
  });

  it.each([
    ["optimizer.method", "  optimizer: { method: muon }"],
    ["groups", "  groups: { router: { lr: 2 } }"],
    ["freeze", '  freeze: ["embed"]'],
    ["guard", "  guard: {}"],
    ["average", "  average: { decay: 0.99 }"],
    ["checkpoints", "  checkpoints: bfloat16"],
    ["routing.balance", "  routing: { balance: global }"],
    ["budget.flops", "  budget: { flops: 1e20 }"],
  ])("refuse %s by its name", (name, training) => {
    const failed = (): unknown => argumentsFor("moe/mixtral", config("", `${training}\n`));
    expect(failed).toThrow(UpcycleError);
    expect(failed).toThrow(`${name} has no argument of Megatron-LM`);
  });

  it("can be replaced, added to and taken away by the file", () => {
    const text = textOf(
      argumentsFor("dense/llama", config("arguments: { --seed: 7, --log-throughput: false, --wandb-project: mine }")),
    );
    expect(text).toContain("--seed 7");
    expect(text).not.toContain("--log-throughput");
    expect(text).toContain("--wandb-project mine");
  });

  it("ask for sequence parallelism only where the norms of Transformer Engine know it", () => {
    const textFor = (more: string): string => textOf(argumentsFor("dense/llama", config(more), { tp: 2 }));
    expect(textFor("")).toContain("--sequence-parallel");
    expect(textFor("transformerEngine: false")).not.toContain("--sequence-parallel");
  });

  it("add no rows to a vocabulary that tensor parallelism divides", () => {
    expect([addedRows(1024, 8), addedRows(1000, 2), addedRows(1000, 3), addedRows(50257, 2)]).toEqual([0, 0, 2, 1]);
  });

  it("refuse a warm-up as long as the schedule, on which Megatron-LM stops", () => {
    const usual = config();
    const asked = { ...usual, training: { ...usual.training, steps: 10 } };
    expect(() => argumentsFor("dense/llama", asked)).toThrow("a warm-up of 10 steps is as long as the schedule of 10");
  });

  it("refuse a step that the ranks cannot share", () => {
    expect(() => argumentsFor("dense/llama", config(), { dp: 3 })).toThrow("no multiple of 3 data-parallel ranks");
  });
});

describe("a layout without Transformer Engine", () => {
  const gpu = {
    ...{ name: "x", title: "X", peak: 1e15, memory: 8e10, hbm: 3e12, intra: 4e11, inter: 5e10, perNode: 8, price: 1 },
    ...{ fp8Peak: null, sources: {} },
  };
  it("has no tensor parallelism for experts, which Megatron-LM would not train", () => {
    const fixed = config("transformerEngine: false\nhardware: { gpus: 2 }\nlayout: { tp: 2 }");
    expect(() => launchLayout(fixed, specOf("moe/mixtral"), gpu)).toThrow("only with Transformer Engine");
    expect(launchLayout(fixed, specOf("dense/llama"), gpu).tp).toBe(2);
    const other = config(
      "transformerEngine: false\nhardware: { gpus: 2 }\nlayout: { tp: 2 }\narguments: { --sequence-parallel: true }",
    );
    expect(launchLayout(other, specOf("moe/mixtral"), gpu).tp).toBe(2);
    const free = config("transformerEngine: false\nhardware: { gpus: 2 }");
    expect(launchLayout(free, specOf("moe/mixtral"), gpu)).toMatchObject({ tp: 1, recompute: "selective" });
  });
});

describe("a layout", () => {
  const gpu = {
    ...{ name: "x", title: "X", peak: 1e15, memory: 8e10, hbm: 3e12, intra: 4e11, inter: 5e10, perNode: 8, price: 1 },
    ...{ fp8Peak: null, sources: {} },
  };
  const llama = specOf("dense/llama");
  const deep = (layers: number, heads = llama.attn.heads): DecoderSpec => ({
    ...llama,
    attn: { ...llama.attn, heads },
    layers: Array.from({ length: layers }, () => llama.layers[0]!),
  });

  it.each([
    ["{ tp: 4 }", 4, deep(4, 6), "tp 4 does not divide 6 heads"],
    ["{ cp: 3 }", 3, deep(4), "cp 3 cuts a sequence in 6 pieces, which do not divide its 64 tokens"],
    ["{ vpp: 2 }", 2, deep(4), "vpp 2 cuts pipeline stages, and pp is 1"],
    ["{ pp: 2, vpp: 2 }", 2, deep(6), "pp 2 x vpp 2 does not divide 6 layers"],
    ["{ pp: 4, vpp: 2, microBatch: 16 }", 4, deep(8), "vpp 2 takes micro-batches by 4, one for each stage, and a step"],
  ])("%s on %i GPUs is refused where Megatron-LM would stop", (fixed, gpus, spec, words) => {
    const asked = config(`hardware: { gpus: ${gpus} }\nlayout: ${fixed}`);
    expect(() => launchLayout(asked, spec, gpu)).toThrow(words);
  });

  it("of stages in chunks passes where all divides", () => {
    const asked = config("hardware: { gpus: 4 }\nlayout: { pp: 4, vpp: 2, microBatch: 4 }");
    expect(launchLayout(asked, deep(8), gpu)).toMatchObject({ pp: 4, vpp: 2 });
    // A check evaluates a micro-batch for each stage.
    const chosen = launchLayout(asked, deep(8), gpu);
    expect(checkSize({ config: asked, layout: chosen }).windows).toBe(4);
    expect(checkSize({ config: asked, layout: { ...chosen, vpp: 1 } }).windows).toBe(1);
  });

  it("that is searched for has stages of equal length", () => {
    const usual = config("hardware: { gpus: 4 }");
    // One sequence leaves tensor and pipeline parallelism alone, and four stages would be the fastest.
    const asked = { ...usual, training: { ...usual.training, batch: 1, accumulate: 1 } };
    const spec = { ...deep(14), hidden: 64 * llama.hidden };
    expect(launchLayout(asked, spec, gpu)).toMatchObject({ tp: 2, pp: 2 });
  });
});

describe("scripts", () => {
  const planOf = (more = ""): LaunchPlan => {
    const asked = config(more);
    return {
      config: asked,
      layout: { ...layout, tp: 2 },
      vocab: 128,
      arguments: argumentsFor("moe/mixtral", asked),
      environment: environmentOf({ ...layout, tp: 2 }, { A: "b c" }),
      gpusPerNode: 8,
    };
  };

  it("go on from the run's own checkpoints, and take weights alone the first time", () => {
    const script = localScript(planOf(), ["--skip-train"]);
    expect(script).toContain("if [ -f '/runs/a b/checkpoints'/latest_checkpointed_iteration.txt ]; then");
    expect(script).toContain("LOAD=(--load /ckpt --finetune --save '/runs/a b/checkpoints')");
    expect(script).toContain("export A='b c'  # environment of the file");
    expect(script.trimEnd().endsWith('"${ARGUMENTS[@]}" "${LOAD[@]}" --skip-train')).toBe(true);
  });

  it("of Slurm may run again, end before the limit and know all nodes", () => {
    const script = slurmScript(
      planOf("hardware: { gpus: 16 }\nslurm: { partition: gpu, minutes: 60, options: [--exclusive] }"),
      "run",
    );
    for (const line of [
      "#SBATCH --nodes=2",
      "#SBATCH --gpus-per-node=8",
      "#SBATCH --requeue",
      "#SBATCH --partition=gpu",
      "#SBATCH --exclusive",
    ])
      expect(script.split("\n")).toContain(line);
    expect(script).toContain("--exit-duration-in-mins 50");
  });

  it("of Slurm cannot end before they would be asked to save", () => {
    expect(() => planOf("slurm: { minutes: 2 }")).toThrow("a whole number from 3");
  });

  it("of Kubernetes are manifests of both controllers", () => {
    const block = (kind: string): string =>
      `hardware: { gpus: 16 }\nkubernetes: { image: nvcr.io/x, kind: ${kind}, claim: data }`;
    const job = kubernetesManifest(planOf(block("PyTorchJob")), "run") as {
      spec: { pytorchReplicaSpecs: Record<string, { replicas: number }> };
    };
    expect(job.spec.pytorchReplicaSpecs["Master"]!.replicas + job.spec.pytorchReplicaSpecs["Worker"]!.replicas).toBe(2);
    const set = kubernetesManifest(planOf(block("JobSet")), "run");
    expect(set).toMatchObject({
      apiVersion: "jobset.x-k8s.io/v1alpha2",
      kind: "JobSet",
      metadata: { name: "run", namespace: "default" },
    });
    expect(parse(JSON.stringify(set))).toEqual(set);
  });
});

describe("a check of arguments", () => {
  const good =
    "pretrain_gpt.py --num-experts 8 --moe-router-topk 2 --load x --finetune --exit-on-missing-checkpoint --lr 1e-4 " +
    "--lr-warmup-iters 100 --vocab-size 1024 --sequence-parallel --moe-router-pre-softmax";
  const rulesOf = (text: string, context: LintContext = {}): string[] =>
    lintArguments(text, context).map(({ rule }) => rule);

  it("finds nothing in sound ones", () => {
    expect(rulesOf(good, { preSoftmax: true, perLayer: false, vocab: 1024 })).toEqual([]);
  });

  it.each<[string, string, LintContext]>([
    ["top1-order", good.replace("topk 2", "topk 1").replace(" --moe-router-pre-softmax", ""), {}],
    ["ep-divides", `${good} --expert-model-parallel-size 3`, {}],
    ["ep-across-nodes", `${good} --expert-model-parallel-size 8 --tensor-model-parallel-size 2`, {}],
    ["scaling-order", good.replace(" --moe-router-pre-softmax", ""), { preSoftmax: true }],
    ["scaling-order", good, { preSoftmax: false }],
    ["finetune", good.replace("--finetune ", ""), {}],
    ["missing-checkpoint", good.replace("--exit-on-missing-checkpoint ", ""), {}],
    ["warmup", good.replace("--lr-warmup-iters 100 ", ""), {}],
    ["padded-vocabulary", good.replace("1024", "1000"), {}],
    ["layer-keys", `${good} --moe-layer-freq '([1]*24)'`, { perLayer: false }],
    ["layer-keys", good, { perLayer: true }],
    ["version", good, { core: "0.18", commonFile: false }],
    ["version", `${good} --transformer-impl local`, { core: "0.15" }],
    ["version", `${good} --position-embedding-type yarn`, { core: "0.19" }],
    ["top1-renormalised", good.replace("topk 2", "topk 1"), { renormalisedOne: true }],
    ["cpu-initialization", `${good} --use-cpu-initialization`, {}],
    ["use-upcycling", `${good} --moe-use-upcycling`, {}],
    ["sequence-parallel", `${good.replace("--sequence-parallel ", "")} --tensor-model-parallel-size 2`, {}],
  ])("finds %s", (rule, text, context) => {
    expect(rulesOf(text, context)).toEqual([rule]);
    expect(lintArguments(text, context)[0]!.hint.length).toBeGreaterThan(3);
  });
});
