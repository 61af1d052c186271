/** What is made again in the backward pass: the same numbers, in less memory. */
import { describe, expect, it } from "vitest";
import { lowerToLaunches } from "../../../src/engine/cuda/lowering/lower.js";
import type { Recompute } from "../../../src/graph/grad/recompute.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import { elements, typeOf, type Graph } from "../../../src/graph/ir/ir.js";
import { trainProgram } from "../../../src/graph/programs/programs.js";
import { goldenRun } from "../../support/programs.js";

const models = ["train/llama", "train/mixtral"];
const shape = { batch: 2, sequence: 6, auxCoef: 0.01, zCoef: 0.001 };

/** The graph's outputs for the first tokens of a golden run. */
async function outputs(name: string, recompute: Recompute): Promise<number[][]> {
  const { spec, weights, batchAt } = await goldenRun(name);
  const { graph, params } = trainProgram(spec, { ...shape, recompute });
  const { ids, targets } = batchAt(0);
  const tokens = shape.batch * shape.sequence;
  const feeds = [ids, targets].map((data) => Float64Array.from(data.subarray(0, tokens)));
  const all = [...feeds, ...params.map(({ key }) => Float64Array.from(weights.get(key)!))];
  return evaluate(graph, all).map(({ data }) => Array.from(data));
}

const countOf = ({ nodes }: Graph, prim: string): number => nodes.filter((node) => node.prim === prim).length;

describe.each(models)("recomputation in %s", (name) => {
  it.each(["norms", "layer"] as const)("of %s changes no bit of losses, counts and gradients", async (what) => {
    expect(await outputs(name, what)).toEqual(await outputs(name, "none"));
  });

  it("repeats norms and activations, or what a layer is made of, and never the head", async () => {
    const { spec } = await goldenRun(name);
    const graphs = (["none", "norms", "layer"] as const).map(
      (recompute) => trainProgram(spec, { ...shape, recompute }).graph,
    ) as [Graph, Graph, Graph];
    const [none, norms, layer] = graphs;
    const layers = spec.layers.length;
    // Two norms of each layer, and not the last one, which the head reads.
    expect(countOf(norms, "rmsNorm") - countOf(none, "rmsNorm")).toBe(2 * layers);
    expect(countOf(norms, "attention")).toBe(countOf(none, "attention"));
    expect(countOf(layer, "attention")).toBe(2 * layers);
    for (const graph of graphs) expect(countOf(graph, "headCrossEntropy")).toBe(1);
  });

  it("needs less memory the more is made again", async () => {
    const { spec } = await goldenRun(name);
    const deep = { ...spec, layers: Array.from({ length: 6 }, () => spec.layers[0]!) };
    const arenaOf = (recompute: Recompute): number =>
      lowerToLaunches(trainProgram(deep, { ...shape, batch: 4, sequence: 64, recompute }).graph).arena;
    const [none, norms, layer] = [arenaOf("none"), arenaOf("norms"), arenaOf("layer")];
    expect(norms).toBeLessThan(0.9 * none);
    expect(layer).toBeLessThan(0.6 * norms);
  });

  it("reads a value only behind what makes it", async () => {
    const { spec } = await goldenRun(name);
    const { graph } = trainProgram(spec, { ...shape, recompute: "layer" });
    const made = new Set(graph.inputs);
    for (const node of graph.nodes) {
      expect(node.in.every((id) => made.has(id))).toBe(true);
      for (const id of node.out) made.add(id);
    }
    expect(graph.outputs.map((id) => elements(typeOf(graph, id).shape))).not.toContain(0);
  });
});
