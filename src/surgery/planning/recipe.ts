/**
 * What an upcycling recipe says, its name (`E8G2T4` = expansion 8, granularity 2, top 4), and the checks that need no
 * model. `recipe-source.ts` checks a recipe against a model.
 *
 * Notation of "Upcycling Large Language Models into Mixture of Experts", He et al. 2024 (arXiv 2410.07524), section 2:
 * expansion E = parameters of the MoE layer / parameters of the dense FFN; granularity G = dense FFN size / expert
 * size; topK T = experts per token. There are E*G routed experts of size ffnDim/G; a token pays T/G dense FFNs.
 */
import { inputError } from "../../base/errors.js";
import { mostExperts } from "../../model/decoder/bounds.js";
import type { RouterOrder } from "../../model/decoder/types.js";
import { layerRanges } from "./layers.js";

/** MoE families that an upcycled model can be written as, in order of preference; our own format comes last. */
export const targetFamilies = [
  "mixtral",
  "qwen3_moe",
  "qwen2_moe",
  "granitemoe",
  "granitemoe_swa",
  "flex_olmo",
  "glm4_moe",
  "ernie4_5_moe",
  "dots1",
  "solar_open",
  "mellum",
  "hy_v3",
  "hunyuan_v1_moe",
  "lfm2_moe",
  "dbrx",
  "phimoe",
  "upcycle",
] as const;
/** An MoE family that an upcycled model can be written as. */
export type TargetFamily = (typeof targetFamilies)[number];

/** All kinds of weight scaling. */
export const scalings = ["exact", "paper", "calibrated", "none"] as const;
/** Where the factor that restores the FFN's output size goes; see `scaling.ts`. */
export type Scaling = (typeof scalings)[number];

/** All that experts can start from. */
export const expertInits = ["copies", "random"] as const;
/** What experts start from: the dense FFN's weights, or fresh ones of the source's `initStd`. */
type ExpertInit = (typeof expertInits)[number];

/** Gaussian noise on the experts' matrices. */
export interface Noise {
  /** Standard deviation: of the noise itself, or in units of each expert matrix's own standard deviation. */
  readonly std: number;
  readonly relative: boolean;
  /** Share of the elements that get noise, in (0, 1]. */
  readonly fraction: number;
}

/** All that tensors outside the experts can be where there are several parents: the base's, or the parents' mean. */
export const otherTensors = ["base", "average"] as const;

/**
 * Whose FFN a copy is, where several dense parents become experts (Branch-Train-MiX, Sukhbaatar et al. 2024, arXiv
 * 2403.07816).
 */
export interface ExpertParent {
  /** Which of the conversion's models: 0 is the base. */
  readonly source: number;
  /** Standard deviation of Gaussian noise on its matrices. */
  readonly noise: number;
  /** Factor on its output. */
  readonly scale: number;
}

/** The model whose whole FFN is the shared expert beside the routed ones. */
interface SharedParent extends ExpertParent {
  /** What the rows of its gate are made from, where the router's are made from prompts and the target has a gate. */
  readonly prompts: ExpertPrompts | null;
}

/** Texts that an expert should be chosen for (`positive`), and texts that it should not be chosen for (`negative`). */
export interface ExpertPrompts {
  readonly positive: readonly string[];
  readonly negative: readonly string[];
}

/**
 * Router rows that are not plain normal deviates. `hidden`, `cheap_embed`: from the base's hidden states, or token
 * embeddings, of each copy's prompts (`surgery/calibration/prompt-router.ts`). `centroids`: from what each layer's FFN
 * reads on text (`surgery/calibration/centroid-router.ts`). `uniform_random`: from U(-1/sqrt(H), 1/sqrt(H)), the
 * default of `torch.nn.Linear`.
 */
export type RouterInit =
  | { readonly kind: "hidden" | "cheap_embed"; readonly prompts: readonly ExpertPrompts[] }
  | { readonly kind: "centroids"; /** Null until it is measured. */ readonly text: MeasuredText | null }
  | { readonly kind: "uniform_random" };

