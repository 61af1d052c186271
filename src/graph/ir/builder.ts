/** Builds graphs node by node; shapes are inferred and checked as nodes are added. */
import {
  matrixSizes,
  type DType,
  type Graph,
  type Node,
  type OneOutputPrim,
  type Prim,
  type PrimAttrs,
  type PrimOutputs,
  type Value,
  type ValueId,
} from "./ir.js";
import { inferShapes } from "./shapes.js";

/** A graph that grows: inputs and nodes are added, `finish` gives it as plain data. */
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
  apply<P extends Prim>(prim: P, inputs: readonly ValueId[], attrs: PrimAttrs[P]): PrimOutputs<P, ValueId> {
    const types = inferShapes(
      prim,
      attrs,
      inputs.map((id) => this.type(id)),
    );
    const out = types.map((type) => this.value({ dtype: type.dtype, shape: type.shape }));
    // The shape rule has proved that there are as many inputs and outputs as the primitive has.
    this.nodes.push({ prim, in: [...inputs], out, attrs } as unknown as Node);
    return out as readonly ValueId[] as PrimOutputs<P, ValueId>;
  }

  /** Adds a node with one output and returns that. */
  op<P extends OneOutputPrim>(prim: P, inputs: readonly ValueId[], attrs: PrimAttrs[P]): ValueId {
    const [y] = this.apply<OneOutputPrim>(prim, inputs, attrs);
    return y;
  }

  shape(id: ValueId): readonly number[] {
    return this.type(id).shape;
  }

  /** Both sizes of a value with two axes. Throws an Error for any other. */
  matrix(id: ValueId): readonly [rows: number, columns: number] {
    return matrixSizes(this.type(id));
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

  private type(id: ValueId): Value {
    const value = this.values[id];
    if (value === undefined) throw new Error(`value %${id} is not of this graph`);
    return value;
  }

  private value(value: Value): ValueId {
    return this.values.push(value) - 1;
  }
}
