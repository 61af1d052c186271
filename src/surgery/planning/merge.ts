/**
 * The way back: an MoE model's experts become dense FFNs again, as plain data for the executor that upcycling has.
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
import { inputError } from "../../base/errors.js";
import type { DecoderSpec, DenseFfn, MoeFfn } from "../../model/decoder/types.js";
import { slotKey, slotsOf, type Slot, type SlotPart } from "../../model/tensors/slots.js";
import { denseTarget } from "./choose-dense.js";
import { columnsOf, concat, meanOf, read, rowsOf, scale, sourceKeys, type MatrixAxis, type Expr } from "./expr.js";
import { chosenLayers } from "./layers.js";
import { checkOutputs, sourceShapes, type PlannedSlot } from "./plan.js";
import { recipeName, type UpcycleRecipe } from "./recipe.js";
import { formatFactor, selectedWeight, type Factors } from "./scaling.js";

/**
 * What becomes of several experts: their average, weighted or not, or one of them. With a record, an expert is a whole
 * replica of the FFN.
 */
export type MergeChoice =
  /** One weight for each expert, for all layers or layer by layer (null for dense layers); null: all alike. */
  | { readonly kind: "mean"; readonly weights: readonly number[] | readonly (readonly number[] | null)[] | null }
  | { readonly kind: "expert"; readonly index: number };

/** What merging has to know of a recipe. */
type MadeRecipe = Pick<
  UpcycleRecipe,
  | "expansion"
  | "granularity"
  | "topK"
  | "seed"
  | "experts"
  | "parents"
  | "sharedParent"
  | "noise"
  | "drop"
  | "permute"
  | "shared"
  | "layers"
  | "pad"
>;

/** How the model was made. */
export interface MergeLineage {
  /** The file that says so. */
  readonly from: string;
  readonly recipe: MadeRecipe;
  /** Of the dense parent. */
  readonly family: string;
  /** Of every layer; null where it stayed dense. */
  readonly factors: readonly (Factors | null)[];
  /** Hidden units of each layer of the parent, where the recipe filled the last part; null: not known. */
  readonly ffnDims: readonly number[] | null;
  /** How many times there is each expert that the recipe made, one set of them behind the other (`multiply.ts`). */
  readonly copies: number;
}

export interface MergePlan {
  readonly source: DecoderSpec;
  readonly target: DecoderSpec;
  readonly choice: MergeChoice;
  /** Null: no record, whole experts. */
  readonly lineage: MergeLineage | null;
  readonly outputs: readonly PlannedSlot[];
  /** Source slots that nothing reads. */
  readonly unused: readonly string[];
  /** Slots that are left out because they are taken to be all zero; the executor must look. */
  readonly zeros: readonly string[];
  /** One sentence each: what was put together, what is kept of the function. */
  readonly how: string;
  readonly kept: string;
}

/** How one layer's experts make up an FFN. */
interface Layout {
  readonly granularity: number;
  readonly replicas: number;
  readonly weights: readonly number[];
  /** What each part is multiplied by. */
  readonly by: Pick<Factors, "gate" | "up" | "down" | "downBias">;
  /** Units of a shared expert in front. */
  readonly shared: number;
  /** Units of the routed experts of one replica, without those that filled the last part. */
  readonly routed: number;
}

/** Throws `input` for a model, choice or record that cannot be merged. */
export function planMerge(source: DecoderSpec, choice: MergeChoice, lineage: MergeLineage | null): MergePlan {
  if (source.layers.every(({ ffn }) => ffn.kind === "dense"))
    throw inputError("the model is dense: it has no experts to merge");
  if (lineage !== null) checkLineage(source, lineage);
  const layouts = source.layers.map(({ ffn }, layer) =>
    ffn.kind === "moe" ? layoutOf(ffn, layer, choice, lineage) : null,
  );
  const layers = source.layers.map((layer, index) => {
    const layout = layouts[index]!;
    return layout === null ? layer : { ...layer, ffn: denseFfn(layer.ffn as MoeFfn, layout) };
  });
  const target = denseTarget({ ...source, layers, auxLossCoef: 0 }, [lineage?.family, source.family]);
  const outputs = slotsOf(target).map((slot) => ({ slot, value: valueOf(slot, source, layouts, lineage) }));
  checkOutputs(outputs, sourceShapes(source));
  const used = new Set(outputs.flatMap(({ value }) => sourceKeys(value)));
  return {
    source,
    target,
    choice,
    lineage,
    outputs,
    unused: slotsOf(source)
      .map(({ key }) => key)
      .filter((key) => !used.has(key)),
    zeros: source.layers.flatMap(({ ffn }, layer) =>
      ffn.kind === "moe" && ffn.shared !== null && layouts[layer]!.shared === 0
        ? [slotKey({ part: "sharedDown", layer })]
        : [],
    ),
    ...words(
      source,
      choice,
      lineage,
      layouts.find((layout) => layout !== null)!,
    ),
  };
}

