/** Where each slot of an open folder is read from, and how its parts become one. */
import { join } from "node:path";
import { entryOf } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { elements } from "../../base/shapes.js";
import type { FloatDtype } from "../numeric/dtype.js";
import { floatBytes, storedPlace, toFloat32 } from "../numeric/dtype.js";
import { matrixShape, wholeRows, type TypedBytes } from "../numeric/rectangles.js";
import { isWholeTensor, takeSlot, type Placement } from "../../model/tensors/placement.js";
import type { Slot } from "../../model/tensors/slots.js";
import type { openRectangleReader, RectangleSource } from "./rectangle-reader.js";
import type { ReadableTensor } from "./stored.js";

/** Rows of a slot in a stored tensor. */
export type SlotPart = RectangleSource & { readonly place: Placement };

/** A slot and the stored tensors that it lies in, in the order of its rows. */
export interface SlotSource {
  readonly slot: Slot;
  /** The precision that all of them are read in. */
  readonly dtype: FloatDtype;
  readonly parts: [SlotPart, ...SlotPart[]];
}

/** Where each slot is read from. Throws inputError for a tensor of another shape or precision than its slot has. */
export function slotSources(
  places: readonly Placement[],
  tensors: ReadonlyMap<string, ReadableTensor>,
  dir: string,
  describedBy = "config.json",
): Map<string, SlotSource> {
  const sources = new Map<string, SlotSource>();
  for (const place of places) {
    const tensor = entryOf(tensors, place.name);
    const where = join(dir, tensor.file);
    const part = slotPart(place, tensor, where, describedBy);
    const source = sources.get(place.slot.key);
    if (source === undefined) sources.set(place.slot.key, { slot: place.slot, dtype: part.dtype, parts: [part] });
    else if (source.dtype === part.dtype) source.parts.push(part);
    else {
      const { name } = source.parts[0];
      throw inputError(
        `tensor ${place.name} is stored as ${tensor.dtype}, ${name} as ${entryOf(tensors, name).dtype}, expected ` +
          "one precision for both",
        { where },
      );
    }
  }
  return sources;
}

function slotPart(place: Placement, tensor: ReadableTensor, where: string, describedBy: string): SlotPart {
  const { name } = place;
  const { shape, dtype, presented } = tensor;
  if (elements(shape) === 0) {
    throw inputError(
      `tensor ${name} is empty (shape [${shape.join(", ")}]), ${describedBy} asks for [${place.shape.join(", ")}]`,
      {
        where,
        hint:
          "DeepSpeed's ZeRO-3 saves a model so that was not gathered: save it with " +
          "stage3_gather_16bit_weights_on_model_save, or put it together with zero_to_fp32.py",
      },
    );
  }
  if (shape.join() !== place.shape.join()) {
    throw inputError(
      `tensor ${name} has shape [${shape.join(", ")}], ${describedBy} asks for [${place.shape.join(", ")}]`,
      { where, hint: "the weights do not belong to this config.json" },
    );
  }
  if (presented === null) {
    throw inputError(`tensor ${name} is stored as ${dtype}, expected F32, BF16, F16, F64, F8_E4M3 or F8_E5M2`, {
      where,
      hint: "use the unquantized model it was made from",
    });
  }
  return {
    place,
    name,
    dtype: presented,
    count: elements(shape),
    first: place.first,
    rows: place.count,
    layout: place.layout,
    read: (start, count, into) => tensor.read(start, count, into),
  };
}

/** A whole slot as it is stored, row-major. */
export async function readSlot({ slot, dtype, parts }: SlotSource): Promise<TypedBytes> {
  const [first] = parts;
  if (isWholeTensor(first.place)) return { dtype, bytes: await first.read(0, first.count) };
  const size = floatBytes[dtype];
  const bytes = new Uint8Array(elements(slot.shape) * size);
  for (const { place, count, read } of parts) takeSlot(place, await read(0, count), bytes, size);
  return { dtype, bytes };
}

/** Rows of a slot as float32, at the beginning of `memory` where they fit. */
export async function readSlotRows(
  { slot, dtype, parts }: SlotSource,
  { start, count }: { readonly start: number; readonly count: number },
  memory: ArrayBuffer | undefined,
  readRectangle: ReturnType<typeof openRectangleReader>,
): Promise<Float32Array> {
  const [rows, width] = matrixShape(slot.shape);
  if (!(start >= 0 && count >= 0 && start + count <= rows))
    throw new Error(`rows ${start} to ${start + count} of ${slot.key}, which has ${rows}`);
  const fitting = memory !== undefined && memory.byteLength >= 4 * count * width ? memory : undefined;
  const into = fitting && storedPlace(dtype, count * width, fitting);
  const [first] = parts;
  if (isWholeTensor(first.place))
    return toFloat32(dtype, await first.read(start * width, count * width, into), fitting);
  const { bytes } = await readRectangle(parts, wholeRows(slot.key, start, count, width), into);
  return toFloat32(dtype, bytes, fitting);
}
