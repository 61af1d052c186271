/**
 * Which tensors a decoder has: spec -> slots, in write order. A slot's `key` is ours and the same for every family;
 * its Hugging Face name comes from the family's table (`names.ts`).
 */
import type { BlockKind, DecoderSpec, Ffn } from "../decoder/types.js";

/** What a tensor is in a decoder. */
export type SlotPart =
  | "embed"
  | "positions"
  | "inputNorm"
  | "inputNormBias"
  | "q"
  | "qBias"
  | "k"
  | "kBias"
  | "v"
  | "vBias"
  | "qNorm"
  | "kNorm"
  | "sinks"
  | "qDown"
  | "qLatentNorm"
  | "kvDown"
  | "kvLatentNorm"
  | "kRope"
  | "o"
  | "oBias"
  | "postAttentionNorm"
  | "postAttentionNormBias"
  | "ffnNorm"
  | "ffnNormBias"
  | "gate"
  | "gateBias"
  | "up"
  | "upBias"
  | "down"
  | "downBias"
  | "router"
  | "routerBias"
  | "routerCorrection"
  | "sharedGate"
  | "sharedUp"
  | "sharedDown"
  | "sharedRouter"
  | "activationP"
  | "activationN"
  | "activationBeta"
  | "activationEps"
  | "postFfnNorm"
  | "postFfnNormBias"
  | "finalNorm"
  | "finalNormBias"
  | "head"
  | "headBias";

/** Which tensor of a decoder: its part, and where that part is. */
export interface SlotAt {
  readonly part: SlotPart;
  readonly layer?: number;
  /** Set for `gate`, `up`, `down` and their biases of a routed expert. */
  readonly expert?: number;
}

/** A tensor of a decoder with its shape. */
export interface Slot {
  /** `embed`, `layers.3.q`, `layers.3.experts.5.gate`, ... */
  readonly key: string;
  readonly at: SlotAt;
  /** Linear weights are [out, in]. */
  readonly shape: readonly number[];
}

/** The norms of a decoder that lie in its residual stream. */
export type NormPart = "inputNorm" | "postAttentionNorm" | "ffnNorm" | "postFfnNorm" | "finalNorm";

/** Which norms a block has: before attention, before the FFN, after both. */
export function normPlaces(block: BlockKind): {
  readonly before: boolean;
  readonly beforeFfn: boolean;
  readonly after: boolean;
} {
  return {
    before: block !== "post",
    beforeFfn: block !== "post" && block !== "parallel-shared",
    after: block === "post" || block === "sandwich",
  };
}

/**
 * True for state that no gradient reaches: the correction bias, which balancing moves by its own rule, and xIELU's
 * stored constants.
 */
export function isBuffer({ part }: SlotAt): boolean {
  return part === "routerCorrection" || part === "activationBeta" || part === "activationEps";
}

/** The key of a slot: `embed`, `layers.3.q`, `layers.3.experts.5.gate`. */
export function slotKey(at: SlotAt): string {
  if (at.layer === undefined) return at.part;
  if (at.expert === undefined) return `layers.${at.layer}.${at.part}`;
  return `layers.${at.layer}.experts.${at.expert}.${at.part}`;
}

/** All tensors of a decoder, each exactly once, in write order. A tied head has no slot of its own. */
export function slotsOf(spec: DecoderSpec): Slot[] {
  const slots: Slot[] = [];
  const add: Add = (at, ...shape) => void slots.push({ key: slotKey(at), at, shape });
  const { before, beforeFfn, after } = normPlaces(spec.block);
  const norm = (exists: boolean, part: NormPart, layer?: number): void => {
    if (exists && spec.norm.weight !== "none") add({ part, layer }, spec.hidden);
    if (exists && spec.norm.bias) add({ part: `${part}Bias`, layer }, spec.hidden);
  };
  add({ part: "embed" }, spec.vocab, spec.hidden);
  if (spec.learnedPositions) add({ part: "positions" }, spec.maxPositions + spec.positionsOffset, spec.hidden);
  spec.layers.forEach(({ ffn }, layer) => {
    norm(before, "inputNorm", layer);
    addAttention(spec, layer, add);
    norm(after, "postAttentionNorm", layer);
    norm(beforeFfn, "ffnNorm", layer);
    addFfn(ffn, layer, spec.hidden, add);
    if (ffn.activation === "xielu") for (const part of xieluParts) add({ part, layer }, 1);
    norm(after, "postFfnNorm", layer);
  });
  norm(true, "finalNorm");
  if (!spec.tiedHead) add({ part: "head" }, spec.vocab, spec.hidden);
  if (spec.headBias) add({ part: "headBias" }, spec.vocab);
  return slots;
}

