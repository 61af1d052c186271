/**
 * The arguments of Megatron's `pretrain_gpt.py` for a training, each with its reason. What Megatron cannot do as we do
 * is refused by the name of its setting. Source: NVIDIA/Megatron-LM@d98e8a64, `training/arguments.py`. Pure.
 */
import { inputError } from "../../base/errors.js";
import type { LaunchConfig } from "../../base/schemas/index.js";
import type { ParallelLayout } from "../../laws/planner/layout-types.js";
import { megatronSettings } from "../../model/decoder/megatron.js";
import type { MegatronSettings, MegatronValue } from "../../model/decoder/megatron-settings.js";
import { isMoe, type DecoderSpec, type MoeFfn } from "../../model/decoder/types.js";

/** An argument, and why it is given. */
export interface ReasonedArgument {
  readonly flag: string;
  readonly values: readonly string[];
  readonly reason: string;
}

/** What a run asks for. */
export interface ArgumentRequest {
  readonly config: LaunchConfig;
  readonly spec: DecoderSpec;
  readonly layout: ParallelLayout;
}

type Training = LaunchConfig["training"];

const argument = (flag: string, value: MegatronValue | undefined, reason: string): ReasonedArgument[] => {
  if (value === undefined || value === null || value === false) return [];
  const values = value === true ? [] : Array.isArray(value) ? value.map(String) : [String(value)];
  return [{ flag, values, reason }];
};

/** All arguments but those that say where to load from, which the script decides. Throws inputError. */
export function launchArguments(request: ArgumentRequest): ReasonedArgument[] {
  refuse(request.config.training);
  requireFall(request.config.training);
  const chosen = [
    ...modelArguments(request),
    ...implementation(request),
    ...parallelism(request),
    ...batchAndLength(request),
    ...learning(request.config.training),
    ...routing(request),
    ...dataArguments(request.config),
    ...saving(request.config),
  ];
  return withOverrides(chosen, request.config.arguments).map((one) => sourced(one, request.config.sources));
}

/** The reason with the sources of the settings that it names. */
function sourced({ reason, ...one }: ReasonedArgument, sources: LaunchConfig["sources"]): ReasonedArgument {
  const names = new Set(reason.split(/[^\w.]+/).map((word) => word.replace(/\.$/, "")));
  const found = Object.entries(sources).filter(([name]) => names.has(name));
  return { ...one, reason: [reason, ...found.map(([, source]) => `(${source})`)].join(" ") };
}

/** Sequences of an optimizer step. */
export const globalBatch = ({ batch, accumulate }: Training): number => batch * accumulate;

/** Optimizer steps. Throws inputError for a length that Megatron has no word for. */
export function iterations(training: Training): number {
  const { steps, budget, sequence } = training;
  const perStep = globalBatch(training) * sequence;
  const byTokens = budget?.tokens === undefined ? undefined : Math.max(1, Math.floor(budget.tokens / perStep));
  return Math.min(steps ?? Infinity, byTokens ?? Infinity);
}

/** Settings of ours that Megatron has no argument for. */
function refuse({
  optimizer,
  groups,
  freeze,
  guard,
  average,
  checkpoints,
  routing: route,
  budget,
  lr,
}: Training): void {
  const no = (name: string, why: string): never => {
    throw inputError(`${name} has no argument of Megatron-LM: ${why}`, {
      where: `training.${name}`,
      hint: "remove it",
    });
  };
  if (optimizer.method === "muon") no("optimizer.method", "its Muon splits matrices in ways of its own");
  if (groups !== undefined) no("groups", "its parameter groups are chosen in code");
  if (freeze !== undefined) no("freeze", "its frozen layers are chosen in code");
  if (guard !== undefined) no("guard", "it skips steps with infinite gradients alone");
  if (average !== undefined) no("average", "it keeps no average of the weights");
  if (checkpoints === "bfloat16") no("checkpoints", "its folders hold the precision of the run");
  if (budget?.flops !== undefined) no("budget.flops", "it counts iterations or samples; give tokens");
  if (route?.balance === "model") no("routing.balance", "its loss is taken layer by layer; say layer");
  if (route?.balance === "global") no("routing.balance", "it makes no second forward pass; say running");
  if (lr.schedule === "wsd" && lr.steps !== undefined) no("lr.steps", "its wsd schedule ends with the training");
}

/** Megatron-LM stops at its start where the learning rate is still rising when it should have fallen. */
function requireFall(training: Training): void {
  const { warmup, steps = iterations(training) } = training.lr;
  if (warmup >= steps)
    throw inputError(`a warm-up of ${warmup} steps is as long as the schedule of ${steps}`, {
      where: "training.lr.warmup",
      hint: "make it shorter: Megatron-LM asserts that it is",
    });
}

