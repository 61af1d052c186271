/** Shapes of the kernels of attention-tiled.cu, which attend in float32 for many queries at once. */
import type { AttentionAttrs } from "../../../graph/ir/ir.js";
import { WARP, blocksFor } from "./arguments.js";
import type { Chip } from "./options.js";
import type { KernelLaunch } from "./launches.js";

/** Kernels by the most elements of a value head, and the queries that a warp of each works for. */
const kernels = [
  { most: 64, queries: 32 },
  { most: 128, queries: 16 },
  { most: 256, queries: 16 },
] as const;

/** Keys of a tile. */
const KEYS = 32;
/** Elements between the probabilities of two queries. */
const WEIGHTS = 40;
/** Numbers that say which keys a query sees. */
const BOUNDS = 4;
/** Warps of a block, most first. */
const warpCounts = [4, 2, 1] as const;
/** Bytes of shared memory that a block has on every GPU from compute capability 8.0 on. */
const MOST_SHARED = 99 * 1024;
/** Blocks for each multiprocessor that are worth more than keys that more warps share. */
const BLOCKS = 2;

type Heads = Pick<AttentionAttrs, "batch" | "sequence" | "heads" | "headDim" | "valueDim">;

/** The kernel for heads of these sizes, and how it is launched: as many warps as there is memory and work for. */
export function tiledAttention(
  { batch, sequence, heads, headDim, valueDim }: Heads,
  chip: Chip | undefined,
): Pick<KernelLaunch, "module" | "kernel" | "grid" | "block" | "shared"> {
  const kernel = kernels.find(({ most }) => valueDim <= most);
  if (kernel === undefined) throw new Error(`no kernel attends to value heads of ${valueDim} elements`);
  const { most, queries } = kernel;
  const fours = Math.ceil(headDim / 4);
  const blocksOf = (warps: number): number => blocksFor(sequence, queries * warps);
  const sharedOf = (warps: number): number => {
    const held = queries * warps;
    return 4 * (4 * fours * (held + 1) + Math.max(4 * fours * (KEYS + 1), KEYS * most) + held * (WEIGHTS + BOUNDS));
  };
  const fits = (warps: number): boolean =>
    sharedOf(warps) <= MOST_SHARED &&
    (queries * warps) / 2 < sequence &&
    batch * heads * blocksOf(warps) >= BLOCKS * (chip?.multiprocessors ?? 0);
  const warps = warpCounts.find(fits) ?? 1;
  return {
    module: "attention-tiled",
    kernel: `attention${most}`,
    grid: [blocksOf(warps), heads, batch],
    block: warps * WARP,
    shared: sharedOf(warps),
  };
}
