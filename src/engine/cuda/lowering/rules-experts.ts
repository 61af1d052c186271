/**
 * Sorting by expert, and products of each expert's rows. N tokens, E experts, K experts of a token, R = N * K routed
 * rows, H hidden, a and b sizes of an expert's rows before and after its product.
 */
import type { NodeOf, ValueId } from "../../../graph/ir/ir.js";
import { matrixSizes, typeOf } from "../../../graph/ir/ir.js";
import {
  ROW_WARPS,
  blocksFor,
  int,
  nothing,
  reads,
  readsOrNull,
  bufferTable,
  threadsFor,
  writes,
} from "./arguments.js";
import type { Context } from "./context.js";
import type { BufferId, Storage } from "./launches.js";
import { leftMap, raggedRows, raggedWeightGradient, rowMap, takesRagged, turnedMaps, weightMaps } from "./ragged.js";

/** Items of one tile of the sort, as in sort.cu; and digits up to which such a tile is sorted in one launch. */
const TILE = 1024;
const MOST_TILE_DIGITS = 320;
const WARP = 32;
/** Rows and columns of one tile of a product, as in experts.cu. */
const SIDE = 64;

/** Rows and columns of one tile on tensor cores, and shared memory of its stages, as in grouped.cu. */
const TENSOR_SIDE = 128;
const TENSOR_SHARED = 3 * 2 * TENSOR_SIDE * 64 * 2;
/** Rows are copied in pieces of so many elements. */
const CHUNK = 8;

/** Whether the kernels of grouped.cu take rows of these sizes. */
const takesTensors = (real: Storage, a: number, b: number): boolean =>
  real === "bf16" && a % CHUNK === 0 && b % CHUNK === 0;

interface DigitSort {
  readonly keys: BufferId;
  /** What is sorted along; null: the indices of the items. */
  readonly order: BufferId | null;
  readonly n: number;
  readonly shift: number;
  readonly digits: number;
}

interface DigitTargets {
  readonly keys?: BufferId;
  readonly order?: BufferId;
  readonly inverse?: BufferId;
  /** How many items have each of the first `digits` digits. */
  readonly totals?: { readonly buffer: BufferId; readonly digits: number };
}

/** One stable pass of a sort by (key >> shift) % digits, into the given memory or scratch. */
export function sortByDigit(
  c: Context,
  { keys, order, n, shift, digits }: DigitSort,
  to: DigitTargets = {},
): { readonly keys: BufferId; readonly order: BufferId } {
  const blocks = blocksFor(n, TILE);
  const sorted = { keys: to.keys ?? c.scratch(n), order: to.order ?? c.scratch(n) };
  const inverse = to.inverse === undefined ? nothing : writes(to.inverse);
  const totals = to.totals === undefined ? nothing : writes(to.totals.buffer);
  const kept = to.totals?.digits ?? 0;
  if (blocks === 1 && digits <= MOST_TILE_DIGITS) {
    const warps = blocksFor(Math.max(n, digits), WARP);
    c.kernel({
      module: "sort",
      kernel: "digitTile",
      grid: [1, 1, 1],
      block: WARP * warps,
      shared: 4 * warps * digits,
      arguments: [
        reads(keys),
        readsOrNull(order),
        ...[sorted.keys, sorted.order].map(writes),
        ...[inverse, totals],
        ...[n, shift, digits, kept].map(int),
      ],
    });
    return sorted;
  }
  const counts = c.scratch(digits * blocks);
  c.kernel({
    module: "sort",
    kernel: "digitCounts",
    grid: [blocks, 1, 1],
    shared: digits * 4,
    arguments: [reads(keys), writes(counts), int(n), int(shift), int(digits)],
  });
  c.kernel({
    module: "sort",
    kernel: "digitOffsets",
    grid: [1, 1, 1],
    block: 1024,
    arguments: [{ kind: "pointer", buffer: counts, access: "update" }, totals, ...[digits, blocks, kept].map(int)],
  });
  c.kernel({
    module: "sort",
    kernel: "digitScatter",
    grid: [blocks, 1, 1],
    block: 32,
    shared: digits * 4,
    arguments: [
      reads(keys),
      readsOrNull(order),
      reads(counts),
      writes(sorted.keys),
      writes(sorted.order),
      inverse,
      int(n),
      int(shift),
      int(digits),
    ],
  });
  return sorted;
}

