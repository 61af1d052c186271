/**
 * A plan: what continuing a dense model, upcycling it, or a mixture from scratch would reach and cost under one budget.
 * Pure: it also runs in the page.
 */
import { countParams, type ParamCount } from "../../model/cost/params.js";
import { forwardFlops, type ForwardFlops } from "../../model/cost/flops.js";
import { quantile } from "../fitting/distributions.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { checkRecipe, recipeDefaults, recipeName, type RecipeShape } from "../../surgery/planning/recipe.js";
import { curveDraws, curvesOf, type Coefficients, type Curves } from "./coefficients.js";
import { catchUp, crossings, validFrom, type CatchUp } from "./crossing.js";
import type { Gpu } from "./hardware.js";
import { bestLayout, fewestGpus, type LayoutResult } from "./layout.js";
import { notesOf, type Note } from "./notes.js";
import { affordable, lossOf, upcycledLoss, type ArmId, type Budget } from "./arms.js";
import { bestShare, computeOptimal, type Optimum } from "./optimum.js";
import { sensitivityOf, type Variation } from "./sensitivity.js";
import type { Speed } from "./speed.js";
import { batchFor, trainingAdvice, type Advice } from "./training.js";
import { mixtureOf } from "./shape.js";

export interface PlanRequest {
  readonly name: string;
  readonly spec: DecoderSpec;
  /** N of the laws: parameters of the dense model, embeddings included. Null: those of `spec`. */
  readonly size: number | null;
  /** D1: tokens the dense model has seen. */
  readonly seen: number;
  readonly recipes: readonly RecipeShape[];
  readonly budget: Budget;
  readonly gpu: Gpu;
  /** Of the GPU's price and the budget's money, for people. */
  readonly currency: string;
  readonly gpus: number;
  readonly sequence: number;
  /** Tokens per optimizer step; null: chosen. */
  readonly batchTokens: number | null;
  readonly speed: Speed;
  /** Measured share of peak, model FLOPs, of dense models and of mixtures; replaces the speed model. */
  readonly mfu: { readonly dense: number | null; readonly moe: number | null };
  readonly coefficients: Coefficients;
  readonly parentPeak: number | null;
  readonly draws: number;
  readonly seed: number;
  /** Confidence of intervals. */
  readonly level: number;
}

export interface Interval {
  readonly low: number;
  readonly high: number;
}

/** A model that is trained: the dense one, or the mixture of one recipe. */
export interface ModelPlan {
  readonly recipe: RecipeShape | null;
  readonly params: ParamCount;
  readonly flops: ForwardFlops;
  readonly placing: LayoutResult;
  /** Fewest GPUs of this kind on which it fits, where it does not fit on those given. */
  readonly needs: number | null;
  readonly tokensPerSecond: number | null;
  readonly mfu: number | null;
}

export interface ArmPlan {
  readonly id: ArmId;
  /** Recipe of the mixture; null for the dense model. */
  readonly recipe: string | null;
  /** D2: further tokens that the budget pays for; null: does not fit, and the budget is not in tokens. */
  readonly tokens: number | null;
  readonly loss: number | null;
  /**
   * The laws were fitted on another recipe, or on one that is not known: the loss says nothing about this recipe's own.
   */
  readonly otherRecipe: boolean;
  readonly interval: Interval | null;
  /** The law's own value where the parent's stands instead. */
  readonly unclamped: number | null;
  readonly seconds: number | null;
  readonly gpuHours: number | null;
  readonly money: number | null;
  /** FLOP for all its tokens, forward and backward. */
  readonly compute: number | null;
}

export interface RecipePlan {
  readonly name: string;
  /** FLOPs per token over the dense model's: r. */
  readonly ratio: number;
  readonly sunk: CatchUp;
  /** Interval of the sunk crossing over the draws that have one, and the share of draws that have. */
  readonly sunkInterval: (Interval & { readonly share: number }) | null;
  /** Scratch gets D1 + D2 tokens, and D1 / r + D2 tokens. */
  readonly chargedTokens: CatchUp;
  readonly chargedFlops: CatchUp;
  readonly optimum: Optimum | null;
}

export interface Plan {
  readonly name: string;
  readonly size: number;
  readonly seen: number;
  readonly gpu: Gpu;
  readonly currency: string;
  readonly gpus: number;
  readonly sequence: number;
  readonly batchTokens: number;
  readonly budget: Budget;
  readonly coefficients: Pick<Coefficients, "name" | "source" | "published" | "recipe" | "ranges" | "arms"> & {
    readonly uncertainty: Coefficients["uncertainty"]["kind"];
  };
  readonly level: number;
  readonly draws: number;
  /** Loss of the dense model as it is. */
  readonly parentLoss: number;
  readonly models: readonly ModelPlan[];
  readonly arms: readonly ArmPlan[];
  /** The recipe that the laws are about, or else the first one: the one that the answer is about. */
  readonly main: string | null;
  /** Which arm has the lowest loss among the dense one and those of the main recipe, and in which share of draws. */
  readonly best: { readonly arm: number; readonly share: number | null } | null;
  readonly recipes: readonly RecipePlan[];
  /** D2 below which the upcycled law says worse than the parent. */
  readonly validFrom: number | null;
  /** First D2 at which upcycling is ahead of training the dense model on, at equal tokens. */
  readonly aheadOfDense: number | null;
  /** Were nothing trained yet: best share of dense tokens in D1 + D2, and a mixture from scratch on all. */
  readonly split: {
    readonly total: number;
    readonly share: number;
    readonly loss: number;
    readonly scratch: number;
  } | null;
  readonly advice: readonly Advice[];
  readonly notes: readonly Note[];
  readonly sensitivity: readonly Variation[];
}

