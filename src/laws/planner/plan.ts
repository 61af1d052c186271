/**
 * A plan: what continuing a dense model, upcycling it, or an MoE from scratch would reach and cost under one budget.
 * Pure: it also runs in the page.
 */
import { at } from "../../base/at.js";
import { countParams } from "../../model/cost/params.js";
import { forwardFlops } from "../../model/cost/flops.js";
import { isMoe, type DecoderSpec } from "../../model/decoder/types.js";
import { checkRecipe, recipeDefaults, recipeName, type RecipeShape } from "../../surgery/planning/recipe.js";
import { curvesOf, type Curves } from "./coefficients.js";
import { curveDraws } from "./law-draws.js";
import { catchUp, crossings, validFrom } from "./crossing.js";
import { bestLayout, fewestGpus } from "./layout.js";
import type { CostedLayout, LayoutRequest } from "./layout-types.js";
import { notesOf, type Note } from "./notes.js";
import { affordable, armNames, lossOf, upcycledLoss, type ArmId } from "./arms.js";
import { backtest } from "./backtest.js";
import { calibration, type Calibration } from "./calibration.js";
import { bestShare, computeOptimal } from "./optimum.js";
import type { ArmPlan, ModelPlan, PlanContext, PlanRequest, PlanResults, RecipePlan } from "./plan-types.js";
import { sensitivityOf, type Variation } from "./sensitivity.js";
import { batchFor, trainingAdvice } from "./training.js";
import { mixtureOf, multipliedExperts } from "./shape.js";
import { answerOf, intervalOf, type Answer, type Ground } from "./verdict.js";

/** A plan with the notes that a reader needs before believing it, and what its answer hangs on. */
export interface Plan extends PlanResults {
  readonly notes: readonly Note[];
  readonly sensitivity: readonly Variation[];
}

/** The MoE of one recipe. */
type MixturePlan = ModelPlan & { readonly recipe: RecipeShape };

/**
 * Computes a plan. Losses are in nats per token, memory in bytes, times in seconds, money in the request's currency.
 * Throws inputError for recipes that make no sense for the model, and for FP8 on a GPU without.
 */
export function makePlan(request: PlanRequest): Plan {
  const { spec, seen, gpu, gpus, sequence, coefficients, level, budget } = request;
  const size = request.size ?? countParams(spec).total;
  for (const recipe of request.recipes) checkRecipe({ ...recipeDefaults, ...recipe, allowUnevenTopK: true });
  const moeParent = isMoe(spec);
  const mixtureSpecs = moeParent ? [] : request.recipes.map((recipe) => ({ recipe, spec: mixtureOf(spec, recipe) }));
  const batchTokens =
    request.batchTokens ?? Math.max(sequence, batchFor(roughTokens(request, mixtureSpecs[0]?.spec ?? spec)));
  const calibrated = calibration(level);
  const modelOf = modelPlanner(request, batchTokens, calibrated);
  const parent = modelOf(moeParent ? "MoE" : "dense", spec, null);
  const mixtures = mixtureSpecs.map((mixture): MixturePlan => ({
    ...modelOf(recipeName(mixture.recipe), mixture.spec, mixture.recipe),
    recipe: mixture.recipe,
  }));
  const multiplied = moeParent ? [modelOf("experts x2", multipliedExperts(spec, 2), null)] : [];
  const models = [parent, ...mixtures, ...multiplied];
  const curves = curvesOf(coefficients.arms);
  const draws = moeParent ? [] : curveDraws(coefficients, request.draws, request.seed);
  const context: PlanContext = { request, size, curves, draws, models };
  const armOf = armPlanner(context, calibrated);
  const arms = [
    armOf("dense", parent),
    ...mixtures.flatMap((model) => [armOf("upcycled", model), armOf("scratch", model)]),
    ...multiplied.map((model) => armOf("upcycled", model)),
  ];
  const mainRecipe = moeParent
    ? null
    : (request.recipes.find((recipe) => recipeName(recipe) === coefficients.recipe) ?? request.recipes[0] ?? null);
  const main = mainRecipe === null ? null : recipeName(mainRecipe);
  const mainTokens = arms.find(({ id, recipe }) => id === "upcycled" && recipe === main)?.tokens ?? null;
  const { name, currency, parentPeak, precision = "bf16" } = request;
  const partial: PlanResults = {
    name,
    size,
    seen,
    gpu,
    currency,
    gpus,
    sequence,
    batchTokens,
    precision,
    budget,
    level,
    draws: draws.length,
    calibration: calibrated,
    models,
    arms,
    moeParent,
    coefficients: {
      name: coefficients.name,
      source: coefficients.source,
      published: coefficients.published,
      recipe: coefficients.recipe,
      ranges: coefficients.ranges,
      arms: coefficients.arms,
      uncertainty: coefficients.uncertainty.kind,
    },
    main,
    ...(moeParent ? withoutLaws : lawResults(context, arms, mixtures, main)),
    advice:
      mainRecipe === null
        ? []
        : trainingAdvice({ size, tokens: mainTokens, batch: batchTokens, recipe: mainRecipe, parentPeak }),
  };
  return { ...partial, notes: notesOf(partial), sensitivity: sensitivityOf(context, partial) };
}

