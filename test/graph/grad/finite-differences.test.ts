import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { backward } from "../../../src/graph/grad/backward.js";
import { gradRules } from "../../../src/graph/grad/rules.js";
import { GraphBuilder } from "../../../src/graph/ir/builder.js";
import type { Graph, Prim, ValueId } from "../../../src/graph/ir/ir.js";
import { prune, verify } from "../../../src/graph/ir/passes.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import type { Tensor } from "../../../src/graph/ir/reference-values.js";
import { randomStream } from "../../../src/base/random.js";
import { makeCase } from "../ir/cases.js";

const STEP = 1e-5;

/**
 * The same nodes, then loss = sum of (every float output times fixed random numbers), so each element of each output
 * counts.
 */
function withLoss(graph: Graph): { b: GraphBuilder; loss: ValueId } {
  const b = new GraphBuilder();
  b.values.push(...graph.values);
  b.nodes.push(...graph.nodes);
  b.inputs.push(...graph.inputs);
  const parts = graph.outputs.flatMap((id, i) => {
    if (at(graph.values, id).dtype === "int") return [];
    const shape = b.shape(id);
    const weights = new Float32Array(shape.reduce((a, c) => a * c, 1));
    randomStream(7, `loss ${i}`).normals(weights, 0);
    return [
      b.op("reduceSum", [b.mul(id, b.constant(weights, shape))], {
        axes: shape.map((_, axis) => axis),
        keepDims: false,
      }),
    ];
  });
  return { b, loss: parts.reduce((a, c) => b.add(a, c)) };
}

describe("gradients agree with central finite differences in float64, on random shapes", () => {
  const differentiable = (Object.keys(gradRules) as Prim[]).filter((prim) => typeof gradRules[prim] === "function");
  it.each(differentiable)("%s", (prim) => {
    fc.assert(
      fc.property(fc.gen(), (draw) => {
        const { graph, feeds } = makeCase(prim, draw, { smooth: true });
        const { b, loss } = withLoss(graph);
        const wrt = graph.inputs.filter((id) => at(graph.values, id).dtype === "f32");
        const choices = graph.outputs.filter((id) => at(graph.values, id).dtype === "int");
        const forward = prune(b.finish([loss, ...choices]));
        const gradients = backward(b, loss, wrt);
        const full = prune(b.finish(gradients));
        verify(full);
        const analytic = evaluate(full, feeds);
        wrt.forEach((id, w) => {
          const position = graph.inputs.indexOf(id);
          for (let place = 0; place < at(feeds, position).length; place++) {
            const shifted = (by: number): readonly Tensor[] => {
              const copy = feeds.map((data) => data.slice());
              at(copy, position)[place]! += by;
              return evaluate(forward, copy);
            };
            const [[above, ...chosen], [below, ...others]] = [shifted(STEP), shifted(-STEP)] as [
              [Tensor, ...Tensor[]],
              [Tensor, ...Tensor[]],
            ];
            // A choice between experts that changes within the step is a jump, which has no derivative.
            fc.pre(chosen.every(({ data }, i) => data.join() === at(others, i).data.join()));
            const numeric = (at(above.data, 0) - at(below.data, 0)) / (2 * STEP);
            const gradient = at(at(analytic, w).data, place);
            if (!(Math.abs(gradient - numeric) < 1e-6 * (1 + Math.abs(numeric))))
              expect.fail(`input ${position}[${place}]: ${gradient}, differences give ${numeric}`);
          }
        });
      }),
      { numRuns: 25 },
    );
  });
});

it("prints the backward pass of a small graph", async () => {
  const b = new GraphBuilder();
  const x = b.input("x", "f32", [2, 3]);
  const w = b.input("w", "f32", [4, 3]);
  const targets = b.input("targets", "int", [2]);
  const loss = b.op("headCrossEntropy", [b.op("sigmoid", [x], {}), w, targets], { softcap: null });
  const gradients = backward(b, loss, [x, w]);
  const { print } = await import("../../../src/graph/ir/passes.js");
  expect(print(prune(b.finish([loss, ...gradients])))).toMatchInlineSnapshot(`
    "input %x: f32[2,3]
    input %w: f32[4,3]
    input %targets: int[2]
    %3: f32[2,3] = sigmoid(%x)
    %4: f32[] = headCrossEntropy(%3, %w, %targets)
    %5: f32[] = constant() {1}
    %6: f32[2,3], %7: f32[4,3] = headCrossEntropyGrad(%3, %w, %targets, %5)
    %8: f32[2,3] = mul(%3, %3)
    %9: f32[2,3] = sub(%3, %8)
    %10: f32[2,3] = mul(%6, %9)
    output %4, %10, %7"
  `);
});

it("gives zeros to a parameter that the loss does not depend on", () => {
  const b = new GraphBuilder();
  const x = b.input("x", "f32", [2]);
  const unused = b.input("unused", "f32", [3]);
  const loss = b.op("reduceSum", [x], { axes: [0], keepDims: false });
  const graph = prune(b.finish(backward(b, loss, [unused])));
  expect(Array.from(at(evaluate(graph, [Float64Array.of(1, 2), Float64Array.of(1, 2, 3)]), 0).data)).toEqual([0, 0, 0]);
});

it("refuses to differentiate a gradient", () => {
  const b = new GraphBuilder();
  const x = b.input("x", "f32", [2]);
  const y = b.op("softmaxGrad", [x, x], {});
  expect(() => backward(b, b.op("reduceSum", [y], { axes: [0], keepDims: false }), [x])).toThrow(
    "softmaxGrad has no gradient: second derivative",
  );
});
