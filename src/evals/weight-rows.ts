/**
 * The weights of a block in the order of their use, some rows of one weight at a time: while these are at work, the
 * next ones are read and decoded.
 */
import { at, entryOf } from "../base/at.js";
import { matrixSizes, typeOf, type Graph, type Node, type NodeOf, type ValueId } from "../graph/ir/ir.js";
import type { ArrayData, OperationRuntime } from "../engine/runtime/runtime.js";

/** Where weights come from: an open checkpoint is one. */
export interface WeightSource {
  readFloat32(slotKey: string): Promise<Float32Array>;
  /** Rows along the first axis; they may lie at the beginning of `memory`. */
  readRows(slotKey: string, start: number, count: number, memory?: ArrayBuffer): Promise<Float32Array>;
}

/** Rows `start` to `start + count` of a weight [size, width]. */
interface WeightRows {
  readonly key: string;
  readonly start: number;
  readonly count: number;
  readonly width: number;
}

/** Gives the rows of a block's weights one after the other. */
export interface RowReader {
  /** The next rows, which must be those from `start` on. Their memory is the caller's to give away. */
  take(key: string, start: number): Promise<Float32Array>;
}

/** Sizes of a stored weight: `size` rows of `width` elements. */
export interface WeightSizes {
  readonly size: number;
  readonly width: number;
}

/** Weights that a node reads some rows at a time: one of a linear, one of each expert that has rows. */
interface Streamed extends WeightSizes {
  readonly keys: readonly string[];
  /** The value that says how many rows each expert multiplies; null: there are no experts. */
  readonly counts: ValueId | null;
}

/** The weights that a node reads some rows at a time; null: none. */
export function streamedWeights(node: Node, graph: Graph, keys: ReadonlyMap<ValueId, string>): Streamed | null {
  if (node.prim === "matmul") return isLinear(node) ? streamed(graph, keys, null, [node.in[1]]) : null;
  if (node.prim !== "groupedMatmul" || !node.attrs.transB) return null;
  const [, counts, ...weights] = node.in;
  return streamed(graph, keys, counts, weights);
}

/** Null where a weight is no parameter. */
function streamed(
  graph: Graph,
  keys: ReadonlyMap<ValueId, string>,
  counts: ValueId | null,
  ids: readonly ValueId[],
): Streamed | null {
  if (!ids.every((id) => keys.has(id))) return null;
  const [size, width] = matrixSizes(typeOf(graph, at(ids, 0)));
  return { size, width, counts, keys: ids.map((id) => entryOf(keys, id)) };
}

const isLinear = ({ attrs }: NodeOf<"matmul">): boolean => attrs.transB && !attrs.transA;

/** Rows of a weight that are read at once: as many as have at most `mostElements`, at least one. */
export const rowsAtOnce = ({ size, width }: WeightSizes, mostElements: number): number =>
  Math.min(size, Math.max(1, Math.floor(mostElements / width)));

/**
 * All rows in the order of their use. Yields null while it is not known which experts have rows, and resumes at that
 * place when it is asked again.
 */
function* rowsInOrder(
  graph: Graph,
  keys: ReadonlyMap<ValueId, string>,
  computed: ReadonlyMap<ValueId, ArrayData>,
  mostElements: number,
): Generator<WeightRows | null, undefined> {
  for (const node of graph.nodes) {
    const weights = streamedWeights(node, graph, keys);
    if (weights === null) continue;
    const { size, width } = weights;
    while (weights.counts !== null && !computed.has(weights.counts)) yield null;
    const counts = weights.counts === null ? null : entryOf(computed, weights.counts);
    const step = rowsAtOnce(weights, mostElements);
    for (const [index, key] of weights.keys.entries()) {
      if (counts?.[index] === 0) continue;
      for (let start = 0; start < size; start += step) yield { key, start, count: Math.min(step, size - start), width };
    }
  }
}

interface RowReaderOptions {
  readonly weights: WeightSource;
  readonly operations: OperationRuntime;
  /** Most elements that are read at once. */
  readonly weightElements: number;
}

/** Rows that are being read. */
interface RowsAhead {
  readonly rows: WeightRows;
  readonly data: Promise<Float32Array>;
}

/** Reads the weights of `graph` ahead of their use. `computed` holds the values so far, and grows. */
export function openRowReader(
  graph: Graph,
  keys: ReadonlyMap<ValueId, string>,
  computed: ReadonlyMap<ValueId, ArrayData>,
  { weights, operations, weightElements }: RowReaderOptions,
): RowReader {
  const upcoming = rowsInOrder(graph, keys, computed, weightElements);
  const readNext = (): RowsAhead | null => {
    const rows = upcoming.next().value ?? null;
    if (rows === null) return null;
    const { key, start, count, width } = rows;
    const data = weights.readRows(key, start, count, operations.memory(4 * count * width));
    // What goes wrong is thrown where it is awaited, even if the product before it fails first.
    data.catch(() => undefined);
    return { rows, data };
  };
  let ahead: RowsAhead | null = null;
  return {
    async take(key, start) {
      ahead ??= readNext();
      if (ahead === null) throw new Error(`there are no rows to read, not row ${start} of ${key} either`);
      const { rows, data } = ahead;
      if (rows.key !== key || rows.start !== start)
        throw new Error(`the next rows are from row ${rows.start} of ${rows.key}, not from row ${start} of ${key}`);
      const elements = await data;
      ahead = readNext();
      return elements;
    },
  };
}