/** What the laws say in a plan. */
type LawResults = Pick<
  PlanResults,
  "recipes" | "parentLoss" | "best" | "answer" | "backtest" | "validFrom" | "aheadOfDense" | "split"
>;

/** Of a parent that is an MoE already the laws say nothing. */
const withoutLaws: LawResults = {
  recipes: [],
  parentLoss: null,
  best: null,
  answer: null,
  backtest: [],
  validFrom: null,
  aheadOfDense: null,
  split: null,
};

function lawResults(
  context: PlanContext,
  arms: readonly ArmPlan[],
  mixtures: readonly MixturePlan[],
  main: string | null,
): LawResults {
  const { request, size, curves, draws } = context;
  const { seen, coefficients, level, budget } = request;
  const largestFitted = coefficients.ranges.tokens?.[1] ?? Infinity;
  const sunkInterval = sunkIntervalOf(context, largestFitted);
  const mainTokens = arms.find(({ id, recipe }) => id === "upcycled" && recipe === main)?.tokens ?? null;
  const total = seen + (mainTokens ?? budget.tokens ?? seen);
  const recipes = mixtures.map((mixture) => recipePlan(context, mixture, largestFitted, sunkInterval));
  return {
    recipes,
    parentLoss: curves.dense(size, seen),
    best: bestArm(context, arms, main),
    answer: planAnswerOf(context, arms, main, recipes.find(({ name }) => name === main)?.ratio ?? 1),
    backtest: backtest({ coefficients, draws, level }),
    validFrom: validFrom(curves, size, seen),
    aheadOfDense: aheadOfDense(curves, size, seen),
    split: main === null ? null : { total, ...bestShare(curves, size, total) },
  };
}

/** The answer about the main recipe; null where the budget does not pay for one of the three arms. */
function planAnswerOf(
  { request, size, curves, draws }: PlanContext,
  arms: readonly ArmPlan[],
  main: string | null,
  ratio: number,
): Answer | null {
  const tokensOf = (kind: ArmId): number | null =>
    arms.find(({ id, recipe }) => id === kind && (recipe === null || recipe === main))?.tokens ?? null;
  const [dense, upcycled, scratch] = [tokensOf("dense"), tokensOf("upcycled"), tokensOf("scratch")];
  if (dense === null || upcycled === null || scratch === null) return null;
  const { seen, coefficients, level } = request;
  const ground: Ground = { size, seen, coefficients, curves, draws, level };
  const contenders = {
    dense: { id: "dense", tokens: dense },
    upcycled: { id: "upcycled", tokens: upcycled },
    scratch: { id: "scratch", tokens: scratch },
  } as const;
  return answerOf(ground, contenders, ratio);
}

/** First D2 at which upcycling is ahead of training the dense model on; null: never. */
function aheadOfDense(curves: Curves, size: number, seen: number): number | null {
  const lead = (tokens: number): number => curves.dense(size, seen + tokens) - upcycledLoss(curves, size, seen, tokens);
  return crossings(lead).find(({ to }) => to === "ahead")?.tokens ?? null;
}

function modelPlanner(
  request: PlanRequest,
  batchTokens: number,
  { speed: calibrated }: Calibration,
): (name: string, spec: DecoderSpec, recipe: RecipeShape | null) => ModelPlan {
  const { gpu, gpus, sequence, speed, precision = "bf16" } = request;
  return (name, spec, recipe) => {
    const layoutRequest = { spec, gpu, gpus, sequence, batchTokens, speed, precision };
    const placing = bestLayout(layoutRequest);
    const flops = forwardFlops(spec, sequence, "causal");
    const measuredMfu = isMoe(spec) ? request.mfu.moe : request.mfu.dense;
    const measuredSpeed = measuredMfu === null ? null : (measuredMfu * gpu.peak * gpus) / (3 * flops.total);
    const { best } = placing;
    return {
      name,
      recipe,
      params: countParams(spec),
      flops,
      placing,
      needs: best === null ? fewestGpus(layoutRequest) : null,
      tokensPerSecond: best === null ? null : (measuredSpeed ?? calibrated * best.tokensPerSecond),
      mfu: best === null ? null : (measuredMfu ?? calibrated * best.mfu),
      largerBatch: best === null ? null : largerBatch(layoutRequest, best),
    };
  };
}

/** Share of a step that goes into filling the pipeline from which a larger batch is worth a word. */
const longFilling = 0.15;

