/**
 * Merging, the way back: an MoE model's experts become dense FFNs again, as plain data for the executor that upcycling
 * has. Letters: E copies of the FFN, each cut into G parts; T experts per token.
 *
 * With the record of an upcycling, experts e = replica * G + part are put together as they were cut: the G parts of a
 * replica side by side (rows of gate and up, columns of down), in the order of units that `permute` gave them taken
 * back, behind the shared expert's units where those were a part of the FFN; then replicas are averaged (or one is
 * picked), and the recipe's factors undone. Untouched replicas are equal, so their average is each of them, and the
 * parent's FFN comes back: to the last bit for factors that are powers of two, to one rounding for others.
 *
 * Without a record experts are whole (G = 1) and nothing is known of factors. What is kept then is the function of a
 * constant router, which gives each of T selected experts the weight w and chooses all experts alike: T w times the
 * average expert (`selectedWeight`). T w is 1 where weights are renormalised, T/E for softmax before top T, times the
 * router's own factor; it goes onto down and its bias.
 */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import type { DecoderSpec, DenseFfn, MoeFfn } from "../../model/decoder/types.js";
import { slotKey, slotsOf, type Slot } from "../../model/tensors/slots.js";
import { denseTarget } from "./choose-dense.js";
import { columnsOf, concat, meanExpr, read, rowsOf, scale, type MatrixAxis, type Expr } from "./expr.js";
import {
  ffnTensors,
  firstMoeFfn,
  isFfnPart,
  isOutputPart,
  moeFfnOf,
  type FfnPart,
  type PartFactors,
} from "./ffn-tensors.js";
import { checkLineage, paddingOf, type MergeLineage } from "./merge-lineage.js";
import { checkOutputs, sourceShapes, unusedKeys, type PlannedSlot } from "./plan.js";
import { formatFactor, selectedWeight } from "./scaling.js";

/**
 * What becomes of several experts: their average, weighted or not, or one of them. With a record, an expert is a whole
 * replica of the FFN.
 */
export type MergeChoice =
  /** One weight for each expert, for all layers or layer by layer (null for dense layers); null: all alike. */
  | { readonly kind: "mean"; readonly weights: readonly number[] | readonly (readonly number[] | null)[] | null }
  | { readonly kind: "expert"; readonly index: number };

/** How a merged model is made, before any weight is read. */
export interface MergePlan {
  readonly source: DecoderSpec;
  readonly target: DecoderSpec;
  readonly choice: MergeChoice;
  /** Null: no record, whole experts. */
  readonly lineage: MergeLineage | null;
  readonly outputs: readonly PlannedSlot[];
  /** Source slots that nothing reads. */
  readonly unused: readonly string[];
  /** Slots that the plan leaves out as zero. Whoever carries the plan out must check that they are. */
  readonly zeros: readonly string[];
  /** What was put together, in words. */
  readonly how: string;
  /** What of the function is kept, in words. */
  readonly kept: string;
}

/** How one layer's experts make up an FFN. */
interface Layout {
  /** G: experts that make up one replica. */
  readonly granularity: number;
  readonly replicas: number;
  /** Weight of each replica in the average. */
  readonly weights: readonly number[];
  /** What each tensor is multiplied by. */
  readonly by: PartFactors;
  /** Units of the shared expert, which come first; 0 without one. */
  readonly shared: number;
  /** Units of the routed experts of one replica, without padding. */
  readonly routed: number;
}

/**
 * Plans the dense model. `lineage` is the record of how the experts were made; null if there is none, and every expert
 * then counts as a whole FFN. Throws inputError for a model, choice or record that cannot be merged.
 */