/** The text that something was measured on. */
export interface MeasuredText {
  readonly tokens: number;
  /** What the tokens are, in words. */
  readonly source: string;
}

/** The prompts that a recipe's router is made from, one entry for each copy; null for any other router. */
export const promptsOf = ({ routerInit }: Pick<UpcycleRecipe, "routerInit">): readonly ExpertPrompts[] | null =>
  routerInit?.kind === "hidden" || routerInit?.kind === "cheap_embed" ? routerInit.prompts : null;

/** Whether the rows of a recipe's router are measured with the parent before anything is written. */
export const measuresRouter = ({ routerInit, split }: Pick<UpcycleRecipe, "routerInit" | "split">): boolean =>
  split !== null || (routerInit !== null && routerInit.kind !== "uniform_random");

/** Whether something of a recipe is measured on text before anything is written. */
export const measuresText = (
  recipe: Pick<UpcycleRecipe, "routerInit" | "split" | "scaling" | "calibration">,
): boolean =>
  (measuresRouter(recipe) && promptsOf(recipe) === null) ||
  (recipe.scaling === "calibrated" && recipe.calibration === null);

/** The numbers in a recipe's name. */
export interface RecipeShape {
  /** E: whole copies of the dense FFN. */
  readonly expansion: number;
  /** G: parts that the dense FFN is cut into. */
  readonly granularity: number;
  /** T: experts per token. */
  readonly topK: number;
}

/** Everything that decides how a dense model is upcycled. */
export interface UpcycleRecipe extends RecipeShape {
  /** Null: the first family in order of preference that can hold the model (`chooseTarget`). */
  readonly target: TargetFamily | null;
  /** Whether selected weights are renormalised (`topk-softmax`) or not (`softmax-topk`). */
  readonly order: RouterOrder;
  readonly scaling: Scaling;
  /**
   * Output factor of every layer, as measured for `calibrated` (`surgery/calibration/calibrate.ts`); null entries for
   * dense layers. Null: not measured.
   */
  readonly calibration: readonly (number | null)[] | null;
  /** Standard deviation of the fresh router rows; 0 gives a constant router. */
  readonly routerStd: number;
  /** Null: normal deviates of `routerStd`. */
  readonly routerInit: RouterInit | null;
  /**
   * The G parts of a copy share a router row, so that a T that is a multiple of G takes whole copies. False: every part
   * has a row of its own, as without virtual groups (He et al. 2024, section 2.3).
   */
  readonly routerGroups: boolean;
  /** Seed of everything that is drawn. */
  readonly seed: number;
  /** Accept a T that is not a multiple of G, although no whole copy of the FFN is selected then. */
  readonly allowUnevenTopK: boolean;
  readonly experts: ExpertInit;
  /** Whose FFN each of the E copies is; null: all are the one parent's. */
  readonly parents: readonly ExpertParent[] | null;
  /**
   * With `parents`: the model whose whole FFN is added to the routed experts' output for every token. No weight is
   * scaled to make up for it. Null: there is no such model.
   */
  readonly sharedParent: SharedParent | null;
  /** With `parents`: tensors outside the experts are the base's, or the mean over the models that give experts. */
  readonly others: (typeof otherTensors)[number];
  readonly noise: Noise | null;
  /**
   * Drop-Upcycling (Nakamura et al. 2025, arXiv 2502.19261): share of each expert's hidden units that is drawn afresh,
   * in [0, 1].
   */
  readonly drop: number;
  /** Each expert has its hidden units in an order of its own; changes no function. */
  readonly permute: boolean;
  /**
   * FFN hidden units that the shared expert takes; the routed experts share the others. Null: a shared expert, where
   * there is one, adds nothing.
   */
  readonly shared: number | null;
  /**
   * The hidden units of one copy go to the shared expert and to the parts by when they are active on text
   * (`activation-split.ts`), and the router is made of their weights. Null: to the parts in their order.
   */
  readonly split: { /** Null until it is measured. */ readonly text: MeasuredText | null } | null;
  /**
   * Which layers get experts: `all`, `even`, `odd`, or numbers and ranges from 0 such as `0,4-7,12-`; see
   * `chosenLayers`.
   */
  readonly layers: string;
  /** Fill the FFN with zero units up to a multiple of G. */
  readonly pad: boolean;
  /** Coefficient of the load-balancing loss that goes into the config. */
  readonly auxLossCoef: number;
  /**
   * Routers have a correction bias, zero at first, which training can balance experts with (Wang et al. 2024, arXiv
   * 2408.15664); only families that hold one are targets.
   */
  readonly correctionBias: boolean;
}

