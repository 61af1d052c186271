/**
 * Where each slot lies in the stored tensors. Most slots are a tensor of their own; some families store several slots
 * as one (query, key and value rows), or a matrix the other way round, or one slot as several tensors (a norm's weight
 * for each head).
 *
 * In shapes, `in` and `out` are the features of a matrix; all offsets and strides count elements.
 */
import { at as elementAt } from "../../base/at.js";
import type { DecoderSpec, Family, Ffn, MoeFfn } from "../decoder/types.js";
import { namedSlots, packsInModules, type NameForm } from "./names.js";
import type { Slot, SlotPart } from "./slots.js";

/** Runs of `run` rows each, `period` rows apart; the first one begins at row `start`. */
export interface RowRuns {
  readonly start: number;
  readonly run: number;
  readonly period: number;
}

/**
 * Element (i, j) of a placement's rows lies at element `base + row(i) * rowStride + j * columnStride` of its stored
 * tensor, where row(i) takes `rows` in order. A vector is a matrix of one column.
 */
export interface SlotLayout {
  readonly base: number;
  readonly rows: RowRuns;
  readonly rowStride: number;
  readonly columnStride: number;
}

/** Rows of a slot, and where they lie in one stored tensor. */
export interface Placement {
  readonly slot: Slot;
  /** Name of the stored tensor. */
  readonly name: string;
  /** Shape of the stored tensor. */
  readonly shape: readonly number[];
  /** The slot's rows `first` to `first + count`: all of them but where a slot lies in several tensors. */
  readonly first: number;
  readonly count: number;
  /** Null: the stored tensor is these rows, byte for byte. */
  readonly layout: SlotLayout | null;
}

/** A slot's share in the one stored tensor that holds it. */
export interface Share {
  /** Shape of the stored tensor. */
  readonly shape: readonly number[];
  readonly layout: SlotLayout | null;
}

/** The share that a slot has in its stored tensor; null: it is a tensor of its own. */
type Shares = (spec: DecoderSpec, slot: Slot) => Share | null;

/** Elements of one row of a slot. */
const width = ({ shape }: Slot): number => shape.slice(1).reduce((a, b) => a * b, 1);

/** Rows of a slot. */
const rowCount = ({ shape }: Slot): number => elementAt(shape, 0);

/** The FFN of the layer that a slot belongs to; undefined outside the layers. */
function ffnOf({ layers }: DecoderSpec, { at: { layer } }: Slot): Ffn | undefined {
  return layer === undefined ? undefined : elementAt(layers, layer).ffn;
}

/** The routed expert that a slot belongs to, with its layer's FFN; null for all other slots. */
function expertOf(spec: DecoderSpec, slot: Slot): { readonly expert: number; readonly ffn: MoeFfn } | null {
  const { expert } = slot.at;
  const ffn = ffnOf(spec, slot);
  return expert === undefined || ffn?.kind !== "moe" ? null : { expert, ffn };
}

/** Number of a routed expert's slot among the experts of its layer. Throws RangeError for other slots. */
function expertNumber({ key, at: { expert } }: Slot): number {
  if (expert === undefined) throw new RangeError(`the slot ${key} belongs to no routed expert`);
  return expert;
}

/** Whole rows of a stored matrix with `of` rows. */
function storedRowsOf(slot: Slot, of: number, rows: RowRuns): Share {
  return { shape: [of, ...slot.shape.slice(1)], layout: { base: 0, rows, rowStride: width(slot), columnStride: 1 } };
}

/** Columns of a stored [in, out] matrix with `of` columns; a vector stays one. */
export function transposedRowsOf(slot: Slot, of: number, rows: RowRuns): Share {
  return slot.shape.length === 1
    ? storedRowsOf(slot, of, rows)
    : { shape: [width(slot), of], layout: { base: 0, rows, rowStride: 1, columnStride: of } };
}

/** The `index`-th of parts that lie one after the other, with so many rows each: their number and its rows. */
export function stacked(sizes: readonly number[], index: number): readonly [number, RowRuns] {
  const of = sizes.reduce((a, b) => a + b, 0);
  const start = sizes.slice(0, index).reduce((a, b) => a + b, 0);
  return [of, { start, run: elementAt(sizes, index), period: of }];
}

