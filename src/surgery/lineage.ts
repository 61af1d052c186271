/**
 * Where an expert's matrices came from: the part of the parent's FFN that each was cut out of. Needed after training to
 * measure how far the experts have moved (expert-to-dense cosine similarity, He et al. 2024, arXiv 2410.07524, section
 * 3.2). Scales do not matter to a cosine and are left out. Hidden units that a recipe put into another order (`permute`) are not followed.
 */
import { inputError } from "../base/errors.js";
import type { DecoderSpec, MoeFfn } from "../spec/types.js";
import { slotKey } from "../tensors/slots.js";
import { copyRegion } from "./evaluate.js";
import type { Region } from "./expr.js";

export interface ExpertOrigin {
  readonly layer: number;
  readonly expert: number;
  readonly part: "gate" | "up" | "down";
  /** Slot key in the upcycled model. */
  readonly key: string;
  /** Hidden size of the expert. */
  readonly inner: number;
  /** Rectangle of the parent's tensor with the same shape, or a smaller one where the expert was filled with zero units. */
  readonly from: Region;
}

/**
 * The origin of every routed expert's gate, up and down, in write order; read off the two shapes, so that it also works
 * for a model whose recipe is lost. Dense layers of the child are skipped.
 * Throws `input` if the child's experts cannot have been cut out of this parent.
 */
export function expertOrigins(parent: DecoderSpec, child: DecoderSpec): ExpertOrigin[] {
  if (parent.layers.length !== child.layers.length || parent.hidden !== child.hidden) {
    throw inputError(
      `the model has ${child.layers.length} layers of width ${child.hidden}, ` +
        `the parent ${parent.layers.length} of width ${parent.hidden}`,
      { hint: "give the parent that this model was made from" },
    );
  }
  return child.layers.flatMap(({ ffn }, layer) => {
    if (ffn.kind === "dense") return [];
    const whole = parent.layers[layer]!.ffn.inner;
    if (parent.layers[layer]!.ffn.kind !== "dense") throw inputError(`layer ${layer} of the parent is not dense`);
    const cut = cutOf(ffn, whole);
    if (cut === null) {
      throw inputError(`${ffn.experts} experts of size ${ffn.inner} are not parts of an FFN of size ${whole}`, {
        where: `layer ${layer}`,
        hint: "give the parent that this model was made from",
      });
    }
    const experts = Array.from({ length: ffn.experts }, (_, expert) => expert);
    return experts.flatMap((expert) => originsOfExpert(layer, expert, ffn, cut, whole, parent.hidden));
  });
}

interface Cut {
  /** Hidden units in front of the first part: those of a shared expert. */
  readonly before: number;
  readonly parts: number;
}

/** How an FFN of `whole` units was cut; the last part may have been filled with zero units. Whether a shared expert took units is tried last. */
function cutOf({ experts, inner, shared }: MoeFfn, whole: number): Cut | null {
  for (const before of shared === null ? [0] : [0, shared.inner]) {
    const parts = Math.ceil((whole - before) / inner);
    if (parts >= 1 && experts % parts === 0 && Math.ceil((whole - before) / parts) === inner) return { before, parts };
  }
  return null;
}

function originsOfExpert(layer: number, expert: number, { inner, gated }: MoeFfn, { before, parts }: Cut, whole: number, hidden: number): ExpertOrigin[] {
  const start = before + (expert % parts) * inner;
  const count = Math.min(inner, whole - start);
  const rowsFrom = { rowStart: start, rowCount: count, columnStart: 0, columnCount: hidden, stride: hidden };
  const columnsFrom = { rowStart: 0, rowCount: hidden, columnStart: start, columnCount: count, stride: whole };
  return ([...(gated ? (["gate"] as const) : []), "up", "down"] as const).map((part) => ({
    layer,
    expert,
    part,
    inner,
    key: slotKey({ part, layer, expert }),
    from: { key: slotKey({ part, layer }), ...(part === "down" ? columnsFrom : rowsFrom) },
  }));
}

/** The values of the parent's tensor that an expert's matrix came from, zeros where the expert was filled; a view where whole rows are taken. */
export function originValues(parentTensor: Float32Array, { from, part, inner }: ExpertOrigin): Float32Array {
  const values = copyRegion(parentTensor, from);
  const { rowCount, columnCount } = from;
  if ((part === "down" ? columnCount : rowCount) === inner) return values;
  const columns = part === "down" ? inner : columnCount;
  const filled = new Float32Array(part === "down" ? rowCount * inner : inner * columnCount);
  for (let row = 0; row < rowCount; row++) filled.set(values.subarray(row * columnCount, (row + 1) * columnCount), row * columns);
  return filled;
}
