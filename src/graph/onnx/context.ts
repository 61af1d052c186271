/**
 * State of one lowering: which ONNX name holds each IR value.
 *
 * Two tricks live here. (1) A routed value [R, ...] may exist as one tensor or as blocks, one per expert; blocks
 * are joined only when somebody needs the whole, so a chain of expert operations never copies rows together and apart
 * again. (2) What a forward lowering has computed (probabilities, 1/rms, sigmoids) is remembered under a key made of
 * the primitive's inputs, so that the gradient primitive, which names only those inputs, finds it again.
 */
import {
  elements,
  lastSize,
  matrixSizes,
  typeOf,
  type Graph,
  type Node,
  type ValueId,
  type ValueType,
} from "../ir/ir.js";
import { Emitter } from "./emitter.js";

/** A routed value as one tensor per expert. */
interface ExpertBlocks {
  /** The counts [E] that cut the rows. */
  readonly counts: ValueId;
  readonly names: readonly string[];
}

/** State of one lowering; rules read and set the ONNX names of IR values through it. */
export class Lowering {
  readonly emitter = new Emitter();
  private readonly whole = new Map<ValueId, string>();
  private readonly cut = new Map<ValueId, ExpertBlocks[]>();
  /** By counts: see `setCuts`. */
  private readonly cuts = new Map<ValueId, string>();
  /** By order or inverse: see `setCounts`. */
  private readonly sorts = new Map<ValueId, ValueId>();
  private readonly remembered = new Map<string, string | readonly string[]>();
  private readonly makers = new Map<ValueId, Node>();
  private readonly uses = new Map<ValueId, number>();

  constructor(
    readonly graph: Graph,
    private readonly transposed: ReadonlySet<ValueId> = new Set(),
  ) {
    for (const node of graph.nodes) for (const id of node.out) this.makers.set(id, node);
    for (const id of [...graph.nodes.flatMap((node) => node.in), ...graph.outputs])
      this.uses.set(id, (this.uses.get(id) ?? 0) + 1);
  }

  /** The node that a value comes out of; undefined for an input. */
  maker(id: ValueId): Node | undefined {
    return this.makers.get(id);
  }

  /** Whether one node alone reads a value, once, and nobody outside the graph does. */
  usedOnce(id: ValueId): boolean {
    return this.uses.get(id) === 1;
  }

  /** Whether an input comes with its axes exchanged. */
  isTransposed(id: ValueId): boolean {
    return this.transposed.has(id);
  }

  /** Says which counts [E] cut the rows that an order or its inverse [R] stands for. */
  setCounts(id: ValueId, counts: ValueId): void {
    this.sorts.set(id, counts);
  }

  /** The counts that belong to an order or inverse; null where it did not come out of a sort of this graph. */
  countsOf(id: ValueId): ValueId | null {
    return this.sorts.get(id) ?? null;
  }

  /** Type of a value. Throws an Error for one that the graph does not have. */
  type(id: ValueId): ValueType {
    return typeOf(this.graph, id);
  }

  /** Sizes of a value's axes. */
  shape(id: ValueId): readonly number[] {
    return this.type(id).shape;
  }

  /** Both sizes of a value with two axes. */
  matrix(id: ValueId): readonly [rows: number, columns: number] {
    return matrixSizes(this.type(id));
  }

  /** Size of the last axis. */
  width(id: ValueId): number {
    return lastSize(this.type(id));
  }

  /** Whether a value is the constant 1. */
  isOne(id: ValueId): boolean {
    const node = this.maker(id);
    return node?.prim === "constant" && node.attrs.values.length === 1 && node.attrs.values[0] === 1;
  }

  /** Says which ONNX name holds a value. */
  set(id: ValueId, name: string): void {
    this.whole.set(id, name);
  }

  /** Says which ONNX names hold a value expert by expert. */
  setBlocks(id: ValueId, blocks: ExpertBlocks): void {
    this.cut.set(id, [...(this.cut.get(id) ?? []), blocks]);
  }

  /** The value as one tensor. */
  get(id: ValueId): string {
    const existing = this.whole.get(id);
    if (existing !== undefined) return existing;
    const blocks = this.cut.get(id)?.[0];
    if (blocks === undefined) throw new Error(`value %${id} was never lowered`);
    const joined = this.emitter.op("Concat", blocks.names, { axis: 0 });
    this.whole.set(id, joined);
    return joined;
  }

  /** `alpha * x wᵀ` for a weight [out, in], which may have come transposed. */
  linear(x: string, weight: ValueId, alpha = 1): string {
    return this.emitter.matmul(x, this.get(weight), { transB: !this.transposed.has(weight), alpha });
  }

  /** Counts that leave rows for nobody are cut with `name` [E + 1], which counts those too. */
  setCuts(counts: ValueId, name: string): void {
    this.cuts.set(counts, name);
  }

  /** The value cut into one tensor per expert, and a last one where rows may be nobody's. */
  blocks(id: ValueId, counts: ValueId): readonly string[] {
    const existing = this.cut.get(id)?.find((blocks) => blocks.counts === counts);
    if (existing !== undefined) return existing.names;
    const names = this.cutRows(this.get(id), counts);
    this.setBlocks(id, { counts, names });
    return names;
  }

  /** A tensor of one row a slot, in sorted order, cut in the same way. */
  cutRows(name: string, counts: ValueId): string[] {
    const cuts = this.cuts.get(counts);
    const parts = elements(this.shape(counts)) + (cuts === undefined ? 0 : 1);
    return this.emitter.emit("Split", [name, cuts ?? this.get(counts)], { axis: 0 }, parts);
  }

  /** Counts by which all of these values are already cut and not joined, or null. */
  commonCounts(ids: readonly ValueId[]): ValueId | null {
    const [first = [], ...rest] = ids.map((id) =>
      (this.whole.has(id) ? [] : (this.cut.get(id) ?? [])).map(({ counts }) => counts),
    );
    return first.find((counts) => rest.every((other) => other.includes(counts))) ?? null;
  }

  /** Computes once per key; later calls get the same name or names. A key always stands for the same kind. */
  remember<Names extends string | readonly string[]>(key: string, make: () => Names): Names {
    const existing = this.remembered.get(key);
    if (existing !== undefined) return existing as Names;
    const names = make();
    this.remembered.set(key, names);
    return names;
  }
}