/** Settings of a description whose argument has another form. */
const flagForms: Readonly<Record<string, (value: MegatronValue) => readonly [string, MegatronValue]>> = {
  add_bias_linear: (value) => ["--disable-bias-linear", value === false],
  bias_gelu_fusion: (value) => ["--no-bias-gelu-fusion", value === false],
  layernorm_epsilon: (value) => ["--norm-epsilon", value],
  yarn_correction_range_round_to_int: (value) => [
    `--${value === false ? "no-" : ""}yarn-correction-range-round-to-int`,
    true,
  ],
  window_size: (value) => ["--window-size", (value as readonly number[] | null)?.join(",") ?? null],
  moe_layer_freq: (value) => ["--moe-layer-freq", Array.isArray(value) ? pattern(value as number[]) : value],
  no_rope_freq: (value) => ["--no-rope-freq", Array.isArray(value) ? pattern(value as number[]) : value],
  window_attn_skip_freq: (value) => [
    "--window-attn-skip-freq",
    Array.isArray(value) ? pattern(value as number[]) : value,
  ],
};

/** Settings that are said elsewhere, or whose default is what the model has. */
const notModel = new Set([
  "norm_epsilon",
  "layernorm_zero_centered_gamma",
  "padded_vocab_size",
  "vocab_size",
  "seq_length",
  "heterogeneous_layers_config_path",
  "add_position_embedding",
  "moe_grouped_gemm",
  "moe_router_load_balancing_type",
  "moe_aux_loss_coeff",
  "rope_scaling_factor",
  // Said with the modules that run.
  "apply_rope_fusion",
]);

/** `([0]*1+[1]*23)`: runs of equal entries. */
function pattern(list: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const one of list) {
    const last = runs.at(-1);
    if (last?.[0] === one) last[1]++;
    else runs.push([one, 1]);
  }
  return `(${runs.map(([one, count]) => `[${one}]*${count}`).join("+")})`;
}

function modelArguments({ spec, config, layout }: ArgumentRequest): ReasonedArgument[] {
  const settings: MegatronSettings = megatronSettings(spec);
  const grouped = settings["group_query_attention"] === true;
  const found = Object.entries(settings).flatMap(([name, value]) => {
    if (notModel.has(name) || (name === "num_query_groups" && !grouped)) return [];
    const form = flagForms[name];
    const [flag, own] = form === undefined ? [`--${name.replaceAll("_", "-")}`, value] : form(value);
    return argument(flag, own, "of the checkpoint's model");
  });
  return [
    ...found,
    ...(settings["use_rope_scaling"] === true
      ? argument("--rope-scaling-factor", settings["rope_scaling_factor"], "of the checkpoint's model")
      : []),
    ...argument("--seq-length", config.training.sequence, "training.sequence"),
    ...argument(
      "--make-vocab-size-divisible-by",
      divisorFor(spec.vocab, layout.tp),
      "no rows are added to the vocabulary where tensor parallelism divides it: added rows count in the loss",
    ),
  ];
}

/** The largest power of two up to 128 with which no rows are added for `tp` ranks; 1 where some always are. */
function divisorFor(vocab: number, tp: number): number {
  let divisor = 128;
  while (divisor > 1 && vocab % (divisor * tp) !== 0) divisor /= 2;
  return divisor;
}

/** Rows that Megatron-LM adds to a vocabulary for `tp` ranks. */
export const addedRows = (vocab: number, tp: number): number => {
  const unit = divisorFor(vocab, tp) * tp;
  return (unit - (vocab % unit)) % unit;
};

function implementation({ config, spec }: ArgumentRequest): ReasonedArgument[] {
  if (config.transformerEngine)
    return [
      ...argument("--transformer-impl", "transformer_engine", "transformerEngine: true"),
      ...(isMoe(spec) ? argument("--moe-grouped-gemm", true, "one product for all experts of a rank") : []),
      ...(spec.attn.latent === null
        ? []
        : argument("--no-rope-fusion", true, "the fused kernel of latent attention asks for YaRN")),
    ];
  if (spec.norm.weight === "one-plus")
    throw inputError("norms of the form 1 + weight need Transformer Engine", { where: "transformerEngine" });
  // Its DotProductAttention takes no sizes of keys and values (core 0.20).
  if (spec.attn.latent !== null)
    throw inputError("latent attention needs Transformer Engine", { where: "transformerEngine" });
  const without = "transformerEngine: false";
  return [
    ...argument("--transformer-impl", "local", without),
    ...[
      "--no-rope-fusion",
      "--no-masked-softmax-fusion",
      "--no-persist-layer-norm",
      "--no-gradient-accumulation-fusion",
    ].flatMap((flag) => argument(flag, true, without)),
  ];
}

