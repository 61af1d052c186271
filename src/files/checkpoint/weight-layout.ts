/** How the weights of a folder lie in files: what writing them needs to know, whatever the format. */
import type { DecoderSpec } from "../../model/decoder/types.js";
import { keepsFloat32 } from "../../model/tensors/precision.js";
import type { Slot } from "../../model/tensors/slots.js";
import { indexFileName } from "../formats/shards.js";
import { planChunks, type Chunk } from "./chunks.js";
import { megatronLayout } from "./megatron-layout.js";
import { planFiles, type PlannedFile, type SlotDtype, type WriteDtype } from "./plan-files.js";

/** `safetensors`: a model folder of Hugging Face; `torch_dist`: the folder of a save of Megatron-Core. */
export type WeightFormat = "safetensors" | "torch_dist";

/** The weight files of a folder, before any weight is known. */
export interface WeightLayout {
  readonly files: readonly PlannedFile[];
  /** Bytes of all weight files, headers included. */
  readonly weightBytes: number;
  /** Further files that belong to the format, by name. */
  readonly extras: Readonly<Record<string, string | Uint8Array>>;
  /** Whether the sum of each chunk is needed in the end. */
  readonly checksums: boolean;
  /** All chunks; see `planChunks`. */
  chunks(chunkBytes?: number, sameAs?: (slot: Slot) => string): Chunk[];
  /** What follows when all chunks are written, from their sums by index. */
  tails(
    chunks: readonly Chunk[],
    sums: ReadonlyMap<number, number>,
  ): Iterable<{ readonly file: number; readonly offset: number; readonly bytes: Uint8Array }>;
}

/** Throws inputError for a shard size that makes no sense and a decoder that the format cannot hold. */
export function layoutOf(
  format: WeightFormat,
  spec: DecoderSpec,
  dtype: SlotDtype,
  maxShardBytes?: number,
): WeightLayout {
  if (format === "torch_dist")
    return megatronLayout({ spec, dtypeOf: dtypeOfSlots(spec, dtype), maxFileBytes: maxShardBytes });
  const { files, index, weightBytes } = planFiles(spec, dtype, maxShardBytes);
  return {
    files,
    weightBytes,
    extras: index === null ? {} : { [indexFileName]: index },
    checksums: false,
    chunks: (chunkBytes, sameAs) => planChunks(files, chunkBytes, sameAs),
    tails: () => [],
  };
}

function dtypeOfSlots(spec: DecoderSpec, dtype: SlotDtype): (slot: Slot) => WriteDtype {
  return (slot) => {
    // Megatron-Core keeps the bias of the choice in float32 whatever the rest is in.
    if (slot.at.part === "routerCorrection") return "F32";
    return typeof dtype === "function" ? dtype(slot) : keepsFloat32(spec, slot) ? "F32" : dtype;
  };
}
