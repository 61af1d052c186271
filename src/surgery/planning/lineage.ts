/**
 * Where an expert's matrices came from: the part of the parent's FFN that each was cut out of. Training needs it to
 * measure how far the experts have moved (expert-to-dense cosine similarity, He et al. 2024, arXiv 2410.07524, section
 * 3.2). The sizes of scaling factors do not matter to a cosine and are left out; their signs do matter. What noise and
 * redrawn units changed counts as movement.
 */
import { copyRectangle, type SourceRectangle } from "../../files/numeric/rectangles.js";
import { randomStream } from "../../base/random.js";
import { inputError } from "../../base/errors.js";
import type { DecoderSpec, MoeFfn } from "../../model/decoder/types.js";
import { slotKey } from "../../model/tensors/slots.js";
import { ffnOf } from "./ffn-tensors.js";
import type { MergeLineage } from "./merge-lineage.js";
import { recipeName } from "./recipe.js";

/** Where one matrix of one expert came from. */
export interface ExpertOrigin {
  readonly layer: number;
  readonly expert: number;
  readonly part: "gate" | "up" | "down";
  /** Slot key in the upcycled model. */
  readonly key: string;
  /** Hidden size of the expert. */
  readonly ffnDim: number;
  /** Which dense model, where there were several: the base is 0. */
  readonly source: number;
  /** -1 where a parent's factor turned the sign of down. */
  readonly sign: 1 | -1;
  /** Seed and stream of the order that hidden units were put into (`permute`); null if they keep the parent's order. */
  readonly order: { readonly seed: number; readonly stream: string } | null;
  /**
   * Rectangle of the parent's tensor with the same shape, or a smaller one where the expert was filled with zero units.
   */
  readonly from: SourceRectangle;
}

/** What the shapes of parent and child do not say: whose expert it is, and in which order its units are. */
export type OriginLineage = Pick<MergeLineage, "recipe" | "copies">;

/**
 * The origin of every routed expert's gate, up and down, in write order. How the FFN was cut is read off the two
 * shapes, so that it also works for a model whose recipe is lost (`lineage` null), if that had one parent and left
 * units in their order. Several parents have one shape, and one stands for all. Dense layers of the child are skipped.
 * Throws inputError if the child's experts cannot have been cut out of this parent.
 */
export function expertOrigins(
  parent: DecoderSpec,
  child: DecoderSpec,
  lineage: OriginLineage | null = null,
): ExpertOrigin[] {
  if (parent.layers.length !== child.layers.length || parent.hidden !== child.hidden) {
    throw inputError(
      `the model has ${child.layers.length} layers of width ${child.hidden}, ` +
        `the parent ${parent.layers.length} of width ${parent.hidden}`,
      { hint: "give the parent that this model was made from" },
    );
  }
  if (lineage !== null && (lineage.recipe.split ?? null) !== null)
    throw inputError("the parent's hidden units went to experts by their activation, in an order that no record has", {
      hint: "leave the parent out: how far experts move from it cannot be measured for this model",
    });
  return child.layers.flatMap(({ ffn }, layer) => {
    if (ffn.kind === "dense") return [];
    const dense = ffnOf(parent, layer);
    if (dense.kind !== "dense") throw inputError(`layer ${layer} of the parent is not dense`);
    const cut = cutOf(ffn, dense.ffnDim);
    if (lineage !== null && ffn.experts !== lineage.copies * lineage.recipe.expansion * lineage.recipe.granularity) {
      throw inputError(
        `${ffn.experts} experts, which the recipe ${recipeName(lineage.recipe)} of its record does not make`,
        { where: `layer ${layer}`, hint: "give the record that belongs to the model" },
      );
    }
    if (cut === null) {
      throw inputError(`${ffn.experts} experts of size ${ffn.ffnDim} are not parts of an FFN of size ${dense.ffnDim}`, {
        where: `layer ${layer}`,
        hint: "give the parent that this model was made from",
      });
    }
    const experts = Array.from({ length: ffn.experts }, (_, expert) => expert);
    return experts.flatMap((expert) => originsOfExpert(layer, expert, ffn, cut, dense.ffnDim, parent.hidden, lineage));
  });
}

