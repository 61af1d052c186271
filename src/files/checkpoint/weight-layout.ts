/** How the weights of a folder lie in files: what writing them needs to know, whatever the format. */
import type { DecoderSpec } from "../../model/decoder/types.js";
import { keepsFloat32 } from "../../model/tensors/precision.js";
import type { Slot } from "../../model/tensors/slots.js";
import { indexFileName } from "../formats/shards.js";
import { planChunks } from "./chunks.js";
import { megatronLayout } from "./megatron-layout.js";
import { planFiles, type SlotDtype, type WriteDtype } from "./plan-files.js";
import type { WeightFormat, WeightLayout } from "./weight-format.js";

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
    extras: (): Readonly<Record<string, string>> => (index === null ? {} : { [indexFileName]: index }),
    checksums: false,
    chunks: (chunkBytes, sameAs) => planChunks(files, chunkBytes, sameAs),
    between: () => [],
  };
}

function dtypeOfSlots(spec: DecoderSpec, dtype: SlotDtype): (slot: Slot) => WriteDtype {
  return (slot) => {
    // Megatron-Core keeps the bias of the choice in float32 whatever the rest is in.
    if (slot.at.part === "routerCorrection") return "F32";
    return typeof dtype === "function" ? dtype(slot) : keepsFloat32(spec, slot) ? "F32" : dtype;
  };
}
