/**
 * Puts experts in the place of FFNs.
 *
 * Expert e = replica * G + part (parts fastest): expert e holds part e mod G of the FFN's hidden units, that is rows of
 * gate and up and columns of down. The router draws E rows and repeats each G times, so that the G experts of one
 * replica always get equal logits and a top T of k*G takes k whole replicas ("virtual group initialisation", He et al.
 * 2024, arXiv 2410.07524, section 2.3). With G = 1 this is sparse upcycling (Komatsuzaki et al. 2022, arXiv 2212.05055).
 */
import { plainExperts, type DecoderSpec, type Ffn, type MoeFfn } from "../spec/types.js";
import { slotKey, slotsOf, type Slot } from "../tensors/slots.js";
import type { Draft } from "./draft.js";
import { columns, fill, normal, read, rows, scale, type Expr } from "./expr.js";
import type { UpcycleRecipe } from "./recipe.js";
import type { Factors } from "./scaling.js";
import type { Target } from "./targets.js";

/** Best of 1e-2..1e-3 in He et al. 2024, section 3; a run may set its own. */
const auxLossCoef = 0.01;

/**
 * The zero shared expert's gate row is drawn, not zero: llama.cpp computes the gate as silu(x)/x, which is 0/0 for an
 * all-zero row. Its value does not matter for the function, because the shared down matrix is zero.
 */
const sharedRouterStd = 1e-3;

/** The target says which router and which shared expert it has; everything else stays as the draft has it. */
export function upcycleFfns(draft: Draft, recipe: UpcycleRecipe, target: Target, factors: Factors): Draft {
  const spec = moeSpec(draft.spec, recipe, target);
  const values = slotsOf(spec).map((slot) => [slot.key, draft.values.get(slot.key) ?? valueOf(slot, spec, recipe, factors)] as const);
  return { spec, values: new Map(values) };
}

function moeSpec(source: DecoderSpec, recipe: UpcycleRecipe, target: Target): DecoderSpec {
  const moe = ({ inner, activation }: Ffn): MoeFfn => ({
    kind: "moe",
    inner: inner / recipe.granularity,
    activation,
    experts: recipe.expansion * recipe.granularity,
    topK: recipe.topK,
    ...plainExperts,
    router: target.routers[recipe.order]!,
    shared: target.sharedExpert?.required === true ? { inner: inner / recipe.granularity, gated: target.sharedExpert.gated } : null,
  });
  return {
    ...source,
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
    case "routerCorrection":
      return fill(0);
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
      throw new Error(`nothing says what ${key} is made of`);
  }
}

/** One part of a matrix; the whole matrix, as a plain copy, where G is 1. */
function cut(take: typeof rows, of: Expr, start: number, count: number, { granularity }: UpcycleRecipe): Expr {
  return granularity === 1 ? of : take(of, start, count);
}

