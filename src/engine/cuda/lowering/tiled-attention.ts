/** Shapes of the kernels of attention-tiled.cu and attention-gradients.cu, which attend in float32 by tiles. */
import type { AttentionAttrs } from "../../../graph/ir/ir.js";
import { WARP, blocksFor } from "./arguments.js";
import type { Chip } from "./options.js";
import type { KernelLaunch } from "./launches.js";

/** Variants of each kernel by the most elements of the heads that are summed, and the rows that a warp works for. */
const variants = {
  attention: [
    { most: 64, rows: 32 },
    { most: 128, rows: 16 },
    { most: 256, rows: 16 },
  ],
  attentionGradQ: [
    { most: 64, rows: 32 },
    { most: 128, rows: 16 },
    { most: 256, rows: 16 },
  ],
  attentionGradKV: [
    { most: 64, rows: 16 },
    { most: 128, rows: 16 },
    { most: 256, rows: 8 },
  ],
} as const;

/** Rows of a tile. */
const TILE = 32;
/** Elements between the weights of two rows. */
const WEIGHTS = 40;
/** Numbers that say what a row sees. */
const BOUNDS = 4;
/** Warps of a block, most first. */
const warpCounts = [4, 2, 1] as const;
/** Bytes of shared memory that a block has on every GPU from compute capability 8.0 on. */
const MOST_SHARED = 99 * 1024;
/** Blocks for each multiprocessor that are worth more than tiles that more warps share. */
const BLOCKS = 2;

type Heads = Pick<AttentionAttrs, "batch" | "sequence" | "heads" | "kvHeads" | "headDim" | "valueDim">;

/** The kernel for heads of these sizes, and how it is launched: as many warps as there is memory and work for. */
export function tiledAttention(
  kind: keyof typeof variants,
  { batch, sequence, heads, kvHeads, headDim, valueDim }: Heads,
  chip: Chip | undefined,
): Pick<KernelLaunch, "module" | "kernel" | "grid" | "block" | "shared"> {
  const isForward = kind === "attention";
  const summed = isForward ? valueDim : Math.max(headDim, valueDim);
  const variant = variants[kind].find(({ most }) => summed <= most);
  if (variant === undefined) throw new Error(`no kernel attends to heads of ${summed} elements`);
  const { most, rows } = variant;
  // Heads whose rows are multiplied lie in shared memory by fours of elements.
  const fours = (isForward ? [headDim] : [headDim, valueDim]).map((size) => 4 * Math.ceil(size / 4));
  const by = kind === "attentionGradKV" ? kvHeads : heads;
  const blocksOf = (warps: number): number => blocksFor(sequence, rows * warps);
  const sharedOf = (warps: number): number => {
    const held = rows * warps;
    const own = fours.reduce((sum, size) => sum + size * (held + 1), 0);
    return 4 * (own + Math.max(Math.max(...fours) * (TILE + 1), TILE * most) + held * (WEIGHTS + BOUNDS));
  };
  const fits = (warps: number): boolean =>
    sharedOf(warps) <= MOST_SHARED &&
    (rows * warps) / 2 < sequence &&
    batch * by * blocksOf(warps) >= BLOCKS * (chip?.multiprocessors ?? 0);
  const warps = warpCounts.find(fits) ?? 1;
  return {
    module: `attention-${isForward ? "tiled" : "gradients"}-${most}`,
    kernel: `${kind}${most}`,
    grid: [blocksOf(warps), by, batch],
    block: warps * WARP,
    shared: sharedOf(warps),
  };
}