function checkLineage(source: DecoderSpec, { recipe, copies, ffnDims, from }: MergeLineage): void {
  const hint =
    "to merge whole experts, remove that record: upcycle.json, multiply.json and the key upcycle of config.json";
  const { expansion, granularity } = recipe;
  if (recipe.sharedParent !== null) {
    throw inputError(
      "every token gets a shared expert of another model as well as the routed ones, which no one FFN does",
      { hint: "only mixtures without one can be merged" },
    );
  }
  if (ffnDims !== null && ffnDims.length !== source.layers.length)
    throw inputError(`${from} knows the FFNs of ${ffnDims.length} layers, the model has ${source.layers.length}`, {
      hint,
    });
  const chosen = chosenLayers(recipe, source.layers.length);
  source.layers.forEach(({ ffn }, layer) => {
    const fits =
      ffn.kind === "moe" ? chosen[layer] && ffn.experts === copies * expansion * granularity : !chosen[layer];
    if (!fits) {
      const times = copies === 1 ? "" : `, ${copies} times,`;
      throw inputError(
        `layer ${layer} has ${ffn.kind === "moe" ? `${ffn.experts} experts` : "a dense FFN"}, which the recipe ` +
          `${recipeName(recipe)}${times} in ${from} does not make`,
        { hint },
      );
    }
  });
}

function layoutOf(ffn: MoeFfn, layer: number, choice: MergeChoice, lineage: MergeLineage | null): Layout {
  if (ffn.clampedGlu !== null)
    throw inputError(`the experts of layer ${layer} limit and shift their gated units, which no dense FFN does`);
  const granularity = lineage?.recipe.granularity ?? 1;
  const replicas = ffn.experts / granularity;
  const shared = lineage?.recipe.shared ?? 0;
  const weights = weightsOf(choice, layer, replicas);
  if (lineage !== null) {
    const { gate, up, down, downBias } = lineage.factors[layer]!;
    const routed =
      paddingOf(lineage) === "goes"
        ? Math.min(lineage.ffnDims![layer]! - shared, granularity * ffn.ffnDim)
        : granularity * ffn.ffnDim;
    return {
      granularity,
      replicas,
      weights,
      shared,
      routed,
      by: { gate: 1 / gate, up: 1 / up, down: 1 / down, downBias: 1 / downBias },
    };
  }
  const sum = ffn.topK * selectedWeight(ffn.router, ffn.experts, ffn.topK);
  return {
    granularity,
    replicas,
    weights,
    shared,
    routed: ffn.ffnDim,
    by: { gate: 1, up: 1, down: sum, downBias: sum },
  };
}

/**
 * Units that filled the last part are zero and get no gradient, so they go, where the parent's size is known. Noise and
 * redrawn units have made units of their own of them, which stay.
 */
export function paddingOf({ recipe: { pad, noise, drop, parents }, ffnDims }: MergeLineage): "none" | "goes" | "stays" {
  if (!pad) return "none";
  return ffnDims !== null && noise === null && drop === 0 && (parents ?? []).every((parent) => parent.noise === 0)
    ? "goes"
    : "stays";
}

function weightsOf(choice: MergeChoice, layer: number, replicas: number): readonly number[] {
  if (choice.kind === "expert") {
    const { index } = choice;
    if (!(Number.isInteger(index) && index >= 0 && index < replicas))
      throw inputError(`there is no expert ${index}: layer ${layer} has ${replicas}, 0 to ${replicas - 1}`);
    return Array.from({ length: replicas }, (_, i) => (i === index ? 1 : 0));
  }
  const given = choice.weights;
  if (given === null) return Array.from({ length: replicas }, () => 1);
  const own = given.some((entry) => typeof entry !== "number") ? given[layer] : given;
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
  const layout = layer === undefined ? null : layouts[layer]!;
  const treated = layout === null ? null : treatment(part, layout.by);
  if (layer === undefined || layout === null || treated === null) return read(key);
  const [axis, by] = treated;
  const { ffnDim } = source.layers[layer]!.ffn;
  const whole = scale(averageOf(part, layer, axis, layout, lineage), by);
  const routed =
    axis === null || layout.routed === layout.granularity * ffnDim
      ? whole
      : axis === "rows"
        ? rowsOf(whole, 0, layout.routed)
        : columnsOf(whole, 0, layout.routed);
  if (layout.shared === 0) return routed;
  const { shared } = source.layers[layer]!.ffn as MoeFfn;
  if (shared?.ffnDim !== layout.shared)
    throw inputError(
      `layer ${layer} has no shared expert of ${layout.shared} units, which ${lineage!.from} says it has`,
    );
  return concat([sharedPart(part, layer, shared.gated), routed], axis!);
}

