/**
 * Explains and checks arguments of `pretrain_gpt.py` that somebody wrote: what makes a mixture start badly, or a run
 * stop after hours. Each finding says what was found, why it matters and what to do. Pure.
 */
import { argumentsIn, settingsOfArguments, type MegatronArgument } from "../../model/decoder/megatron-arguments.js";
import type { MegatronSettings } from "../../model/decoder/megatron-settings.js";

/** What is wrong with arguments, or worth a look. */
export interface LintFinding {
  readonly level: "error" | "warning";
  /** Short name of the rule. */
  readonly rule: string;
  readonly message: string;
  readonly hint: string;
}

/** What the checkpoint that is loaded says, as far as it is known. */
export interface LintContext {
  /** Whether its keys have a layer in them; null: not known. */
  readonly perLayer?: boolean | null;
  /** Router order that its scaling was made for; null: not known. */
  readonly preSoftmax?: boolean | null;
  /** Words of its vocabulary. */
  readonly vocab?: number | null;
  readonly gpusPerNode?: number;
  /** Core version that runs, such as 0.18. */
  readonly core?: string | null;
  /** Whether the folder has common.pt. */
  readonly commonFile?: boolean | null;
  /** Whether its router divides the weight of a single chosen expert by itself. */
  readonly renormalisedOne?: boolean | null;
}

interface Checked extends LintContext {
  readonly settings: MegatronSettings;
  readonly given: ReadonlyMap<string, MegatronArgument>;
}

type Rule = (checked: Checked) => LintFinding | null;

const error = (rule: string, message: string, hint: string): LintFinding => ({ level: "error", rule, message, hint });
const warning = (rule: string, message: string, hint: string): LintFinding => ({
  level: "warning",
  rule,
  message,
  hint,
});
const numberOf = (value: unknown, otherwise: number): number => (typeof value === "number" ? value : otherwise);

const isMoeRun = ({ settings }: Checked): boolean => numberOf(settings["num_experts"], 0) > 0;
const topOf = ({ settings }: Checked): number => numberOf(settings["moe_router_topk"], 2);
const isSoftmax = ({ settings }: Checked): boolean =>
  (settings["moe_router_score_function"] ?? "softmax") === "softmax";

