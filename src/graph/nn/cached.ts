/**
 * DecoderSpec -> forward graph of new tokens behind a cache of keys and values. Rows of a batch may stand at different
 * positions.
 *
 * Letters: B rows, T new tokens in each, N = B * T, C keys that a cache has room for.
 */
import { at, entryOf } from "../../base/at.js";
import { GraphBuilder } from "../ir/builder.js";
import type { ValueId } from "../ir/ir.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { slotsOf, type Slot } from "../../model/tensors/slots.js";
import { keyDim } from "./attention.js";
import { netContext, ropeTablesOf, type NetContext, type RouterValues } from "./context.js";
import { attentionBranch, attentionInput, embedded, ffnBranch, isParallel } from "./decoder.js";
import { finalHidden, headOf, type Head } from "./head.js";

/** Sizes of a batch of new tokens and of the caches that it runs behind. */
export interface CachedShape {
  /** B */
  readonly batch: number;
  /** T */
  readonly tokens: number;
  /** C, or 0 where nothing is past: every row begins here. */
  readonly capacity: number;
  /** Length of the rope tables; every position lies below it. Rope that depends on the text's length goes by it. */
  readonly positions: number;
  /** The new tokens of a row are several texts that go on from its past; only with a past. */
  readonly branches?: boolean | undefined;
}

/** Keys and values of one layer. */
export interface KeyValue {
  readonly k: ValueId;
  readonly v: ValueId;
}

interface CachedDecoder {
  readonly builder: GraphBuilder;
  /** [N] */
  readonly ids: ValueId;
  /** [N], int */
  readonly positions: ValueId;
  /** Past tokens of each row [B], int; null without a past. */
  readonly lengths: ValueId | null;
  /** Where the text of each new token begins among those of its row [N], int; null without branches. */
  readonly starts: ValueId | null;
  readonly params: readonly { readonly slot: Slot; readonly id: ValueId }[];
  /** [B, kvHeads, C, size] by layer; empty without a past. */
  readonly past: readonly KeyValue[];
  /** Keys and values of the new tokens [N, kvHeads * size], by layer. */
  readonly present: readonly KeyValue[];
  readonly hidden: ValueId;
  readonly head: Head;
  /** Those of the MoE layers, of all N tokens. */
  readonly routers: readonly RouterValues[];
}

/**
 * Builds the network of new tokens up to the last hidden states; logits are added by the caller. Throws an Error for
 * branches without a past.
 */
export function buildCachedDecoder(
  spec: DecoderSpec,
  { batch, tokens, capacity, positions: tableLength, branches = false }: CachedShape,
): CachedDecoder {
  const b = new GraphBuilder();
  const rows = batch * tokens;
  const ids = b.input("ids", "int", [rows]);
  const positions = b.input("positions", "int", [rows]);
  if (branches && capacity === 0) throw new Error("branches have a past that they go on from");
  const lengths = capacity === 0 ? null : b.input("lengths", "int", [batch]);
  const starts = branches ? b.input("starts", "int", [rows]) : null;
  const { kvHeads, headDim, latent } = spec.attn;
  const valueDim = latent?.valueDim ?? headDim;
  const keySize = keyDim(spec.attn);
  const past = (capacity === 0 ? [] : spec.layers).map((_, layer) => ({
    k: b.input(`past.${layer}.k`, "f32", [batch, kvHeads, capacity, keySize]),
    v: b.input(`past.${layer}.v`, "f32", [batch, kvHeads, capacity, valueDim]),
  }));
  const params = slotsOf(spec).map((slot) => ({ slot, id: b.input(slot.key, "f32", slot.shape) }));
  const byKey = new Map(params.map(({ slot, id }) => [slot.key, id]));
  const present: KeyValue[] = [];
  // The context has one row of N tokens: what works token by token need not know about rows, and rope takes each
  // token's own angles.
  const ctx: NetContext = {
    ...netContext(b, spec, { batch: 1, sequence: rows }, (key) => entryOf(byKey, key)),
    positions,
    positionCount: tableLength,
    rope: ropeTablesOf(b, tableLength, positions),
    attend([q, k, v, ...sinks], attrs, layer) {
      present[layer] = { k, v };
      const shape = { ...attrs, batch, sequence: tokens };
      if (lengths === null) return b.op("attention", [q, k, v, ...sinks], shape);
      const { k: pastKeys, v: pastValues } = at(past, layer);
      const extras = [...sinks, ...(starts === null ? [] : [starts])];
      return b.op("cachedAttention", [q, k, v, pastKeys, pastValues, lengths, ...extras], {
        ...shape,
        capacity,
        branches,
      });
    },
  };
  let x = embedded(ctx, ids);
  spec.layers.forEach((layer, index) => {
    const normed = attentionInput(ctx, x, index);
    const attended = b.add(x, attentionBranch(ctx, normed, layer, index));
    x = b.add(attended, ffnBranch(ctx, isParallel(spec) ? x : attended, layer, index, normed));
  });
  return {
    builder: b,
    ids,
    positions,
    lengths,
    starts,
    params,
    past,
    present,
    hidden: finalHidden(ctx, x),
    head: headOf(ctx),
    routers: ctx.routers,
  };
}
