/**
 * What a plan knows of a GPU and its cluster. The figures come from a YAML table that users can edit
 * (`base/schemas/hardware.ts`).
 */
import { valueAt } from "../../base/at.js";

/** One row of the table, in the units of data sheets. */
interface GpuRow {
  readonly title: string;
  /** Dense (no sparsity) TFLOP/s by number format. */
  readonly peakTflops: Readonly<Record<string, number>>;
  readonly memoryGB: number;
  readonly hbmTBs: number;
  /** GB/s that one GPU can send to others of its node, one direction. */
  readonly intraGBs: number;
  /** GB/s that one GPU can send to other nodes, one direction. */
  readonly interGBs: number;
  readonly gpusPerNode: number;
  readonly pricePerHour: number;
  readonly sources: Readonly<Record<string, string>>;
}

/** In bytes, seconds and FLOP. */
export interface Gpu {
  readonly name: string;
  readonly title: string;
  /** Dense bf16 FLOP/s: what mixed-precision training multiplies in. */
  readonly peak: number;
  /** Dense FLOP/s in 8-bit floats; null: it has none, or the table does not say. */
  readonly fp8Peak: number | null;
  readonly memory: number;
  readonly hbm: number;
  readonly intra: number;
  readonly inter: number;
  readonly perNode: number;
  /** Money per GPU and hour, in the table's currency. */
  readonly price: number;
  readonly sources: Readonly<Record<string, string>>;
}

/**
 * A row of the table in bytes, seconds and FLOP. Its `peakTflops` must have an entry `bf16`, which the schema asks for.
 */
export function gpuOf(name: string, row: GpuRow): Gpu {
  return {
    name,
    title: row.title,
    peak: valueAt(row.peakTflops, "bf16") * 1e12,
    fp8Peak: row.peakTflops["fp8"] === undefined ? null : row.peakTflops["fp8"] * 1e12,
    memory: row.memoryGB * 1e9,
    hbm: row.hbmTBs * 1e12,
    intra: row.intraGBs * 1e9,
    inter: row.interGBs * 1e9,
    perNode: row.gpusPerNode,
    price: row.pricePerHour,
    sources: row.sources,
  };
}
