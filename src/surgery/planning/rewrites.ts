/**
 * Rewrites of a draft that keep its function: each changes the spec and the tensors together. Rounding aside they are
 * exact; docs/targets.md lists them.
 */
import type { AttentionSpec, DecoderSpec, NormSpec, Rope } from "../../model/decoder/types.js";
import type { Slot, SlotPart } from "../../model/tensors/slots.js";
import { slotsOfDraft, type Draft } from "./draft.js";
import { fill, offset, permuteRows, scale, type Expr } from "./expr.js";

/**
 * One step that brings a draft nearer to a family's form; it gives the draft back as it is where it has nothing to do.
 */
export type Rewrite = (draft: Draft) => Draft;

/** How a rewrite changes the tensors of a draft. */
interface TensorChanges {
  /** The new value of a tensor that was there before. Left out: tensors stay as they are. */
  readonly change?: (slot: Slot, before: Expr) => Expr;
  /** The value of a tensor that the new spec adds. Left out: the new spec adds none. */
  readonly add?: (slot: Slot) => Expr | undefined;
}

/** The draft with another spec, and the values of its tensors changed accordingly. */
function rewrite({ values, ...rest }: Draft, spec: DecoderSpec, { change, add }: TensorChanges): Draft {
  const next = { ...rest, spec };
  const rewritten = slotsOfDraft(next).map((slot) => {
    const before = values.get(slot.key);
    const value = before === undefined ? add?.(slot) : (change?.(slot, before) ?? before);
    if (value === undefined) throw new Error(`no rewrite says what ${slot.key} is made of`);
    return [slot.key, value] as const;
  });
  return { ...next, values: new Map(rewritten) };
}

const withAttention = (spec: DecoderSpec, attn: Partial<AttentionSpec>): DecoderSpec => ({
  ...spec,
  attn: { ...spec.attn, ...attn },
});
const among = (...parts: readonly SlotPart[]): ReadonlySet<SlotPart> => new Set(parts);

/** The tensors of `parts` times a factor, all others as they are. */
const scaled =
  (parts: ReadonlySet<SlotPart>, factor: number) =>
  ({ at }: Slot, before: Expr): Expr =>
    parts.has(at.part) ? scale(before, factor) : before;

const blockNorms = among("inputNorm", "postAttentionNorm", "ffnNorm", "postFfnNorm", "finalNorm");
const headNorms = among("qNorm", "kNorm");
const rotaryParts = among("q", "k", "qBias", "kBias");

/** Norm weights that act as 1 + w become plain ones, and norms without weights get ones. */
export const plainNormWeights: Rewrite = (draft) => {
  const { spec } = draft;
  const { qkNorm } = spec.attn;
  if (spec.norm.weight === "scale" && (qkNorm === null || qkNorm.norm.weight === "scale")) return draft;
  const plain = (norm: NormSpec): NormSpec => ({ ...norm, weight: "scale" });
  const normOf = ({ at: { part } }: Slot): NormSpec | null => {
    if (blockNorms.has(part)) return spec.norm;
    return headNorms.has(part) ? (qkNorm?.norm ?? null) : null;
  };
  const next = {
    ...spec,
    norm: plain(spec.norm),
    attn: { ...spec.attn, qkNorm: qkNorm === null ? null : { ...qkNorm, norm: plain(qkNorm.norm) } },
  };
  return rewrite(draft, next, {
    change: (slot, before) => (normOf(slot)?.weight === "one-plus" ? offset(before, 1) : before),
    add: (slot) => (normOf(slot)?.weight === "none" ? fill(1) : undefined),
  });
};

/** A tied head becomes a tensor of its own. */
export const untieHead: Rewrite = (draft) => {
  if (!draft.spec.tiedHead) return draft;
  return rewrite(
    draft,
    { ...draft.spec, tiedHead: false },
    {
      add: ({ at }) => (at.part === "head" ? draft.values.get("embed") : undefined),
    },
  );
};

/** The factor on the embeddings' output goes into the embeddings; a tied head must not get it. */
export const foldEmbedding: Rewrite = (draft) => {
  const { embedding } = draft.spec.multipliers;
  if (embedding === 1) return draft;
  const untied = untieHead(draft);
  const next = { ...untied.spec, multipliers: { ...untied.spec.multipliers, embedding: 1 } };
  return rewrite(untied, next, { change: scaled(among("embed"), embedding) });
};