const rules: readonly Rule[] = [
  (run) =>
    isMoeRun(run) && topOf(run) === 1 && isSoftmax(run) && run.settings["moe_router_pre_softmax"] !== true
      ? error(
          "top1-order",
          "top-1 with a softmax behind the choice gives every expert weight 1, whatever the router says, and the " +
            "router no gradient",
          "add --moe-router-pre-softmax",
        )
      : null,
  (run) =>
    isMoeRun(run) && topOf(run) === 1 && run.renormalisedOne === true
      ? error(
          "top1-renormalised",
          "the checkpoint was made for a single expert whose weight is divided by itself, which is 1 whatever the " +
            "router says: with another weight it starts as another function, and with that one the router never learns",
          "upcycle again with --router softmax-topk, or with T of 2 or more",
        )
      : null,
  (run) => {
    const [experts, ep] = [
      numberOf(run.settings["num_experts"], 0),
      numberOf(run.settings["expert_model_parallel_size"], 1),
    ];
    return experts > 0 && experts % ep !== 0
      ? error("ep-divides", `--expert-model-parallel-size ${ep} does not divide ${experts} experts`, "choose a divisor")
      : null;
  },
  (run) => {
    const ep = numberOf(run.settings["expert_model_parallel_size"], 1);
    const tp = numberOf(
      run.settings["expert_tensor_parallel_size"],
      numberOf(run.settings["tensor_model_parallel_size"], 1),
    );
    const node = run.gpusPerNode ?? 8;
    return isMoeRun(run) && ep * tp > node
      ? warning(
          "ep-across-nodes",
          `experts are spread over ${ep * tp} GPUs, a node has ${node}: tokens cross the slow network twice in every ` +
            "layer",
          "keep EP times TP inside a node and use pipeline stages across nodes",
        )
      : null;
  },
  (run) =>
    isMoeRun(run) &&
    run.preSoftmax != null &&
    isSoftmax(run) &&
    (run.settings["moe_router_pre_softmax"] === true) !== run.preSoftmax
      ? error(
          "scaling-order",
          `the weights were scaled for the softmax ${run.preSoftmax ? "before" : "behind"} the choice of experts, ` +
            `the arguments say ${run.preSoftmax ? "behind" : "before"}`,
          run.preSoftmax ? "add --moe-router-pre-softmax" : "remove --moe-router-pre-softmax",
        )
      : null,
  ({ given }) =>
    given.has("--load") && !given.has("--finetune") && !given.has("--ckpt-step")
      ? warning(
          "finetune",
          "--load without --finetune also asks for the iteration, the optimizer and the data's place, which a " +
            "converted checkpoint has not",
          "add --finetune at the first start; leave it out when the run goes on",
        )
      : null,
  ({ given }) =>
    given.has("--load") && !given.has("--exit-on-missing-checkpoint")
      ? error(
          "missing-checkpoint",
          "a folder without its tracker file means random weights and no error",
          "add --exit-on-missing-checkpoint",
        )
      : null,
  ({ settings, given }) => {
    const warms = ["lr_warmup_iters", "lr_warmup_samples", "lr_warmup_fraction"].some(
      (name) => numberOf(settings[name], 0) > 0,
    );
    return given.has("--load") && given.has("--lr") && !warms
      ? warning(
          "warmup",
          "the learning rate starts at its peak, on a model whose optimizer knows nothing yet",
          "add --lr-warmup-iters",
        )
      : null;
  },
  ({ settings, vocab }) => {
    const words = vocab ?? (typeof settings["vocab_size"] === "number" ? settings["vocab_size"] : null);
    if (words === null) return null;
    const unit =
      numberOf(settings["make_vocab_size_divisible_by"], 128) * numberOf(settings["tensor_model_parallel_size"], 1);
    const padding = (unit - (words % unit)) % unit;
    return padding > 0
      ? warning(
          "padded-vocabulary",
          `${padding} rows are added to a vocabulary of ${words}; their logits are 0 and count in the loss, which is ` +
            "higher than elsewhere",
          "for equal losses --make-vocab-size-divisible-by with a divisor of the vocabulary",
        )
      : null;
  },
  ({ settings, perLayer }) => {
    if (perLayer == null) return null;
    const frequency = settings["moe_layer_freq"];
    const asks = Array.isArray(frequency) || numberOf(frequency, 1) > 1;
    return asks !== perLayer
      ? error(
          "layer-keys",
          asks
            ? "--moe-layer-freq as a list (or above 1) asks for a key for each layer, the folder has all in one tensor"
            : "the folder has a key for each layer, which Megatron asks for only with --moe-layer-freq as a list",
          asks ? "leave the list out where every layer has experts" : "give --moe-layer-freq as the model has it",
        )
      : null;
  },
  ({ core, commonFile }) =>
    core != null && commonFile === false && versionBelow(core, 0, 19)
      ? error(
          "version",
          `core ${core} reads common.pt, which the folder does not have (it was saved by 0.19 or later)`,
          "import it and export it again",
        )
      : null,
  (run) =>
    run.core != null &&
    isMoeRun(run) &&
    run.settings["transformer_impl"] === "local" &&
    !versionBelow(run.core, 0, 14) &&
    versionBelow(run.core, 0, 17)
      ? error(
          "version",
          `core ${run.core} runs experts only with Transformer Engine (te_general_gemm is unknown to its router)`,
          "install Transformer Engine, or take core 0.18 or later",
        )
      : null,
  ({ core, settings }) =>
    core != null && settings["position_embedding_type"] === "yarn" && versionBelow(core, 0, 20)
      ? error("version", `core ${core} has no arguments for YaRN without latent attention`, "take core 0.20 or later")
      : null,
  (run) =>
    run.given.has("--moe-use-upcycling")
      ? error(
          "use-upcycling",
          "--moe-use-upcycling fails in core 0.20 (a TypeError in training.py)",
          "load a folder of upcycle convert --format megatron",
        )
      : null,
  (run) =>
    run.given.has("--use-cpu-initialization")
      ? warning("cpu-initialization", "--use-cpu-initialization breaks the optimizer in core 0.20", "leave it out")
      : null,
  (run) =>
    isMoeRun(run) &&
    numberOf(run.settings["tensor_model_parallel_size"], 1) > 1 &&
    run.settings["sequence_parallel"] !== true
      ? error("sequence-parallel", "experts with tensor parallelism want --sequence-parallel", "add it")
      : null,
];

function versionBelow(version: string, major: number, minor: number): boolean {
  const [own = 0, part = 0] = version.split(".").map(Number);
  return own < major || (own === major && part < minor);
}

/** Findings in a text with arguments, errors first. */
export function lintArguments(text: string, context: LintContext = {}): LintFinding[] {
  const found = argumentsIn(text);
  const checked = {
    ...context,
    settings: settingsOfArguments(found),
    given: new Map(found.map((one) => [one.flag, one])),
  };
  const findings = rules.flatMap((rule) => rule(checked) ?? []);
  return findings.sort((a, b) => Number(a.level === "warning") - Number(b.level === "warning"));
}