/** Appends the launches of `expertSort`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerExpertSort(c: Context, node: NodeOf<"expertSort">): void {
  const [chosen] = node.in;
  const [order, inverse, counts] = node.out;
  const { experts } = node.attrs;
  // A dropped choice is one more digit, behind the last expert.
  sortByDigit(
    c,
    { keys: c.of(chosen), order: null, n: c.sizeOf(chosen), shift: 0, digits: experts + 1 },
    {
      order: c.define(order),
      inverse: c.define(inverse),
      totals: { buffer: c.define(counts), digits: experts },
    },
  );
}

/** Appends the launches of `expertCounts`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerExpertCounts(c: Context, node: NodeOf<"expertCounts">): void {
  const [chosen] = node.in;
  const { experts, blocks } = node.attrs;
  c.kernel({
    module: "sort",
    kernel: "expertCounts",
    grid: [blocks, 1, 1],
    block: 1024,
    shared: experts * 4,
    arguments: [reads(c.of(chosen)), writes(c.define(node.out[0])), int(c.sizeOf(chosen) / blocks), int(experts)],
  });
}

/** Appends the launches of `expertCapacity`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerExpertCapacity(c: Context, node: NodeOf<"expertCapacity">): void {
  const [weights, chosen] = node.in;
  const { experts, rows, by } = node.attrs;
  const n = c.sizeOf(chosen);
  const counts = c.scratch(experts);
  const { order } = sortByDigit(
    c,
    { keys: c.of(chosen), order: null, n, shift: 0, digits: experts + 1 },
    { totals: { buffer: counts, digits: experts } },
  );
  c.kernel({
    module: "sort",
    kernel: "expertCapacity",
    grid: [experts + 1, 1, 1],
    block: 1024,
    arguments: [
      by === "weight" ? reads(c.of(weights)) : nothing,
      ...[order, counts].map(reads),
      writes(c.define(node.out[0])),
      ...[n, experts, rows].map(int),
    ],
  });
}

/** Appends the launches of `dispatch`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerDispatch(c: Context, node: NodeOf<"dispatch">): void {
  const [x, order] = node.in;
  const [rows, size] = matrixSizes(typeOf(c.graph, node.out[0]));
  const real = c.realOf(x);
  c.kernel({
    module: "experts",
    kernel: "dispatch",
    real,
    grid: [blocksFor(rows, ROW_WARPS), 1, 1],
    arguments: [
      reads(c.as(x, real)),
      reads(c.of(order)),
      writes(c.define(node.out[0], real)),
      int(rows),
      int(size),
      int(node.attrs.k),
    ],
  });
}

/** Sums of each token's rows, times `weights` if there are any; and what else is added to them, if that is there. */
export function combineRows(
  c: Context,
  { node, y, weights }: { readonly node: NodeOf<"combine">; readonly y: ValueId; readonly weights: ValueId | null },
): void {
  const [, , inverse] = node.in;
  const [out] = node.out;
  const [rows, size] = matrixSizes(typeOf(c.graph, out));
  const real = c.realOf(y);
  const sources = [reads(c.as(y, real)), readsOrNull(weights === null ? null : c.of(weights)), reads(c.of(inverse))];
  const sum = c.sumOf(out, real);
  const addend = sum === null ? null : c.as(sum.other, real);
  const to = sum === null ? c.define(out, real) : c.defineSum(sum, real);
  c.kernel({
    module: "experts",
    kernel: "combine",
    real,
    grid: [rows, 1, 1],
    block: threadsFor(size),
    flops: rows * size * node.attrs.k * (weights === null ? 1 : 2),
    arguments: [
      ...sources,
      addend === to ? { kind: "pointer", buffer: to, access: "update" } : readsOrNull(addend),
      writes(to),
      int(size),
      int(node.attrs.k),
    ],
  });
}