export function planMerge(source: DecoderSpec, choice: MergeChoice, lineage: MergeLineage | null): MergePlan {
  const first = firstMoeFfn(source);
  if (first === undefined) throw inputError("the model is dense: it has no experts to merge");
  if (lineage !== null) checkLineage(source, lineage);
  checkLists(choice, source.layers.length);
  const layouts = source.layers.map(({ ffn }, layer) =>
    ffn.kind === "moe" ? layoutOf(ffn, layer, choice, lineage) : null,
  );
  const layers = source.layers.map((layer, index) => {
    const layout = at(layouts, index);
    return layout === null || layer.ffn.kind === "dense" ? layer : { ...layer, ffn: denseFfn(layer.ffn, layout) };
  });
  const target = denseTarget({ ...source, layers, auxLossCoef: 0 }, [lineage?.family, source.family]);
  const outputs = slotsOf(target).map((slot) => ({ slot, value: valueOf(slot, source, layouts, lineage) }));
  checkOutputs(outputs, sourceShapes(source));
  return {
    source,
    target,
    choice,
    lineage,
    outputs,
    unused: unusedKeys(source, outputs),
    zeros: source.layers.flatMap(({ ffn }, layer) =>
      ffn.kind === "moe" && ffn.shared !== null && layouts[layer]?.shared === 0
        ? [slotKey({ part: "sharedDown", layer })]
        : [],
    ),
    ...words(first, choice, lineage, firstOf(layouts)),
  };
}

/** The layout of the first layer with experts, which the words about the plan speak of. */
function firstOf(layouts: readonly (Layout | null)[]): Layout {
  const layout = layouts.find((own) => own !== null);
  if (layout === undefined || layout === null) throw new Error("no layer has experts");
  return layout;
}

function layoutOf(ffn: MoeFfn, layer: number, choice: MergeChoice, lineage: MergeLineage | null): Layout {
  if (ffn.clampedGlu !== null)
    throw inputError(`the experts of layer ${layer} limit and shift their gated units, which no dense FFN does`);
  return lineage === null ? layoutOfWhole(ffn, layer, choice) : layoutByRecord(ffn, layer, choice, lineage);
}

/** Every expert is a whole FFN, and the average is scaled like the output of a constant router. */
function layoutOfWhole(ffn: MoeFfn, layer: number, choice: MergeChoice): Layout {
  const sum = ffn.topK * selectedWeight(ffn.router, ffn.experts, ffn.topK);
  return {
    granularity: 1,
    replicas: ffn.experts,
    weights: weightsOf(choice, layer, ffn.experts),
    shared: 0,
    routed: ffn.ffnDim,
    by: { gate: 1, up: 1, down: sum, downBias: sum },
  };
}

/** Experts are the parts of replicas that the recipe cut, and its factors are undone. */
function layoutByRecord(ffn: MoeFfn, layer: number, choice: MergeChoice, lineage: MergeLineage): Layout {
  const { granularity } = lineage.recipe;
  const replicas = ffn.experts / granularity;
  const shared = lineage.recipe.shared ?? 0;
  const factors = at(lineage.factors, layer);
  if (factors === null) throw new Error(`the record has no factors for layer ${layer}, which has experts`);
  const { gate, up, down, downBias } = factors;
  return {
    granularity,
    replicas,
    weights: weightsOf(choice, layer, replicas),
    shared,
    routed: routedUnits(granularity * ffn.ffnDim, layer, shared, lineage),
    by: { gate: 1 / gate, up: 1 / up, down: 1 / down, downBias: 1 / downBias },
  };
}

/** How many of a replica's `units` hidden units are the parent's, where padding can be told from them. */
function routedUnits(units: number, layer: number, shared: number, lineage: MergeLineage): number {
  const { ffnDims } = lineage;
  return paddingOf(lineage) === "goes" && ffnDims !== null ? Math.min(at(ffnDims, layer) - shared, units) : units;
}

function weightsOf(choice: MergeChoice, layer: number, replicas: number): readonly number[] {
  if (choice.kind === "expert") {
    const { index } = choice;
    if (!(Number.isInteger(index) && index >= 0 && index < replicas))
      throw inputError(`there is no expert ${index}: layer ${layer} has ${replicas}, 0 to ${replicas - 1}`);
    return Array.from({ length: replicas }, (_, i) => (i === index ? 1 : 0));
  }
  if (choice.weights === null) return Array.from({ length: replicas }, () => 1);
  return checkedWeights(choice.weights, layer, replicas);
}

/** Throws inputError for lists of weights of more layers than there are: the weights are another model's. */
function checkLists(choice: MergeChoice, layers: number): void {
  if (choice.kind === "expert" || choice.weights === null) return;
  const { weights } = choice;
  if (weights.length <= layers || weights.every((entry) => typeof entry === "number")) return;
  throw inputError(`there are lists for ${weights.length} layers, the model has ${layers}`, {
    where: "weights",
    hint: "give a list of numbers, or one such list for each layer",
  });
}

