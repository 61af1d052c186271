/** Graph -> ONNX model bytes. */
import type { Graph, Prim, ValueId } from "../ir/ir.js";
import { elements } from "../ir/ir.js";
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

/** Lowers a verified, pruned graph. */
export function lower(graph: Graph, options: LowerOptions = {}): OnnxProgram {
  const { stored = new Map<ValueId, never>(), transposed, version, metadata } = options;
  const ctx = new Lowering(graph, transposed);
  const { initializers } = ctx.emitter;
  const inputs: OnnxValue[] = [];
  const weights: OnnxTensor[] = [];
  graph.inputs.forEach((id, i) => {
    const { dtype, shape: own } = graph.values[id]!;
    const { name, shape = transposed?.has(id) === true ? own.toReversed() : own } = options.inputs?.[i] ?? {
      name: `i${i}`,
    };
    const value = { name, type: onnxType[dtype], shape };
    const data = stored.get(id);
    if (data === undefined) inputs.push(value);
    else weights.push({ ...value, data });
    requireElements(name, shape, own);
    ctx.set(id, shape === own || transposed?.has(id) === true ? name : ctx.emitter.reshape(name, own));
  });
  for (const node of graph.nodes) (loweringRules[node.prim] as LoweringRule<Prim>)(ctx, node);
  const outputs: OnnxValue[] = graph.outputs.map((id, i) => {
    const { dtype, shape: own } = graph.values[id]!;
    const { name, shape = own } = options.outputs?.[i] ?? { name: `o${i}` };
    requireElements(name, shape, own);
    return { name, type: onnxType[dtype], shape };
  });
  /** What is made under a name of its own takes that of the output. */
  const names = new Map<string, string>();
  const made = new Set(ctx.emitter.nodes.flatMap((node) => node.outputs));
  const ends: OnnxNode[] = [];
  graph.outputs.forEach((id, i) => {
    const { name, shape } = outputs[i]!;
    const from = ctx.get(id);
    if (shape !== graph.values[id]!.shape)
      ends.push({ op: "Reshape", inputs: [from, ctx.emitter.ints(shape)], outputs: [name] });
    // A copy only where an output is an input or appears twice.
    else if (made.has(from) && !names.has(from)) names.set(from, name);
    else ends.push({ op: "Identity", inputs: [from], outputs: [name] });
  });
  const nodes = renamed(
    liveNodes(
      [...ctx.emitter.nodes, ...ends],
      graph.outputs.flatMap((id, i) => [ctx.get(id), outputs[i]!.name]),
    ),
    names,
  );
  refuseRaces(nodes, initializers);
  const encoded = encodeModel({
    nodes,
    initializers: [...initializers, ...weights],
    inputs,
    outputs,
    version,
    metadata,
  });
  return { ...encoded, inputs: inputs.map(({ name }) => name), outputs: outputs.map(({ name }) => name) };
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
export function transposable({ inputs, outputs, nodes, values }: Graph): Set<ValueId> {
  const found = new Set(inputs.filter((id) => values[id]!.shape.length === 2 && !outputs.includes(id)));
  for (const { prim, in: used, attrs } of nodes) {
    const first =
      prim === "matmul" && attrs.transB && !attrs.transA
        ? 1
        : prim === "groupedMatmul" && attrs.transB
          ? 2
          : prim === "headCrossEntropy"
            ? 1
            : Infinity;
    used.forEach((id, i) => (i < first || (prim === "headCrossEntropy" && i > 1)) && found.delete(id));
  }
  return found;
}
