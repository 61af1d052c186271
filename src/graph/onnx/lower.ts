/** Graph -> ONNX model bytes. */
import { at } from "../../base/at.js";
import { elements, typeOf, type Graph, type Node, type Prim, type ValueId } from "../ir/ir.js";
import { liveNodes, refuseRaces } from "./check.js";
import { Lowering } from "./context.js";
import {
  encodeModel,
  type ExternalData,
  type Hole,
  type LaterData,
  type OnnxNode,
  type OnnxTensor,
  type OnnxType,
  type OnnxValue,
} from "./proto.js";
import { loweringRules, type LoweringRule } from "./rules.js";

/** A graph as an ONNX model. */
export interface OnnxProgram {
  /** Without the bytes of holes, which only weights that are `later` leave. */
  readonly bytes: Uint8Array;
  readonly holes: readonly Hole[];
  /** What a run must be fed, in the graph's order: inputs that are not stored. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

/** How an input or output is called; a shape other than the graph's has the same elements. */
interface Port {
  readonly name: string;
  readonly shape?: readonly number[] | undefined;
}

/** How a lowered graph's inputs and outputs are called and stored, and what the model says of itself. */
export interface LowerOptions {
  /** In the graph's order; `i0, i1, ...` if left out. */
  readonly inputs?: readonly Port[] | undefined;
  /** In the graph's order; `o0, o1, ...` if left out. */
  readonly outputs?: readonly Port[] | undefined;
  /** Inputs whose data belong to the model, as initializers. */
  readonly stored?: ReadonlyMap<ValueId, ExternalData | LaterData> | undefined;
  /** Inputs that come with their two axes exchanged; only `transposable` ones. */
  readonly transposed?: ReadonlySet<ValueId> | undefined;
  readonly version?: string | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

const onnxType = { f32: "float", int: "int64" } as const satisfies Record<string, OnnxType>;

/** Lowers a verified, pruned graph. Throws an Error where a port's shape has other elements than the graph's value. */
export function lower(graph: Graph, options: LowerOptions = {}): OnnxProgram {
  const ctx = new Lowering(graph, options.transposed);
  const { initializers } = ctx.emitter;
  const { inputs, weights } = lowerInputs(ctx, options);
  for (const node of graph.nodes) (loweringRules[node.prim] as LoweringRule<Prim>)(ctx, node);
  const outputs = outputsOf(graph, options.outputs);
  const nodes = namedNodes(ctx, outputs);
  refuseRaces(nodes, initializers);
  const encoded = encodeModel({
    nodes,
    initializers: [...initializers, ...weights],
    inputs,
    outputs,
    version: options.version,
    metadata: options.metadata,
  });
  return { ...encoded, inputs: inputs.map(({ name }) => name), outputs: outputs.map(({ name }) => name) };
}

/** Declares the graph's inputs: those that a run is fed, and those that are stored as weights. */
function lowerInputs(
  ctx: Lowering,
  { inputs: ports, stored = new Map<ValueId, never>(), transposed }: LowerOptions,
): { readonly inputs: readonly OnnxValue[]; readonly weights: readonly OnnxTensor[] } {
  const inputs: OnnxValue[] = [];
  const weights: OnnxTensor[] = [];
  for (const [i, id] of ctx.graph.inputs.entries()) {
    const { dtype, shape: own } = ctx.type(id);
    const exchanged = transposed?.has(id) === true;
    const port = ports?.[i] ?? { name: `i${i}` };
    const { name, shape = exchanged ? own.toReversed() : own } = port;
    const value = { name, type: onnxType[dtype], shape };
    const data = stored.get(id);
    if (data === undefined) inputs.push(value);
    else weights.push({ ...value, data });
    requireElements(name, shape, own);
    ctx.set(id, shape === own || exchanged ? name : ctx.emitter.reshape(name, own));
  }
  return { inputs, weights };
}

function outputsOf(graph: Graph, ports: LowerOptions["outputs"]): OnnxValue[] {
  return graph.outputs.map((id, i) => {
    const { dtype, shape: own } = typeOf(graph, id);
    const port = ports?.[i] ?? { name: `o${i}` };
    const { name, shape = own } = port;
    requireElements(name, shape, own);
    return { name, type: onnxType[dtype], shape };
  });
}

/** The nodes that the outputs need, which give the outputs by their names. */
function namedNodes(ctx: Lowering, outputs: readonly OnnxValue[]): OnnxNode[] {
  const { graph, emitter } = ctx;
  /** New names: what a node gives under a name of its own takes that of the output. */
  const names = new Map<string, string>();
  const computed = new Set(emitter.nodes.flatMap((node) => node.outputs));
  const ends: OnnxNode[] = [];
  for (const [i, id] of graph.outputs.entries()) {
    const { name, shape } = at(outputs, i);
    const from = ctx.get(id);
    if (shape !== ctx.shape(id)) ends.push({ op: "Reshape", inputs: [from, emitter.ints(shape)], outputs: [name] });
    // A copy is needed only where an output is an input or appears twice.
    else if (computed.has(from) && !names.has(from)) names.set(from, name);
    else ends.push({ op: "Identity", inputs: [from], outputs: [name] });
  }
  const needed = [...graph.outputs.map((id) => ctx.get(id)), ...outputs.map(({ name }) => name)];
  return renamed(liveNodes([...emitter.nodes, ...ends], needed), names);
}

/** The same nodes, reading and giving values by their new names. */
function renamed(nodes: readonly OnnxNode[], names: ReadonlyMap<string, string>): OnnxNode[] {
  const now = (name: string): string => names.get(name) ?? name;
  return nodes.map((node) => ({ ...node, inputs: node.inputs.map(now), outputs: node.outputs.map(now) }));
}

function requireElements(name: string, shape: readonly number[], own: readonly number[]): void {
  if (elements(shape) !== elements(own))
    throw new Error(`${name} has shape [${shape.join(", ")}], the graph's value [${own.join(", ")}]`);
}

/**
 * Inputs that are only ever the second factor of products x Wᵀ: they may as well come as [in, out], see
 * `LowerOptions.transposed`.
 */
export function transposable(graph: Graph): Set<ValueId> {
  const { inputs, outputs, nodes } = graph;
  const matrices = inputs.filter((id) => typeOf(graph, id).shape.length === 2 && !outputs.includes(id));
  const ids = new Set(matrices);
  for (const node of nodes) {
    const factors = new Set(transposedFactors(node));
    node.in.forEach((id, place) => {
      if (!factors.has(place)) ids.delete(id);
    });
  }
  return ids;
}

/** Places of a node's inputs that it reads as W in x Wᵀ. */
function transposedFactors(node: Node): readonly number[] {
  switch (node.prim) {
    case "matmul":
      return node.attrs.transB && !node.attrs.transA ? [1] : [];
    case "groupedMatmul":
      return node.attrs.transB ? [...node.in.keys()].slice(2) : [];
    case "headCrossEntropy":
    case "headScores":
      return [1];
    default:
      return [];
  }
}
