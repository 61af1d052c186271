/**
 * Rewrites of a draft that keep its function: each changes the spec and the tensors together. Rounding aside they are
 * exact; docs/targets.md lists them.
 */
import type { AttentionSpec, DecoderSpec, NormSpec, Rope } from "../../model/decoder/types.js";
import type { Slot, SlotPart } from "../../model/tensors/slots.js";
import { slotsOfDraft, type Draft } from "./draft.js";
import { fill, offset, permuteRows, scale, type Expr } from "./expr.js";

export type Rewrite = (draft: Draft) => Draft;

/** The draft with another spec; `change` gives each of its tensors from what it was made of (undefined: it is new). */
function rewrite(
  { values, ...was }: Draft,
  spec: DecoderSpec,
  change: (slot: Slot, was: Expr | undefined) => Expr | undefined,
): Draft {
  const next = { ...was, spec };
  const changed = slotsOfDraft(next).map((slot) => {
    const value = change(slot, values.get(slot.key));
    if (value === undefined) throw new Error(`no rewrite says what ${slot.key} is made of`);
    return [slot.key, value] as const;
  });
  return { ...next, values: new Map(changed) };
}

const withAttention = (spec: DecoderSpec, attn: Partial<AttentionSpec>): DecoderSpec => ({
  ...spec,
  attn: { ...spec.attn, ...attn },
});
const among = (...parts: readonly SlotPart[]): ReadonlySet<SlotPart> => new Set(parts);

const blockNorms = among("inputNorm", "postAttentionNorm", "ffnNorm", "postFfnNorm", "finalNorm");
const headNorms = among("qNorm", "kNorm");
const rotaryParts = among("q", "k", "qBias", "kBias");

/** Norm weights that act as 1 + w become plain ones, and norms without weights get ones. */
export const plainNormWeights: Rewrite = (draft) => {
  const { spec } = draft;
  const { qkNorm } = spec.attn;
  if (spec.norm.weight === "scale" && (qkNorm === null || qkNorm.norm.weight === "scale")) return draft;
  const plain = (norm: NormSpec): NormSpec => ({ ...norm, weight: "scale" });
  const made = (norm: NormSpec, was: Expr | undefined): Expr | undefined =>
    norm.weight === "none" ? fill(1) : norm.weight === "one-plus" ? offset(was!, 1) : was;
  const next = {
    ...spec,
    norm: plain(spec.norm),
    attn: { ...spec.attn, qkNorm: qkNorm === null ? null : { ...qkNorm, norm: plain(qkNorm.norm) } },
  };
  return rewrite(draft, next, ({ at }, was) => {
    if (blockNorms.has(at.part)) return made(spec.norm, was);
    return headNorms.has(at.part) && qkNorm !== null ? made(qkNorm.norm, was) : was;
  });
};

/** A tied head becomes a tensor of its own. */
export const untieHead: Rewrite = (draft) => {
  if (!draft.spec.tiedHead) return draft;
  return rewrite(draft, { ...draft.spec, tiedHead: false }, ({ at }, was) =>
    at.part === "head" ? draft.values.get("embed") : was,
  );
};

/** The factor on the embeddings' output goes into the embeddings; a tied head must not get it. */
export const foldEmbedding: Rewrite = (draft) => {
  const { embedding } = draft.spec.multipliers;
  if (embedding === 1) return draft;
  const untied = untieHead(draft);
  const next = { ...untied.spec, multipliers: { ...untied.spec.multipliers, embedding: 1 } };
  return rewrite(untied, next, ({ at }, was) => (at.part === "embed" ? scale(was!, embedding) : was));
};

/**
 * The factor on the logits goes into the last norm's weight, in front of a head that may be tied. Needs a norm with a
 * plain weight.
 */
export const foldLogits: Rewrite = (draft) => {
  const { logits } = draft.spec.multipliers;
  if (logits === 1) return draft;
  const next = { ...draft.spec, multipliers: { ...draft.spec.multipliers, logits: 1 } };
  return rewrite(draft, next, ({ at }, was) =>
    at.part === "finalNorm" || at.part === "finalNormBias" ? scale(was!, logits) : was,
  );
};

/** The factor on what attention and FFN add goes into their last matrices, or into the norms behind them. */
export const foldResidual: Rewrite = (draft) => {
  const { residual } = draft.spec.multipliers;
  if (residual === 1) return draft;
  const behind = draft.spec.block === "post" || draft.spec.block === "sandwich";
  const last = behind
    ? among("postAttentionNorm", "postAttentionNormBias", "postFfnNorm", "postFfnNormBias")
    : among("o", "oBias", "down", "downBias", "sharedDown");
  const next = { ...draft.spec, multipliers: { ...draft.spec.multipliers, residual: 1 } };
  return rewrite(draft, next, ({ at }, was) => (last.has(at.part) ? scale(was!, residual) : was));
};

