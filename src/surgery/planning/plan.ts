/**
 * Recipe + dense spec -> `SurgeryPlan`: what every tensor of the MoE model is made of, as plain data.
 *
 *   source -> experts in the place of FFNs (experts.ts) -> what the target family can say (adapt.ts) -> outputs
 */
import { inputError } from "../../base/errors.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { slotsOf, type Slot } from "../../model/tensors/slots.js";
import { chooseTarget } from "./choose.js";
import { draftOf } from "./draft.js";
import { upcycleFfns } from "./experts.js";
import { givesShape, printExpr, sourceKeys, type Expr, type Shapes } from "./expr.js";
import { chosenLayers } from "./layers.js";
import { checkRecipe, checkSource, recipeName, type UpcycleRecipe } from "./recipe.js";
import { routerData, type PlanMatrix, type RouterRows } from "./router-rows.js";
import { servingWarnings } from "./serving.js";
import { expectedPreservation, recipeWarnings, type ExpectedPreservation } from "./expectation.js";
import { layerFactors, type Factors } from "./scaling.js";
import { routerOf, targets } from "./targets.js";

export interface SurgeryPlan {
  readonly recipe: UpcycleRecipe;
  readonly source: DecoderSpec;
  readonly target: DecoderSpec;
  /** Of every layer in turn; null where a layer keeps its dense FFN. */
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

export interface PlannedSlot {
  readonly slot: Slot;
  readonly value: Expr;
}

/**
 * Plans the upcycling of `source`, the base where there are several parents, which must agree with it (`agree.ts`).
 * `rows`: of a router made from prompts. Throws `input` for a recipe or target that cannot work with this source,
 * saying what would.
 */
export function planUpcycle(source: DecoderSpec, recipe: UpcycleRecipe, rows?: RouterRows): SurgeryPlan {
  checkRecipe(recipe);
  checkSource(recipe, source);
  if (recipe.scaling === "calibrated") checkCalibration(recipe, source);
  const start = draftOf(source, recipe);
  const { family, draft } = chooseTarget(source, recipe, (into, options) => upcycleFfns(start, recipe, into, options));
  const router = routerOf(targets[family], recipe)!;
  const { spec: target, values } = draft;
  const outputs = slotsOf(target).map((slot) => ({ slot, value: values.get(slot.key)! }));
  checkOutputs(outputs, sourceShapes(source));
  const used = new Set(outputs.flatMap(({ value }) => sourceKeys(value)));
  return {
    recipe,
    source,
    target,
    factors: layerFactors(recipe, router, source),
    outputs,
    unused: slotsOf(source)
      .map(({ key }) => key)
      .filter((key) => !used.has(key)),
    data: routerData(source, recipe, rows),
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
  const wrong =
    calibration.length !== chosen.length ||
    chosen.some((moe, layer) => moe && !(calibration[layer]! > 0 && Number.isFinite(calibration[layer])));
  if (wrong)
    throw inputError(`the measured factors do not fit the model's ${chosen.length} layers`, {
      where,
      hint: "measure them with this model and recipe",
    });
}

/** Shapes of a spec's tensors by key. */
export function sourceShapes(source: DecoderSpec): Shapes {
  return new Map(slotsOf(source).map(({ key, shape }) => [key, shape]));
}

/** A plan that reads what is not there or gives a wrong shape is a defect of ours: a plain error. */
export function checkOutputs(outputs: readonly PlannedSlot[], shapes: Shapes): void {
  for (const { slot, value } of outputs) {
    if (!givesShape(value, slot.shape, shapes)) {
      throw new Error(`plan gives ${slot.key} [${slot.shape.join(", ")}] a wrong shape: ${printExpr(value)}`);
    }
  }
}
