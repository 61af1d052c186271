/** The inverse of `takeSlot`, which only tests need: they build stored tensors from slots. */
import { piecesOf, type Placement } from "../../src/model/tensors/placement.js";

/** Puts what of a slot lies in a stored tensor there, from the slot's bytes; elements have `size` bytes. */
export function putSlot(place: Placement, stored: Uint8Array, own: Uint8Array, size: number): void {
  for (const { at, from, count } of piecesOf(place))
    stored.set(own.subarray(from * size, (from + count) * size), at * size);
}
