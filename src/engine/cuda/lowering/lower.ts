/** Graph to launch list. */
import type { Graph, Node } from "../../../graph/ir/ir.js";
import { verify } from "../../../graph/ir/passes.js";
import { Context } from "./context.js";
import type { CudaLowerOptions } from "./options.js";
import { Decoding } from "./decoding.js";
import { ExpertFusions } from "./expert-fusions.js";
import type { LaunchList } from "./launches.js";
import { Joints } from "./joint.js";
import { planMemory } from "./memory.js";
import { rules } from "./rules.js";

/**
 * Lowers a graph to launches with a plan of their memory.
 * @throws Error for a graph that is not well formed (a defect of ours).
 */
export function lowerToLaunches(graph: Graph, options: CudaLowerOptions = {}): LaunchList {
  verify(graph);
  // What joins a cache does not leave the program.
  const leaving = graph.outputs.slice(0, options.cache?.firstOutput);
  const context = new Context({ ...graph, outputs: leaving }, options);
  const decoding = new Decoding(context, graph.outputs);
  const expertLayers = new ExpertFusions(context);
  const joints = decoding.isThin ? null : new Joints(context);
  for (const [index, node] of graph.nodes.entries()) {
    const open = context.begin(index);
    if (decoding.lower(index)) continue;
    if (joints?.lower(index) === true || expertLayers.lower(index) || !open) continue;
    (rules[node.prim] as (c: Context, node: Node) => void)(context, node);
    context.settle(index);
    decoding.append(node);
  }
  context.finish();
  const { buffers, launches } = context;
  return { buffers, launches, ...planMemory(buffers, launches) };
}
