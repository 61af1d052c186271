/**
 * What the page of a plan runs: the planner itself. `scripts/browser.mjs` bundles this file into one script that
 * defines `upcyclePlan`. Sliders change a few numbers of the request; everything else is computed again.
 */
import { at } from "../../base/at.js";
import { UpcycleError } from "../../base/errors.js";
import { compact, significant } from "../../base/format.js";
import { makePlan } from "../../laws/planner/plan.js";
import type { PlanRequest } from "../../laws/planner/plan-types.js";
import { shapeOfSize, shapeSpec } from "../../laws/planner/shape.js";
import { planViews } from "../../laws/planner/views.js";
import type { RecipeShape } from "../../surgery/planning/recipe.js";
import { changedCommand, type Changes, type ControlKey } from "./plan-command.js";
import { planChart, planSections, type PlanChart, type PlanSections } from "./plan-view.js";

/** A slider of the page. */
export interface Control {
  readonly key: ControlKey;
  readonly label: string;
  /** The slider holds the logarithm to this base. */
  readonly base: 2 | 10;
  readonly min: number;
  readonly max: number;
  readonly step: number;
  /** Where it stands before it is moved, as a logarithm. */
  readonly start: number;
}

/** What the page shows after a slider was moved: the plan, or why there is none; and the sliders' values in words. */
export type Rendered = (
  | { readonly ok: true; readonly sections: PlanSections; readonly chart: PlanChart | null }
  | { readonly ok: false; readonly error: string }
) & {
  readonly values: Readonly<Record<ControlKey, string>>;
  /** The command that plans for these settings. */
  readonly command: string;
};

/** The sliders of a request. A parent that is an MoE keeps its shape, so only what it costs can be varied. */
export function controlsOf(request: PlanRequest): readonly Control[] {
  const plan = makePlan({ ...request, draws: 0 });
  const recipe = firstRecipe(request);
  const tokens = plan.arms.find(({ id, tokens: some }) => id === "upcycled" && some !== null)?.tokens ?? 1e11;
  const log = (key: ControlKey, label: string, low: number, high: number, start: number): Control => ({
    key,
    label,
    base: 10,
    min: Math.log10(low),
    max: Math.log10(high),
    step: 0.02,
    start: Math.log10(start),
  });
  const power = (key: ControlKey, label: string, most: number, start: number): Control => ({
    key,
    label,
    base: 2,
    min: 0,
    max: most,
    step: 1,
    start: Math.log2(start),
  });
  const costs = [
    log("tokens", "D2, further tokens", 1e8, 1e14, tokens),
    log("price", "price of a GPU hour", 0.1, 20, request.gpu.price),
    power("gpus", "GPUs", 13, request.gpus),
  ];
  if (plan.moeParent) return costs;
  return [
    log("size", "N, parameters of the dense model", 1e8, 1e12, plan.size),
    log("seen", "D1, tokens it has seen", 1e9, 1e14, request.seen),
    at(costs, 0),
    power("expansion", "E, copies of the FFN", 7, recipe.expansion),
    power("granularity", "G, parts of a copy", 5, recipe.granularity),
    power("topK", "T, experts per token", 6, recipe.topK),
    ...costs.slice(1),
  ];
}

/** The recipe that the sliders start from. */
const firstRecipe = ({ recipes }: PlanRequest): RecipeShape => recipes[0] ?? { expansion: 8, granularity: 1, topK: 2 };

/** The request with what the sliders change; a recipe that is changed takes the place of all recipes. */
export function changedRequest(request: PlanRequest, changes: Changes): PlanRequest {
  const { size, seen, tokens, expansion, granularity, topK, price, gpus } = changes;
  const recipe = firstRecipe(request);
  const isOtherRecipe = expansion !== undefined || granularity !== undefined || topK !== undefined;
  return {
    ...request,
    // Where the size is left alone, the model keeps its own shape; another size gets a usual shape.
    ...(size !== undefined && {
      name: `a usual shape of ${compact(size)}`,
      spec: shapeSpec(shapeOfSize(size)),
      size: null,
    }),
    ...(seen !== undefined && { seen }),
    ...(tokens !== undefined && { budget: { tokens, gpuHours: null, money: null, days: null } }),
    ...(isOtherRecipe && {
      recipes: [
        {
          expansion: expansion ?? recipe.expansion,
          granularity: granularity ?? recipe.granularity,
          topK: topK ?? recipe.topK,
        },
      ],
    }),
    ...(price !== undefined && { gpu: { ...request.gpu, price } }),
    ...(gpus !== undefined && { gpus }),
  };
}

/**
 * The plan of a changed request as markup and numbers, or what is wrong with it. `words` are those of the command that
 * made the page, after its name.
 */
export function render(request: PlanRequest, changes: Changes, words: readonly string[]): Rendered {
  const now = changedRequest(request, changes);
  const recipe = firstRecipe(now);
  const command = changedCommand(words, now, changes);
  const values = valueWords(now, compact(changes.size ?? request.size ?? NaN));
  try {
    if (now.recipes !== request.recipes && recipe.topK % recipe.granularity !== 0) {
      return {
        ok: false,
        values,
        command,
        error:
          `T = ${recipe.topK} is not a multiple of G = ${recipe.granularity}: tokens would get incomplete copies ` +
          "of the FFN.",
      };
    }
    const plan = makePlan(now);
    return {
      ok: true,
      sections: planSections(plan, planViews(now, plan)),
      chart: planChart(now, plan),
      command,
      values: { ...values, size: compact(plan.size) },
    };
  } catch (error) {
    if (error instanceof UpcycleError) return { ok: false, error: error.line, values, command };
    throw error;
  }
}

/** What the sliders' labels say of a request. */
function valueWords(request: PlanRequest, size: string): Readonly<Record<ControlKey, string>> {
  const { seen, budget, gpu, currency, gpus } = request;
  const { expansion, granularity, topK } = firstRecipe(request);
  return {
    size,
    seen: compact(seen),
    tokens: budget.tokens === null ? "from the budget" : compact(budget.tokens),
    expansion: String(expansion),
    granularity: String(granularity),
    topK: String(topK),
    price: `${significant(gpu.price)} ${currency}`,
    gpus: String(gpus),
  };
}
