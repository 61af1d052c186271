/**
 * Products of one value that is stored as bfloat16 with another that is float32, such as a router's, on tensor cores
 * and yet as exact as in float32: the other is a sum of three numbers of bfloat16, and each of them is multiplied.
 * N tokens, H hidden, E experts.
 */
import { matrixSizes, typeOf, type NodeOf, type ValueId } from "../../../graph/ir/ir.js";
import { EIGHT, gridFor, int, long, operand, reads, writes } from "./arguments.js";
import type { Context } from "./context.js";
import type { BufferId } from "./launches.js";

/** Numbers of bfloat16 that make one of float32. */
const PARTS = 3;

/** Which part stands at each of three places; two of them make a number to 16 bits. */
const ALL = 0x210;
const HIGH_MIDDLE_HIGH = 0x010;
const HIGH_HIGH_MIDDLE = 0x100;

/** Where parts lie: one matrix under the other, or side by side in each row. */
type Placement = "stacked" | "beside";

/** Elements between rows, and between parts, of a matrix [rows, size] in parts. */
const strides = (placement: Placement, rows: number, size: number): readonly [row: number, part: number] =>
  placement === "stacked" ? [size, rows * size] : [PARTS * size, size];

/** The parts of a value in float32, as bfloat16. */
function split(c: Context, id: ValueId, placement: Placement, which: number): BufferId {
  const [rows, size] = c.rowsOf(id);
  const to = c.scratch(PARTS * rows * size, "bf16");
  c.kernel({
    module: "elementwise",
    kernel: "splitFloats",
    grid: gridFor(rows * size),
    flops: 4 * rows * size,
    arguments: [
      reads(c.of(id)),
      writes(to),
      long(rows * size),
      int(size),
      ...strides(placement, rows, size).map(long),
      int(which),
    ],
  });
  return to;
}

/** Sums of the products of three parts. */
function join(c: Context, from: BufferId, out: ValueId, placement: Placement): void {
  const [rows, size] = c.rowsOf(out);
  c.kernel({
    module: "elementwise",
    kernel: "joinParts",
    grid: gridFor(rows * size),
    flops: 2 * rows * size,
    arguments: [
      reads(from),
      writes(c.define(out)),
      long(rows * size),
      int(size),
      ...strides(placement, rows, size).map(long),
    ],
  });
}

/** Whether a value was made as bfloat16, or is float32: made so, or an input. */
const isHalf = (c: Context, id: ValueId): boolean => c.storageOf(id) === "bf16" && c.fillOf(id) === null;
const isFloat = (c: Context, id: ValueId): boolean => c.storageOf(id) !== "bf16" && c.fillOf(id) === null;

/**
 * Appends the launches of a product in float32 one of whose operands is stored as bfloat16, in one of the three forms
 * that a router's product and its gradients have; false where it has none of them.
 */
export function lowerSplitProduct(c: Context, node: NodeOf<"matmul">): boolean {
  if (c.options.precision !== "bf16") return false;
  const [a, b] = node.in;
  const [out] = node.out;
  const { transA, transB } = node.attrs;
  const [m, n] = matrixSizes(typeOf(c.graph, out));
  const [rows, columns] = matrixSizes(typeOf(c.graph, a));
  const k = transA ? rows : columns;
  // The sizes by which rows of bfloat16 would not begin at multiples of 16 bytes.
  if ([m, n, k].some((size) => size % EIGHT !== 0)) return false;
  const half = (id: ValueId) => operand(c.as(id, "bf16"));
  const flags = { transA, transB, real: "bf16" } as const;
  if (!transA && transB && isHalf(c, a) && isFloat(c, b)) {
    // x [N, H] times a router [E, H].
    const parts = c.scratch(PARTS * m * n);
    const weights = operand(split(c, b, "stacked", ALL));
    c.product({ m, n: PARTS * n, k }, flags, { a: half(a), b: weights, addend: null, out: operand(parts) });
    join(c, parts, out, "beside");
    return true;
  }
  if (transA && !transB && isFloat(c, a) && isHalf(c, b)) {
    // The gradient of a router: that of logits [N, E] times x [N, H].
    const parts = c.scratch(PARTS * m * n);
    const left = operand(split(c, a, "beside", ALL));
    c.product({ m: PARTS * m, n, k }, flags, { a: left, b: half(b), addend: null, out: operand(parts) });
    join(c, parts, out, "stacked");
    return true;
  }
  if (!transA && !transB && c.storageOf(a) === "f32" && isFloat(c, b) && c.keepsHalf(out)) {
    // The gradient of x, which becomes bfloat16: that of logits [N, E] times a router [E, H], to 16 bits.
    const left = operand(split(c, a, "beside", HIGH_MIDDLE_HIGH));
    const right = operand(split(c, b, "stacked", HIGH_HIGH_MIDDLE));
    const sum = c.sumOf(out, "bf16");
    const addend = sum === null ? null : half(sum.other);
    const to = operand(sum === null ? c.define(out, "bf16") : c.defineProductSum(sum, "bf16"));
    c.product({ m, n, k: PARTS * k }, { ...flags, stored: "bf16" }, { a: left, b: right, addend, out: to });
    return true;
  }
  return false;
}
