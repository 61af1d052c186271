/**
 * Launches that do the work of several nodes of an expert layer. They are found before a graph is lowered, and each is
 * launched in the place of one of its nodes, where all that it reads is there.
 */
import { at } from "../../../base/at.js";
import { matrixSizes, typeOf, type Node, type NodeOf, type Prim, type ValueId } from "../../../graph/ir/ir.js";
import { ROW_WARPS, blocksFor, int, nothing, reads, writes } from "./arguments.js";
import type { Context } from "./context.js";
import type { Argument } from "./launches.js";
import { combineRows } from "./rules-experts.js";
import { GATED_COLUMNS, leftMap, raggedRows, takesRagged, turnedMaps, weightMaps } from "./ragged.js";

/** A node with its place. */
interface Placed<P extends Prim> {
  readonly index: number;
  readonly node: NodeOf<P>;
}

/** What stands for several nodes. */
interface Fusion {
  /** Place of the node where it is launched. */
  readonly index: number;
  /** Places of the other nodes. */
  readonly replaced: readonly number[];
  /** Values that it reads after the last of their own readers may have come. */
  readonly inputs: readonly ValueId[];
  launch(): void;
}

/** Whether a node has the given primitive. */
const is = <P extends Prim>(node: Node, prim: P): node is Node & NodeOf<P> => node.prim === prim;

/** Fusions of a graph's expert layers. */
export class ExpertFusions {
  private readonly fusions = new Map<number, Fusion>();
  private readonly taken = new Set<number>();
  /** Places of the nodes that make values. */
  private readonly makers = new Map<ValueId, number>();

  constructor(private readonly c: Context) {
    for (const [index, { out }] of c.graph.nodes.entries()) for (const id of out) this.makers.set(id, index);
    const finders: readonly ((index: number, node: Node) => Fusion | null)[] = [
      (index, node) => (is(node, "swigluGrad") ? this.scaledGateGradient({ index, node }) : null),
      (index, node) => (is(node, "swiglu") ? this.gatedProducts({ index, node }) : null),
      (index, node) => (is(node, "swiglu") ? this.scaledGate({ index, node }) : null),
      (index, node) => (is(node, "add") ? this.sumOfProducts({ index, node }) : null),
      (index, node) => (is(node, "combine") ? this.scaledCombine({ index, node }) : null),
      (index, node) => (is(node, "scaleRowsGrad") ? this.scaledDispatch({ index, node }) : null),
    ];
    for (const find of finders)
      for (const [index, node] of c.graph.nodes.entries()) {
        const fusion = find(index, node);
        if (fusion === null || [fusion.index, ...fusion.replaced].some((place) => this.taken.has(place))) continue;
        for (const place of [fusion.index, ...fusion.replaced]) this.taken.add(place);
        for (const id of fusion.inputs) c.extend(id, fusion.index);
        for (const place of fusion.replaced) c.skip(place);
        this.fusions.set(fusion.index, fusion);
      }
  }

  /** Launches what stands for the node at this place; false where nothing does. */
  lower(index: number): boolean {
    const fusion = this.fusions.get(index);
    if (fusion === undefined) return false;
    fusion.launch();
    return true;
  }

  private maker<P extends Prim>(id: ValueId, prim: P): Placed<P> | null {
    const index = this.makers.get(this.c.rootOf(id));
    if (index === undefined) return null;
    const node = at(this.c.graph.nodes, index);
    return is(node, prim) ? { index, node } : null;
  }

  /** Whether a value is there before a place is reached. */
  private isThere(id: ValueId, index: number): boolean {
    return (this.makers.get(this.c.rootOf(id)) ?? -1) < index;
  }

  /** Whether these nodes alone read a value. */
  private onlyReadBy(id: ValueId, ...places: readonly number[]): boolean {
    const { c } = this;
    return !c.isOutput(id) && c.readingNodes(id).every((place) => places.includes(place));
  }

  private same(a: readonly ValueId[], b: readonly ValueId[]): boolean {
    const { c } = this;
    return a.length === b.length && a.every((id, i) => c.rootOf(id) === c.rootOf(at(b, i)));
  }

  /** scaleRows and scaleRowsGrad of a value with the same weights, where nothing else reads it. */
  private scaling(id: ValueId): { readonly scale: Placed<"scaleRows">; readonly gradient: number | null } | null {
    const { c } = this;
    if (c.isOutput(id)) return null;
    let scale: Placed<"scaleRows"> | null = null;
    let gradient: number | null = null;
    for (const index of c.readingNodes(id)) {
      const node = at(c.graph.nodes, index);
      if (is(node, "scaleRows") && scale === null) scale = { index, node };
      else if (is(node, "scaleRowsGrad") && c.rootOf(node.in[0]) === c.rootOf(id) && gradient === null)
        gradient = index;
      else return null;
    }
    return scale === null ? null : { scale, gradient };
  }

