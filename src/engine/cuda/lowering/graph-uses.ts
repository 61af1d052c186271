/** A graph's values as lowering sees them: sizes, names that share memory, and who reads what. */
import { at } from "../../../base/at.js";
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
  /** Places of inputs and outputs, of which a graph may have ten thousand, and the outputs' own names. */
  private readonly inputPlaces: ReadonlyMap<ValueId, number>;
  private readonly outputPlaces: ReadonlyMap<ValueId, number>;
  private readonly outputRoots: ReadonlySet<ValueId>;
  /** Answers of `feedsFloats` and `feedsOutput`: what leads to a value in many ways is followed once. */
  private readonly floatFeeds = new Map<ValueId, boolean>();
  private readonly outputFeeds = new Map<ValueId, boolean>();

  constructor(readonly graph: Graph) {
    this.rootOf = rootsOf(graph);
    for (const [index, node] of graph.nodes.entries())
      for (const id of node.in) {
        const root = this.rootOf(id);
        if (node.prim !== "reshape") append(this.readers, root, index);
        append(this.consumers, id, node);
      }
    this.inputPlaces = firstPlaces(graph.inputs);
    this.outputPlaces = firstPlaces(graph.outputs);
    this.outputRoots = new Set(graph.outputs.map((id) => this.rootOf(id)));
  }

  /** Place of a value among the graph's inputs, -1 where it is none. */
  inputPlace(id: ValueId): number {
    return this.inputPlaces.get(id) ?? -1;
  }

  /** Place of a value among the graph's outputs, the first of several; -1 where it is none. */
  outputPlace(id: ValueId): number {
    return this.outputPlaces.get(id) ?? -1;
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
    return [...new Set(this.readingNodes(id))].map((index) => at(this.graph.nodes, index));
  }

  /** Places of the nodes that read a value, under any of its names. */
  readingNodes(id: ValueId): readonly number[] {
    return this.readers.get(this.rootOf(id)) ?? [];
  }

  /** Whether a value is an output of the graph, under any of its names. */
  isOutput(id: ValueId): boolean {
    return this.outputRoots.has(this.rootOf(id));
  }

  /** Whether a router or a softmax reads a value, through anything that works element by element. */
  feedsFloats(id: ValueId): boolean {
    const known = this.floatFeeds.get(id);
    if (known !== undefined) return known;
    const feeds = (this.consumers.get(id) ?? []).some(
      (node) =>
        floatReaders.has(node.prim) || (pointwise.has(node.prim) && node.out.some((out) => this.feedsFloats(out))),
    );
    this.floatFeeds.set(id, feeds);
    return feeds;
  }

  /** Whether a value becomes an output of the graph, likewise. */
  feedsOutput(id: ValueId): boolean {
    const known = this.outputFeeds.get(id);
    if (known !== undefined) return known;
    const feeds =
      this.outputPlaces.has(id) ||
      (this.consumers.get(id) ?? []).some(
        (node) => pointwise.has(node.prim) && node.out.some((out) => this.feedsOutput(out)),
      );
    this.outputFeeds.set(id, feeds);
    return feeds;
  }
}

/** Adds to the list that a key has. */
export function append<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const known = lists.get(key);
  if (known === undefined) lists.set(key, [value]);
  else known.push(value);
}

/** Place of each value in a list, the first where it stands there twice. */
const firstPlaces = (ids: readonly ValueId[]): ReadonlyMap<ValueId, number> =>
  new Map(ids.map((id, place) => [id, place] as const).toReversed());
