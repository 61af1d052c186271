import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { backward } from "../../../src/graph/grad/backward.js";
import { GraphBuilder } from "../../../src/graph/ir/builder.js";
import type { Graph } from "../../../src/graph/ir/ir.js";
import { prune, verify } from "../../../src/graph/ir/passes.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import { addRows, takeRowGradients } from "../../../src/engine/onnxruntime/row-gradients.js";

const [vocab, hidden] = [5, 3];
const ids = [4, 1, 1, 0, 4, 4];

/** Loss and the table's gradient of a model that is one embedding; `tied` reads the table again as the head. */
function model(tied: boolean, idsAreInput = true): Graph {
  const b = new GraphBuilder();
  const idsInput = b.input("ids", "int", [ids.length]);
  const used = idsAreInput ? idsInput : b.constant(Int32Array.from(ids), [ids.length], "int");
  const table = b.input("table", "f32", [vocab, hidden]);
  const x = b.op("embedding", [table, used], {});
  const y = tied ? b.linear(x, table) : x;
  const loss = b.op("reduceSum", [b.mul(y, y)], { axes: [0, 1], keepDims: false });
  return prune(b.finish([loss, ...backward(b, loss, [table])]));
}

const table = Float64Array.from({ length: vocab * hidden }, (_, i) => Math.sin(i + 1));
const run = (graph: Graph) => evaluate(graph, [Float64Array.from(ids), table]);

describe("gradients of embeddings as rows", () => {
  it.each([false, true])("rows added to what is left give the table's gradient, tied %s", (tied) => {
    const whole = model(tied);
    const { graph, gradients } = takeRowGradients(whole, 1);
    verify(graph);
    expect(graph.nodes.some(({ prim }) => prim === "embeddingGrad")).toBe(false);
    expect(gradients).toEqual([{ output: 1, rows: tied ? 2 : 1, rest: tied }]);
    const [expected, outputs] = [at(run(whole), 1), run(graph)];
    const sum = tied ? Float32Array.from(at(outputs, 1).data) : new Float32Array(vocab * hidden);
    addRows(sum, Int32Array.from(ids), Float32Array.from(at(outputs, at(gradients, 0).rows).data));
    sum.forEach((value, i) => expect(value).toBeCloseTo(at(expected.data, i), 4));
  });

  it("leaves alone what is no gradient, and ids that are not fed", () => {
    const whole = model(false);
    expect(takeRowGradients(whole, 2)).toEqual({ graph: whole, gradients: [] });
    expect(takeRowGradients(model(true, false), 1).gradients).toEqual([]);
  });
});
