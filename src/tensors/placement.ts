/**
 * Where each slot lies in the stored tensors. Most slots are a tensor of their own; some families store several slots as one
 * (query, key and value rows), or a matrix the other way round.
 */
import type { DecoderSpec, Family } from "../spec/types.js";
import { namedSlots, type NamedSlot } from "./names.js";
import type { SlotPart } from "./slots.js";

/** Runs of `run` rows, `period` apart, the first at `start`. */
export interface RowRuns {
  readonly start: number;
  readonly run: number;
  readonly period: number;
}

export interface Placement extends NamedSlot {
  /** Of the tensor called `name`, as it is stored. */
  readonly shape: readonly number[];
  /** Which of the tensor's rows are the slot's, in order; null: all. */
  readonly rows: RowRuns | null;
  /** Stored as [in, out]; `rows` are then columns. */
  readonly transposed: boolean;
}

interface Share {
  /** Rows of the stored tensor. */
  readonly of: number;
  readonly rows: RowRuns | null;
  readonly transposed?: boolean;
}

/** The share that a part has in its stored tensor; null: it is a tensor of its own. `inner` is the layer's FFN size. */
type Shares = (spec: DecoderSpec, part: SlotPart, inner: number) => Share | null;

/** The `index`-th of the parts that lie one after the other, with so many rows each. */
function stacked(sizes: readonly number[], index: number): Share {
  const of = sizes.reduce((a, b) => a + b, 0);
  return { of, rows: { start: sizes.slice(0, index).reduce((a, b) => a + b, 0), run: sizes[index]!, period: of } };
}

/** modeling_phi3.py: the rows of all query heads, of all key heads, of all value heads; gate rows, then up rows. */
const phi3: Shares = ({ attn: { heads, kvHeads, headDim } }, part, inner) => {
  const attention = (["q", "k", "v"] as const).indexOf(part as "q");
  if (attention !== -1) return stacked([heads * headDim, kvHeads * headDim, kvHeads * headDim], attention);
  const ffn = (["gate", "up"] as const).indexOf(part as "up");
  return ffn === -1 ? null : stacked([inner, inner], ffn);
};

/** modeling_gpt_neox.py: each head's query, key and value rows in turn. */
const gptNeox: Shares = ({ attn: { heads, headDim } }, part) => {
  const index = (["q", "k", "v", "qBias", "kBias", "vBias"] as const).indexOf(part as "q") % 3;
  if (index === -1) return null;
  return { of: 3 * heads * headDim, rows: { start: index * headDim, run: headDim, period: 3 * headDim } };
};

const sharesOf: Readonly<Partial<Record<Family, Shares>>> = { phi3, gpt_neox: gptNeox };

/** Every slot with its place, in the order of `namedSlots`. The slots of one stored tensor fill it without overlap. */
export function placements(spec: DecoderSpec): Placement[] {
  const shares = sharesOf[spec.family];
  return namedSlots(spec).map(({ slot, name }) => {
    const { part, layer } = slot.at;
    const share = shares?.(spec, part, layer === undefined ? 0 : spec.layers[layer]!.ffn.inner) ?? null;
    if (share === null) return { slot, name, shape: slot.shape, rows: null, transposed: false };
    const shape = [share.of, ...slot.shape.slice(1)];
    const transposed = share.transposed === true;
    return { slot, name, shape: transposed ? shape.reverse() : shape, rows: share.rows, transposed };
  });
}

/** The stored tensors by name, in write order, each with the slots that lie in it. */
export function storedTensors(spec: DecoderSpec): Map<string, Placement[]> {
  const stored = new Map<string, Placement[]>();
  for (const place of placements(spec)) {
    const others = stored.get(place.name);
    if (others === undefined) stored.set(place.name, [place]);
    else others.push(place);
  }
  return stored;
}

/** True if the stored tensor is the slot, byte for byte. */
export function isWhole({ rows, transposed }: Placement): boolean {
  return rows === null && !transposed;
}

/** A slot's bytes out of those of its stored tensor; elements have `size` bytes. */
export function takeSlot(place: Placement, stored: Uint8Array, size: number): Uint8Array {
  const own = new Uint8Array(place.slot.shape.reduce((a, b) => a * b, size));
  forEachPiece(place, size, (at, from, bytes) => own.set(stored.subarray(at, at + bytes), from));
  return own;
}

/** Puts a slot's bytes at their place in the stored tensor. */
export function putSlot(place: Placement, stored: Uint8Array, own: Uint8Array, size: number): void {
  forEachPiece(place, size, (at, from, bytes) => stored.set(own.subarray(from, from + bytes), at));
}

/** Pieces that are contiguous in both: `bytes` bytes from `at` in the stored tensor are those from `from` in the slot. */
function forEachPiece(place: Placement, size: number, piece: (at: number, from: number, bytes: number) => void): void {
  const [count = 1, ...rest] = place.slot.shape;
  const width = rest.reduce((a, b) => a * b, 1);
  const { start, run, period } = place.rows ?? { start: 0, run: count, period: count };
  const storedRows = place.shape.at(-1)!;
  for (let row = 0; row < count; row += run) {
    const at = start + (row / run) * period;
    if (!place.transposed) {
      piece(at * width * size, row * width * size, run * width * size);
      continue;
    }
    for (let i = 0; i < run; i++) {
      for (let j = 0; j < width; j++) piece((j * storedRows + at + i) * size, ((row + i) * width + j) * size, size);
    }
  }
}
