/** A file of `mergekit-moe` -> the models that it names and the recipe that it is. */
import { inputError } from "../../base/errors.js";
import { modelWords, type MergekitConfig } from "../../base/schemas/mergekit.js";
import { nearest } from "../../base/schemas/nearest.js";
import type { RecipeConfig } from "../../base/schemas/recipe.js";
import { recipeFromConfig } from "./recipe-config.js";
import { promptsOf, type ExpertParent, type ExpertPrompts, type RouterInit, type UpcycleRecipe } from "./recipe.js";

/** What a mergekit file says. */
export interface MergekitPlan {
  /**
   * As the file names them (`model+lora`: with an adapter), each once, the base first: `source` of the recipe's parents
   * counts these.
   */
  readonly models: readonly string[];
  readonly recipe: UpcycleRecipe;
}

/** The architectures that mergekit writes, by what `architecture` may begin with. */
const architectures = {
  mixtral: "mixtral",
  "qwen moe": "qwen2_moe",
  qwen2_moe: "qwen2_moe",
  qwen3_moe: "qwen3_moe",
  "qwen3 moe": "qwen3_moe",
} as const;

/** Settings that a caller may add to those of the file. */
type MergekitChanges = {
  readonly [K in Exclude<keyof RecipeConfig, "recipe" | "experts" | "shared">]?: RecipeConfig[K] | undefined;
} & {
  readonly others?: UpcycleRecipe["others"] | undefined;
};

/**
 * The models and the recipe of a mergekit file. Experts are whole FFNs (E = the number of experts, G = 1), the
 * selected weights are renormalised, all else is the base's, or the mean of the experts' models (Branch-Train-MiX).
 * `random` draws rows of standard deviation 1, as mergekit does. A shared expert is added as it is; the row of its
 * gate, where the target has one, is made like the router's, from the prompts that it then needs. Throws inputError,
 * naming `file`, for what makes no sense.
 */
export function mergekitPlan(
  config: MergekitConfig,
  file: string,
  { others, ...changes }: MergekitChanges = {},
): MergekitPlan {
  const { experts, gate_mode: gate, experts_per_token: topK } = config;
  if (topK > experts.length)
    throw inputError(`experts_per_token is ${topK}, there are ${experts.length} experts`, { where: file });
  const [shared] = config.shared_experts ?? [];
  const givers = [...experts, ...(shared === undefined ? [] : [shared])].map((expert) => expert.source_model);
  const models = [...new Set([config.base_model, ...givers].map(modelWords))];
  const parentOf = ({ source_model: model, noise_scale: noise, residual_scale: scale }: ExpertEntry): ExpertParent => ({
    source: models.indexOf(modelWords(model)),
    noise: noise ?? 0,
    scale: scale ?? 1,
  });
  const init = routerInit(gate, experts, file);
  const recipe = recipeFromConfig(
    {
      routerStd: 1,
      target: config.architecture == null ? undefined : familyOf(config.architecture, file),
      ...changes,
      recipe: `E${experts.length}G1T${topK}`,
    },
    {
      parents: experts.map(parentOf),
      sharedParent: shared === undefined ? null : { ...parentOf(shared), prompts: sharedPrompts(shared, init, file) },
      others,
      routerInit: init,
    },
  );
  return { models, recipe };
}

/** An entry of `experts` or `shared_experts`. */
type ExpertEntry = MergekitConfig["experts"][number];

/** The prompts of the shared expert's gate. As in mergekit, they are ignored if the router is drawn. */
function sharedPrompts(
  { positive_prompts: positive, negative_prompts: negative }: ExpertEntry,
  init: RouterInit | null,
  file: string,
): ExpertPrompts | null {
  const [likes, dislikes] = [positive ?? [], negative ?? []];
  if (promptsOf({ routerInit: init }) === null || likes.length + dislikes.length === 0) return null;
  if (likes.length === 0)
    throw inputError("the shared expert has only negative prompts", {
      where: `${file} (shared_experts[0].positive_prompts)`,
      hint: "add positive_prompts, or leave both out",
    });
  return { positive: likes, negative: dislikes };
}

function routerInit(
  gate: MergekitConfig["gate_mode"],
  experts: MergekitConfig["experts"],
  file: string,
): RouterInit | null {
  if (gate === "random") return null;
  if (gate === "uniform_random") return { kind: gate };
  const prompts = experts.map(({ positive_prompts: positive, negative_prompts: negative }) => ({
    positive: positive ?? [],
    negative: negative ?? [],
  }));
  const empty = prompts.findIndex(({ positive }) => positive.length === 0);
  if (empty >= 0)
    throw inputError(`gate_mode ${gate} needs prompts`, {
      where: `${file} (experts[${empty}].positive_prompts)`,
      hint: "add positive_prompts, or use gate_mode: random",
    });
  return { kind: gate, prompts };
}

type Architecture = keyof typeof architectures;

/** The family of an architecture that a file names, or begins to name. */
function familyOf(architecture: string, file: string): (typeof architectures)[Architecture] {
  const prefix = architecture.trim().toLowerCase();
  const names = Object.keys(architectures) as Architecture[];
  const match = prefix === "" ? undefined : names.find((name) => name.startsWith(prefix));
  if (match !== undefined) return architectures[match];
  if (prefix !== "" && "deepseek moe".startsWith(prefix)) {
    throw inputError("DeepSeek-MoE's first architecture is none that we write", {
      where: `${file} (architecture)`,
      hint:
        "leave it out and say --target ernie4_5_moe for a shared expert without a gate, or write architecture: " +
        "qwen for one behind a gate made from prompts",
    });
  }
  const suggestion = nearest(architecture, names);
  throw inputError(`"${architecture}" is no architecture that such a mixture can be written as`, {
    where: `${file} (architecture)`,
    hint:
      `${suggestion === undefined ? "" : `did you mean ${suggestion}? `}known: mixtral, qwen, qwen3 moe; or say ` +
      "--target and leave it out",
  });
}
