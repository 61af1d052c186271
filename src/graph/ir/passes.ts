/** Graph -> graph: checks and clean-up that keep the meaning. */
import { at } from "../../base/at.js";
import { typeOf, type Graph, type Node, type ValueId } from "./ir.js";
import { inferShapes } from "./shapes.js";

/**
 * Proves that a graph is well formed: every value defined once and before use, node outputs typed as their shape rule
 * says.
 * @throws Error naming the node (a defect of ours).
 */
export function verify(graph: Graph): void {
  const defined = new Set<ValueId>(graph.inputs);
  if (defined.size !== graph.inputs.length) throw new Error("an input is listed twice");
  graph.nodes.forEach((node, index) => {
    const where = `node ${index} (${node.prim})`;
    for (const id of node.in) if (!defined.has(id)) throw new Error(`${where}: reads %${id} before it is defined`);
    const types = inferShapes(
      node.prim,
      node.attrs as never,
      node.in.map((id) => typeOf(graph, id)),
    );
    if (types.length !== node.out.length)
      throw new Error(`${where}: ${node.out.length} outputs, the rule gives ${types.length}`);
    types.forEach((type, i) => {
      const id = at(node.out, i);
      const value = graph.values[id];
      if (value === undefined) throw new Error(`${where}: output %${id} has no type`);
      if (value.dtype !== type.dtype || value.shape.join() !== type.shape.join()) {
        throw new Error(
          `${where}: %${id} is ${value.dtype}[${value.shape}], the rule gives ${type.dtype}[${type.shape}]`,
        );
      }
      if (defined.has(id)) throw new Error(`${where}: %${id} is defined twice`);
      defined.add(id);
    });
  });
  for (const id of graph.outputs) if (!defined.has(id)) throw new Error(`output %${id} is never defined`);
}

/** Drops nodes that no output needs. Inputs stay, so that feeds keep their meaning. */
export function prune(graph: Graph): Graph {
  const needed = new Set<ValueId>(graph.outputs);
  const live: Node[] = [];
  for (const node of graph.nodes.toReversed()) {
    if (!node.out.some((id) => needed.has(id))) continue;
    for (const id of node.in) needed.add(id);
    live.push(node);
  }
  return { ...graph, nodes: live.reverse() };
}

/** One line per node: `%7: f32[8,16] = matmul(%3, %x) {transB}`. */
export function print(graph: Graph): string {
  const name = (id: ValueId): string => {
    const label = graph.values[id]?.name;
    return label === undefined ? `%${id}` : `%${label}`;
  };
  const typed = (id: ValueId): string => {
    const value = typeOf(graph, id);
    return `${name(id)}: ${value.dtype}[${value.shape.join(",")}]`;
  };
  const lines = graph.inputs.map((id) => `input ${typed(id)}`);
  for (const node of graph.nodes) {
    lines.push(`${node.out.map(typed).join(", ")} = ${node.prim}(${node.in.map(name).join(", ")})${printAttrs(node)}`);
  }
  lines.push(`output ${graph.outputs.map(name).join(", ")}`);
  return lines.join("\n");
}

function printAttrs(node: Node): string {
  const entries = Object.entries(node.attrs).filter(
    ([key]) => !(node.prim === "constant" && (key === "dtype" || key === "shape")),
  );
  const shown = entries.flatMap(([key, value]) => {
    if (value === false || value === null) return [];
    if (value === true) return [key];
    if (key === "values") {
      const values = value as ArrayLike<number>;
      return [values.length > 4 ? `${values.length} values` : `${Array.from(values).join(" ")}`];
    }
    return [`${key}=${Array.isArray(value) ? `[${value.join(",")}]` : String(value)}`];
  });
  return shown.length === 0 ? "" : ` {${shown.join(" ")}}`;
}