function parallelism({ layout, spec, config: { transformerEngine } }: ArgumentRequest): ReasonedArgument[] {
  const { tp, pp, vpp, cp, ep, etp, dp, recompute } = layout;
  const moe = isMoe(spec);
  const why = "layout: the fastest that fits, by upcycle plan's model";
  return [
    ...argument("--tensor-model-parallel-size", tp, why),
    ...argument("--pipeline-model-parallel-size", pp, why),
    ...(vpp > 1 ? argument("--num-virtual-stages-per-pipeline-rank", vpp, why) : []),
    ...argument("--context-parallel-size", cp, why),
    ...(moe ? argument("--expert-model-parallel-size", ep, why) : []),
    ...(moe ? argument("--expert-tensor-parallel-size", etp, why) : []),
    // The norms of PyTorch, which stand for Transformer Engine's, refuse it.
    ...(tp > 1 && transformerEngine
      ? argument("--sequence-parallel", true, "with tensor parallelism: activations of norms are divided too")
      : []),
    ...(dp > 1 ? argument("--use-distributed-optimizer", true, "data-parallel ranks share the optimizer's state") : []),
    ...(dp > 1 ? argument("--overlap-grad-reduce", true, "gradients travel while others are computed") : []),
    ...(dp > 1 ? argument("--overlap-param-gather", true, "weights travel while others are used") : []),
    ...(moe ? argument("--moe-token-dispatcher-type", "alltoall", "tokens go to the experts of other ranks") : []),
    ...recomputeArguments(recompute),
  ];
}

function recomputeArguments(recompute: ParallelLayout["recompute"]): ReasonedArgument[] {
  if (recompute === "none") return [];
  const why = "layout: activations would not fit otherwise";
  return recompute === "full"
    ? [
        ...argument("--recompute-granularity", "full", why),
        ...argument("--recompute-method", "uniform", why),
        ...argument("--recompute-num-layers", 1, why),
      ]
    : argument("--recompute-granularity", "selective", why);
}

function batchAndLength({ config, layout }: ArgumentRequest): ReasonedArgument[] {
  const { training, precision } = config;
  const batch = globalBatch(training);
  if (batch % (layout.microBatch * layout.dp) !== 0)
    throw inputError(
      `a step of ${batch} sequences is no multiple of ${layout.dp} data-parallel ranks with micro-batches of ` +
        `${layout.microBatch}`,
      { where: "training.batch", hint: "change batch or accumulate, or give layout.microBatch" },
    );
  return [
    ...argument("--micro-batch-size", layout.microBatch, "layout"),
    ...argument("--global-batch-size", batch, "training.batch times training.accumulate"),
    ...argument("--train-iters", iterations(training), "training.steps, or the tokens of its budget"),
    ...argument("--exit-duration-in-mins", minutesOf(training), "training.budget.time"),
    ...(precision === "bf16" ? argument("--bf16", true, "precision") : []),
  ];
}

function minutesOf({ budget }: Training): number | undefined {
  if (budget?.time === undefined) return undefined;
  const units: Readonly<Record<string, number>> = { s: 1 / 60, m: 1, h: 60, d: 1440 };
  return Math.max(1, Math.floor(Number(budget.time.slice(0, -1)) * units[budget.time.slice(-1)]!));
}

function learning({ lr, optimizer, resetAttention, ...training }: Training): ReasonedArgument[] {
  const steps = iterations({ lr, optimizer, resetAttention, ...training });
  const styles = { constant: "constant", linear: "linear", cosine: "cosine", wsd: "WSD" } as const;
  const decay = lr.schedule === "wsd" ? (lr.decay ?? Math.max(1, Math.floor(steps / 5))) : undefined;
  return [
    ...argument("--lr", lr.peak, "training.lr.peak"),
    ...argument("--min-lr", Number((lr.peak * lr.final).toPrecision(12)), "training.lr.final of the peak"),
    ...argument("--lr-decay-style", styles[lr.schedule], "training.lr.schedule"),
    ...argument("--lr-warmup-iters", lr.warmup, "training.lr.warmup: the rate rises again from 0"),
    ...argument("--lr-decay-iters", lr.steps ?? steps, "training.lr.steps, or the length of the training"),
    ...argument("--lr-wsd-decay-iters", decay, "training.lr.decay"),
    ...(decay === undefined
      ? []
      : argument("--lr-wsd-decay-style", "linear", "training.lr.schedule wsd falls in a line")),
    ...argument("--optimizer", "adam", "training.optimizer"),
    ...argument("--adam-beta1", optimizer.beta1, "training.optimizer.beta1"),
    ...argument("--adam-beta2", optimizer.beta2, "training.optimizer.beta2"),
    ...argument("--adam-eps", optimizer.eps, "training.optimizer.eps"),
    ...argument("--weight-decay", optimizer.weightDecay, "training.optimizer.weightDecay"),
    ...argument("--clip-grad", optimizer.clip, "training.optimizer.clip"),
    ...(resetAttention === true
      ? [
          ...argument("--reset-position-ids", true, "training.resetAttention"),
          ...argument("--reset-attention-mask", true, "training.resetAttention"),
        ]
      : []),
  ];
}

