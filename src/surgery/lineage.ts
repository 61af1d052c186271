/**
 * Where an expert's matrices came from: the part of the parent's FFN that each was cut out of. Needed after training to
 * measure how far the experts have moved (expert-to-dense cosine similarity, He et al. 2024, arXiv 2410.07524, section
 * 3.2). Scales do not matter to a cosine and are left out.
 */
import { inputError } from "../base/errors.js";
import type { DecoderSpec } from "../spec/types.js";
import { slotKey } from "../tensors/slots.js";
import { copyRegion } from "./evaluate.js";
import type { Region } from "./expr.js";

export interface ExpertOrigin {
  readonly layer: number;
  readonly expert: number;
  readonly part: "gate" | "up" | "down";
  /** Slot key in the upcycled model. */
  readonly key: string;
  /** Rectangle of the parent's tensor with the same shape. */
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
    if (whole % ffn.inner !== 0 || ffn.experts % (whole / ffn.inner) !== 0) {
      throw inputError(`${ffn.experts} experts of size ${ffn.inner} are not parts of an FFN of size ${whole}`, {
        where: `layer ${layer}`,
        hint: "give the parent that this model was made from",
      });
    }
    const experts = Array.from({ length: ffn.experts }, (_, expert) => expert);
    return experts.flatMap((expert) => originsOfExpert(layer, expert, ffn.inner, whole, parent.hidden));
  });
}

function originsOfExpert(layer: number, expert: number, inner: number, whole: number, hidden: number): ExpertOrigin[] {
  const start = (expert % (whole / inner)) * inner;
  const rowsFrom = { rowStart: start, rowCount: inner, columnStart: 0, columnCount: hidden, stride: hidden };
  const columnsFrom = { rowStart: 0, rowCount: hidden, columnStart: start, columnCount: inner, stride: whole };
  return (["gate", "up", "down"] as const).map((part) => ({
    layer,
    expert,
    part,
    key: slotKey({ part, layer, expert }),
    from: { key: slotKey({ part, layer }), ...(part === "down" ? columnsFrom : rowsFrom) },
  }));
}

/** The values of the parent's tensor that an expert's matrix came from; a view where whole rows are taken. */
export function originValues(parentTensor: Float32Array, origin: ExpertOrigin): Float32Array {
  return copyRegion(parentTensor, origin.from);
}
