/**
 * Recipe + dense spec -> `SurgeryPlan`: what every tensor of the MoE model is made of, as plain data.
 *
 * Expert e = replica * G + part (parts fastest): expert e holds part e mod G of the FFN's hidden units, that is rows of
 * gate and up and columns of down. The router draws E rows and repeats each G times, so that the G experts of one
 * replica always get equal logits and a top T of k*G takes k whole replicas ("virtual group initialisation", He et al.
 * 2024, arXiv 2410.07524, section 2.3). With G = 1 this is sparse upcycling (Komatsuzaki et al. 2022, arXiv 2212.05055).
 */
import { plainExperts, softmaxRouter, type DecoderSpec, type Ffn, type MoeFfn } from "../spec/types.js";
import { slotKey, slotsOf, type Slot } from "../tensors/slots.js";
import { columns, fill, givesShape, normal, printExpr, read, rows, scale, sourceKey, type Expr, type Shapes } from "./expr.js";
import { checkRecipe, checkSource, type TargetFamily, type UpcycleRecipe } from "./recipe.js";
import { expectedPreservation, recipeWarnings, scaleFactors, type ExpectedPreservation, type Factors } from "./scaling.js";
import { chooseTarget, targetAbilities } from "./targets.js";

/** Best of 1e-2..1e-3 in He et al. 2024, section 3; a run may set its own. */
const auxLossCoef = 0.01;

/**
 * The zero shared expert's gate row is drawn, not zero: llama.cpp computes the gate as silu(x)/x, which is 0/0 for an
 * all-zero row. Its value does not matter for the function, because the shared down matrix is zero.
 */
const sharedRouterStd = 1e-3;

export interface SurgeryPlan {
  readonly recipe: UpcycleRecipe;
  readonly source: DecoderSpec;
  readonly target: DecoderSpec;
  readonly factors: Factors;
  /** Exactly one per target slot, in write order. */
  readonly outputs: readonly PlannedTensor[];
  /** Source slots that nothing reads. */
  readonly unused: readonly string[];
  readonly warnings: readonly string[];
  readonly expected: ExpectedPreservation;
}

export interface PlannedTensor {
  readonly slot: Slot;
  readonly value: Expr;
}

/**
 * Plans the upcycling of `source`.
 * Throws `input` for a recipe or target that cannot work with this source, saying what would.
 */
export function planUpcycle(source: DecoderSpec, recipe: UpcycleRecipe): SurgeryPlan {
  checkRecipe(recipe);
  checkSource(recipe, source);
  const family = chooseTarget(source, recipe.order, recipe.target);
  const target = targetSpec(source, recipe, family);
  const factors = scaleFactors(recipe);
  const outputs = slotsOf(target).map((slot) => ({ slot, value: valueOf(slot, target, recipe, factors) }));
  checkOutputs(outputs, sourceShapes(source));
  const used = new Set(outputs.map(({ value }) => sourceKey(value)));
  return {
    recipe,
    source,
    target,
    factors,
    outputs,
    unused: slotsOf(source).map(({ key }) => key).filter((key) => !used.has(key)),
    warnings: [...recipeWarnings(recipe), ...servingWarnings(recipe, source, family)],
    expected: expectedPreservation(recipe, source),
  };
}

/** Shapes of a spec's tensors by key. */
export function sourceShapes(source: DecoderSpec): Shapes {
  return new Map(slotsOf(source).map(({ key, shape }) => [key, shape]));
}

function targetSpec(source: DecoderSpec, recipe: UpcycleRecipe, family: TargetFamily): DecoderSpec {
  const moe = ({ inner, activation }: Ffn): MoeFfn => ({
    kind: "moe",
    inner: inner / recipe.granularity,
    activation,
    experts: recipe.expansion * recipe.granularity,
    topK: recipe.topK,
    ...plainExperts,
    router: softmaxRouter(recipe.order),
    shared: targetAbilities[family].sharedExpert ? { inner: inner / recipe.granularity, gated: true } : null,
  });
  return {
    ...source,
    family,
    layers: source.layers.map((layer) => ({ ...layer, ffn: moe(layer.ffn) })),
    auxLossCoef,
  };
}

function valueOf({ key, at }: Slot, target: DecoderSpec, recipe: UpcycleRecipe, factors: Factors): Expr {
  const { part, layer, expert } = at;
  const inner = layer === undefined ? 0 : target.layers[layer]!.ffn.inner;
  const dense = (densePart: "gate" | "up" | "down"): Expr => read(slotKey({ part: densePart, layer }));
  const start = expert === undefined ? 0 : (expert % recipe.granularity) * inner;
  switch (part) {
    case "router":
      return recipe.routerStd === 0 ? fill(0) : normal(recipe.routerStd, key, recipe.granularity);
    case "gate":
      return scale(cut(rows, dense("gate"), start, inner, recipe), factors.gate);
    case "up":
      return scale(cut(rows, dense("up"), start, inner, recipe), factors.up);
    case "down":
      return scale(cut(columns, dense("down"), start, inner, recipe), factors.down);
    // A shared expert that adds nothing: only its down matrix is zero, gate and up are a copy of the FFN's first part,
    // because with all three at zero no gradient would ever reach it.
    case "sharedGate":
      return cut(rows, dense("gate"), 0, inner, recipe);
    case "sharedUp":
      return cut(rows, dense("up"), 0, inner, recipe);
    case "sharedDown":
      return fill(0);
    case "sharedRouter":
      return normal(sharedRouterStd, key);
    default:
      return read(key);
  }
}

/** One part of a matrix; the whole matrix, as a plain copy, where G is 1. */
function cut(take: typeof rows, of: Expr, start: number, count: number, { granularity }: UpcycleRecipe): Expr {
  return granularity === 1 ? of : take(of, start, count);
}

/** A plan that reads what is not there or gives a wrong shape is a defect of ours: a plain error. */
function checkOutputs(outputs: readonly PlannedTensor[], shapes: Shapes): void {
  for (const { slot, value } of outputs) {
    if (!givesShape(value, slot.shape, shapes)) {
      throw new Error(`plan gives ${slot.key} [${slot.shape.join(", ")}] a wrong shape: ${printExpr(value)}`);
    }
  }
}

/** Known limits of the programs that serve the result (llama.cpp `conversion/`, read in 2026). */
function servingWarnings({ order }: UpcycleRecipe, source: DecoderSpec, family: TargetFamily): string[] {
  const others = "transformers and vLLM do not";
  const warnings: string[] = [];
  if (family === "qwen2_moe" && order === "topk-softmax") {
    warnings.push(`llama.cpp ignores norm_topk_prob=true of qwen2_moe and would compute another function; ${others}`);
  }
  if (family === "qwen3_moe" && order === "softmax-topk") {
    warnings.push(`llama.cpp ignores norm_topk_prob=false of qwen3_moe and would compute another function; ${others}`);
  }
  if (family === "qwen2_moe" && source.tiedHead) {
    warnings.push(`llama.cpp wants an untied output head for qwen2_moe; ${others}`);
  }
  return warnings;
}