function checkedWeights(
  allWeights: readonly number[] | readonly (readonly number[] | null)[],
  layer: number,
  replicas: number,
): readonly number[] {
  const own = allWeights.some((entry) => typeof entry !== "number") ? allWeights[layer] : allWeights;
  const where = `weights of layer ${layer}`;
  if (!Array.isArray(own))
    throw inputError("there are none, but the layer has experts", {
      where,
      hint: "give a list of numbers, or one such list for each layer",
    });
  const weights = own as readonly unknown[];
  if (weights.length !== replicas)
    throw inputError(`there are ${weights.length} for ${replicas} experts`, { where, hint: "give a number for each" });
  const numbers = weights.map((weight) => {
    if (typeof weight !== "number" || !(weight >= 0 && weight < Infinity))
      throw inputError(`${JSON.stringify(weight)} is no number of at least 0`, { where });
    return weight;
  });
  if (numbers.every((weight) => weight === 0)) throw inputError("all are 0", { where });
  return numbers;
}

function denseFfn({ bias, activation, gated }: MoeFfn, { routed, shared }: Layout): DenseFfn {
  return { kind: "dense", ffnDim: routed + shared, bias, activation, gated };
}

function valueOf(
  { key, at: { part, layer } }: Slot,
  source: DecoderSpec,
  layouts: readonly (Layout | null)[],
  lineage: MergeLineage | null,
): Expr {
  const layout = layer === undefined ? null : at(layouts, layer);
  if (layer === undefined || layout === null || !isFfnPart(part)) return read(key);
  const { axis, factor } = ffnTensors[part];
  const { ffnDim, shared } = moeFfnOf(source, layer);
  const whole = scale(averageOf(part, layer, layout, lineage), layout.by[factor]);
  const routed = axis === null ? whole : firstUnits(whole, axis, layout, layout.granularity * ffnDim);
  if (layout.shared === 0) return routed;
  if (shared?.ffnDim !== layout.shared)
    throw inputError(
      `layer ${layer} has no shared expert of ${layout.shared} units, which ` +
        `${lineage?.from ?? "its record"} says it has`,
    );
  return concat([sharedPart(part, layer, shared.gated), routed], axis ?? "rows");
}

/** The units of `whole`, which has `count`, that are no padding. */
function firstUnits(whole: Expr, axis: MatrixAxis, { routed }: Layout, count: number): Expr {
  if (routed === count) return whole;
  return axis === "rows" ? rowsOf(whole, 0, routed) : columnsOf(whole, 0, routed);
}

/** One tensor of the average of the replicas that have a weight. */
function averageOf(part: FfnPart, layer: number, layout: Layout, lineage: MergeLineage | null): Expr {
  const replicas = layout.weights.map((weight, replica) => ({ weight, replica })).filter(({ weight }) => weight !== 0);
  return meanExpr(
    replicas.map(({ replica }) => replicaValue(part, layer, replica, layout, lineage)),
    replicas.map(({ weight }) => weight),
  );
}

/** One tensor of a replica, its parts put together and the factor of its own parent undone. */
function replicaValue(
  part: FfnPart,
  layer: number,
  replica: number,
  { granularity, replicas }: Layout,
  lineage: MergeLineage | null,
): Expr {
  const expansion = replicas / (lineage?.copies ?? 1);
  const { axis } = ffnTensors[part];
  const parts = Array.from({ length: granularity }, (_, i) =>
    partValue(part, layer, replica * granularity + i, expansion * granularity, lineage),
  );
  // Every part has the whole of the bias behind down.
  const together =
    axis === null
      ? meanExpr(
          parts,
          parts.map(() => 1),
        )
      : concat(parts, axis);
  return isOutputPart(part) ? scale(together, 1 / ownFactor(replica, expansion, lineage)) : together;
}