/** Appends the launches of `combine`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerCombine(c: Context, node: NodeOf<"combine">): void {
  combineRows(c, { node, y: node.in[0], weights: null });
}

/** Appends the launches of `scaleRows`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerScaleRows(c: Context, node: NodeOf<"scaleRows">): void {
  const [y, weights, order] = node.in;
  const [rows, size] = c.rowsOf(y);
  const real = c.realOf(y);
  const sources = [reads(c.as(y, real)), reads(c.of(weights)), reads(c.of(order))];
  c.kernel({
    module: "experts",
    kernel: "scaleRows",
    real,
    grid: [rows, 1, 1],
    block: threadsFor(size),
    flops: rows * size,
    arguments: [...sources, writes(c.defineOver(node.out[0], [y], real)), int(size)],
  });
}

/** Appends the launches of `scaleRowsGrad`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerScaleRowsGrad(c: Context, node: NodeOf<"scaleRowsGrad">): void {
  const [y, weights, order, , dout] = node.in;
  const [dy, dweights] = node.out;
  const [rows, size] = c.rowsOf(y);
  const real = c.realOf(y, dout);
  const sources = [reads(c.as(y, real)), reads(c.of(weights)), reads(c.of(order)), reads(c.as(dout, real))];
  c.kernel({
    module: "experts",
    kernel: "scaleRowsGrad",
    real,
    grid: [rows, 1, 1],
    block: threadsFor(size),
    flops: 3 * rows * size,
    arguments: [...sources, writes(c.defineOver(dy, [dout, y], real)), writes(c.define(dweights)), int(size)],
  });
}

/** Appends the launches of `groupedMatmul`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerGroupedMatmul(c: Context, node: NodeOf<"groupedMatmul">): void {
  const [x, counts, ...weights] = node.in;
  const [rows, a] = matrixSizes(typeOf(c.graph, x));
  const [, b] = matrixSizes(typeOf(c.graph, node.out[0]));
  const real = c.realOf(x);
  const { chip } = c.options;
  const ragged = { rows, experts: weights.length, a, b };
  if (takesRagged(chip, real, ragged)) {
    const left = leftMap(c.as(x, real), rows, a);
    const buffers = c.asMany(weights, real);
    const ends = [reads(c.of(counts)), writes(c.define(node.out[0], real))];
    const flops = 2 * rows * a * b;
    raggedRows(
      c,
      chip,
      node.attrs.transB
        ? { kernel: "raggedProduct", flops, arguments: [left, weightMaps(buffers, ragged), ...ends] }
        : {
            kernel: "raggedProductTurned",
            flops,
            arguments: [left, turnedMaps(buffers, ragged), nothing, nothing, ...ends],
          },
      ragged,
    );
    return;
  }
  const matrices = bufferTable(c.asMany(weights, real), "read");
  const sources = [reads(c.as(x, real)), reads(c.of(counts)), matrices, writes(c.define(node.out[0], real))];
  const flops = 2 * rows * a * b;
  if (takesTensors(real, a, b)) {
    c.kernel({
      module: "grouped",
      kernel: node.attrs.transB ? "groupedProductTransposed" : "groupedProduct",
      real,
      grid: [blocksFor(b, TENSOR_SIDE), blocksFor(rows, TENSOR_SIDE) + weights.length + 1, 1],
      shared: TENSOR_SHARED,
      flops,
      arguments: [...sources, ...[rows, weights.length, a, b].map(int)],
    });
    return;
  }
  c.kernel({
    module: "experts",
    kernel: "groupedMatmul",
    real,
    // Each expert's last tile may be cut short, and so may that of nobody's rows.
    grid: [blocksFor(b, SIDE), blocksFor(rows, SIDE) + weights.length + 1, 1],
    flops,
    arguments: [...sources, ...[rows, weights.length, a, b, Number(node.attrs.transB)].map(int)],
  });
}

const defined = (c: Context, ids: readonly ValueId[]): BufferId[] => ids.map((id) => c.define(id));

/** Appends the launches of `groupedMatmulGradW`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerGroupedMatmulGradW(c: Context, node: NodeOf<"groupedMatmulGradW">): void {
  const [x, dy, counts] = node.in;
  const [rows, a] = matrixSizes(typeOf(c.graph, x));
  const [, b] = matrixSizes(typeOf(c.graph, dy));
  const real = c.realOf(x, dy);
  const { chip } = c.options;
  const ragged = { rows, experts: node.out.length, a, b };
  if (takesRagged(chip, real, ragged)) {
    const maps = [rowMap(c.as(x, real), rows, a), rowMap(c.as(dy, real), rows, b)];
    const outs = bufferTable(defined(c, node.out), "write");
    raggedWeightGradient(c, chip, { flops: 2 * rows * a * b, arguments: [...maps, reads(c.of(counts)), outs] }, ragged);
    return;
  }
  const sources = [reads(c.as(x, real)), reads(c.as(dy, real)), reads(c.of(counts))];
  const tensors = takesTensors(real, a, b);
  const side = tensors ? TENSOR_SIDE : SIDE;
  c.kernel({
    module: tensors ? "grouped" : "experts",
    kernel: tensors ? "groupedWeightGradient" : "groupedMatmulGradW",
    real,
    grid: [blocksFor(a, side), blocksFor(b, side), node.out.length],
    shared: tensors ? TENSOR_SHARED : 0,
    flops: 2 * rows * a * b,
    arguments: [...sources, bufferTable(defined(c, node.out), "write"), int(a), int(b)],
  });
}

/** Appends the launches of `groupedBias`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerGroupedBias(c: Context, node: NodeOf<"groupedBias">): void {
  const [y, counts, ...biases] = node.in;
  const [rows, size] = c.rowsOf(y);
  const real = c.realOf(y);
  const sources = [reads(c.as(y, real)), reads(c.of(counts))];
  const vectors = bufferTable(
    biases.map((id) => c.of(id)),
    "read",
  );
  c.kernel({
    module: "experts",
    kernel: "groupedBias",
    real,
    grid: [rows, 1, 1],
    flops: rows * size,
    arguments: [...sources, vectors, writes(c.defineOver(node.out[0], [y], real)), int(biases.length), int(size)],
  });
}

/** Appends the launches of `groupedBiasGrad`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerGroupedBiasGrad(c: Context, node: NodeOf<"groupedBiasGrad">): void {
  const [dy, counts] = node.in;
  const [rows, size] = c.rowsOf(dy);
  const real = c.realOf(dy);
  c.kernel({
    module: "experts",
    kernel: "groupedBiasGrad",
    real,
    grid: [blocksFor(size, 32), node.out.length, 1],
    flops: rows * size,
    arguments: [reads(c.as(dy, real)), reads(c.of(counts)), bufferTable(defined(c, node.out), "write"), int(size)],
  });
}
