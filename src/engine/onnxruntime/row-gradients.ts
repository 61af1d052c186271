/**
 * Gradients of embeddings by hand. As ONNX operators a table's gradient is zeros [V, H] and a copy of them with rows
 * added by one thread; here the graph gives the rows [N, H] and ids, and they are added to the gradient's own memory.
 *
 * Letters: N tokens, H hidden size, V vocabulary.
 */
import type { Graph, ValueId } from "../../graph/ir/ir.js";
import { prune } from "../../graph/ir/passes.js";

/** An output that became rows to add. */
interface RowGradient {
  /** Place of the table's gradient among the outputs. */
  readonly output: number;
  /** Place of the rows [N, H] among the outputs. */
  readonly rows: number;
  /**
   * True if output `output` still gives the rest of the gradient, as of a tied head; else it is zero but for the rows.
   */
  readonly rest: boolean;
}

interface WithRowGradients {
  readonly graph: Graph;
  readonly gradients: readonly RowGradient[];
}

/**
 * Takes `embeddingGrad` out where it is an output from place `first` on, or one of two terms of it, and its ids are the
 * graph's first input. Rows become further outputs at the end; an output that is nothing but rows keeps its place and
 * gives the rows.
 */
export function takeRowGradients(graph: Graph, first: number): WithRowGradients {
  const producers = new Map(graph.nodes.flatMap((node) => node.out.map((id) => [id, node])));
  const uses = new Map<ValueId, number>();
  for (const id of [...graph.nodes.flatMap((node) => node.in), ...graph.outputs]) uses.set(id, (uses.get(id) ?? 0) + 1);
  const outputs = [...graph.outputs];
  const extra: ValueId[] = [];
  const gradients: RowGradient[] = [];
  const rowsOf = (id: ValueId): ValueId | null => {
    const node = producers.get(id);
    return node?.prim === "embeddingGrad" && uses.get(id) === 1 && node.in[0] === graph.inputs[0] ? node.in[1] : null;
  };
  graph.outputs.forEach((id, output) => {
    if (output < first) return;
    const whole = rowsOf(id);
    if (whole !== null) {
      outputs[output] = whole;
      gradients.push({ output, rows: output, rest: false });
      return;
    }
    const sum = producers.get(id);
    if (sum?.prim !== "add" || uses.get(id) !== 1) return;
    const [a, b] = sum.in;
    const [rowsA, rowsB] = [rowsOf(a), rowsOf(b)];
    const rows = rowsA ?? rowsB;
    if (rows === null) return;
    outputs[output] = rowsA === null ? a : b;
    gradients.push({ output, rows: graph.outputs.length + extra.push(rows) - 1, rest: true });
  });
  return { graph: prune({ ...graph, outputs: [...outputs, ...extra] }), gradients };
}

/** table[ids[i]] += rows[i], rows one after the other. */
export function addRows(table: Float32Array, ids: Int32Array, rows: Float32Array): void {
  const width = rows.length / ids.length;
  ids.forEach((id, row) => {
    let to = id * width;
    for (let from = row * width; from < (row + 1) * width; from++) table[to++]! += rows[from]!;
  });
}
