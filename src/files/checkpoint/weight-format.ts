/** Formats of weight files, and what writing them needs to know. */
import type { Slot } from "../../model/tensors/slots.js";
import type { Chunk } from "./chunks.js";
import type { PlannedFile } from "./plan-files.js";

/** `safetensors`: a model folder of Hugging Face; `torch_dist`: the folder of a save of Megatron-Core. */
export type WeightFormat = "safetensors" | "torch_dist";

/** The weight files of a folder, before any weight is known. */
export interface WeightLayout {
  readonly files: readonly PlannedFile[];
  /** Bytes of all weight files, headers included. */
  readonly weightBytes: number;
  /** Makes the further files that belong to the format, by name. */
  extras(): Readonly<Record<string, string | Uint8Array>>;
  /** Whether the sum of each chunk is needed in the end. */
  readonly checksums: boolean;
  /** All chunks; see `planChunks`. */
  chunks(chunkBytes?: number, sameAs?: (slot: Slot) => string): Chunk[];
  /** What stands between the weights, written when all chunks are; from their sums by index. */
  between(
    chunks: readonly Chunk[],
    sums: ReadonlyMap<number, number>,
  ): Iterable<{ readonly file: number; readonly offset: number; readonly bytes: Uint8Array }>;
}
