/** Graph -> ONNX model bytes. Inputs are named `i0, i1, ...` and outputs `o0, o1, ...` in the graph's order. */
import type { Graph, Prim } from "../graph/ir.js";
import { liveNodes, refuseRaces } from "./check.js";
import { Lowering } from "./context.js";
import { encodeModel, type OnnxType, type OnnxValue } from "./proto.js";
import { loweringRules, type LoweringRule } from "./rules.js";

export interface OnnxProgram {
  readonly bytes: Uint8Array;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

const onnxType = { f32: "float", int: "int64" } as const satisfies Record<string, OnnxType>;

/** Lowers a verified, pruned graph. */
export function lower(graph: Graph): OnnxProgram {
  const ctx = new Lowering(graph);
  const inputs: OnnxValue[] = graph.inputs.map((id, i) => {
    const { dtype, shape } = graph.values[id]!;
    ctx.set(id, `i${i}`);
    return { name: `i${i}`, type: onnxType[dtype], shape };
  });
  for (const node of graph.nodes) (loweringRules[node.prim] as LoweringRule<Prim>)(ctx, node as never);
  const outputs: OnnxValue[] = graph.outputs.map((id, i) => {
    const { dtype, shape } = graph.values[id]!;
    return { name: `o${i}`, type: onnxType[dtype], shape };
  });
  // Identity outputs keep names stable even where an output is an input or appears twice; onnxruntime removes the copies.
  const ends = graph.outputs.map((id, i) => ({ op: "Identity", inputs: [ctx.get(id)], outputs: [`o${i}`] }));
  const { initializers } = ctx.emitter;
  const nodes = liveNodes([...ctx.emitter.nodes, ...ends], outputs.map(({ name }) => name));
  refuseRaces(nodes, initializers);
  const bytes = encodeModel({ nodes, initializers, inputs, outputs });
  return { bytes, inputs: inputs.map(({ name }) => name), outputs: outputs.map(({ name }) => name) };
}
