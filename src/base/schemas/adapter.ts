/**
 * `adapter_config.json` of a LoRA adapter as PEFT writes it: keys and their meaning as in the public repository
 * huggingface/peft, src/peft/tuners/lora/config.py (`LoraConfig`) and src/peft/utils/other.py (`get_pattern_key`). What
 * would make the merged weights anything but W + scale B A is refused by name; a key that is not known here is refused
 * where it says anything.
 */
import { z } from "zod";
import { parseConfig } from "./validate.js";

/** What to do about an adapter that is not merged here. */
export const mergeHint = "merge it into the model with PEFT (merge_and_unload, save_pretrained) and use that";

const saysNothing = (value: unknown): boolean =>
  value === undefined ||
  value === null ||
  value === false ||
  (typeof value === "object" && Object.keys(value).length === 0);
/** A key that is refused where it says anything. */
const refuse = (why: string): z.ZodType => z.unknown().refine(saysNothing, `${why}; ${mergeHint}`).optional();
/** A key that is about training, or that the tensors themselves say. */
const anything = z.unknown().optional();

/**
 * Initial weights that leave the model's own as they are. PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA do not, and PEFT does
 * their change again on loading.
 */
const additive = [true, false, "gaussian", "orthogonal", "eva"];

const shape = {
  peft_type: z.string().refine((type) => type === "LORA", `this is no LoRA; ${mergeHint}`),
  r: z.int().min(1),
  lora_alpha: z.number(),
  use_rslora: z.boolean().nullish(),
  rank_pattern: z.record(z.string(), z.int().min(1)).nullish(),
  alpha_pattern: z.record(z.string(), z.number()).nullish(),
  fan_in_fan_out: z.boolean().nullish(),
  bias: z
    .string()
    .nullish()
    .refine((bias) => bias == null || bias === "none", `trained biases are not merged here; ${mergeHint}`),
  init_lora_weights: z
    .union([z.boolean(), z.string()])
    .nullish()
    .refine(
      (how) => how == null || additive.includes(how),
      `an initialization that changes the model's own weights (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA); ${mergeHint}`,
    ),
  use_dora: refuse("DoRA rescales the merged weights"),
  modules_to_save: z.array(z.string()).nullish(),
  lora_bias: refuse("biases of lora_B are not merged here"),
  use_qalora: refuse("QALoRA pools its inputs"),
  alora_invocation_tokens: refuse("an activated LoRA has no merged weights"),
  trainable_token_indices: refuse("single trained tokens are not taken over"),
  target_parameters: refuse(
    "parameters outside linear modules are not merged here: no file says how the trainer has packed the factors of " +
      "several experts",
  ),
  layer_replication: refuse("replicated layers make another model"),
  ...Object.fromEntries(
    [
      "task_type",
      "auto_mapping",
      "peft_version",
      "base_model_name_or_path",
      "revision",
      "inference_mode",
      "target_modules",
      "exclude_modules",
      "lora_dropout",
      "layers_to_transform",
      "layers_pattern",
      "megatron_core",
      "qalora_group_size",
      "loftq_config",
      "eva_config",
      "runtime_config",
      "ephemeral_gpu_offload",
      "ensure_weight_tying",
    ].map((key) => [key, anything]),
  ),
} as const;

const looseSchema = z.looseObject(shape);

/** Schema of `adapter_config.json`. Every problem says what to do about it. */
export const adapterSchema = looseSchema
  .superRefine((config, context) => {
    for (const [key, value] of Object.entries(config)) {
      if (Object.hasOwn(shape, key) || saysNothing(value)) continue;
      context.addIssue({
        code: "custom",
        path: [key],
        message: `a key of PEFT that may change what the adapter computes; ${mergeHint}`,
      });
    }
    for (const name of ["rank_pattern", "alpha_pattern"] as const) {
      for (const pattern of Object.keys(config[name] ?? {})) {
        if (matcherOf(pattern) === null)
          context.addIssue({
            code: "custom",
            path: [name, pattern],
            message: `this is no pattern that can be read; ${mergeHint}`,
          });
      }
    }
  })
  .describe("A LoRA adapter of PEFT.");

/** What `adapter_config.json` says of the ranks and factors of a LoRA adapter, under PEFT's own keys. */
export type AdapterConfig = Pick<
  z.output<typeof looseSchema>,
  "r" | "lora_alpha" | "use_rslora" | "rank_pattern" | "alpha_pattern" | "modules_to_save"
>;

/** Reads an `adapter_config.json`. Throws inputError with one line that names file, line and key. */
export function parseAdapterConfig(text: string, file: string): AdapterConfig {
  return parseConfig(adapterSchema, text, file);
}

/**
 * The rank of a module's adapter, and the factor on its B A: alpha / r, or alpha / sqrt(r) (rank-stabilized LoRA, arXiv
 * 2312.03732, section 4).
 */
export function rankAndScale(
  { r, lora_alpha: alpha, use_rslora: isRankStabilized, rank_pattern: ranks, alpha_pattern: alphas }: AdapterConfig,
  module: string,
): { readonly rank: number; readonly scale: number } {
  const rank = valueOfPattern(ranks, module) ?? r;
  const divisor = isRankStabilized === true ? Math.sqrt(rank) : rank;
  return { rank, scale: (valueOfPattern(alphas, module) ?? alpha) / divisor };
}

/** The value of the first pattern that fits the end of the module's path, behind a dot, or the whole path. */
function valueOfPattern(
  patterns: Readonly<Record<string, number>> | null | undefined,
  module: string,
): number | undefined {
  return Object.entries(patterns ?? {}).find(([pattern]) => matcherOf(pattern)?.test(module) === true)?.[1];
}

/** PEFT's `re.match(rf"(.*\.)?({pattern})$", module)` as an expression; null where `pattern` is none. */
function matcherOf(pattern: string): RegExp | null {
  try {
    return new RegExp(`^(.*\\.)?(${pattern})$`);
  } catch {
    return null;
  }
}