/** Settings of a recipe beside its name; what is left out or undefined takes `recipeDefaults`. */
export type RecipeOptions = {
  readonly [K in Exclude<keyof UpcycleRecipe, keyof RecipeShape>]?: UpcycleRecipe[K] | undefined;
};

/**
 * What a recipe says where nothing else is asked for. Router std 0.02 is the usual `initializer_range`; order and
 * scaling are those that keep the function for any router.
 */
export const recipeDefaults = {
  target: null,
  order: "topk-softmax",
  scaling: "exact",
  calibration: null,
  routerStd: 0.02,
  routerInit: null,
  routerGroups: true,
  seed: 0,
  allowUnevenTopK: false,
  experts: "copies",
  parents: null,
  sharedParent: null,
  others: "base",
  noise: null,
  drop: 0,
  permute: false,
  shared: null,
  split: null,
  layers: "all",
  pad: false,
  /** Best of 1e-2..1e-3 in He et al. 2024, section 3; a run may set its own. */
  auxLossCoef: 0.01,
  correctionBias: false,
} as const satisfies Omit<UpcycleRecipe, keyof RecipeShape>;

/** `E8G1T2` -> numbers. Throws inputError if the text is not of that form. */
export function parseRecipeName(text: string): RecipeShape {
  const match = /^E([1-9]\d{0,5})G([1-9]\d{0,5})T([1-9]\d{0,5})$/i.exec(text.trim());
  if (match === null) {
    throw inputError(`"${text}" is not a recipe name`, {
      hint: "write E<copies>G<parts>T<experts per token>, for example E8G1T2",
    });
  }
  return { expansion: Number(match[1]), granularity: Number(match[2]), topK: Number(match[3]) };
}

/** The name of a recipe: `E8G1T2`. */
export function recipeName({ expansion, granularity, topK }: RecipeShape): string {
  return `E${expansion}G${granularity}T${topK}`;
}

/**
 * A checked recipe from its name; what `options` leaves out or undefined takes `recipeDefaults`. Throws like
 * `checkRecipe`.
 */
export function upcycleRecipe(name: string, options: RecipeOptions = {}): UpcycleRecipe {
  const settings = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const recipe: UpcycleRecipe = { ...parseRecipeName(name), ...recipeDefaults, ...settings };
  checkRecipe(recipe);
  return recipe;
}

/** Throws inputError for a recipe that makes no sense for any source. */
export function checkRecipe(recipe: UpcycleRecipe): void {
  const where = `recipe ${recipeName(recipe)}`;
  checkShape(recipe, where);
  checkNumbers(recipe, where);
  const { scaling, order, experts, noise, drop, permute } = recipe;
  if (scaling === "calibrated" && order !== "softmax-topk") {
    throw inputError(`calibrated scaling fits weights that are not renormalised, the router order is ${order}`, {
      where,
      hint: "use exact scaling, or the order softmax-topk (--router, in files router)",
    });
  }
  if (experts === "random" && (noise !== null || drop > 0 || permute)) {
    throw inputError("random experts have nothing of the dense FFN that noise, drop or permutation could act on", {
      where,
      hint: "leave those out, or start from copies",
    });
  }
  layerRanges(recipe.layers);
  checkParents(recipe, where);
  checkGroups(recipe, where);
  checkRouterInit(recipe, where);
  checkSplit(recipe, where);
}