/** The numbers of xIELU, see `ActivationKind`. Files also store the eps below which the exponential is taken. */
const xieluParts = ["activationP", "activationN", "activationBeta", "activationEps"] as const;

type Add = (at: SlotAt, ...shape: number[]) => void;

function addAttention({ attn, hidden }: DecoderSpec, layer: number, add: Add): void {
  const { heads, kvHeads, headDim, qkNorm, qkvBias, outBias, sinks, latent } = attn;
  const valueDim = latent?.valueDim ?? headDim;
  if (latent === null) {
    add({ part: "q", layer }, heads * headDim, hidden);
    if (qkvBias) add({ part: "qBias", layer }, heads * headDim);
    add({ part: "k", layer }, kvHeads * headDim, hidden);
    if (qkvBias) add({ part: "kBias", layer }, kvHeads * headDim);
    add({ part: "v", layer }, kvHeads * headDim, hidden);
    if (qkvBias) add({ part: "vBias", layer }, kvHeads * headDim);
  } else {
    const { queryRank, kvRank, ropeDim } = latent;
    if (queryRank !== null) {
      add({ part: "qDown", layer }, queryRank, hidden);
      add({ part: "qLatentNorm", layer }, queryRank);
    }
    add({ part: "q", layer }, heads * headDim, queryRank ?? hidden);
    add({ part: "kvDown", layer }, kvRank, hidden);
    add({ part: "kRope", layer }, ropeDim, hidden);
    add({ part: "kvLatentNorm", layer }, kvRank);
    add({ part: "k", layer }, heads * (headDim - ropeDim), kvRank);
    add({ part: "v", layer }, heads * valueDim, kvRank);
  }
  if (qkNorm !== null) {
    add({ part: "qNorm", layer }, qkNorm.span === "head" ? headDim : heads * headDim);
    add({ part: "kNorm", layer }, qkNorm.span === "head" ? headDim : kvHeads * headDim);
  }
  if (sinks) add({ part: "sinks", layer }, heads);
  add({ part: "o", layer }, hidden, heads * valueDim);
  if (outBias) add({ part: "oBias", layer }, hidden);
}

function addFfn(ffn: Ffn, layer: number, hidden: number, add: Add): void {
  const one = (expert: number | undefined): void => {
    if (ffn.gated) {
      add({ part: "gate", layer, expert }, ffn.ffnDim, hidden);
      if (ffn.bias) add({ part: "gateBias", layer, expert }, ffn.ffnDim);
    }
    add({ part: "up", layer, expert }, ffn.ffnDim, hidden);
    if (ffn.bias) add({ part: "upBias", layer, expert }, ffn.ffnDim);
    add({ part: "down", layer, expert }, hidden, ffn.ffnDim);
    if (ffn.bias) add({ part: "downBias", layer, expert }, hidden);
  };
  if (ffn.kind === "dense") return one(undefined);
  add({ part: "router", layer }, ffn.experts, hidden);
  if (ffn.router.bias) add({ part: "routerBias", layer }, ffn.experts);
  if (ffn.router.correctionBias) add({ part: "routerCorrection", layer }, ffn.experts);
  for (let expert = 0; expert < ffn.experts; expert++) one(expert);
  if (ffn.shared !== null) {
    if (ffn.gated) add({ part: "sharedGate", layer }, ffn.shared.ffnDim, hidden);
    add({ part: "sharedUp", layer }, ffn.shared.ffnDim, hidden);
    add({ part: "sharedDown", layer }, hidden, ffn.shared.ffnDim);
    if (ffn.shared.gated) add({ part: "sharedRouter", layer }, 1, hidden);
  }
}
