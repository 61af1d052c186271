/** Axes: broadcasting as strides over few joint axes, and sums over one axis. */
import { at } from "../../../base/at.js";
import { int, long, reads, writes } from "./arguments.js";
import type { Context } from "./context.js";
import type { BufferId } from "./launches.js";

/** Axes that kernel `binary` can tell apart. */
const MOST_AXES = 4;

interface Broadcast {
  /** Sizes of the joint axes, `MOST_AXES` of them, 1 where there are fewer. */
  readonly sizes: readonly number[];
  /** For each operand, its stride over each joint axis in elements; 0 where it repeats. */
  readonly strides: readonly (readonly number[])[];
}

/** Joins neighbouring axes that every operand either has or repeats. Throws an Error for more than `MOST_AXES`. */
export function broadcastOf(shape: readonly number[], operands: readonly (readonly number[])[]): Broadcast {
  /** For each axis of the output: its size, and which operands have it. */
  const axes = shape.map((size, axis) => ({
    size,
    has: operands.map((own) => (own[own.length - shape.length + axis] ?? 1) === size),
  }));
  const joined: { size: number; has: readonly boolean[] }[] = [];
  for (const { size, has } of axes) {
    const before = joined.at(-1);
    if (size === 1) continue;
    if (before !== undefined && before.has.join() === has.join()) before.size *= size;
    else joined.push({ size, has });
  }
  if (joined.length > MOST_AXES)
    throw new Error(`[${operands.map(String).join("] and [")}] broadcast along too many axes`);
  const padded = [
    ...Array.from({ length: MOST_AXES - joined.length }, () => ({ size: 1, has: operands.map(() => false) })),
    ...joined,
  ];
  const strides = operands.map((_, operand) => {
    let stride = 1;
    return padded
      .toReversed()
      .map(({ size, has }) => {
        if (has[operand] !== true) return 0;
        const own = stride;
        stride *= size;
        return own;
      })
      .toReversed();
  });
  return { sizes: padded.map(({ size }) => size), strides };
}

/** x [outer, size, inner] of which `size` is summed. */
export interface AxisSum {
  readonly outer: number;
  readonly size: number;
  readonly inner: number;
}

/** A sum over `axes` as sums over one axis each, in the order in which they are taken: from the last. */
export function singleAxisOf(shape: readonly number[], axes: readonly number[]): AxisSum[] {
  const groups: { size: number; summed: boolean }[] = [];
  for (const [axis, size] of shape.entries()) {
    const summed = axes.includes(axis);
    const before = groups.at(-1);
    if (before?.summed === summed) before.size *= size;
    else groups.push({ size, summed });
  }
  const sums: AxisSum[] = [];
  let inner = 1;
  for (let index = groups.length - 1; index >= 0; index--) {
    const { size, summed } = at(groups, index);
    if (!summed) {
      inner *= size;
      continue;
    }
    sums.push({ outer: groups.slice(0, index).reduce((product, group) => product * group.size, 1), size, inner });
  }
  return sums;
}

/** Rows of a slice where a long axis is summed in two passes. */
const RUN = 256;
/** Threads that share a row; long ones get more. */
const [FEW, MANY, LONG] = [128, 1024, 8192];

/** to [outer, inner] = the sum over the middle axis of from [outer, size, inner]. */
export function reduce(c: Context, from: BufferId, to: BufferId, { outer, size, inner }: AxisSum): void {
  const flops = outer * size * inner;
  if (inner === 1) {
    c.kernel({
      module: "reduce",
      kernel: "sumRows",
      grid: [outer, 1, 1],
      block: size >= LONG ? MANY : FEW,
      flops,
      arguments: [reads(from), writes(to), long(size)],
    });
    return;
  }
  const slices = size > 2 * RUN ? Math.ceil(size / RUN) : 1;
  const part = slices === 1 ? to : c.scratch(outer * slices * inner);
  c.kernel({
    module: "reduce",
    kernel: "sumSlices",
    grid: [outer, slices, Math.ceil(inner / 32)],
    flops,
    arguments: [reads(from), writes(part), int(size), int(inner), int(slices === 1 ? size : RUN)],
  });
  if (slices > 1) reduce(c, part, to, { outer, size: slices, inner });
}
