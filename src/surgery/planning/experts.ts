/**
 * Puts experts in the place of FFNs.
 *
 * Expert e = replica * G + part (parts fastest): expert e holds part e mod G of the FFN's hidden units, that is rows of
 * gate and up and columns of down. The router draws E rows and repeats each G times, so that the G experts of one
 * replica always get equal logits and a top T of k*G takes k whole replicas ("virtual group initialisation", He et al.
 * 2024, arXiv 2410.07524, section 2.3). With G = 1 this is sparse upcycling (Komatsuzaki et al. 2022, arXiv
 * 2212.05055), with E = 1 and T < G a split without replication (MoEfication, Zhang et al. 2022, arXiv 2110.01786):
 * every part has a router row of its own.
 *
 * A shared expert either adds nothing, or takes the first S hidden units out of the routed experts' hands.
 */
import { inputError } from "../../base/errors.js";
import {
  plainExperts,
  type DecoderSpec,
  type DenseFfn,
  type LayerSpec,
  type MoeFfn,
  type RouterSpec,
} from "../../model/decoder/types.js";
import { slotKey, type Slot, type SlotPart } from "../../model/tensors/slots.js";
import { slotsOfDraft, type Draft } from "./draft.js";
import { columnsOf, fill, normal, pad, read, rowsOf, scale, type MatrixAxis, type Expr } from "./expr.js";
import { chosenLayers } from "./layers.js";
import { partSize, type ExpertParent, type UpcycleRecipe } from "./recipe.js";
import { layerFactors, type Factors } from "./scaling.js";
import { routerOf, type Target } from "./targets.js";

/**
 * The zero shared expert's gate row is drawn, not zero: llama.cpp computes the gate as silu(x)/x, which is 0/0 for an
 * all-zero row. Its value does not matter for the function, because the shared down matrix is zero.
 */
const sharedRouterStd = 1e-3;

/**
 * The target says which router and which shared expert it has; everything else stays as the draft has it. `sample`: the
 * first experts stand for all. Throws `input` if the recipe wants a shared expert that the target does not have.
 */
export function upcycleFfns(
  draft: Draft,
  recipe: UpcycleRecipe,
  target: Target,
  { sample }: { readonly sample?: true | undefined } = {},
): Draft {
  const router = routerOf(target, recipe)!;
  checkShared(recipe, target);
  const factors = layerFactors(recipe, router, draft.spec);
  const spec = moeSpec(draft.spec, recipe, target, router);
  const made = { spec, ...(sample === undefined ? {} : { sample }) };
  const values = slotsOfDraft(made).map(
    (slot) => [slot.key, draft.values.get(slot.key) ?? valueOf(slot, draft.spec, spec, recipe, factors)] as const,
  );
  return { ...made, values: new Map(values) };
}

function checkShared({ shared, sharedParent, routerInit }: UpcycleRecipe, { sharedExpert }: Target): void {
  if (shared === null && sharedParent === null) return;
  if (sharedExpert === null) throw inputError("it has no shared expert");
  if (sharedParent === null) return;
  const prompted = routerInit !== null && routerInit.kind !== "uniform_random";
  if (prompted && sharedExpert.gated && sharedParent.prompts === null)
    throw inputError("its shared expert has a gate, for which there are no prompts");
  if (!sharedExpert.gated && sharedParent.prompts !== null)
    throw inputError("its shared expert has no gate that prompts could make");
}

function moeSpec(
  source: DecoderSpec,
  recipe: UpcycleRecipe,
  { sharedExpert }: Target,
  router: RouterSpec,
): DecoderSpec {
  const chosen = chosenLayers(recipe, source.layers.length);
  const moe = ({ ffnDim: whole, activation, gated, bias }: DenseFfn): MoeFfn => {
    const ffnDim = partSize(recipe, whole);
    return {
      kind: "moe",
      ffnDim,
      activation,
      experts: recipe.expansion * recipe.granularity,
      topK: recipe.topK,
      ...plainExperts,
      gated,
      bias,
      router,
      shared:
        recipe.shared !== null || recipe.sharedParent !== null || sharedExpert?.required === true
          ? { ffnDim: recipe.sharedParent === null ? (recipe.shared ?? ffnDim) : whole, gated: sharedExpert!.gated }
          : null,
    };
  };
  return {
    ...source,
    layers: source.layers.map((layer, index): LayerSpec =>
      chosen[index] ? { ...layer, ffn: moe(layer.ffn as DenseFfn) } : layer,
    ),
    auxLossCoef: recipe.auxLossCoef,
  };
}