/**
 * The factor on the logits goes into the last norm's weight, in front of a head that may be tied. Needs a norm with a
 * plain weight.
 */
export const foldLogits: Rewrite = (draft) => {
  const { logits } = draft.spec.multipliers;
  if (logits === 1) return draft;
  const next = { ...draft.spec, multipliers: { ...draft.spec.multipliers, logits: 1 } };
  return rewrite(draft, next, { change: scaled(among("finalNorm", "finalNormBias"), logits) });
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
  return rewrite(draft, next, { change: scaled(last, residual) });
};

/** A score factor other than headDim^-0.5 goes into the queries, or into the norm's weight on them. */
export const foldAttentionScale: Rewrite = (draft) => {
  const { attn } = draft.spec;
  const usual = attn.headDim ** -0.5;
  if (attn.scale === usual || attn.latent !== null) return draft;
  const parts = attn.qkNorm === null ? among("q", "qBias") : among("qNorm");
  return rewrite(draft, withAttention(draft.spec, { scale: usual }), { change: scaled(parts, attn.scale / usual) });
};

/** Reorders the elements of every query and key head: element i of a head was its element `order[i]`. */
function permuteHeads(draft: Draft, spec: DecoderSpec, order: readonly number[]): Draft {
  // Weights of norms on heads move with the elements they belong to.
  const parts = spec.attn.qkNorm === null ? rotaryParts : new Set([...rotaryParts, ...headNorms]);
  return rewrite(draft, spec, {
    change: ({ at }, before) => (parts.has(at.part) ? permuteRows(before, order) : before),
  });
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

/** A LongRoPE factor that slows a pair down so much that no position turns it. */
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
  const { scaling, rotary } = rope;
  if (scaling.kind !== "none" && scaling.kind !== "longrope") return draft;
  // The factor on cos and sin would also reach the elements that do not turn.
  if (scaling.kind === "longrope" && scaling.attentionFactor !== 1) return draft;
  const whole = wholeRope(rope, scaling, headDim, spec.maxPositions);
  return permuteHeads(
    draft,
    eachRope(spec, () => whole),
    wholeOrder(rotary, headDim),
  );
};

/** LongRoPE over a whole head that turns the first `rotary` / 2 pairs as `rope` does, and leaves the others still. */
function wholeRope(
  { theta, rotary }: Rope,
  scaling: Extract<Rope["scaling"], { readonly kind: "none" | "longrope" }>,
  headDim: number,
  maxPositions: number,
): Rope {
  const factors = (own: readonly number[] | null): number[] =>
    Array.from({ length: headDim / 2 }, (_, i) =>
      i < rotary / 2 ? (own?.[i] ?? 1) * theta ** ((2 * i) / rotary - (2 * i) / headDim) : STILL,
    );
  return {
    theta,
    rotary: headDim,
    interleaved: false,
    scaling: {
      kind: "longrope",
      short: factors(scaling.kind === "none" ? null : scaling.short),
      long: factors(scaling.kind === "none" ? null : scaling.long),
      originalMaxPositions: scaling.kind === "none" ? maxPositions : scaling.originalMaxPositions,
      attentionFactor: 1,
    },
  };
}

/**
 * The order of a head's elements for which partial rope becomes rope over the whole head. Turning pair i lies at
 * (i, i + rotary/2) before and at (i, i + headDim/2) after; the still elements fill what is left, in order.
 */
function wholeOrder(rotary: number, headDim: number): number[] {
  const [half, turning] = [headDim / 2, rotary / 2];
  return Array.from({ length: headDim }, (_, i) => {
    if (i < half) return i < turning ? i : rotary + i - turning;
    return i - half < turning ? turning + (i - half) : rotary + i - 2 * turning;
  });
}

/** Zero biases where the target has biases on queries, keys, values and output together or not at all. */
export const allAttentionBiases: Rewrite = (draft) => {
  const { qkvBias, outBias, latent } = draft.spec.attn;
  if (qkvBias === outBias || latent !== null) return draft;
  return rewrite(draft, withAttention(draft.spec, { qkvBias: true, outBias: true }), { add: () => fill(0) });
};

/** A sink of this logit takes no probability: exp underflows to 0 (sinks of 0 would take some). */
const NO_SINK = -1e9;

/** Attention sinks that take nothing. */
export const idleSinks: Rewrite = (draft) => {
  if (draft.spec.attn.sinks) return draft;
  return rewrite(draft, withAttention(draft.spec, { sinks: true }), { add: () => fill(NO_SINK) });
};