function largerBatch(request: LayoutRequest, now: CostedLayout): ModelPlan["largerBatch"] {
  if (now.seconds.pipeline < longFilling * now.seconds.total) return null;
  const tokens = 4 * request.batchTokens;
  const { best } = bestLayout({ ...request, batchTokens: tokens });
  if (best === null) return null;
  const time = now.tokensPerSecond / best.tokensPerSecond;
  return time > 1 - longFilling / 2 ? null : { tokens, time };
}

function armPlanner(
  { request, size, curves, draws }: PlanContext,
  { low, high }: Calibration,
): (id: ArmId, model: ModelPlan) => ArmPlan {
  const { gpu, gpus, budget, seen, level } = request;
  const hasLaws = !isMoe(request.spec);
  return (id, model) => {
    const tokens = affordable(budget, gpu, gpus, model.tokensPerSecond);
    const recipe = id === "dense" ? null : model.name;
    const seconds = tokens === null || model.tokensPerSecond === null ? null : tokens / model.tokensPerSecond;
    const isMeasured = (isMoeModel(model) ? request.mfu.moe : request.mfu.dense) !== null;
    const gpuHours = seconds === null ? null : (seconds * gpus) / 3600;
    const loss = tokens === null || !hasLaws ? null : lossOf(id, curves, size, seen, tokens);
    const raw = tokens === null || id !== "upcycled" || !hasLaws ? null : curves.upcycled(size, seen, tokens);
    return {
      id,
      label: armLabel(id, model.name, hasLaws),
      recipe,
      tokens,
      loss,
      otherRecipe: hasLaws && recipe !== null && recipe !== request.coefficients.recipe,
      interval:
        tokens === null || !hasLaws
          ? null
          : intervalOf(
              draws.map((one) => lossOf(id, one, size, seen, tokens)),
              level,
            ),
      unclamped: raw !== null && loss !== null && raw > loss ? raw : null,
      seconds,
      secondsInterval: seconds === null || isMeasured ? null : { low: low * seconds, high: high * seconds },
      gpuHours,
      money: gpuHours === null ? null : gpuHours * gpu.price,
      compute: tokens === null ? null : 3 * model.flops.total * tokens,
    };
  };
}

const isMoeModel = ({ flops }: ModelPlan): boolean => flops.experts > 0;

function armLabel(id: ArmId, model: string, isDenseParent: boolean): string {
  if (!isDenseParent) return id === "dense" ? "continued MoE" : model;
  return id === "dense" ? armNames.dense : `${armNames[id]} ${model}`;
}

function bestArm({ request, size, draws }: PlanContext, arms: readonly ArmPlan[], main: string | null): Plan["best"] {
  const candidates = arms.flatMap(({ id, loss, tokens, recipe }, i) =>
    loss === null || tokens === null || (recipe !== null && recipe !== main) ? [] : [{ id, loss, tokens, i }],
  );
  // Two of three arms are no comparison.
  if (candidates.length < 3) return null;
  const winner = candidates.reduce((best, other) => (other.loss < best.loss ? other : best));
  if (draws.length === 0) return { arm: winner.i, share: null };
  // Arms of one kind share a law: what counts is the kind.
  const wins = draws.filter((curves) => {
    const losses = candidates.map(({ id, tokens }) => lossOf(id, curves, size, request.seen, tokens));
    return at(candidates, losses.indexOf(Math.min(...losses))).id === winner.id;
  });
  return { arm: winner.i, share: wins.length / draws.length };
}

/** Draws that are searched for crossings: fewer than for losses, a search is a hundred predictions. */
const searchedDraws = 200;

/** Interval of D* with the parent sunk: the same for all recipes, because the laws are. */
function sunkIntervalOf(
  { request: { seen, level }, size, draws }: PlanContext,
  largestFitted: number,
): RecipePlan["sunkInterval"] {
  const searched = draws.slice(0, searchedDraws);
  const crossingTokens = searched
    .map((curves) => catchUp(curves, { size, seen, credit: 0, largestFitted, detail: "coarse" }).tokens)
    .filter((tokens) => tokens !== null);
  const interval = intervalOf(crossingTokens, level);
  return interval === null ? null : { ...interval, share: crossingTokens.length / searched.length };
}

function recipePlan(
  { request, size, curves, models }: PlanContext,
  model: MixturePlan,
  largestFitted: number,
  sunkInterval: RecipePlan["sunkInterval"],
): RecipePlan {
  const { seen, coefficients } = request;
  const ratio = model.flops.total / at(models, 0).flops.total;
  const compute = armCompute(request, model);
  return {
    name: recipeName(model.recipe),
    ratio,
    sunkInterval,
    sunk: catchUp(curves, { size, seen, credit: 0, largestFitted }),
    chargedTokens: catchUp(curves, { size, seen, credit: seen, largestFitted }),
    chargedFlops: catchUp(curves, { size, seen, credit: seen / ratio, largestFitted }),
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