function checkNumbers({ routerStd, auxLossCoef, seed, drop, noise, shared }: UpcycleRecipe, where: string): void {
  requireAtLeast(routerStd, 0, "router std", where);
  requireAtLeast(auxLossCoef, 0, "the coefficient of the auxiliary loss", where);
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw inputError(`seed is ${seed}, expected a whole number of at least 0`, { where });
  }
  requireShare(drop, "the drop ratio", where);
  if (noise !== null) {
    requireAtLeast(noise.std, 0, "the noise's std", where);
    requireShare(noise.fraction, "the noise's fraction", where);
  }
  if (shared !== null && (!Number.isSafeInteger(shared) || shared < 1)) {
    throw inputError(`the shared expert's size is ${shared}, expected a whole number of at least 1`, { where });
  }
}

function requireAtLeast(value: number, least: number, name: string, where: string): void {
  if (Number.isFinite(value) && value >= least) return;
  throw inputError(`${name} is ${value}, expected a number of at least ${least}`, { where });
}

function requireShare(value: number, name: string, where: string): void {
  if (value >= 0 && value <= 1) return;
  throw inputError(`${name} is ${value}, expected a number from 0 to 1`, { where });
}

function checkParents(recipe: UpcycleRecipe, where: string): void {
  const { parents, sharedParent, expansion, shared, experts, scaling } = recipe;
  if (parents === null) return checkOneParent(recipe, where);
  if (parents.length !== expansion)
    throw inputError(`${parents.length} parents for ${expansion} copies, expected one for each`, { where });
  parents.forEach((parent, copy) => checkExpertParent(parent, `copy ${copy}`, where));
  if (sharedParent !== null) checkExpertParent(sharedParent, "the shared expert", where);
  if (experts === "random")
    throw inputError("random experts have nothing of their parents", { where, hint: "start from copies" });
  if (shared !== null)
    throw inputError("a shared expert takes units of one FFN, and there are several parents", {
      where,
      hint: "leave the shared expert out",
    });
  if (scaling === "calibrated")
    throw inputError("calibrated scaling measures one parent, and there are several", {
      where,
      hint: "use exact scaling",
    });
}

/** Throws inputError for settings that need several parents. */
function checkOneParent({ sharedParent, others }: UpcycleRecipe, where: string): void {
  if (sharedParent !== null)
    throw inputError("a model is the shared expert, but none are named for the routed ones", {
      where,
      hint: "name the parent of each copy",
    });
  if (others !== "base")
    throw inputError("there is one parent, nothing to average", {
      where,
      hint: "leave others out, or name several parents",
    });
}

function checkExpertParent({ source, noise, scale }: ExpertParent, what: string, where: string): void {
  if (!Number.isSafeInteger(source) || source < 0)
    throw inputError(`the parent of ${what} is number ${source}, expected a whole number of at least 0`, { where });
  if (!(noise >= 0 && noise < Infinity))
    throw inputError(`the noise on ${what} is ${noise}, expected a number of at least 0`, { where });
  if (!Number.isFinite(scale)) throw inputError(`the factor on ${what} is ${scale}, expected a number`, { where });
}

/** Throws inputError for rows of single parts where there are no parts, or where something tells copies apart. */
function checkGroups(
  { routerGroups, granularity, expansion, parents, routerInit }: UpcycleRecipe,
  where: string,
): void {
  if (routerGroups) return;
  const refuse = (why: string): never => {
    throw inputError(`a router without groups has a row for every part, and ${why}`, {
      where,
      hint: "leave the groups as they are",
    });
  };
  if (granularity === 1) refuse("whole copies have no parts: G is 1");
  if (expansion === 1) refuse("the parts of one copy have rows of their own in any case");
  if (parents !== null) refuse("experts of several parents are chosen as wholes");
  if (promptsOf({ routerInit }) !== null) refuse("prompts tell copies apart, not parts");
}

