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
  /** Tokens that the hidden states are those of [R], int; null for all. */
  readonly rows: ValueId | null;
  /** [N, H] or [R, H] */
  readonly hidden: ValueId;
  readonly head: Head;
  /** Those of the MoE layers, of all N tokens. */
  readonly routers: readonly RouterValues[];
}

/**
 * Builds the network of new tokens up to the last hidden states; the caller adds logits. With `chosen`, R, there
 * is an input `rows` [R], and the hidden states are those of the tokens that it names: nobody reads what the last layer
 * makes of the others behind its attention, so it is not computed. Throws an Error for branches without a past.
 */
export function buildCachedDecoder(
  spec: DecoderSpec,
  { batch, tokens, capacity, positions: tableLength, branches = false }: CachedShape,
  chosen: number | null = null,
): CachedDecoder {
  const b = new GraphBuilder();
  const rows = batch * tokens;
  const read = chosen === null ? null : b.input("rows", "int", [chosen]);
  const last = spec.layers.length - 1;
  /** What goes on behind the attention of a layer. */
  const goingOn = (x: ValueId, layer: number): ValueId =>
    read === null || layer < last ? x : b.op("embedding", [x, read], {});
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
    attend([q, k, v, ...sinks], given, layer) {
      present[layer] = { k, v };
      const shape = { ...given, batch, sequence: tokens };
      if (lengths === null) return goingOn(b.op("attention", [q, k, v, ...sinks], shape), layer);
      const { k: pastKeys, v: pastValues } = at(past, layer);
      const extras = [...sinks, ...(starts === null ? [] : [starts])];
      const attrs = { ...shape, capacity, branches };
      return goingOn(b.op("cachedAttention", [q, k, v, pastKeys, pastValues, lengths, ...extras], attrs), layer);
    },
  };
  let x = embedded(ctx, ids);
  spec.layers.forEach((layer, index) => {
    const normed = attentionInput(ctx, x, index);
    const before = goingOn(x, index);
    const attended = b.add(before, attentionBranch(ctx, normed, layer, index));
    const ffnReads = isParallel(spec) ? before : attended;
    x = b.add(attended, ffnBranch(ctx, ffnReads, layer, index, goingOn(normed, index)));
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
    rows: read,
    hidden: finalHidden(ctx, x),
    head: headOf(ctx),
    routers: ctx.routers,
  };
}