/** Throws inputError for recipes that make no sense for the model. */
export function makePlan(request: PlanRequest): Plan {
  const { spec, seen, gpu, gpus, sequence, coefficients, level, budget } = request;
  const dense = countParams(spec);
  const size = request.size ?? dense.total;
  for (const recipe of request.recipes) checkRecipe({ ...recipeDefaults, ...recipe, allowUnevenTopK: true });
  const specs = [spec, ...request.recipes.map((recipe) => mixtureOf(spec, recipe))];
  const batchTokens = request.batchTokens ?? batchFor(roughTokens(request, specs[1] ?? spec));
  const models = specs.map((one, i) => modelPlan(request, one, i === 0 ? null : request.recipes[i - 1]!, batchTokens));
  const curves = curvesOf(coefficients.arms);
  const draws = curveDraws(coefficients, request.draws, request.seed);
  const context: Context = { request, size, curves, draws, models };
  const arms = models.flatMap((model, i) =>
    i === 0
      ? [armPlan(context, "dense", model)]
      : [armPlan(context, "upcycled", model), armPlan(context, "scratch", model)],
  );
  const fitted = coefficients.ranges.tokens?.[1] ?? Infinity;
  const sunkInterval = sunkIntervalOf(context, fitted);
  const recipes = models.slice(1).map((model) => recipePlan(context, model, fitted, sunkInterval));
  const first = request.recipes.find((recipe) => recipeName(recipe) === coefficients.recipe) ?? request.recipes[0];
  const mainName = first === undefined ? null : recipeName(first);
  const main = arms.find(({ id, recipe }) => id === "upcycled" && recipe === mainName);
  const total = seen + (main?.tokens ?? budget.tokens ?? seen);
  const partial: Omit<Plan, "notes" | "sensitivity"> = {
    name: request.name,
    size,
    seen,
    gpu,
    currency: request.currency,
    gpus,
    sequence,
    batchTokens,
    budget,
    level,
    draws: draws.length,
    models,
    arms,
    recipes,
    coefficients: {
      name: coefficients.name,
      source: coefficients.source,
      published: coefficients.published,
      recipe: coefficients.recipe,
      ranges: coefficients.ranges,
      arms: coefficients.arms,
      uncertainty: coefficients.uncertainty.kind,
    },
    parentLoss: curves.dense(size, seen),
    main: mainName,
    best: bestArm(context, arms, mainName),
    validFrom: validFrom(curves, size, seen),
    aheadOfDense:
      crossings((tokens) => curves.dense(size, seen + tokens) - upcycledLoss(curves, size, seen, tokens)).find(
        ({ to }) => to === "ahead",
      )?.tokens ?? null,
    split: first === undefined ? null : { total, ...bestShare(curves, size, total) },
    advice:
      first === undefined
        ? []
        : trainingAdvice({
            size,
            tokens: main?.tokens ?? null,
            batch: batchTokens,
            recipe: first,
            parentPeak: request.parentPeak,
          }),
  };
  return { ...partial, notes: notesOf(partial), sensitivity: sensitivityOf(context, partial) };
}

export interface Context {
  readonly request: PlanRequest;
  readonly size: number;
  readonly curves: Curves;
  readonly draws: readonly Curves[];
  readonly models: readonly ModelPlan[];
}

function modelPlan(
  request: PlanRequest,
  spec: DecoderSpec,
  recipe: RecipeShape | null,
  batchTokens: number,
): ModelPlan {
  const { gpu, gpus, sequence, speed } = request;
  const layoutRequest = { spec, gpu, gpus, sequence, batchTokens, speed };
  const placing = bestLayout(layoutRequest);
  const flops = forwardFlops(spec, sequence, "causal");
  const measured = recipe === null ? request.mfu.dense : request.mfu.moe;
  const measuredSpeed = measured === null ? null : (measured * gpu.peak * gpus) / (3 * flops.total);
  return {
    recipe,
    params: countParams(spec),
    flops,
    placing,
    needs: placing.best === null ? fewestGpus(layoutRequest) : null,
    tokensPerSecond: placing.best === null ? null : (measuredSpeed ?? placing.best.tokensPerSecond),
    mfu: placing.best === null ? null : (measured ?? placing.best.mfu),
  };
}

