/**
 * Puts experts in the place of FFNs. Letters: E copies of the FFN (expansion), G parts of each copy (granularity), T
 * experts per token, S hidden units of the shared expert.
 *
 * Expert e = replica * G + part (parts fastest): expert e holds part e mod G of the FFN's hidden units, that is rows of
 * gate and up and columns of down. The router draws E rows and repeats each G times, so that the G experts of one
 * replica always get equal logits and a top T of k*G takes k whole replicas ("virtual group initialisation", He et al.
 * 2024, arXiv 2410.07524, section 2.3). With G = 1 this is sparse upcycling (Komatsuzaki et al. 2022, arXiv
 * 2212.05055), with E = 1 and T < G a split without replication (MoEfication, Zhang et al. 2022, arXiv 2110.01786):
 * every part has a router row of its own. So it is without groups (`routerGroups`), where a token's top T has no whole
 * copy.
 *
 * A shared expert either adds nothing, or takes the first S hidden units, which the routed experts then do not get. In
 * a split by activation the units are in an order that was measured (`activation-split.ts`).
 */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import {
  plainExperts,
  type DecoderSpec,
  type DenseFfn,
  type LayerSpec,
  type MoeFfn,
  type RouterSpec,
} from "../../model/decoder/types.js";
import { slotKey, type Slot } from "../../model/tensors/slots.js";
import { slotsOfDraft, type Draft } from "./draft.js";
import { columnsOf, fill, normal, pad, read, rowsOf, scale, type MatrixAxis, type Expr } from "./expr.js";
import { ffnOf, ffnTensors, isFfnPart, isOutputPart, moeFfnOf, type FfnPart } from "./ffn-tensors.js";
import { chosenLayers } from "./layers.js";
import { promptsOf, type ExpertParent, type UpcycleRecipe } from "./recipe.js";
import { partSize } from "./recipe-source.js";
import { rowCountOf, rowRepeats, unitList } from "./router-rows.js";
import { layerFactors, type Factors } from "./scaling.js";
import { routerOf, type Target } from "./targets.js";

/**
 * The zero shared expert's gate row is drawn, not zero: llama.cpp computes the gate as silu(x)/x, which is 0/0 for an
 * all-zero row. Its value does not matter for the function, because the shared down matrix is zero.
 */
const sharedRouterStd = 1e-3;

/**
 * The draft with experts in the place of the chosen layers' FFNs. The target says which router and which shared expert
 * they get; everything else stays as the draft has it. With `sample` only the first experts of each layer get values,
 * and stand for all. Throws inputError if the recipe asks for a shared expert that the target does not have.
 */
export function upcycleFfns(
  draft: Draft,
  recipe: UpcycleRecipe,
  target: Target,
  { sample }: { readonly sample?: true | undefined } = {},
): Draft {
  const router = routerOf(target, recipe);
  checkShared(recipe, target);
  const factors = layerFactors(recipe, router, draft.spec);
  const spec = moeSpec(draft.spec, recipe, target, router);
  const upcycled = { spec, ...(sample === undefined ? {} : { sample }) };
  const values = slotsOfDraft(upcycled).map(
    (slot) => [slot.key, draft.values.get(slot.key) ?? valueOf(slot, draft.spec, spec, recipe, factors)] as const,
  );
  return { ...upcycled, values: new Map(values) };
}

function checkShared({ shared, sharedParent, routerInit }: UpcycleRecipe, { sharedExpert }: Target): void {
  if (shared === null && sharedParent === null) return;
  if (sharedExpert === null) throw inputError("it has no shared expert");
  if (sharedParent === null) return;
  if (promptsOf({ routerInit }) !== null && sharedExpert.gated && sharedParent.prompts === null)
    throw inputError("its shared expert has a gate, for which there are no prompts");
  if (!sharedExpert.gated && sharedParent.prompts !== null)
    throw inputError("its shared expert has no gate that prompts could make");
}

