import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { forwardFlopsPerToken } from "../../../src/model/cost/flops.js";
import { keyDim } from "../../../src/graph/nn/attention.js";
import { HEAD_PADDING } from "../../../src/graph/nn/head.js";
import type { Graph } from "../../../src/graph/ir/ir.js";
import { elements } from "../../../src/graph/ir/ir.js";
import { verify } from "../../../src/graph/ir/passes.js";
import { isMoe, type DecoderSpec } from "../../../src/model/decoder/types.js";
import { logitsProgram, lossProgram, trainProgram } from "../../../src/graph/programs/programs.js";
import { isBuffer, slotsOf } from "../../../src/model/tensors/slots.js";
import { families, specOf } from "../../model/decoder/arbitrary.js";

const shapes = fc.record({ batch: fc.integer({ min: 1, max: 3 }), sequence: fc.integer({ min: 1, max: 9 }) });

/** Two FLOPs a multiply-add of every matrix product in a graph. */
function countFlops(graph: Graph): number {
  let total = 0;
  const shape = (id: number): readonly number[] => at(graph.values, id).shape;
  for (const node of graph.nodes) {
    switch (node.prim) {
      case "matmul":
        total += 2 * elements(shape(node.out[0])) * shape(node.in[0])[node.attrs.transA ? 0 : 1]!;
        break;
      case "groupedMatmul":
        // [topK * N, A] rows times [A, B], whichever expert a row belongs to.
        total += 2 * elements(shape(node.out[0])) * at(shape(node.in[0]), 1);
        break;
      case "attention": {
        const { batch, sequence, heads, headDim, valueDim } = node.attrs;
        total += 2 * batch * heads * sequence * sequence * (headDim + valueDim);
        break;
      }
      case "headCrossEntropy":
        total += 2 * elements(shape(node.in[0])) * at(shape(node.in[1]), 0);
        break;
      default:
        break;
    }
  }
  return total;
}

/** FLOPs of a token for linear biases of attention scores: products of a few more elements of queries and keys. */
function linearBiasFlops({ attn, layers }: DecoderSpec, sequence: number): number {
  return 2 * layers.length * attn.heads * sequence * (keyDim(attn) - attn.headDim);
}

describe.each(families)("random %s models", (family) => {
  it("build, verify and differentiate; every parameter but buffers gets a gradient of its shape", () => {
    fc.assert(
      fc.property(specOf(family), shapes, (spec: DecoderSpec, shape) => {
        const program = trainProgram(spec, { ...shape, auxCoef: 0.01, zCoef: 0.001 });
        verify(program.graph);
        verify(program.evaluation.graph);
        const slots = slotsOf(spec);
        expect(program.params.map(({ key }) => key)).toEqual(slots.map(({ key }) => key));
        expect(program.trained.map(({ key }) => key)).toEqual(
          slots.filter((slot) => !isBuffer(slot.at)).map(({ key }) => key),
        );
        program.params.forEach((param, i) =>
          expect(at(program.graph.values, at(program.graph.inputs, 2 + i)).shape, param.key).toEqual([
            ...at(slots, i).shape,
          ]),
        );
        program.trained.forEach((param, i) =>
          expect(at(program.graph.values, at(program.graph.outputs, program.gradients + i)).shape, param.key).toEqual([
            ...param.shape,
          ]),
        );
        expect(program.graph.outputs.length).toBe(program.gradients + program.trained.length);
        expect(program.outputs.counts.length).toBe(spec.layers.filter(({ ffn }) => ffn.kind === "moe").length);
        expect(program.outputs.balance === null).toBe(!isMoe(spec));
        // Zeros stand for the gradient of a parameter that the loss does not depend on; here every parameter counts.
        const zeros = program.trained.filter((_, i) => {
          const id = at(program.graph.outputs, program.gradients + i);
          return program.graph.nodes.some((node) => node.prim === "constant" && node.out[0] === id);
        });
        expect(zeros.map(({ key }) => key)).toEqual([]);
      }),
      { numRuns: 15 },
    );
  });

  it("multiply as often as the cost formula says, and for biases that are products, which it leaves out", () => {
    fc.assert(
      fc.property(specOf(family), shapes, (spec: DecoderSpec, shape) => {
        const tokens = shape.batch * shape.sequence;
        const formula = forwardFlopsPerToken(spec, shape.sequence) * tokens;
        const linear = linearBiasFlops(spec, shape.sequence) * tokens;
        const head = spec.headBias ? 2 * tokens * spec.vocab * HEAD_PADDING : 0;
        expect(countFlops(lossProgram(spec, shape).graph)).toBe(formula + linear + head);
        expect(countFlops(logitsProgram(spec, shape).graph)).toBe(formula + linear);
      }),
      { numRuns: 15 },
    );
  });
});