/** Rows of one expert's matrix in a tensor [experts, `of`, columns] that holds all of them. */
export function expertRows(slot: Slot, experts: number, of: number, rows: RowRuns): Share {
  const columns = width(slot);
  return {
    shape: [experts, of, ...slot.shape.slice(1)],
    layout: { base: expertNumber(slot) * of * columns, rows, rowStride: columns, columnStride: 1 },
  };
}

/**
 * The same of a tensor [experts, columns, `of`], which holds the matrices the other way round; vectors stay as they
 * are.
 */
function expertColumns(slot: Slot, experts: number, of: number, rows: RowRuns): Share {
  if (slot.shape.length === 1) return expertRows(slot, experts, of, rows);
  const columns = width(slot);
  return {
    shape: [experts, columns, of],
    layout: { base: expertNumber(slot) * columns * of, rows, rowStride: 1, columnStride: of },
  };
}

/** Position of a slot's part in a list of parts; -1 where it is none of them. */
const indexIn = (parts: readonly SlotPart[], { at }: Slot): number => parts.indexOf(at.part);

/** One tensor with the rows of all query heads, of all key heads, of all value heads; null for other slots. */
const queryKeyValueRows: Shares = ({ attn: { heads, kvHeads, headDim } }, slot) => {
  const part = indexIn(["q", "k", "v"], slot);
  if (part === -1) return null;
  return storedRowsOf(slot, ...stacked([heads * headDim, kvHeads * headDim, kvHeads * headDim], part));
};

/** One tensor with the gate rows, then the up rows of a dense FFN; null for other slots. */
const gateUpRows: Shares = (spec, slot) => {
  const part = indexIn(["gate", "up"], slot);
  const ffn = ffnOf(spec, slot);
  if (part === -1 || ffn === undefined) return null;
  return storedRowsOf(slot, ...stacked([ffn.ffnDim, ffn.ffnDim], part));
};

/** modeling_phi3.py: the rows of all query heads, of all key heads, of all value heads; gate rows, then up rows. */
const phi3: Shares = (spec, slot) => gateUpRows(spec, slot) ?? queryKeyValueRows(spec, slot);

/** modeling_gpt_neox.py: each head's query, key and value rows in turn. */
const gptNeox: Shares = ({ attn: { heads, headDim } }, slot) => {
  const index = indexIn(["q", "k", "v", "qBias", "kBias", "vBias"], slot) % 3;
  if (index === -1) return null;
  return storedRowsOf(slot, 3 * heads * headDim, { start: index * headDim, run: headDim, period: 3 * headDim });
};

/** modeling_codegen.py: of each quarter of the heads the rows of their queries, of their values, of their keys. */
const codegen: Shares = ({ attn: { heads, headDim } }, slot) => {
  const index = indexIn(["q", "v", "k"], slot);
  if (index === -1) return null;
  const quarter = (heads / 4) * headDim;
  const [period, rows] = stacked([quarter, quarter, quarter], index);
  return storedRowsOf(slot, 4 * period, rows);
};

/** modeling_falcon.py, modeling_gpt_bigcode.py: of each key head the rows of its queries, of itself, of its value. */
const groupedRows: Shares = ({ attn: { heads, kvHeads, headDim } }, slot) => {
  const index = indexIn(["q", "k", "v", "qBias", "kBias", "vBias"], slot);
  if (index === -1) return null;
  const [period, rows] = stacked([(heads / kvHeads) * headDim, headDim, headDim], index % 3);
  return storedRowsOf(slot, kvHeads * period, rows);
};

/** activations.py, XIELUActivation: constants are scalars. */
const apertus: Shares = (_, slot) =>
  indexIn(["activationBeta", "activationEps"], slot) === -1 ? null : { shape: [], layout: null };

/**
 * modeling_granitemoe.py: one tensor for all experts, of each the gate rows, then the up rows; the shared expert
 * likewise.
 */
const graniteMoe: Shares = (spec, slot) => {
  const part = indexIn(["sharedGate", "sharedUp"], slot);
  if (part !== -1) return storedRowsOf(slot, ...stacked([rowCount(slot), rowCount(slot)], part));
  const routed = expertOf(spec, slot);
  if (routed === null) return null;
  const { ffnDim, experts } = routed.ffn;
  const sizes = slot.at.part === "down" ? [rowCount(slot)] : [ffnDim, ffnDim];
  return expertRows(slot, experts, ...stacked(sizes, slot.at.part === "up" ? 1 : 0));
};

