/**
 * The weights of a part in the order of their use, a run of rows at a time: while one piece is at work, the next is
 * read and decoded.
 */
import type { Graph, Node, NodeOf, ValueId } from "../graph/ir/ir.js";
import type { ArrayData, OperationRuntime } from "../engine/runtime/runtime.js";

/** Where weights come from: an open checkpoint is one. */
export interface WeightSource {
  readFloat32(slotKey: string): Promise<Float32Array>;
  /** Rows along the first axis; they may lie at the beginning of `memory`. */
  readRows(slotKey: string, start: number, count: number, memory?: ArrayBuffer): Promise<Float32Array>;
}

/** Rows `start` to `start + count` of a weight [size, width]. */
export interface Piece {
  readonly key: string;
  readonly start: number;
  readonly count: number;
  readonly width: number;
}

export interface PieceReader {
  /** The next piece, which must be this one. Its memory is the caller's to give away. */
  take(key: string, start: number): Promise<Float32Array>;
}

/** Weights [size, width] that a node reads in pieces: one of a linear, one of each expert that has rows. */
interface Streamed {
  readonly shape: readonly number[];
  readonly keys: readonly string[];
  /** Rows of each expert; the value that has them. */
  readonly counts: ValueId | null;
}

/** What a node reads in pieces; null: nothing. */
export function streamedWeights(node: Node, { values }: Graph, keys: ReadonlyMap<ValueId, string>): Streamed | null {
  const streamed = (counts: ValueId | null, ids: readonly ValueId[]): Streamed | null => {
    const names = ids.map((id) => keys.get(id));
    return names.includes(undefined) ? null : { shape: values[ids[0]!]!.shape, keys: names as string[], counts };
  };
  if (node.prim === "matmul") return isLinear(node) ? streamed(null, [node.in[1]]) : null;
  if (node.prim === "groupedMatmul" && node.attrs.transB) return streamed(node.in[1], node.in.slice(2));
  return null;
}

const isLinear = ({ attrs }: NodeOf<"matmul">): boolean => attrs.transB && !attrs.transA;

/** Rows of a weight in each of its pieces but the last. */
export const rowsAtOnce = ([size, width]: readonly number[], most: number): number =>
  Math.min(size!, Math.max(1, Math.floor(most / width!)));

/** Gives null while it is not known which experts have rows, and resumes at that place when it is asked again. */
function* piecesOf(
  graph: Graph,
  keys: ReadonlyMap<ValueId, string>,
  known: ReadonlyMap<ValueId, ArrayData>,
  most: number,
): Generator<Piece | null, undefined> {
  for (const node of graph.nodes) {
    const found = streamedWeights(node, graph, keys);
    if (found === null) continue;
    const [size, width] = found.shape as [number, number];
    while (found.counts !== null && !known.has(found.counts)) yield null;
    const counts = found.counts === null ? null : known.get(found.counts)!;
    const step = rowsAtOnce(found.shape, most);
    for (const [index, key] of found.keys.entries()) {
      if (counts?.[index] === 0) continue;
      for (let start = 0; start < size; start += step) yield { key, start, count: Math.min(step, size - start), width };
    }
  }
}

interface PieceOptions {
  readonly weights: WeightSource;
  readonly operations: OperationRuntime;
  /** Most elements in a piece. */
  readonly pieceElements: number;
}

/** `known`: what has been computed so far, and grows. */
export function openPieces(
  graph: Graph,
  keys: ReadonlyMap<ValueId, string>,
  known: ReadonlyMap<ValueId, ArrayData>,
  { weights, operations, pieceElements }: PieceOptions,
): PieceReader {
  const upcoming = piecesOf(graph, keys, known, pieceElements);
  let ahead: { readonly piece: Piece; readonly data: Promise<Float32Array> } | null = null;
  const advance = (): void => {
    const piece = upcoming.next().value ?? null;
    ahead =
      piece === null
        ? null
        : {
            piece,
            data: weights.readRows(
              piece.key,
              piece.start,
              piece.count,
              operations.memory(4 * piece.count * piece.width),
            ),
          };
    // What goes wrong is thrown where it is awaited, even if the product before it fails first.
    ahead?.data.catch(() => undefined);
  };
  return {
    async take(key, start) {
      if (ahead === null) advance();
      const { piece, data } = ahead!;
      if (piece.key !== key || piece.start !== start)
        throw new Error(`the next piece is row ${piece.start} of ${piece.key}, not row ${start} of ${key}`);
      const found = await data;
      advance();
      return found;
    },
  };
}
