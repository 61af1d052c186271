/** Collects ONNX nodes and constants; names are generated, small constants are shared. */
import type { Attribute, OnnxNode, OnnxTensor } from "./proto.js";

/** Names of N outputs; of any number where N is not a literal. */
type Names<N extends number> = N extends 1
  ? [string]
  : N extends 2
    ? [string, string]
    : N extends 3
      ? [string, string, string]
      : string[];

/** The ONNX nodes and constants of one graph, in the order in which they are added. */
export class Emitter {
  readonly nodes: OnnxNode[] = [];
  readonly initializers: OnnxTensor[] = [];
  private readonly shared = new Map<string, string>();
  private count = 0;

  /** Adds a node and returns its output names. */
  emit<N extends number>(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>>,
    outputs: N,
    domain?: string,
  ): Names<N> {
    const names = Array.from({ length: outputs }, () => this.fresh());
    this.nodes.push({ op, inputs, outputs: names, attributes, domain });
    return names as Names<N>;
  }

  /** Adds a node with one output. */
  op(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
    domain?: string,
  ): string {
    const [name] = this.emit(op, inputs, attributes, 1, domain);
    return name;
  }

  /** `alpha * op(a) op(b)` over the last two axes; transposes cost nothing in com.microsoft's FusedMatMul. */
  matmul(a: string, b: string, { transA = false, transB = false, alpha = 1 } = {}): string {
    if (!transA && !transB && alpha === 1) return this.op("MatMul", [a, b]);
    const attributes = { transA: Number(transA), transB: Number(transB), alpha: { float: alpha } };
    return this.op("FusedMatMul", [a, b], attributes, "com.microsoft");
  }

  /** The same elements in another shape. */
  reshape(x: string, shape: readonly number[]): string {
    return this.op("Reshape", [x, this.ints(shape)]);
  }

  /** Sums over `axes`, which stay with size 1 where `keepDims` says so. */
  sum(x: string, axes: readonly number[], keepDims: boolean): string {
    // ReduceSum takes an empty list of axes for all axes.
    return axes.length === 0 ? x : this.op("ReduceSum", [x, this.ints(axes)], { keepdims: Number(keepDims) });
  }

  /** A float32 constant of as many values as `shape` has elements; a scalar where it is left out. */
  floats(values: ArrayLike<number>, shape: readonly number[] = []): string {
    return this.constant("float", Float32Array.from(values), shape);
  }

  /** A one-dimensional int64 constant, unless `shape` says otherwise. */
  ints(values: ArrayLike<number>, shape: readonly number[] = [values.length]): string {
    return this.constant(
      "int64",
      BigInt64Array.from(Array.from(values), (value) => BigInt(value)),
      shape,
    );
  }

  /** A scalar int64 constant. */
  int(value: number): string {
    return this.ints([value], []);
  }

  private fresh(): string {
    return `t${this.count++}`;
  }

  private constant(type: "float" | "int64", data: Float32Array | BigInt64Array, shape: readonly number[]): string {
    const key = data.length <= 64 ? `${type}|${shape.join()}|${data.join()}` : undefined;
    const existing = key === undefined ? undefined : this.shared.get(key);
    if (existing !== undefined) return existing;
    const name = `c${this.count++}`;
    this.initializers.push({ name, type, shape, data });
    if (key !== undefined) this.shared.set(key, name);
    return name;
  }
}