  /** The gradient of a gated unit whose result was scaled: one pass that makes the unit again. */
  private scaledGateGradient({ index, node }: Placed<"swigluGrad">): Fusion | null {
    const { c } = this;
    const [gate, up, dh] = node.in;
    const scaled = this.maker(dh, "scaleRowsGrad");
    if (scaled === null || !this.onlyReadBy(dh, index)) return null;
    const [h, weights, order, , dout] = scaled.node.in;
    const unit = this.maker(h, "swiglu");
    if (unit === null || !this.same(unit.node.in, [gate, up]) || this.scaling(h) === null) return null;
    const [rows, size] = c.rowsOf(gate);
    return {
      index: scaled.index,
      replaced: [index],
      inputs: [gate, up, weights, order],
      launch: () => {
        const real = c.realOf(gate, up, dout);
        const sources = [gate, up, dout].map((id) => reads(c.as(id, real)));
        const routed = [weights, order].map((id) => reads(c.of(id)));
        const slopes = [c.defineOver(node.out[0], [dout], real), c.define(node.out[1], real)].map(writes);
        c.kernel({
          module: "experts",
          kernel: "scaledGateGrad",
          real,
          grid: [blocksFor(rows, ROW_WARPS), 1, 1],
          flops: 14 * rows * size,
          arguments: [...sources, ...routed, ...slopes, writes(c.define(scaled.node.out[1])), int(rows), int(size)],
        });
      },
    };
  }

  /** A gated unit whose result is scaled. */
  private scaledGate({ index, node }: Placed<"swiglu">): Fusion | null {
    const { c } = this;
    const [gate, up] = node.in;
    const use = this.useOfUnit(node);
    if (use === null) return null;
    const [, weights, order] = use.scale.node.in;
    const [rows, size] = c.rowsOf(gate);
    return {
      index: use.scale.index,
      replaced: [index],
      inputs: [gate, up],
      launch: () => {
        const real = c.realOf(gate, up);
        const sources = [gate, up].map((id) => reads(c.as(id, real)));
        const routed = [weights, order].map((id) => reads(c.of(id)));
        c.kernel({
          module: "experts",
          kernel: "scaledGate",
          real,
          grid: [blocksFor(rows, ROW_WARPS), 1, 1],
          flops: 6 * rows * size,
          arguments: [...sources, ...routed, writes(c.define(use.scale.node.out[0], real)), int(rows), int(size)],
        });
      },
    };
  }

  /** How a gated unit's result is scaled, where nothing else needs it: its gradient makes it again, if there is one. */
  private useOfUnit(node: NodeOf<"swiglu">): { readonly scale: Placed<"scaleRows"> } | null {
    const use = this.scaling(node.out[0]);
    if (use === null) return null;
    return use.gradient === null || this.fusions.has(use.gradient) ? use : null;
  }

  /** Gates and ups of experts, and the gated unit of both: one launch that reads the rows once. */
  private gatedProducts({ index, node }: Placed<"swiglu">): Fusion | null {
    const { c } = this;
    const [gate, up] = node.in.map((id) => this.maker(id, "groupedMatmul")) as [
      Placed<"groupedMatmul"> | null,
      Placed<"groupedMatmul"> | null,
    ];
    if (gate === null || up === null || gate.index === up.index) return null;
    const [x, counts, ...gates] = gate.node.in;
    const [ups, rest] = [up.node.in.slice(2), up.node.in.slice(0, 2)];
    const [rows, a] = matrixSizes(typeOf(c.graph, x));
    const [, b] = matrixSizes(typeOf(c.graph, node.in[0]));
    const sizes = { rows, experts: gates.length, a, b };
    const { chip, precision } = c.options;
    const turned = !gate.node.attrs.transB || !up.node.attrs.transB;
    if (turned || !this.same([x, counts], rest) || precision !== "bf16") return null;
    if (!takesRagged(chip, "bf16", sizes)) return null;
    const first = Math.min(gate.index, up.index);
    if (![...gates, ...ups].every((id) => this.isThere(id, first))) return null;
    const use = this.useOfUnit(node);
    const [, weights, order] = use?.scale.node.in ?? [];
    const scales = use !== null && weights !== undefined && order !== undefined ? { weights, order } : null;
    const scaled = scales !== null && this.isThere(scales.weights, first) && this.isThere(scales.order, first);
    const replaced = [gate.index, up.index, index, ...(scaled ? [use!.scale.index] : [])];
    return {
      index: first,
      replaced: replaced.filter((place) => place !== first),
      inputs: scaled ? [scales.weights, scales.order] : [],
      launch: () => {
        const left = leftMap(c.as(x, "bf16"), rows, a);
        const right = [gates, ups].map((ids) => weightMaps(c.asMany(ids, "bf16"), sizes, GATED_COLUMNS));
        const routed = scaled ? [scales.weights, scales.order].map((id) => reads(c.of(id))) : [nothing, nothing];
        // Only the unit and its gradient may need gates and ups.
        const kept = node.in.map((id) => (this.onlyReadBy(id, index) ? nothing : writes(c.define(id, "bf16"))));
        const unit = writes(c.define(scaled ? use!.scale.node.out[0] : node.out[0], "bf16"));
        raggedRows(
          c,
          chip,
          {
            kernel: "raggedGated",
            flops: 4 * rows * a * b,
            arguments: [left, ...right, reads(c.of(counts)), ...routed, ...kept, unit],
          },
          sizes,
          GATED_COLUMNS,
        );
      },
    };
  }