/** modeling_gpt_oss.py: matrices are stored [in, out], of gate and up every other column. */
const gptOss: Shares = (spec, slot) => {
  const routed = expertOf(spec, slot);
  if (routed === null) return null;
  const { ffnDim, experts } = routed.ffn;
  const start = indexIn(["gate", "up", "gateBias", "upBias"], slot);
  const [of, rows] =
    start === -1 ? stacked([rowCount(slot)], 0) : [2 * ffnDim, { start: start % 2, run: 1, period: 2 }];
  return expertColumns(slot, experts, of, rows);
};

/** modeling_ernie4_5_moe.py: the correction bias of what could be several groups of experts. */
const ernie: Shares = (_, { at, shape }) =>
  at.part === "routerCorrection" ? { shape: [1, ...shape], layout: null } : null;

/**
 * modeling_deepseek_v3.py: the rows of the latent, then those of the common key; of each head the key rows, then the
 * value rows.
 */
const deepseekV3: Shares = ({ attn: { heads, headDim, latent } }, slot) => {
  if (latent === null) return null;
  const { kvRank, ropeDim, valueDim } = latent;
  const down = indexIn(["kvDown", "kRope"], slot);
  if (down !== -1) return storedRowsOf(slot, ...stacked([kvRank, ropeDim], down));
  const up = indexIn(["k", "v"], slot);
  if (up === -1) return null;
  const [period, rows] = stacked([headDim - ropeDim, valueDim], up);
  return storedRowsOf(slot, heads * period, rows);
};

/**
 * modeling_dbrx.py: rows of all experts one after the other, w2 the other way round; query, key and value rows in one
 * tensor.
 */
const dbrx: Shares = (spec, slot) => {
  const routed = expertOf(spec, slot);
  if (routed === null) return queryKeyValueRows(spec, slot);
  const { expert, ffn } = routed;
  if (slot.at.part !== "down") {
    const rows = { start: expert * ffn.ffnDim, run: ffn.ffnDim, period: ffn.ffnDim };
    return storedRowsOf(slot, ffn.experts * ffn.ffnDim, rows);
  }
  const hidden = rowCount(slot);
  const rows = { start: 0, run: hidden, period: hidden };
  return {
    shape: [ffn.experts * ffn.ffnDim, hidden],
    layout: { base: expert * ffn.ffnDim * hidden, rows, rowStride: 1, columnStride: hidden },
  };
};

/** modeling_gpt2.py, `Conv1D`: matrices are stored [in, out], of `c_attn` the columns of query, key and value. */
const gpt2: Shares = (_, slot) => {
  const rows = rowCount(slot);
  const attention = indexIn(["q", "k", "v", "qBias", "kBias", "vBias"], slot);
  if (attention !== -1) return transposedRowsOf(slot, ...stacked([rows, rows, rows], attention % 3));
  return indexIn(["o", "up", "down"], slot) === -1 ? null : transposedRowsOf(slot, ...stacked([rows], 0));
};

/** modeling_cohere.py: the weights of norms on queries and keys are [heads, head size]. */
const cohere: Shares = ({ attn: { headDim } }, slot) =>
  slot.at.part === "qNorm" || slot.at.part === "kNorm"
    ? { shape: [rowCount(slot) / headDim, headDim], layout: null }
    : null;

const sharesOf: Readonly<Partial<Record<Family, Shares>>> = {
  cohere,
  phi3,
  glm: gateUpRows,
  glm4: gateUpRows,
  gpt_neox: gptNeox,
  codegen,
  apertus,
  falcon: groupedRows,
  gpt_bigcode: groupedRows,
  mpt: queryKeyValueRows,
  deepseek_v3: deepseekV3,
  granitemoe: graniteMoe,
  granitemoe_swa: graniteMoe,
  ernie4_5_moe: ernie,
  gpt_oss: gptOss,
  dbrx,
  gpt2,
};

/** The packed experts of transformers 5's modules: of each the gate rows, then the up rows (`MoeExperts`). */
const packedExperts: Shares = (spec, slot) => (slot.at.expert === undefined ? null : graniteMoe(spec, slot));