/** One tensor of an expert, its units in the parent's order. `experts`: how many the recipe made. */
function partValue(part: FfnPart, layer: number, expert: number, experts: number, lineage: MergeLineage | null): Expr {
  const own = read(slotKey({ part, layer, expert }));
  const { axis } = ffnTensors[part];
  if (lineage?.recipe.permute !== true || axis === null) return own;
  return { op: "shuffle", of: own, axis, stream: `layers.${layer}.experts.${expert % experts}.order`, undo: true };
}

/** The factor that the recipe put on the output of a replica's own parent; 1 where it put none. */
function ownFactor(replica: number, expansion: number, lineage: MergeLineage | null): number {
  const factor = lineage?.recipe.parents?.[replica % expansion]?.scale ?? 1;
  if (factor === 0)
    throw inputError(`copy ${replica} was upcycled with the factor 0, so nothing of its down is left`, {
      hint: "leave it out: give it the weight 0, or pick another",
    });
  return factor;
}

/** A gate with a row of zeros, as upcycling starts it, halves the shared expert's output. */
function sharedPart(part: FfnPart, layer: number, gated: boolean): Expr {
  if (part === "gate") return read(slotKey({ part: "sharedGate", layer }));
  if (part === "up") return read(slotKey({ part: "sharedUp", layer }));
  if (part === "down") return scale(read(slotKey({ part: "sharedDown", layer })), gated ? 0.5 : 1);
  throw inputError(`layer ${layer} has experts with biases beside a shared expert, which cannot be put together`);
}

const isPowerOfTwo = (value: number): boolean => Number.isInteger(Math.log2(value));

/** What is put together, and what is kept of the function. `first`: the first layer's experts. */
function words(
  first: MoeFfn,
  choice: MergeChoice,
  lineage: MergeLineage | null,
  layout: Layout,
): { readonly how: string; readonly kept: string } {
  return { how: howWords(choice, layout), kept: keptWords(first, choice, lineage, layout.by) };
}

function howWords(choice: MergeChoice, { granularity, replicas, by, shared }: Layout): string {
  const parts = granularity === 1 ? "" : `, each put together from ${granularity} parts`;
  const what =
    choice.kind === "expert"
      ? `expert ${choice.index} of ${replicas}`
      : `${choice.weights === null ? "the average" : "the weighted average"} of ${replicas} experts`;
  const front = shared === 0 ? "" : `, behind the shared expert's ${shared} units`;
  return `${what}${parts}${front}${by.down === 1 ? "" : `, down times ${formatFactor(by.down)}`}`;
}

function keptWords(first: MoeFfn, choice: MergeChoice, lineage: MergeLineage | null, by: PartFactors): string {
  if (lineage === null) {
    return (
      `what a router gives whose logits are all equal: selected weights that sum to ${formatFactor(by.down)}, ` +
      `and every expert as often as any other (${first.topK} of ${first.experts})`
    );
  }
  const { recipe } = lineage;
  if (recipe.experts === "random") return "nothing of the parent's FFN: the experts were drawn afresh";
  if (recipe.parents !== null) {
    const ffn =
      choice.kind === "expert" ? "the FFN of the one parent that the expert was" : "the average of the parents' FFNs";
    const noisy = recipe.parents.some(({ noise }) => noise > 0);
    return `${ffn}${noisy ? ", with the noise that the recipe gave them" : ""}`;
  }
  const changes = [
    ...(recipe.drop > 0 ? ["redrawn units"] : []),
    ...(recipe.noise !== null && recipe.noise.std > 0 && recipe.noise.fraction > 0 ? ["noise"] : []),
  ];
  if (changes.length > 0) return `the parent's FFN apart from the experts' ${changes.join(" and ")}, averaged`;
  const isExact = [by.gate, by.up, by.down, by.downBias].every(isPowerOfTwo);
  return (
    "the parent's FFN if the experts are untouched, " +
    `${isExact ? toTheLastBit : toARounding}; the trained experts' average otherwise`
  );
}

const [toTheLastBit, toARounding] = ["to the last bit", "to a rounding"];

/** The same plan where tensors are rounded when they are written, in words. */
export function withRoundedTensors<Plan extends Pick<MergePlan, "kept">>(plan: Plan, rounded: readonly string[]): Plan {
  if (rounded.length === 0) return plan;
  return { ...plan, kept: [plan.kept.replace(toTheLastBit, toARounding), ...rounded].join("; ") };
}