  /** The sum of two products of experts' rows with weights [a, b], such as the gradients by way of gates and ups. */
  private sumOfProducts({ index, node }: Placed<"add">): Fusion | null {
    const { c } = this;
    const parts = node.in.map((id) => this.maker(id, "groupedMatmul"));
    const [one, other] = parts.sort((p, q) => (p?.index ?? 0) - (q?.index ?? 0));
    if (one === null || other === null || one === undefined || other === undefined || one === other) return null;
    if (one.index === other.index || one.node.attrs.transB || other.node.attrs.transB) return null;
    if (![one, other].every(({ node: part }) => this.onlyReadBy(part.out[0], index))) return null;
    const [x, counts, ...weights] = one.node.in;
    const [y, sameCounts, ...others] = other.node.in;
    const [rows, a] = matrixSizes(typeOf(c.graph, x));
    const [, b] = matrixSizes(typeOf(c.graph, node.out[0]));
    const sizes = { rows, experts: weights.length, a, b };
    const { chip, precision } = c.options;
    const alike = matrixSizes(typeOf(c.graph, y)).join() === [rows, a].join();
    if (!alike || !this.same([counts], [sameCounts]) || precision !== "bf16") return null;
    if (!takesRagged(chip, "bf16", sizes)) return null;
    return {
      index: other.index,
      replaced: [one.index, index],
      inputs: [x, ...weights],
      launch: () => {
        const left = [x, y].map((id) => leftMap(c.as(id, "bf16"), rows, a));
        const right = [weights, others].map((ids) => turnedMaps(c.asMany(ids, "bf16"), sizes));
        const args: readonly Argument[] = [at(left, 0), at(right, 0), at(left, 1), at(right, 1), reads(c.of(counts))];
        raggedRows(
          c,
          chip,
          {
            kernel: "raggedProductTurned",
            flops: 4 * rows * a * b,
            arguments: [...args, writes(c.define(node.out[0], "bf16"))],
          },
          sizes,
        );
      },
    };
  }

  /** Sums of each token's rows, each times its weight. */
  private scaledCombine({ index, node }: Placed<"combine">): Fusion | null {
    const { c } = this;
    const [scaledRows] = node.in;
    const scale = this.maker(scaledRows, "scaleRows");
    if (scale === null || !this.onlyReadBy(scaledRows, index)) return null;
    const [y, weights] = scale.node.in;
    return {
      index,
      replaced: [scale.index],
      inputs: [y, weights],
      launch: () => combineRows(c, { node, y, weights }),
    };
  }

  /** The gradient of scaled rows, which reads what a dispatch would have copied. */
  private scaledDispatch({ index, node }: Placed<"scaleRowsGrad">): Fusion | null {
    const { c } = this;
    const [y, weights, order, , dout] = node.in;
    const dispatch = this.maker(dout, "dispatch");
    if (dispatch === null || !this.onlyReadBy(dout, index)) return null;
    const [x, sameOrder] = dispatch.node.in;
    if (!this.same([order], [sameOrder])) return null;
    const [dy, dweights] = node.out;
    const [rows, size] = c.rowsOf(y);
    return {
      index,
      replaced: [dispatch.index],
      inputs: [x],
      launch: () => {
        const real = c.realOf(y, x);
        const sources = [y, x].map((id) => reads(c.as(id, real)));
        const routed = [weights, order].map((id) => reads(c.of(id)));
        const targets = [writes(c.defineOver(dy, [y], real)), writes(c.define(dweights))];
        c.kernel({
          module: "experts",
          kernel: "dispatchScaled",
          real,
          grid: [blocksFor(rows, ROW_WARPS), 1, 1],
          flops: 3 * rows * size,
          arguments: [...sources, ...routed, ...targets, int(rows), int(size), int(dispatch.node.attrs.k)],
        });
      },
    };
  }
}
