/** Checks of ONNX nodes before they are written: dead nodes are dropped, racy ones are refused. */
import { lastSize } from "../ir/ir.js";
import type { OnnxNode, OnnxTensor } from "./proto.js";

/**
 * The nodes that some name in `outputs` needs, in their order; a gradient rule computes for all its inputs, also for
 * those nobody asks for.
 */
export function liveNodes(nodes: readonly OnnxNode[], outputs: readonly string[]): OnnxNode[] {
  const needed = new Set(outputs);
  const live: OnnxNode[] = [];
  for (const node of nodes.toReversed()) {
    if (!node.outputs.some((name) => needed.has(name))) continue;
    for (const name of node.inputs) needed.add(name);
    live.push(node);
  }
  return live.reverse();
}

/**
 * onnxruntime's ScatterND adds in parallel without a lock, so that with a reduction two equal index rows race (14 of 20
 * runs gave a wrong sum on two threads with 1.30.0). It is allowed only with constant indices that differ;
 * ScatterElements adds one after another.
 * @throws Error naming the node (a defect of ours).
 */
export function refuseRaces(nodes: readonly OnnxNode[], initializers: readonly OnnxTensor[]): void {
  for (const { op, inputs, outputs, attributes } of nodes) {
    const reduction = attributes?.reduction ?? "none";
    if (op !== "ScatterND" || typeof reduction !== "string" || reduction === "none") continue;
    const indices = initializers.find(({ name }) => name === inputs[1]);
    const where = `ScatterND ${outputs[0]} with reduction ${reduction}`;
    if (indices === undefined || !ArrayBuffer.isView(indices.data))
      throw new Error(`${where}: its indices are computed and may repeat, which races; use ScatterElements`);
    const width = lastSize(indices);
    const rows = new Set<string>();
    for (let at = 0; at < indices.data.length; at += width) rows.add(indices.data.subarray(at, at + width).join());
    if (rows.size * width !== indices.data.length)
      throw new Error(`${where}: its indices repeat, which races; use ScatterElements`);
  }
}