function valueOf(
  { key, at }: Slot,
  source: DecoderSpec,
  target: DecoderSpec,
  recipe: UpcycleRecipe,
  allFactors: readonly (Factors | null)[],
): Expr {
  const { part, layer, expert } = at;
  const factors = layer === undefined ? null : allFactors[layer];
  if (layer === undefined || factors === null || factors === undefined)
    throw new Error(`nothing says what ${key} is made of`);
  const cut: Cut = {
    recipe,
    layer,
    whole: source.layers[layer]!.ffn.ffnDim,
    hidden: source.hidden,
    ffnDim: (target.layers[layer]!.ffn as MoeFfn).ffnDim,
  };
  if (expert !== undefined) return expertValue(part, key, expert, cut, factors, source.initStd);
  switch (part) {
    case "router":
      return routerValue(
        key,
        recipe,
        source.hidden,
        recipe.expansion * (recipe.granularity / rowRepeats(recipe)),
        rowRepeats(recipe),
      );
    case "routerBias":
    case "routerCorrection":
      return fill(0);
    case "sharedGate":
    case "sharedUp":
    case "sharedDown":
    case "sharedRouter":
      return sharedValue(part, key, cut, (target.layers[layer]!.ffn as MoeFfn).shared!.gated);
    default:
      throw new Error(`nothing says what ${key} is made of`);
  }
}

function routerValue(
  key: string,
  { routerInit, routerStd }: UpcycleRecipe,
  hidden: number,
  rowCount: number,
  repeat: number,
): Expr {
  if (routerInit !== null) return { op: "data", name: key, rowCount, columnCount: hidden, repeat };
  return routerStd === 0 ? fill(0) : normal(routerStd, key, repeat);
}

/** How many experts in a row share a router row. */
function rowRepeats({ expansion, granularity, topK }: UpcycleRecipe): number {
  return expansion === 1 && topK < granularity ? 1 : granularity;
}

/** Which hidden units of a layer's FFN an expert gets. */
interface Cut {
  readonly recipe: UpcycleRecipe;
  readonly layer: number;
  /** Hidden units of the dense FFN. */
  readonly whole: number;
  readonly hidden: number;
  /** Of an expert. */
  readonly ffnDim: number;
}

function expertValue(part: SlotPart, key: string, expert: number, cut: Cut, factors: Factors, initStd: number): Expr {
  const { recipe, ffnDim } = cut;
  const start = (recipe.shared ?? 0) + (expert % recipe.granularity) * ffnDim;
  const parent = recipe.parents?.[Math.floor(expert / recipe.granularity)] ?? null;
  const [axis, own] = treatment(part, factors);
  const factor = part === "down" || part === "downBias" ? own * (parent?.scale ?? 1) : own;
  const random = recipe.experts === "random";
  if (axis === null) return random ? fill(0) : scale(read(slotKey({ part, layer: cut.layer }), parent?.source), factor);
  if (random) return part === "gateBias" || part === "upBias" ? fill(0) : normal(initStd, key);
  const matrix = axis === "columns" || part === "gate" || part === "up";
  const dense = units(part, axis, start, ffnDim, cut, parent?.source);
  return scale(changed(matrix ? withNoise(dense, parent, key) : dense, axis, matrix, key, expert, cut), factor);
}

function withNoise(of: Expr, parent: ExpertParent | null, key: string): Expr {
  return parent === null || parent.noise === 0
    ? of
    : { op: "noise", of, std: parent.noise, relative: false, fraction: 1, stream: `${key}.parentNoise` };
}

/** Along which axis a tensor's hidden units lie (null: the bias behind down has none), and the factor it takes. */
function treatment(part: SlotPart, { gate, up, down, downBias }: Factors): readonly [MatrixAxis | null, number] {
  switch (part) {
    case "gate":
    case "gateBias":
      return ["rows", gate];
    case "up":
    case "upBias":
      return ["rows", up];
    case "down":
      return ["columns", down];
    case "downBias":
      return [null, downBias];
    default:
      throw new Error(`experts have no ${part}`);
  }
}

/** `count` hidden units from `start` on: the tensor itself where these are all, with zero units where it has fewer. */
function units(
  part: SlotPart,
  axis: MatrixAxis,
  start: number,
  count: number,
  { layer, whole, hidden }: Cut,
  source = 0,
): Expr {
  const dense = read(slotKey({ part, layer }), source);
  if (start === 0 && count === whole) return dense;
  const present = Math.min(count, whole - start);
  const taken = axis === "rows" ? rowsOf(dense, start, present) : columnsOf(dense, start, present);
  if (present === count) return taken;
  return axis === "columns"
    ? pad(taken, hidden, count)
    : pad(taken, count, part === "gateBias" || part === "upBias" ? 1 : hidden);
}

/**
 * Drop, noise and permutation, as the recipe says. The units that an expert loses, and their order, are the same in all
 * its tensors; noise is on matrices only.
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
  const count = Math.floor(drop * ffnDim);
  let value = of;
  if (count > 0) value = { op: "redraw", of: value, axis, count, choice: `${own}.drop`, stream: `${key}.drop` };
  if (matrix && noise !== null && noise.std > 0 && noise.fraction > 0)
    value = { op: "noise", of: value, ...noise, stream: `${key}.noise` };
  return permute ? { op: "shuffle", of: value, axis, stream: `${own}.order` } : value;
}

/**
 * The first S units as they are; a sigmoid gate with a row of zeros halves the output, which doubling down undoes.
 * Without S a shared expert that adds nothing: only its down matrix is zero, gate and up are a copy of the FFN's first
 * units, because with all three at zero no gradient would ever reach it. Another model's FFN as shared expert is taken
 * as it is, its gate made like the router.
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