function sharesIn(spec: DecoderSpec, form: NameForm): Shares | undefined {
  const own = sharesOf[spec.family];
  if (form === "files" || !packsInModules(spec)) return own;
  return (all, slot) => packedExperts(all, slot) ?? own?.(all, slot) ?? null;
}

/**
 * Every slot with its places, in the order of `namedSlots`; those of a slot in the order of its rows, which they divide
 * evenly. The slots of one stored tensor fill it without overlap.
 */
export function placements(spec: DecoderSpec, form: NameForm = "files"): Placement[] {
  const shares = sharesIn(spec, form);
  return namedSlots(spec, form).flatMap(({ slot, names }) => {
    const [rows = 1, ...rest] = slot.shape;
    const share = (names.length === 1 ? shares?.(spec, slot) : null) ?? null;
    const count = rows / names.length;
    if (share !== null) return names.map((name) => ({ slot, name, first: 0, count, ...share }));
    return names.map((name, i) => ({ slot, name, shape: [count, ...rest], first: i * count, count, layout: null }));
  });
}

/**
 * The same place where its tensor of packed experts is stored the other way round, [experts, in, out]; as it is where
 * the stored shape is the usual one.
 */
export function inTurnedExperts(place: Placement, stored: readonly number[]): Placement {
  const { shape, layout } = place;
  const [experts = 0, rows = 0, columns = 0] = shape;
  const isTurned = shape.length === 3 && rows !== columns && [experts, columns, rows].join() === stored.join();
  if (!isTurned || layout === null) return place;
  return { ...place, shape: stored, layout: { ...layout, rowStride: 1, columnStride: rows } };
}

/** The stored tensors by name, in write order, each with the slots that lie in it. */
export function storedTensors(spec: DecoderSpec): Map<string, Placement[]> {
  const tensors = new Map<string, Placement[]>();
  for (const place of placements(spec)) {
    const others = tensors.get(place.name);
    if (others === undefined) tensors.set(place.name, [place]);
    else others.push(place);
  }
  return tensors;
}

/** True if the stored tensor is the slot, byte for byte. */
export function isWholeTensor({ slot, count, layout }: Placement): boolean {
  return layout === null && count === (slot.shape[0] ?? 1);
}

/** `count` elements from `from` of the slot lie in one piece from `at` in the stored tensor. */
interface SlotPiece {
  readonly at: number;
  readonly from: number;
  readonly count: number;
}

/**
 * The pieces of a slot that lie in one stored tensor, in the slot's order; offsets count elements, `from` from the
 * slot's beginning.
 */
export function* piecesOf({ slot, first, count, layout }: Placement): Generator<SlotPiece> {
  const columns = width(slot);
  if (layout === null) {
    yield { at: 0, from: first * columns, count: count * columns };
    return;
  }
  const {
    base,
    rows: { start, run, period },
    rowStride,
    columnStride,
  } = layout;
  for (let row = 0; row < count;) {
    const at = base + (start + Math.floor(row / run) * period + (row % run)) * rowStride;
    const from = (first + row) * columns;
    // Rows that follow each other without a gap are one piece.
    const inRun = Math.min(run - (row % run), count - row);
    const together = columnStride === 1 && rowStride === columns ? inRun : 1;
    if (columnStride === 1 || columns === 1) yield { at, from, count: together * columns };
    else
      for (let column = 0; column < columns; column++)
        yield { at: at + column * columnStride, from: from + column, count: 1 };
    row += together;
  }
}

/** Puts what of a slot lies in a stored tensor into the slot's bytes; elements have `size` bytes. */
export function takeSlot(place: Placement, stored: Uint8Array, own: Uint8Array, size: number): void {
  for (const { at, from, count } of piecesOf(place))
    own.set(stored.subarray(at * size, (at + count) * size), from * size);
}

/**
 * Rows that follow each other in the stored tensor too: a placement's rows from `row` on lie at stored rows from `at`
 * on.
 */
interface RowSpan {
  readonly row: number;
  readonly at: number;
  readonly count: number;
}

/** The spans of rows `first` to `first + count` of a placement, in order. */
export function* rowSpans({ start, run, period }: RowRuns, first: number, count: number): Generator<RowSpan> {
  for (let row = first; row < first + count;) {
    const within = row % run;
    const together = period === run ? first + count - row : Math.min(run - within, first + count - row);
    yield { row, at: start + Math.floor(row / run) * period + within, count: together };
    row += together;
  }
}