function checkRouterInit(recipe: UpcycleRecipe, where: string): void {
  const { sharedParent, expansion, granularity, topK } = recipe;
  if (sharedParent?.prompts?.positive.length === 0)
    throw inputError("the shared expert has no positive prompts", { where });
  if (recipe.routerInit?.kind === "centroids") return checkCentroids(recipe, where);
  const prompts = promptsOf(recipe);
  if (prompts === null) return;
  if (expansion === 1 && topK < granularity)
    throw inputError("with one copy the parts have no prompts to tell them apart", {
      where,
      hint: "use a drawn router",
    });
  if (prompts.length !== expansion)
    throw inputError(`prompts for ${prompts.length} copies, the recipe has ${expansion}`, {
      where,
      hint: "give one entry of prompts for each copy",
    });
  const empty = prompts.findIndex(({ positive }) => positive.length === 0);
  if (empty >= 0) throw inputError(`copy ${empty} has no positive prompts`, { where });
  const [first, ...more] = prompts.map((entry) => JSON.stringify([entry.positive, entry.negative]));
  if (more.length > 0 && more.every((text) => text === first)) {
    throw inputError("all copies have the same prompts, so the router could not tell them apart", {
      where,
      hint: "say for each what it is good at, or use a drawn router",
    });
  }
}

/** Throws inputError for settings that a split by activation contradicts. */
function checkSplit(recipe: UpcycleRecipe, where: string): void {
  const { split, expansion, granularity, topK, parents, routerInit, experts, pad } = recipe;
  if (split === null) return;
  const refuse = (what: string, hint: string): never => {
    throw inputError(`a split by activation ${what}`, { where, hint });
  };
  if (parents !== null) refuse("cuts the FFN of one parent, and there are several", "split them one by one");
  if (expansion !== 1 || topK >= granularity)
    refuse(
      "has one copy of the FFN, of whose parts a token gets some",
      "use E1 and a T smaller than G, for example E1G14T2",
    );
  if (routerInit !== null) refuse("makes the router itself", "leave the router's init out");
  if (experts === "random") refuse("needs the FFN's own units", "start from copies");
  if (pad) refuse("has parts of equally many units, none of them filled", "choose a G and a shared size that divide");
}

/** Throws inputError for a recipe whose experts have no clusters of inputs that could be theirs. */
function checkCentroids({ parents, expansion, granularity, topK }: UpcycleRecipe, where: string): void {
  if (parents !== null)
    throw inputError("centroids say nothing of which parent an expert is of", {
      where,
      hint: "use prompts, or a drawn router",
    });
  if (expansion === 1)
    throw inputError(
      topK < granularity
        ? "with one copy the parts are no experts for clusters of inputs"
        : "there is one copy, and its router has nothing to choose from",
      { where, hint: "use an E of at least 2, or a drawn router" },
    );
}

function checkShape(recipe: UpcycleRecipe, where: string): void {
  const { expansion, granularity, topK } = recipe;
  for (const [letter, value] of [
    ["E", expansion],
    ["G", granularity],
    ["T", topK],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw inputError(`${letter} is ${value}, expected a whole number of at least 1`, { where });
    }
  }
  const experts = expansion * granularity;
  if (experts < 2) {
    throw inputError("E*G is 1: one expert is the dense model again", { where, hint: "use E or G of at least 2" });
  }
  if (experts > mostExperts) {
    throw inputError(`E*G is ${experts} experts in each layer, the limit is ${mostExperts}`, {
      where,
      hint: "use a smaller E or G",
    });
  }
  if (topK > experts) {
    throw inputError(`T is ${topK} but there are only E*G = ${experts} experts`, {
      where,
      hint: `use T of at most ${experts}`,
    });
  }
  // A single copy has no others to be taken for: the FFN is split, and T says how much of it a token gets.
  if (topK % granularity !== 0 && expansion > 1 && !recipe.allowUnevenTopK) throw unevenTopK(recipe, where);
}

function unevenTopK({ granularity, topK, expansion }: RecipeShape, where: string): Error {
  const below = Math.floor(topK / granularity) * granularity;
  const above = Math.min(below + granularity, expansion * granularity);
  const choices = below === 0 ? `T${above}` : `T${below} or T${above}`;
  return inputError(
    `T = ${topK} is not a multiple of G = ${granularity}, so tokens would get incomplete copies of the FFN`,
    {
      where,
      hint:
        `use ${choices}, or insist (--allow-uneven-topk, in a study allowUnevenTopK: true) and expect to start ` +
        "far from the parent",
    },
  );
}
