/**
 * Products of experts' rows by wgmma and TMA (see ragged.cu), for compute capability 9.0. R rows, E experts, a and b
 * sizes of a row before and after its product.
 */
import { int, tensorMaps } from "./arguments.js";
import type { Context } from "./context.js";
import { isHopper, type Chip } from "./options.js";
import type { Argument, BufferId, KernelLaunch, Storage } from "./launches.js";

/** Threads of a block, rows and columns of a tile and elements of a step, as in ragged.cu. */
const THREADS = 384;
const TILE_ROWS = 128;
const TILE_COLUMNS = 256;
const DEPTH = 64;
/** Bytes of shared memory: of a stage, of results on their way out, and of what a block may have. */
const STAGE_BYTES = (TILE_ROWS + TILE_COLUMNS) * DEPTH * 2;
const PIECE_BYTES = 8 * 16 * (128 + 8) * 2;
const MOST_SHARED = 232_448;
const MOST_STAGES = 4;
const LEAST_STAGES = 3;
/** Copies take pieces of 16 bytes. */
const EIGHT = 8;

/**
 * A piece for each warp, two barriers for each stage, two numbers for each expert and what lies behind the last, and an
 * order of the experts.
 */
const sharedBytes = (stages: number, experts: number): number =>
  stages * STAGE_BYTES + PIECE_BYTES + stages * 16 + 8 * (experts + 1) + 4 * experts;

/** Stages of operands that there is room for. */
const stagesFor = (experts: number): number =>
  sharedBytes(MOST_STAGES, experts) <= MOST_SHARED ? MOST_STAGES : LEAST_STAGES;

/** Whether these kernels run on the GPU and take rows of these sizes. */
export function takesRagged(
  chip: Chip | undefined,
  real: Storage,
  { experts, a, b }: { readonly experts: number; readonly a: number; readonly b: number },
): chip is Chip {
  const fits = a % EIGHT === 0 && b % EIGHT === 0 && sharedBytes(LEAST_STAGES, experts) <= MOST_SHARED;
  return isHopper(chip) && real === "bf16" && fits;
}

/** Sizes of a product of rows. */
export interface RaggedSizes {
  readonly rows: number;
  readonly experts: number;
  readonly a: number;
  readonly b: number;
}

/** The left operand: rows [rows, size] in boxes of a tile. */
export const leftMap = (x: BufferId, rows: number, size: number): Argument => tensorMaps([x], [rows, size], TILE_ROWS);

/** Weights [b, a] of each expert as right operands; `side` columns of the result come from each. */
export const weightMaps = (weights: readonly BufferId[], { a, b }: RaggedSizes, side = TILE_COLUMNS): Argument =>
  tensorMaps(weights, [b, a], side);

/** Weights [a, b] of each expert as right operands. */
export const turnedMaps = (weights: readonly BufferId[], { a, b }: RaggedSizes): Argument =>
  tensorMaps(weights, [a, b], DEPTH);

/** Rows [rows, size] as operands of a product over rows. */
export const rowMap = (x: BufferId, rows: number, size: number): Argument => tensorMaps([x], [rows, size], DEPTH);

/** Columns of a result of `raggedGated` in a tile. */
export const GATED_COLUMNS = TILE_COLUMNS / 2;

type Launch = Pick<KernelLaunch, "flops" | "arguments"> & { readonly kernel: string };

/** Appends a launch; its arguments are followed by the sizes. `tiles`: how many there are at most. */
function launch(
  c: Context,
  chip: Chip,
  { kernel, flops, arguments: args }: Launch,
  { experts, a, b, rows }: RaggedSizes,
  tiles: number,
): void {
  const stages = stagesFor(experts);
  c.kernel({
    module: "ragged",
    kernel,
    real: "bf16",
    grid: [Math.max(1, Math.min(chip.multiprocessors, tiles)), 1, 1],
    block: THREADS,
    shared: sharedBytes(stages, experts),
    flops,
    arguments: [
      ...args,
      ...(kernel.startsWith(WEIGHT_GRADIENT) ? [] : [int(rows)]),
      ...[experts, a, b, stages].map(int),
    ],
  });
}

const WEIGHT_GRADIENT = "raggedWeightGradient";
const NARROW_WEIGHT_GRADIENT = "raggedWeightGradientNarrow";

/** A product of rows; `width`: columns of the result in a tile. */
export function raggedRows(c: Context, chip: Chip, what: Launch, sizes: RaggedSizes, width = TILE_COLUMNS): void {
  // Each expert's last tile may be cut short, and so may that of nobody's rows.
  const tiles = Math.ceil(sizes.b / width) * (Math.ceil(sizes.rows / TILE_ROWS) + sizes.experts + 1);
  launch(c, chip, what, sizes, tiles);
}

/** Gradients of weights [b, a]. */
export function raggedWeightGradient(c: Context, chip: Chip, what: Omit<Launch, "kernel">, sizes: RaggedSizes): void {
  const tiles = (columns: number): number =>
    sizes.experts * Math.ceil(sizes.a / columns) * Math.ceil(sizes.b / TILE_ROWS);
  const narrow = tiles(TILE_COLUMNS) < chip.multiprocessors;
  const kernel = narrow ? NARROW_WEIGHT_GRADIENT : WEIGHT_GRADIENT;
  launch(c, chip, { kernel, ...what }, sizes, tiles(narrow ? TILE_COLUMNS / 2 : TILE_COLUMNS));
}