function armPlan({ request, size, curves, draws }: Context, id: ArmId, model: ModelPlan): ArmPlan {
  const { gpu, gpus, budget, seen, level } = request;
  const tokens = affordable(budget, gpu, gpus, model.tokensPerSecond);
  const recipe = model.recipe === null ? null : recipeName(model.recipe);
  const seconds = tokens === null || model.tokensPerSecond === null ? null : tokens / model.tokensPerSecond;
  const gpuHours = seconds === null ? null : (seconds * gpus) / 3600;
  const loss = tokens === null ? null : lossOf(id, curves, size, seen, tokens);
  const raw = tokens === null || id !== "upcycled" ? null : curves.upcycled(size, seen, tokens);
  return {
    id,
    recipe,
    tokens,
    loss,
    otherRecipe: recipe !== null && recipe !== request.coefficients.recipe,
    interval:
      tokens === null
        ? null
        : intervalOf(
            draws.map((one) => lossOf(id, one, size, seen, tokens)),
            level,
          ),
    unclamped: raw !== null && loss !== null && raw > loss ? raw : null,
    seconds,
    gpuHours,
    money: gpuHours === null ? null : gpuHours * gpu.price,
    compute: tokens === null ? null : 3 * model.flops.total * tokens,
  };
}

export function intervalOf(values: readonly number[], level: number): Interval | null {
  const sorted = Float64Array.from(values.filter(Number.isFinite)).sort();
  return sorted.length < 2 ? null : { low: quantile(sorted, (1 - level) / 2), high: quantile(sorted, (1 + level) / 2) };
}

function bestArm({ request, size, draws }: Context, arms: readonly ArmPlan[], main: string | null): Plan["best"] {
  const known = arms.flatMap(({ loss, recipe }, i) =>
    loss === null || (recipe !== null && recipe !== main) ? [] : [{ loss, i }],
  );
  // Two of three arms are no comparison.
  if (known.length < 3) return null;
  const arm = known.reduce((best, other) => (other.loss < best.loss ? other : best)).i;
  if (draws.length === 0) return { arm, share: null };
  // Arms of one kind share a law: what counts is the kind.
  const kind = arms[arm]!.id;
  const wins = draws.filter((one) => {
    const losses = known.map(({ i }) => lossOf(arms[i]!.id, one, size, request.seen, arms[i]!.tokens!));
    return arms[known[losses.indexOf(Math.min(...losses))]!.i]!.id === kind;
  });
  return { arm, share: wins.length / draws.length };
}

/** Draws that are searched for crossings: fewer than for losses, a search is a hundred predictions. */
const searchedDraws = 200;

/** Interval of D* with the parent sunk: the same for all recipes, because the laws are. */
function sunkIntervalOf(
  { request: { seen, level }, size, draws }: Context,
  fitted: number,
): RecipePlan["sunkInterval"] {
  const drawn = draws
    .slice(0, searchedDraws)
    .map((one) => catchUp(one, { size, seen, credit: 0, fitted, detail: "coarse" }).tokens);
  const interval = intervalOf(
    drawn.flatMap((tokens) => (tokens === null ? [] : [tokens])),
    level,
  );
  return interval === null
    ? null
    : { ...interval, share: drawn.filter((tokens) => tokens !== null).length / drawn.length };
}

function recipePlan(
  { request, size, curves, models }: Context,
  model: ModelPlan,
  fitted: number,
  sunkInterval: RecipePlan["sunkInterval"],
): RecipePlan {
  const { seen, coefficients } = request;
  const ratio = model.flops.total / models[0]!.flops.total;
  const compute = armCompute(request, model);
  return {
    name: recipeName(model.recipe!),
    ratio,
    sunkInterval,
    sunk: catchUp(curves, { size, seen, credit: 0, fitted }),
    chargedTokens: catchUp(curves, { size, seen, credit: seen, fitted }),
    chargedFlops: catchUp(curves, { size, seen, credit: seen / ratio, fitted }),
    optimum: compute === null ? null : computeOptimal(coefficients.arms.upcycled, curves, { compute, seen, ratio }),
  };
}

/** C = 6 r N D2, the laws' way of counting, of the tokens that the budget pays for. */
function armCompute({ budget, gpu, gpus, ...request }: PlanRequest, model: ModelPlan): number | null {
  const tokens = affordable(budget, gpu, gpus, model.tokensPerSecond);
  const dense = forwardFlops(request.spec, request.sequence, "causal").total;
  const size = request.size ?? countParams(request.spec).total;
  return tokens === null ? null : 6 * (model.flops.total / dense) * size * tokens;
}

/** Before a layout is known: tokens of the budget at a third of peak. */
function roughTokens({ budget, gpu, gpus, sequence }: PlanRequest, spec: DecoderSpec): number {
  const speed = (gpu.peak * gpus) / 3 / (3 * forwardFlops(spec, sequence, "causal").total);
  return affordable(budget, gpu, gpus, speed) ?? 1e10;
}
