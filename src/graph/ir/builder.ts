/** Builds graphs node by node; shapes are inferred and checked as nodes are added. */
import type { DType, Graph, Node, Prim, PrimAttrs, Value, ValueId } from "./ir.js";
import { inferShapes } from "./shapes.js";

export class GraphBuilder {
  readonly values: Value[] = [];
  readonly nodes: Node[] = [];
  readonly inputs: ValueId[] = [];

  input(name: string, dtype: DType, shape: readonly number[]): ValueId {
    const id = this.value({ dtype, shape, name });
    this.inputs.push(id);
    return id;
  }

  /** Adds a node and returns all of its outputs. */
  apply<P extends Prim>(prim: P, inputs: readonly ValueId[], attrs: PrimAttrs[P]): ValueId[] {
    const types = inferShapes(
      prim,
      attrs,
      inputs.map((id) => this.values[id]!),
    );
    const out = types.map((type) => this.value({ dtype: type.dtype, shape: type.shape }));
    this.nodes.push({ prim, in: [...inputs], out, attrs } as unknown as Node);
    return out;
  }

  /** Adds a node with one output. */
  op<P extends Prim>(prim: P, inputs: readonly ValueId[], attrs: PrimAttrs[P]): ValueId {
    return this.apply(prim, inputs, attrs)[0]!;
  }

  shape(id: ValueId): readonly number[] {
    return this.values[id]!.shape;
  }

  add(a: ValueId, b: ValueId): ValueId {
    return this.op("add", [a, b], {});
  }

  mul(a: ValueId, b: ValueId): ValueId {
    return this.op("mul", [a, b], {});
  }

  scale(x: ValueId, by: number): ValueId {
    return by === 1 ? x : this.op("scale", [x], { by });
  }

  reshape(x: ValueId, shape: readonly number[]): ValueId {
    return this.op("reshape", [x], { shape });
  }

  constant(
    values: readonly number[] | Float32Array | Int32Array,
    shape: readonly number[],
    dtype: DType = "f32",
  ): ValueId {
    return this.op("constant", [], { dtype, shape, values });
  }

  /** x [N, in] times weight [out, in], transposed, plus bias [out] if given. */
  linear(x: ValueId, weight: ValueId, bias?: ValueId): ValueId {
    const y = this.op("matmul", [x, weight], { transA: false, transB: true });
    return bias === undefined ? y : this.add(y, bias);
  }

  finish(outputs: readonly ValueId[]): Graph {
    return { values: this.values, nodes: this.nodes, inputs: this.inputs, outputs };
  }

  private value(value: Value): ValueId {
    return this.values.push(value) - 1;
  }
}
