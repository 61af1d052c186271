/** From the residual stream behind the last block to logits or a loss. Letters as in `decoder.ts`. */
import { GraphBuilder } from "../ir/builder.js";
import type { ValueId } from "../ir/ir.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { NetContext } from "./context.js";
import { norm } from "./norm.js";

/**
 * Residual stream behind the last block -> what the head reads. A constant factor on the logits is one on the hidden
 * states.
 */
export function finalHidden(ctx: NetContext, x: ValueId): ValueId {
  return ctx.b.scale(norm(ctx, x, "finalNorm"), ctx.spec.multipliers.logits);
}

/** Mean cross entropy of the logits of hidden states [N, H] at targets [N], where those are not negative. */
export function headLoss(
  b: GraphBuilder,
  { logitSoftcap: softcap }: Pick<DecoderSpec, "logitSoftcap">,
  hidden: ValueId,
  { head, headBias }: Head,
  targets: ValueId,
): ValueId {
  if (headBias === null) return b.op("headCrossEntropy", [hidden, head, targets], { softcap });
  // One more column of the head, which a 1 in the hidden states reads; zeros behind it keep rows aligned in memory.
  const one = Array.from({ length: HEAD_PADDING }, (_, i) => (i === 0 ? 1 : 0));
  const row = b.constant(one, [1, HEAD_PADDING]);
  const all = (rows: number, factor: ValueId): ValueId => b.mul(b.reshape(factor, [rows, 1]), row);
  const [tokens] = b.matrix(hidden);
  const [vocab] = b.matrix(head);
  const wider = (x: ValueId, columns: ValueId): ValueId => b.op("joinHeads", [x, columns], { heads: 1 });
  const inputs = [
    wider(hidden, all(tokens, b.constant([1], [tokens]))),
    wider(head, all(vocab, headBias)),
    targets,
  ] as const;
  return b.op("headCrossEntropy", inputs, { softcap });
}

/** What each target is worth behind hidden states [N, H], as of the primitive `headScores`. */
export function headScores(
  b: GraphBuilder,
  { logitSoftcap: softcap }: Pick<DecoderSpec, "logitSoftcap">,
  hidden: ValueId,
  { head, headBias }: Head,
  targets: ValueId,
): ValueId {
  const inputs = [hidden, head, targets, ...(headBias === null ? [] : [headBias])] as const;
  return b.op("headScores", inputs, { softcap, bias: headBias !== null });
}

/** Columns that a head's bias takes in {@link headLoss}. */
export const HEAD_PADDING = 8;

/** The output head of a graph, or rows of it. */
export interface Head {
  /** [C, H] */
  readonly head: ValueId;
  /** [C] */
  readonly headBias: ValueId | null;
}

/** The output head, which may be the embedding. */
export function headOf({ spec, param }: Pick<NetContext, "spec" | "param">): Head {
  return {
    head: param(spec.tiedHead ? "embed" : "head"),
    headBias: spec.headBias ? param("headBias") : null,
  };
}

/** Logits [N, C] of hidden states [N, H] by C rows of the head [C, H], behind the soft cap where there is one. */
export function headLogits(
  b: GraphBuilder,
  { logitSoftcap: cap }: Pick<DecoderSpec, "logitSoftcap">,
  hidden: ValueId,
  { head, headBias }: Head,
): ValueId {
  const raw = b.linear(hidden, head, headBias ?? undefined);
  return cap === null ? raw : b.scale(b.op("tanh", [b.scale(raw, 1 / cap)], {}), cap);
}
