/** What the weight files of a model folder will hold, byte by byte, before the first weight is made. Pure. */
import { at, entryOf } from "../../base/at.js";
import { planHeader, type HeaderPlan } from "../formats/safetensors.js";
import { planShards } from "../formats/shards.js";
import type { FloatDtype } from "../numeric/dtype.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { keepsFloat32 } from "../../model/tensors/precision.js";
import { storedTensors, type Placement } from "../../model/tensors/placement.js";
import type { Slot } from "../../model/tensors/slots.js";

/** Precisions a model folder is written in. */
export type WriteDtype = Exclude<FloatDtype, "F64">;

/**
 * The precision of each slot: one for all but what the family keeps in float32, or a choice for each (a router in
 * float32 beside bfloat16 experts).
 */
export type SlotDtype = WriteDtype | ((slot: Slot) => WriteDtype);

/** A stored tensor with its place in a weight file. */
export interface FileTensor {
  readonly name: string;
  readonly dtype: WriteDtype;
  /** The slots that lie in it. */
  readonly slots: readonly Placement[];
  /** Byte range in the file, `begin` inclusive, `end` exclusive. */
  readonly begin: number;
  readonly end: number;
}

/** A weight file with its header, before any weight is made. */
export interface PlannedFile {
  readonly file: string;
  readonly header: HeaderPlan;
  /** In the order of their bytes. */
  readonly tensors: readonly FileTensor[];
}

/** All weight files of a folder, and their index. */
export interface FilePlan {
  readonly files: readonly PlannedFile[];
  /** Text of the index file, or null for a single file. */
  readonly index: string | null;
  /** Bytes of all weight files, headers included. */
  readonly weightBytes: number;
}

/** Plans all weight files of a model. Throws inputError for a shard size that makes no sense. */
export function planFiles(spec: DecoderSpec, dtype: SlotDtype, maxShardBytes?: number): FilePlan {
  const stored = storedTensors(spec);
  const dtypeOf =
    typeof dtype === "function" ? dtype : (slot: Slot): WriteDtype => (keepsFloat32(spec, slot) ? "F32" : dtype);
  const { shards, index } = planShards(
    [...stored].map(([name, slots]) => ({ name, dtype: dtypeOfAll(name, slots, dtypeOf), shape: at(slots, 0).shape })),
    maxShardBytes,
  );
  const files = shards.map(({ file, tensors }) => {
    const header = planHeader(tensors);
    const fileTensors = [...header.tensors].map(([name, { dtype: own, begin, end }]) => ({
      name,
      dtype: own as WriteDtype,
      slots: entryOf(stored, name),
      begin,
      end,
    }));
    return { file, header, tensors: fileTensors };
  });
  return { files, index, weightBytes: files.reduce((sum, { header }) => sum + header.fileBytes, 0) };
}

function dtypeOfAll(name: string, slots: readonly Placement[], dtypeOf: (slot: Slot) => WriteDtype): WriteDtype {
  const [dtype, ...others] = new Set(slots.map(({ slot }) => dtypeOf(slot)));
  if (dtype === undefined) throw new Error(`no slot lies in ${name}`);
  // One tensor has one precision: the one that holds what every 16-bit one does.
  return others.length > 0 ? "F32" : dtype;
}