interface Cut {
  /** Hidden units in front of the first part: those of a shared expert. */
  readonly before: number;
  readonly parts: number;
}

/**
 * How an FFN of `whole` units was cut; the last part may have been filled with zero units. Whether a shared expert took
 * units is tried last.
 */
function cutOf({ experts, ffnDim, shared }: MoeFfn, whole: number): Cut | null {
  for (const before of shared === null ? [0] : [0, shared.ffnDim]) {
    const parts = Math.ceil((whole - before) / ffnDim);
    if (parts >= 1 && experts % parts === 0 && Math.ceil((whole - before) / parts) === ffnDim) return { before, parts };
  }
  return null;
}

function originsOfExpert(
  layer: number,
  expert: number,
  { ffnDim, gated }: MoeFfn,
  { before, parts }: Cut,
  whole: number,
  hidden: number,
  lineage: OriginLineage | null,
): ExpertOrigin[] {
  const start = before + (expert % parts) * ffnDim;
  const count = Math.min(ffnDim, whole - start);
  const rowsFrom = { rowStart: start, rowCount: count, columnStart: 0, columnCount: hidden, stride: hidden };
  const columnsFrom = { rowStart: 0, rowCount: hidden, columnStart: start, columnCount: count, stride: whole };
  const recipe = lineage?.recipe;
  // Copies of experts lie behind all experts (`multiply.ts`).
  const original = recipe === undefined ? expert : expert % (recipe.expansion * recipe.granularity);
  const from = recipe?.parents?.[Math.floor(original / recipe.granularity)];
  const order =
    recipe?.permute === true ? { seed: recipe.seed, stream: `layers.${layer}.experts.${original}.order` } : null;
  return ([...(gated ? (["gate"] as const) : []), "up", "down"] as const).map((part) => ({
    layer,
    expert,
    part,
    ffnDim,
    key: slotKey({ part, layer, expert }),
    source: from?.source ?? 0,
    sign: part === "down" && from !== undefined && from.scale < 0 ? -1 : 1,
    order,
    from: { key: slotKey({ part, layer }), ...(part === "down" ? columnsFrom : rowsFrom) },
  }));
}

/**
 * The values of the parent's tensor that an expert's matrix came from, in the expert's order, zeros where it was
 * filled; a view where whole rows are taken.
 */
export function originValues(parentTensor: Float32Array, origin: ExpertOrigin): Float32Array {
  const { part, ffnDim, sign, order } = origin;
  const values = paddedOrigin(parentTensor, origin);
  if (order === null) return sign === 1 ? values : values.map((value) => -value);
  const units = new Int32Array(ffnDim);
  randomStream(order.seed, order.stream).permutation(units);
  // down is [H, F], its units side by side; gate and up are [F, H].
  const hidden = values.length / ffnDim;
  return values.map((_, i) => {
    const [unit, other] = part === "down" ? [i % ffnDim, Math.floor(i / ffnDim)] : [Math.floor(i / hidden), i % hidden];
    const from = units[unit]!;
    return sign * values[part === "down" ? other * ffnDim + from : from * hidden + other]!;
  });
}

function paddedOrigin(parentTensor: Float32Array, { from, part, ffnDim }: ExpertOrigin): Float32Array {
  const values = copyRectangle(parentTensor, from);
  const { rowCount, columnCount } = from;
  if ((part === "down" ? columnCount : rowCount) === ffnDim) return values;
  const columns = part === "down" ? ffnDim : columnCount;
  const padded = new Float32Array(part === "down" ? rowCount * ffnDim : ffnDim * columnCount);
  for (let row = 0; row < rowCount; row++)
    padded.set(values.subarray(row * columnCount, (row + 1) * columnCount), row * columns);
  return padded;
}
