/** Graph -> graph: forward values are made again where the backward pass needs them, instead of being kept. */
import { at } from "../../base/at.js";
import type { Graph, Node, Prim, Value, ValueId } from "../ir/ir.js";

/**
 * What is made again in the backward pass: nothing; norms and activations, which cost little; or everything of a layer
 * but its input and what its router has said (Chen et al. 2016, "Training deep nets with sublinear memory cost").
 */
export type Recompute = "none" | "norms" | "layer";

/** Values of a network that decide what is made again. */
interface RecomputeFrame {
  /** Nodes of the forward pass; those behind them are the backward pass. */
  readonly forward: number;
  /** What goes into each layer, and out of the last one. */
  readonly layers: readonly ValueId[];
  /** Values within layers that are kept all the same. */
  readonly kept: readonly ValueId[];
}

/** Primitives that take one pass over memory, and whose inputs are kept for other gradients. */
const cheap: ReadonlySet<Prim> = new Set<Prim>(["rmsNorm", "layerNorm", "swiglu", "activation"]);

/**
 * The graph with the nodes that `what` names repeated in front of the first node of the backward pass that reads what
 * they make. Their results are the same to the last bit: equal launches read equal inputs.
 */
export function recomputed(graph: Graph, what: Recompute, frame: RecomputeFrame): Graph {
  if (what === "none") return graph;
  const repeats = new Set(graph.nodes.slice(0, frame.forward).filter(repeated(graph, what, frame)));
  const makers = new Map<ValueId, Node>();
  for (const node of repeats) for (const id of node.out) makers.set(id, node);
  const values: Value[] = [...graph.values];
  const nodes: Node[] = graph.nodes.slice(0, frame.forward);
  const again = new Map<ValueId, ValueId>();
  const read = (id: ValueId): ValueId => {
    const known = again.get(id);
    if (known !== undefined) return known;
    const maker = makers.get(id);
    if (maker === undefined) return id;
    const inputs = maker.in.map(read);
    const out = maker.out.map((own) => values.push(at(graph.values, own)) - 1);
    maker.out.forEach((own, i) => again.set(own, at(out, i)));
    nodes.push({ ...maker, in: inputs, out } as unknown as Node);
    return at(out, maker.out.indexOf(id as never));
  };
  for (const node of graph.nodes.slice(frame.forward)) {
    // The head makes loss and gradient together, from the same values.
    const inputs = node.prim === "headCrossEntropyGrad" ? node.in : node.in.map(read);
    nodes.push({ ...node, in: inputs } as unknown as Node);
  }
  return { ...graph, values, nodes };
}

/** Whether a node of the forward pass is one that is repeated. */
function repeated(graph: Graph, what: Recompute, { layers, kept }: RecomputeFrame): (node: Node) => boolean {
  if (what === "norms") return ({ prim }) => cheap.has(prim);
  const makerOf = (id: ValueId | undefined): number =>
    graph.nodes.findIndex((node) => id !== undefined && (node.out as readonly ValueId[]).includes(id));
  const [first, last] = [makerOf(layers[0]), makerOf(layers.at(-1))];
  const stays = new Set<ValueId>([...layers, ...kept]);
  const within = new Set(graph.nodes.slice(first + 1, last + 1));
  return (node) => within.has(node) && node.prim !== "constant" && !node.out.some((id) => stays.has(id));
}
