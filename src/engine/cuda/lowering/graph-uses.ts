/** A graph's values as lowering sees them: sizes, names that share memory, and who reads what. */
import { elements, typeOf, type Graph, type Node, type Prim, type ValueId } from "../../../graph/ir/ir.js";
import { WORD } from "./arguments.js";

/** Values that share memory: a reshaped value is its input by another name. */
function rootsOf(graph: Graph): (id: ValueId) => ValueId {
  const roots = new Map<ValueId, ValueId>();
  const rootOf = (id: ValueId): ValueId => roots.get(id) ?? id;
  for (const node of graph.nodes) if (node.prim === "reshape") roots.set(node.out[0], rootOf(node.in[0]));
  return rootOf;
}

/** Primitives that read float32 whatever the precision: routers, softmax and what they are made of. */
const floatReaders: ReadonlySet<Prim> = new Set<Prim>([
  "routeTopK",
  "routeTopKGrad",
  "routeWeights",
  "softmax",
  "softmaxGrad",
  "logSumExp",
  "sinkhorn",
]);
/** Primitives that work element by element: what reads their result reads their input, too. */
const pointwise: ReadonlySet<Prim> = new Set<Prim>(["add", "sub", "mul", "scale", "tanh", "reshape"]);

/** Questions about a graph. */
export class GraphUses {
  /** A value's own name, of which reshaped ones are others. */
  readonly rootOf: (id: ValueId) => ValueId;
  private readonly consumers = new Map<ValueId, Node[]>();
  /** Places of the nodes that read a value under any of its names, reshapes left out. */
  private readonly readers = new Map<ValueId, number[]>();

  constructor(readonly graph: Graph) {
    this.rootOf = rootsOf(graph);
    for (const [index, node] of graph.nodes.entries())
      for (const id of node.in) {
        const root = this.rootOf(id);
        if (node.prim !== "reshape") this.readers.set(root, [...(this.readers.get(root) ?? []), index]);
        const known = this.consumers.get(id);
        if (known === undefined) this.consumers.set(id, [node]);
        else known.push(node);
      }
  }

  shapeOf(id: ValueId): readonly number[] {
    return typeOf(this.graph, id).shape;
  }

  sizeOf(id: ValueId): number {
    return elements(this.shapeOf(id));
  }

  bytesOf(id: ValueId): number {
    return this.sizeOf(id) * WORD;
  }

  /** Size of the last axis, and how many rows of it there are. */
  rowsOf(id: ValueId): readonly [rows: number, size: number] {
    const size = this.shapeOf(id).at(-1) ?? 1;
    return [this.sizeOf(id) / size, size];
  }

  /** Nodes that read a value, under any of its names. */
  readersOf(id: ValueId): readonly Node[] {
    const root = this.rootOf(id);
    return this.graph.nodes.filter((node) => node.prim !== "reshape" && node.in.some((x) => this.rootOf(x) === root));
  }

  /** Places of the nodes that read a value, under any of its names. */
  readingNodes(id: ValueId): readonly number[] {
    return this.readers.get(this.rootOf(id)) ?? [];
  }

  /** Whether a value is an output of the graph, under any of its names. */
  isOutput(id: ValueId): boolean {
    const root = this.rootOf(id);
    return this.graph.outputs.some((output) => this.rootOf(output) === root);
  }

  /** Whether a router or a softmax reads a value, through anything that works element by element. */
  feedsFloats(id: ValueId): boolean {
    return (this.consumers.get(id) ?? []).some(
      (node) =>
        floatReaders.has(node.prim) || (pointwise.has(node.prim) && node.out.some((out) => this.feedsFloats(out))),
    );
  }

  /** Whether a value becomes an output of the graph, likewise. */
  feedsOutput(id: ValueId): boolean {
    return (
      this.graph.outputs.includes(id) ||
      (this.consumers.get(id) ?? []).some(
        (node) => pointwise.has(node.prim) && node.out.some((out) => this.feedsOutput(out)),
      )
    );
  }
}