const balances = { layer: "aux_loss", sequence: "seq_aux_loss", running: "global_aux_loss" } as const;

function routing({ config: { training }, spec }: ArgumentRequest): ReasonedArgument[] {
  const layers = spec.layers.map(({ ffn }) => ffn).filter((ffn): ffn is MoeFfn => ffn.kind === "moe");
  const [moe] = layers;
  if (moe === undefined) return [];
  const { auxLoss, zLoss, routing: { balance, bias, sinkhorn, capacity, jitter } = {} } = training;
  if (bias !== undefined && !moe.router.correctionBias)
    throw inputError("the checkpoint's router has no expert bias", {
      where: "training.routing.bias",
      hint: "remove it",
    });
  const kind =
    sinkhorn === true ? "sinkhorn" : auxLoss > 0 ? balances[(balance ?? "layer") as keyof typeof balances] : "none";
  const why =
    balance === undefined ? "training.auxLoss, taken layer by layer as Megatron does" : "training.routing.balance";
  return [
    ...argument("--moe-router-load-balancing-type", kind, why),
    ...(kind === "sinkhorn" || kind === "none" ? [] : argument("--moe-aux-loss-coeff", auxLoss, "training.auxLoss")),
    ...(zLoss > 0
      ? argument(
          "--moe-z-loss-coeff",
          zLoss / layers.length,
          `training.zLoss over ${layers.length} MoE layers, whose z-losses Megatron adds up`,
        )
      : []),
    ...argument("--moe-router-bias-update-rate", bias, "training.routing.bias"),
    ...argument("--moe-expert-capacity-factor", capacity?.factor, "training.routing.capacity.factor"),
    ...argument("--moe-token-drop-policy", capacity?.drop, "training.routing.capacity.drop"),
    ...argument("--moe-input-jitter-eps", jitter, "training.routing.jitter"),
    ...argument("--moe-router-dtype", "fp32", "router weights are sums of few numbers: bfloat16 ranks them wrongly"),
  ];
}

function dataArguments({ data, tokenizer, split, seed }: LaunchConfig): ReasonedArgument[] {
  return [
    ...argument("--data-path", data, "data"),
    ...argument("--split", split, "split"),
    ...argument("--tokenizer-type", "HuggingFaceTokenizer", "tokenizer"),
    ...argument("--tokenizer-model", tokenizer, "tokenizer"),
    ...argument("--seed", seed, "seed"),
  ];
}

function saving({ training }: LaunchConfig): ReasonedArgument[] {
  return [
    ...argument("--ckpt-format", "torch_dist", "any later layout of ranks can load it, and upcycle import"),
    ...argument("--save-interval", training.saveEvery, "training.saveEvery"),
    ...argument("--eval-interval", training.evalEvery, "training.evalEvery"),
    ...argument("--eval-iters", 8, "a first validation loss shows a broken load at once"),
    ...argument("--log-interval", 1, "upcycle watch sees every step"),
    ...argument("--log-throughput", true, "upcycle watch shows it"),
    ...argument("--exit-signal-handler", true, "a signal saves a checkpoint before the run ends"),
    ...argument("--exit-on-missing-checkpoint", true, "otherwise a missing checkpoint means random weights"),
  ];
}

function withOverrides(chosen: readonly ReasonedArgument[], overrides: LaunchConfig["arguments"]): ReasonedArgument[] {
  const kept = chosen.filter(({ flag }) => !Object.hasOwn(overrides, flag));
  const added = Object.entries(overrides).flatMap(([flag, value]) =>
    argument(
      flag,
      typeof value === "string" && value.includes(" ") ? value.split(" ") : value,
      "arguments of the file",
    ),
  );
  return [...kept, ...added];
}

/** Variables of the environment, each with its reason. */
export function environmentOf(
  { tp, cp }: ParallelLayout,
  own: LaunchConfig["environment"],
): [string, string, string][] {
  const connections: [string, string, string][] =
    tp > 1 || cp > 1
      ? [
          [
            "CUDA_DEVICE_MAX_CONNECTIONS",
            "1",
            "before Blackwell: communication of tensor and context parallelism is queued in order",
          ],
        ]
      : [];
  return [
    ...connections,
    ...Object.entries(own).map(([name, value]): [string, string, string] => [name, value, "environment of the file"]),
  ];
}
