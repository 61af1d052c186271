import { describe, expect, it } from "vitest";
import { GraphBuilder } from "../../../src/graph/ir/builder.js";
import type { ValueId } from "../../../src/graph/ir/ir.js";
import { lower, transposable } from "../../../src/graph/onnx/lower.js";
import { nodesOf } from "../../support/onnx.js";

/** Operators of a graph in order, with the names that they give. */
function ops(build: (b: GraphBuilder, x: ValueId, w: ValueId) => ValueId[], turn = false): string[] {
  const b = new GraphBuilder();
  const x = b.input("x", "f32", [3, 4]);
  const w = b.input("w", "f32", [5, 4]);
  const graph = b.finish(build(b, x, w));
  return nodesOf(lower(graph, { transposed: turn ? transposable(graph) : undefined }).bytes).map(
    ({ op, outputs }) => `${op} ${outputs.join()}`,
  );
}

describe("outputs of a lowered graph", () => {
  it("are named where they are made, without a copy", () => {
    expect(ops((b, x) => [b.add(x, x)])).toEqual(["Add o0"]);
  });

  it("keep their name where a later node reads them too", () => {
    expect(
      ops((b, x) => {
        const twice = b.add(x, x);
        return [twice, b.mul(twice, x)];
      }),
    ).toEqual(["Add o0", "Mul o1"]);
  });

  it("are copies where they are an input or appear again", () => {
    expect(
      ops((b, x) => {
        const twice = b.add(x, x);
        return [x, twice, twice];
      }),
    ).toEqual(["Add o1", "Identity o0", "Identity o2"]);
  });
});

describe("a product of matrices with something added", () => {
  const linear = (b: GraphBuilder, x: ValueId, w: ValueId): ValueId => b.linear(x, w);
  const others = { matrix: [3, 5], row: [5] } as const;

  it.each(["matrix", "row"] as const)("is one node for a %s, on either side", (kind) => {
    for (const flip of [false, true]) {
      expect(
        ops((b, x, w) => {
          const [product, other] = [linear(b, x, w), b.input("c", "f32", others[kind])];
          return [flip ? b.add(other, product) : b.add(product, other)];
        }),
      ).toEqual(["Gemm o0"]);
    }
  });

  it("stays two where the product is read elsewhere or is an output itself", () => {
    expect(
      ops((b, x, w) => {
        const product = linear(b, x, w);
        return [b.add(product, b.input("c", "f32", [5])), b.scale(product, 2)];
      }).map((op) => op.split(" ")[0]),
    ).toEqual(["FusedMatMul", "Add", "Mul"]);
    expect(
      ops((b, x, w) => {
        const product = linear(b, x, w);
        return [product, b.add(product, b.input("c", "f32", [5]))];
      }),
    ).toEqual(["FusedMatMul o0", "Add o1"]);
  });

  it("stays two where it is added to itself or to something larger", () => {
    expect(
      ops((b, x, w) => {
        const product = linear(b, x, w);
        return [b.add(product, product)];
      }).map((op) => op.split(" ")[0]),
    ).toEqual(["FusedMatMul", "Add"]);
    expect(
      ops((b, x, w) => [b.add(linear(b, x, w), b.input("c", "f32", [2, 3, 5]))]).map((op) => op.split(" ")[0]),
    ).toEqual(["FusedMatMul", "Add"]);
  });

  it("reads a transposed weight as it comes", () => {
    expect(ops((b, x, w) => [b.add(linear(b, x, w), b.input("c", "f32", [5]))], true)).toEqual(["Gemm o0"]);
  });
});

describe("gradients of weights", () => {
  const gradients = (rows: number, widths: readonly number[]): string[] => {
    const b = new GraphBuilder();
    const x = b.input("x", "f32", [rows, 64]);
    return nodesOf(
      lower(
        b.finish(
          widths.map((width, i) =>
            b.op("matmul", [b.input(`dy${i}`, "f32", [rows, width]), x], { transA: true, transB: false }),
          ),
        ),
      ).bytes,
    ).map(({ op }) => op);
  };

  it("over many rows share the transposition of their input", () => {
    expect(gradients(2048, [64, 128])).toEqual(["Transpose", "MatMul", "Transpose", "MatMul", "Transpose"]);
  });

  it("over many rows transpose the narrower factor", () => {
    expect(gradients(2048, [8])).toEqual(["Transpose", "MatMul"]);
  });

  it("over fewer rows are left to onnxruntime", () => {
    expect(gradients(1023, [64, 128])).toEqual(["FusedMatMul", "FusedMatMul"]);
  });
});