function moeSpec(source: DecoderSpec, recipe: UpcycleRecipe, target: Target, router: RouterSpec): DecoderSpec {
  const chosen = chosenLayers(recipe, source.layers.length);
  return {
    ...source,
    layers: source.layers.map((layer, index): LayerSpec =>
      chosen[index] ? { ...layer, ffn: moeFfn(layer.ffn as DenseFfn, recipe, target, router) } : layer,
    ),
    auxLossCoef: recipe.auxLossCoef,
  };
}

function moeFfn(dense: DenseFfn, recipe: UpcycleRecipe, target: Target, router: RouterSpec): MoeFfn {
  const ffnDim = partSize(recipe, dense.ffnDim);
  return {
    kind: "moe",
    ffnDim,
    activation: dense.activation,
    experts: recipe.expansion * recipe.granularity,
    topK: recipe.topK,
    ...plainExperts,
    gated: dense.gated,
    bias: dense.bias,
    router,
    shared: sharedExpert(dense, recipe, target, ffnDim),
  };
}

/** The shared expert that the recipe asks for or that the target cannot do without; null where there is none. */
function sharedExpert(
  dense: DenseFfn,
  { shared, sharedParent }: UpcycleRecipe,
  { sharedExpert: allowed }: Target,
  ffnDim: number,
): MoeFfn["shared"] {
  const isAsked = shared !== null || sharedParent !== null;
  if (allowed === null || !(isAsked || allowed.required)) return null;
  return { ffnDim: sharedParent === null ? (shared ?? ffnDim) : dense.ffnDim, gated: allowed.gated };
}

function valueOf(
  { key, at: { part, layer, expert } }: Slot,
  source: DecoderSpec,
  target: DecoderSpec,
  recipe: UpcycleRecipe,
  allFactors: readonly (Factors | null)[],
): Expr {
  const factors = layer === undefined ? null : at(allFactors, layer);
  if (layer === undefined || factors === null) throw new Error(`nothing says what ${key} is made of`);
  const { ffnDim, shared } = moeFfnOf(target, layer);
  const cut: Cut = { recipe, layer, whole: ffnOf(source, layer).ffnDim, hidden: source.hidden, ffnDim };
  if (expert !== undefined) {
    if (!isFfnPart(part)) throw new Error(`experts have no ${part}`);
    return expertValue(part, key, expert, cut, factors, source.initStd);
  }
  switch (part) {
    case "router":
      return routerValue(key, recipe, source.hidden, rowCountOf(recipe), rowRepeats(recipe));
    case "routerBias":
    case "routerCorrection":
      return fill(0);
    case "sharedGate":
    case "sharedUp":
    case "sharedDown":
    case "sharedRouter":
      return sharedValue(part, key, cut, shared?.gated === true);
    default:
      throw new Error(`nothing says what ${key} is made of`);
  }
}

function routerValue(
  key: string,
  { routerInit, routerStd, split }: UpcycleRecipe,
  hidden: number,
  rowCount: number,
  repeat: number,
): Expr {
  if (routerInit !== null || split !== null) return { op: "data", name: key, rowCount, columnCount: hidden, repeat };
  return routerStd === 0 ? fill(0) : normal(routerStd, key, repeat);
}

/** Which hidden units of a layer's FFN an expert gets. */
interface Cut {
  readonly recipe: UpcycleRecipe;
  readonly layer: number;
  /** Hidden units of the dense FFN. */
  readonly whole: number;
  /** The model's hidden size. */
  readonly hidden: number;
  /** Hidden units of one expert. */
  readonly ffnDim: number;
}

function expertValue(part: FfnPart, key: string, expert: number, cut: Cut, factors: Factors, initStd: number): Expr {
  const { recipe, ffnDim } = cut;
  const { axis, factor: name, isBias } = ffnTensors[part];
  const parent = recipe.parents?.[Math.floor(expert / recipe.granularity)] ?? null;
  const factor = factors[name] * (isOutputPart(part) ? (parent?.scale ?? 1) : 1);
  if (recipe.experts === "random" && isBias) return fill(0);
  if (axis === null) return scale(read(slotKey({ part, layer: cut.layer }), parent?.source), factor);
  if (recipe.experts === "random") return normal(initStd, key);
  const start = (recipe.shared ?? 0) + (expert % recipe.granularity) * ffnDim;
  const dense = units(part, axis, start, ffnDim, cut, parent?.source);
  const noisy = isBias ? dense : withNoise(dense, parent, key);
  return scale(changed(noisy, axis, !isBias, key, expert, cut), factor);
}