function averageOf(
  part: SlotPart,
  layer: number,
  axis: MatrixAxis | null,
  { granularity, replicas, weights }: Layout,
  lineage: MergeLineage | null,
): Expr {
  const expansion = replicas / (lineage?.copies ?? 1);
  const one = (expert: number): Expr => {
    const own = read(slotKey({ part, layer, expert }));
    const made = expert % (expansion * granularity);
    return lineage?.recipe.permute === true && axis !== null
      ? { op: "shuffle", of: own, axis, stream: `layers.${layer}.experts.${made}.order`, undo: true }
      : own;
  };
  const taken = Array.from({ length: replicas }, (_, replica) => replica).filter((replica) => weights[replica] !== 0);
  const ownFactor = (replica: number): number => {
    const by = lineage?.recipe.parents?.[replica % expansion]?.scale ?? 1;
    if (by === 0)
      throw inputError(`copy ${replica} was upcycled with the factor 0, so nothing of its down is left`, {
        hint: "leave it out: give it the weight 0, or pick another",
      });
    return by;
  };
  const whole = (replica: number): Expr => {
    const parts = Array.from({ length: granularity }, (_, i) => one(replica * granularity + i));
    // Behind down every part carries the whole bias.
    const together =
      axis === null
        ? meanOf(
            parts,
            parts.map(() => 1),
          )
        : concat(parts, axis);
    return part === "down" || part === "downBias" ? scale(together, 1 / ownFactor(replica)) : together;
  };
  return meanOf(
    taken.map(whole),
    taken.map((replica) => weights[replica]!),
  );
}

/**
 * Along which axis hidden units lie (null: the bias behind down has none), and the factor; null for what is no part of
 * an FFN.
 */
function treatment(part: SlotPart, by: Layout["by"]): readonly [MatrixAxis | null, number] | null {
  switch (part) {
    case "gate":
    case "gateBias":
      return ["rows", by.gate];
    case "up":
    case "upBias":
      return ["rows", by.up];
    case "down":
      return ["columns", by.down];
    case "downBias":
      return [null, by.downBias];
    default:
      return null;
  }
}

/** A gate with a row of zeros, as upcycling starts it, halves the shared expert's output. */
function sharedPart(part: SlotPart, layer: number, gated: boolean): Expr {
  if (part === "gate") return read(slotKey({ part: "sharedGate", layer }));
  if (part === "up") return read(slotKey({ part: "sharedUp", layer }));
  if (part === "down") return scale(read(slotKey({ part: "sharedDown", layer })), gated ? 0.5 : 1);
  throw inputError(`layer ${layer} has experts with biases beside a shared expert, which cannot be put together`);
}

const isPowerOfTwo = (value: number): boolean => Number.isInteger(Math.log2(value));

function words(
  source: DecoderSpec,
  choice: MergeChoice,
  lineage: MergeLineage | null,
  { granularity, replicas, by, shared }: Layout,
): { readonly how: string; readonly kept: string } {
  const first = source.layers.find(({ ffn }) => ffn.kind === "moe")!.ffn as MoeFfn;
  const parts = granularity === 1 ? "" : `, each put together from ${granularity} parts`;
  const taken =
    choice.kind === "expert"
      ? `expert ${choice.index} of ${replicas}`
      : `${choice.weights === null ? "the average" : "the weighted average"} of ${replicas} experts`;
  const front = shared === 0 ? "" : `, behind the shared expert's ${shared} units`;
  const factors = [by.gate, by.up, by.down, by.downBias];
  const how = `${taken}${parts}${front}${by.down === 1 ? "" : `, down times ${formatFactor(by.down)}`}`;
  if (lineage === null) {
    return {
      how,
      kept:
        `what a router gives whose logits are all equal: selected weights that sum to ${formatFactor(by.down)}, ` +
        `and every expert as often as any other (${first.topK} of ${first.experts})`,
    };
  }
  const { recipe } = lineage;
  if (recipe.experts === "random") return { how, kept: "nothing of the parent's FFN: the experts were drawn afresh" };
  if (recipe.parents !== null) {
    const ffn =
      choice.kind === "expert" ? "the FFN of the one parent that the expert was" : "the average of the parents' FFNs";
    const noisy = recipe.parents.some(({ noise }) => noise > 0);
    return { how, kept: `${ffn}${noisy ? ", with the noise that the recipe gave them" : ""}` };
  }
  const changed = [
    ...(recipe.drop > 0 ? ["redrawn units"] : []),
    ...(recipe.noise !== null && recipe.noise.std > 0 && recipe.noise.fraction > 0 ? ["noise"] : []),
  ];
  if (changed.length > 0)
    return { how, kept: `the parent's FFN apart from the experts' ${changed.join(" and ")}, averaged` };
  return {
    how,
    kept:
      "the parent's FFN if the experts are untouched, " +
      `${factors.every(isPowerOfTwo) ? "to the last bit" : "to a rounding"}; the trained experts' average ` +
      "otherwise",
  };
}
