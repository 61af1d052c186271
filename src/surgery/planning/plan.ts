/**
 * Recipe + dense spec -> `SurgeryPlan`: what every tensor of the MoE model is made of, as plain data.
 *
 *   source -> experts in the place of FFNs (experts.ts) -> what the target family can say (adapt.ts) -> outputs
 */
import { entryOf } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { slotsOf, type Slot } from "../../model/tensors/slots.js";
import { chooseTarget } from "./choose.js";
import { draftOf } from "./draft.js";
import { upcycleFfns } from "./experts.js";
import { givesShape, printExpr, sourceKeys, type Expr, type Shapes } from "./expr.js";
import { chosenLayers } from "./layers.js";
import { checkRecipe, recipeName, type UpcycleRecipe } from "./recipe.js";
import { checkSource } from "./recipe-source.js";
import { routerData, unitData, type PlanMatrix, type RouterRows, type UnitOrders } from "./router-rows.js";
import { servingWarnings } from "./serving.js";
import { expectedPreservation, recipeWarnings, type ExpectedPreservation } from "./expectation.js";
import { layerFactors, type Factors } from "./scaling.js";
import { routerOf, targets } from "./targets.js";

/** How an upcycled model is made, before any weight is read. */
export interface SurgeryPlan {
  readonly recipe: UpcycleRecipe;
  readonly source: DecoderSpec;
  readonly target: DecoderSpec;
  /** What the experts of each layer are scaled by; null where a layer keeps its dense FFN. */
  readonly factors: readonly (Factors | null)[];
  /** Exactly one per target slot, in write order. */
  readonly outputs: readonly PlannedSlot[];
  /** Source slots that nothing reads. */
  readonly unused: readonly string[];
  /** Matrices that expressions name: router rows that were made for this model. */
  readonly data: readonly PlanMatrix[];
  readonly warnings: readonly string[];
  readonly expected: ExpectedPreservation;
}

/** One tensor of the model to be made, and the expression that gives its values. */
export interface PlannedSlot {
  readonly slot: Slot;
  readonly value: Expr;
}

/**
 * Plans the upcycling of `source`. Where there are several parents it is the base, and the others must agree with it
 * (`agree.ts`). `rows` are those of a router that is measured; `orders` are those of the
 * hidden units in a split by activation; without them the plan of such a recipe can be
 * shown, but not executed. Throws inputError for a recipe or target that cannot work with this source,
 * saying what would.
 */
export function planUpcycle(
  source: DecoderSpec,
  recipe: UpcycleRecipe,
  rows?: RouterRows,
  orders?: UnitOrders,
): SurgeryPlan {
  checkRecipe(recipe);
  checkSource(recipe, source);
  if (recipe.scaling === "calibrated") checkCalibration(recipe, source);
  const start = draftOf(source, recipe);
  const { family, draft } = chooseTarget(source, recipe, (into, options) => upcycleFfns(start, recipe, into, options));
  const router = routerOf(targets[family], recipe);
  const { spec: target, values } = draft;
  const outputs = slotsOf(target).map((slot) => ({ slot, value: entryOf(values, slot.key) }));
  checkOutputs(outputs, sourceShapes(source));
  return {
    recipe,
    source,
    target,
    factors: layerFactors(recipe, router, source),
    outputs,
    unused: unusedKeys(source, outputs),
    data: [...routerData(source, recipe, rows), ...unitData(source, recipe, orders)],
    warnings: [...recipeWarnings(recipe, router), ...servingWarnings({ ...target, family }, recipe.order)],
    expected: expectedPreservation(recipe, source, router),
  };
}

function checkCalibration(recipe: UpcycleRecipe, source: DecoderSpec): void {
  const where = `recipe ${recipeName(recipe)}`;
  const { calibration } = recipe;
  if (calibration === null) {
    throw inputError("calibrated scaling has no measured factors", {
      where,
      hint: "upcycle convert measures them; elsewhere use exact scaling",
    });
  }
  const chosen = chosenLayers(recipe, source.layers.length);
  const isFactor = (factor: number | null | undefined): boolean =>
    typeof factor === "number" && factor > 0 && Number.isFinite(factor);
  const fits =
    calibration.length === chosen.length && chosen.every((isMoe, layer) => !isMoe || isFactor(calibration[layer]));
  if (!fits)
    throw inputError(`the measured factors do not fit the model's ${chosen.length} layers`, {
      where,
      hint: "measure them with this model and recipe",
    });
}

/** Keys of the source's tensors that no output reads. */
export function unusedKeys(source: DecoderSpec, outputs: readonly PlannedSlot[]): string[] {
  const readKeys = new Set(outputs.flatMap(({ value }) => sourceKeys(value)));
  return slotsOf(source)
    .map(({ key }) => key)
    .filter((key) => !readKeys.has(key));
}

/** Shapes of the tensors of a spec, by slot key. */
export function sourceShapes(source: DecoderSpec): Shapes {
  return new Map(slotsOf(source).map(({ key, shape }) => [key, shape]));
}

/**
 * Throws a plain error for a plan that reads a tensor that is not there or gives one a wrong shape: that is a defect of
 * ours.
 */
export function checkOutputs(outputs: readonly PlannedSlot[], shapes: Shapes): void {
  for (const { slot, value } of outputs) {
    if (!givesShape(value, slot.shape, shapes)) {
      throw new Error(`plan gives ${slot.key} [${slot.shape.join(", ")}] a wrong shape: ${printExpr(value)}`);
    }
  }
}