function withNoise(of: Expr, parent: ExpertParent | null, key: string): Expr {
  return parent === null || parent.noise === 0
    ? of
    : { op: "noise", of, std: parent.noise, relative: false, fraction: 1, stream: `${key}.parentNoise` };
}

/**
 * `count` hidden units of a dense FFN's tensor, from `start` on: the tensor itself if these are all of them, followed
 * by zero units if it has fewer.
 */
function units(
  part: FfnPart,
  axis: MatrixAxis,
  start: number,
  count: number,
  { recipe, layer, whole, hidden }: Cut,
  source = 0,
): Expr {
  const dense = read(slotKey({ part, layer }), source);
  if (recipe.split !== null) return { op: "pick", of: dense, axis, name: unitList(layer), start, count };
  if (start === 0 && count === whole) return dense;
  const present = Math.min(count, whole - start);
  const unpadded = axis === "rows" ? rowsOf(dense, start, present) : columnsOf(dense, start, present);
  if (present === count) return unpadded;
  return axis === "columns" ? pad(unpadded, hidden, count) : pad(unpadded, count, ffnTensors[part].isBias ? 1 : hidden);
}

/**
 * Applies drop, noise and permutation as the recipe says. The units that an expert loses, and their order, are the same
 * in all of its tensors; noise is put on matrices only.
 */
function changed(
  of: Expr,
  axis: MatrixAxis,
  matrix: boolean,
  key: string,
  expert: number,
  { recipe, layer, ffnDim }: Cut,
): Expr {
  const { drop, noise, permute } = recipe;
  const own = `layers.${layer}.experts.${expert}`;
  // A product such as 0.29 * 100 may lie a last place below the whole number that is meant.
  const count = Math.floor(Number((drop * ffnDim).toPrecision(12)));
  let value = of;
  if (count > 0) value = { op: "redraw", of: value, axis, count, choice: `${own}.drop`, stream: `${key}.drop` };
  if (matrix && noise !== null && noise.std > 0 && noise.fraction > 0)
    value = { op: "noise", of: value, ...noise, stream: `${key}.noise` };
  return permute ? { op: "shuffle", of: value, axis, stream: `${own}.order` } : value;
}

/**
 * What a tensor of the shared expert is made of. There are three kinds:
 * - Another model's FFN is copied as it is, and its gate is made like the router.
 * - With S, the shared expert is the FFN's first S units. A sigmoid gate with a row of zeros halves the output, which
 *   doubling down undoes.
 * - Otherwise it must add nothing. Only its down matrix is zero: gate and up are a copy of the FFN's first units,
 *   because with all three at zero no gradient would ever reach it.
 */
function sharedValue(
  part: "sharedGate" | "sharedUp" | "sharedDown" | "sharedRouter",
  key: string,
  cut: Cut,
  gated: boolean,
): Expr {
  const { shared, sharedParent } = cut.recipe;
  if (sharedParent !== null) {
    if (part === "sharedRouter") return routerValue(key, cut.recipe, cut.hidden, 1, 1);
    const own = ({ sharedGate: "gate", sharedUp: "up", sharedDown: "down" } as const)[part];
    const noisy = withNoise(read(slotKey({ part: own, layer: cut.layer }), sharedParent.source), sharedParent, key);
    return scale(noisy, part === "sharedDown" ? sharedParent.scale : 1);
  }
  const size = shared ?? cut.ffnDim;
  switch (part) {
    case "sharedGate":
      return units("gate", "rows", 0, size, cut);
    case "sharedUp":
      return units("up", "rows", 0, size, cut);
    case "sharedDown":
      return shared === null ? fill(0) : scale(units("down", "columns", 0, size, cut), gated ? 2 : 1);
    case "sharedRouter":
      return shared === null ? normal(sharedRouterStd, key) : fill(0);
  }
}