/** A score factor other than headDim^-0.5 goes into the queries, or into the norm's weight on them. */
export const foldAttentionScale: Rewrite = (draft) => {
  const { attn } = draft.spec;
  const usual = attn.headDim ** -0.5;
  if (attn.scale === usual || attn.latent !== null) return draft;
  const parts = attn.qkNorm === null ? among("q", "qBias") : among("qNorm");
  return rewrite(draft, withAttention(draft.spec, { scale: usual }), ({ at }, was) =>
    parts.has(at.part) ? scale(was!, attn.scale / usual) : was,
  );
};

/** Reorders the elements of every query and key head: new element i is old element `order[i]`. */
function permuteHeads(draft: Draft, spec: DecoderSpec, order: readonly number[]): Draft {
  // Weights of norms on heads move with the elements they belong to.
  const parts = spec.attn.qkNorm === null ? rotaryParts : new Set([...rotaryParts, ...headNorms]);
  return rewrite(draft, spec, ({ at }, was) => (parts.has(at.part) ? permuteRows(was!, order) : was));
}

const eachRope = (spec: DecoderSpec, change: (rope: Rope) => Rope): DecoderSpec => ({
  ...spec,
  layers: spec.layers.map((layer) => ({ ...layer, rope: layer.rope === null ? null : change(layer.rope) })),
});

/** The one rope of all layers that have one; null if layers differ. */
function commonRope({ layers }: DecoderSpec): Rope | null {
  const [first, ...others] = layers.flatMap(({ rope }) => (rope === null ? [] : [rope]));
  return first !== undefined && others.every((rope) => JSON.stringify(rope) === JSON.stringify(first)) ? first : null;
}

/**
 * Rope over neighbouring pairs instead of halves, or the other way round, by reordering queries and keys alike (T6).
 */
export const ropePairs =
  (interleaved: boolean): Rewrite =>
  (draft) => {
    const { spec } = draft;
    const rope = commonRope(spec);
    if (rope === null || rope.interleaved === interleaved || spec.attn.latent !== null) return draft;
    const { rotary } = rope;
    const half = rotary / 2;
    const order = Array.from({ length: spec.attn.headDim }, (_, i) => {
      if (i >= rotary) return i;
      return interleaved ? (i % 2) * half + Math.floor(i / 2) : 2 * (i % half) + Math.floor(i / half);
    });
    return permuteHeads(
      draft,
      eachRope(spec, (own) => ({ ...own, interleaved })),
      order,
    );
  };

/** So slow that no position turns it. */
const STILL = 1e30;

/**
 * Rope over a part of each head as LongRoPE over the whole head, whose factors stop the pairs that do not turn (T5).
 * Leaves other ropes as they are: halves only, and no scaling or LongRoPE without a factor on cos and sin.
 */
export const expandPartialRope: Rewrite = (draft) => {
  const { spec } = draft;
  const { headDim } = spec.attn;
  const rope = commonRope(spec);
  if (rope === null || rope.rotary === headDim || rope.interleaved || spec.attn.latent !== null) return draft;
  const { theta, scaling, rotary } = rope;
  if (scaling.kind !== "none" && scaling.kind !== "longrope") return draft;
  // The factor on cos and sin would also reach the elements that do not turn.
  if (scaling.kind === "longrope" && scaling.attentionFactor !== 1) return draft;
  const [half, from] = [headDim / 2, rotary / 2];
  const factors = (own: readonly number[] | null): number[] =>
    Array.from({ length: half }, (_, i) =>
      i < from ? (own?.[i] ?? 1) * theta ** ((2 * i) / rotary - (2 * i) / headDim) : STILL,
    );
  const whole: Rope = {
    theta,
    rotary: headDim,
    interleaved: false,
    scaling: {
      kind: "longrope",
      short: factors(scaling.kind === "none" ? null : scaling.short),
      long: factors(scaling.kind === "none" ? null : scaling.long),
      originalMaxPositions: scaling.kind === "none" ? spec.maxPositions : scaling.originalMaxPositions,
      attentionFactor: 1,
    },
  };
  // Pair i lies at (i, i + rotary/2) before and at (i, i + headDim/2) after; the others fill what is left, in order.
  const still = Array.from({ length: headDim - rotary }, (_, i) => rotary + i);
  const order = Array.from({ length: headDim }, (_, i) => {
    if (i < half) return i < from ? i : still[i - from]!;
    return i - half < from ? from + (i - half) : still[i - 2 * from]!;
  });
  return permuteHeads(
    draft,
    eachRope(spec, () => whole),
    order,
  );
};

/** Zero biases where the target has biases on queries, keys, values and output together or not at all. */
export const allAttentionBiases: Rewrite = (draft) => {
  const { qkvBias, outBias, latent } = draft.spec.attn;
  if (qkvBias === outBias || latent !== null) return draft;
  return rewrite(draft, withAttention(draft.spec, { qkvBias: true, outBias: true }), (_, was) => was ?? fill(0));
};

/** A sink of this logit takes no probability: exp underflows to 0 (sinks of 0 would take some). */
const NO_SINK = -1e9;

/** Attention sinks that take nothing. */
export const idleSinks: Rewrite = (draft) => {
  if (draft.spec.attn.sinks) return draft;
  return rewrite(draft, withAttention(draft.spec, { sinks: true }), (_, was) => was ?? fill(NO_SINK));
};
