/** Expert layers of few tokens in decoding: of the experts, only those that were chosen are read. */
import { at } from "../../../base/at.js";
import { matrixSizes, typeOf } from "../../../graph/ir/ir.js";
import type { ValueId } from "../../../graph/ir/ir.js";
import { EIGHT, blocksFor, bufferTable, int, reads, readsOrNull, writes } from "./arguments.js";
import type { Context } from "./context.js";
import { BLOCK_TOKENS, TILE_ROWS, type DecodingNodes, type Fusion, type Placed } from "./decoding-nodes.js";
import type { Argument } from "./launches.js";
import { combineRows } from "./rules-experts.js";

/** Slots of an expert layer that is made slot by slot. */
const MOST_SLOTS = 16;

/** The expert layer of a few tokens. */
interface Experts {
  readonly x: ValueId;
  readonly chosen: ValueId;
  readonly sort: Placed<"expertSort">;
  readonly down: ValueId;
  readonly weights: ValueId;
  readonly gates: readonly ValueId[];
  readonly ups: readonly ValueId[];
  readonly downs: readonly ValueId[];
  readonly combine: Placed<"combine">;
  readonly k: number;
}
/** Launches of a graph's expert layers. */
export class DecodingExperts {
  private readonly c: Context;

  constructor(private readonly nodes: DecodingNodes) {
    this.c = nodes.c;
  }

  /**
   * An expert layer of few tokens: of the experts, only those that were chosen are read; where there are more tokens,
   * once for many of them.
   */
  fusion(combine: Placed<"combine">): Fusion | null {
    const { c } = this;
    const found = this.expertLayer(combine);
    if (found === null) return null;
    const { layer, nodes } = found;
    const [tokens, size] = matrixSizes(typeOf(c.graph, layer.x));
    const [width] = matrixSizes(typeOf(c.graph, at(layer.gates, 0)));
    const areWeights = [layer.gates, layer.ups, layer.downs].every((ids) =>
      ids.every((id) => c.inputPlace(c.rootOf(id)) >= 0),
    );
    if (!areWeights || size % EIGHT !== 0 || width % EIGHT !== 0) return null;
    if (tokens * layer.k > MOST_SLOTS) {
      const [order, inverse, counts] = layer.sort.node.out;
      c.extend(layer.down, combine.index);
      return {
        index: combine.index,
        replaced: nodes.filter((place) => place !== layer.sort.index),
        inputs: [layer.x, layer.weights, order, inverse, counts],
        launch: () => this.launchSorted(layer, tokens, size, width),
      };
    }
    return {
      index: combine.index,
      replaced: nodes,
      inputs: [layer.x, layer.chosen, layer.weights],
      launch: () => this.launchExperts(layer, tokens, size, width),
    };
  }

  /** What an expert layer that ends in this node is made of, where every node of it is what it is expected to be. */
  private expertLayer(
    combine: Placed<"combine">,
  ): { readonly layer: Experts; readonly nodes: readonly number[] } | null {
    // Weights stand behind the last product or before it.
    const outer = this.nodes.maker(combine.node.in[0], "scaleRows");
    const down = this.nodes.maker(outer?.node.in[0] ?? combine.node.in[0], "groupedMatmul");
    if (down === null) return null;
    const inner = outer === null ? this.nodes.maker(down.node.in[0], "scaleRows") : null;
    const scale = outer ?? inner;
    const unit = this.nodes.maker(inner?.node.in[0] ?? down.node.in[0], "swiglu");
    if (scale === null || unit === null) return null;
    const [gate, up] = unit.node.in.map((id) => this.nodes.maker(id, "groupedMatmul"));
    if (gate == null || up == null) return null;
    const dispatch = this.nodes.maker(gate.node.in[0], "dispatch");
    if (dispatch === null || this.nodes.maker(up.node.in[0], "dispatch")?.index !== dispatch.index) return null;
    const sort = this.nodes.maker(dispatch.node.in[1], "expertSort");
    if (sort === null || sort.node.attrs.drops) return null;
    const products = [gate, up, down];
    if (products.some(({ node }) => !node.attrs.transB)) return null;
    const placed = [scale, down, unit, gate, up, dispatch, sort];
    const nodes = placed.map(({ index }) => index);
    const within = [...nodes, combine.index];
    if (!placed.every(({ node }) => node.out.every((id) => this.nodes.onlyReadBy(id, ...within)))) return null;
    const [gates, ups, downs] = products.map(({ node }) => node.in.slice(2)) as [ValueId[], ValueId[], ValueId[]];
    const [x] = dispatch.node.in;
    const [chosen] = sort.node.in;
    const [, weights] = scale.node.in;
    const { k } = combine.node.attrs;
    return { layer: { x, chosen, sort, down: down.node.out[0], weights, gates, ups, downs, combine, k }, nodes };
  }

  /** Where the matrices of all experts lie, as a kernel reads them. */
  private matrices(ids: readonly ValueId[]): Argument {
    return bufferTable(this.c.asMany(ids, "bf16"), "read");
  }

  private launchExperts(
    { x, chosen, weights, gates, ups, downs, combine, k }: Experts,
    tokens: number,
    size: number,
    width: number,
  ): void {
    const { c } = this;
    const slots = tokens * k;
    const units = c.scratch(slots * width, "bf16");
    const chosenOnes = reads(c.of(chosen));
    const half = reads(c.as(x, "bf16"));
    this.nodes.kernel(
      {
        kernel: "chosenGated",
        grid: [slots, blocksFor(width, TILE_ROWS), 1],
        bytes: 4 * Math.min(slots, gates.length) * width * size,
        flops: 4 * slots * width * size,
        arguments: [
          half,
          chosenOnes,
          this.matrices(gates),
          this.matrices(ups),
          writes(units),
          ...[size, width, k].map(int),
        ],
      },
      size,
    );
    const [out] = combine.node.out;
    const sum = c.sumOf(out, "bf16");
    const addend = sum === null ? null : c.as(sum.other, "bf16");
    const shares = reads(c.of(weights));
    const to = sum === null ? c.define(out, "bf16") : c.defineSum(sum, "bf16");
    this.nodes.kernel(
      {
        kernel: "chosenSum",
        grid: [tokens, blocksFor(size, TILE_ROWS), 1],
        bytes: 2 * Math.min(slots, downs.length) * width * size,
        flops: 2 * slots * width * size,
        arguments: [
          reads(units),
          chosenOnes,
          shares,
          this.matrices(downs),
          readsOrNull(addend),
          this.nodes.sumTarget(to, addend),
          ...[width, size, k].map(int),
        ],
      },
      width,
    );
  }

  /** The same for tokens whose slots are sorted by expert. */
  private launchSorted(
    { x, sort, down, weights, gates, ups, downs, combine, k }: Experts,
    tokens: number,
    size: number,
    width: number,
  ): void {
    const { c } = this;
    const slots = tokens * k;
    const experts = gates.length;
    // A token has an expert once, so none has more slots than there are tokens.
    const groups = blocksFor(tokens, BLOCK_TOKENS);
    const [order, , counts] = sort.node.out;
    const units = c.scratch(slots * width, "bf16");
    const sorted = [order, counts].map((id) => reads(c.of(id))) as [Argument, Argument];
    const half = reads(c.as(x, "bf16"));
    this.nodes.kernel({
      kernel: "sortedGated",
      grid: [blocksFor(width, TILE_ROWS), experts, groups],
      bytes: 4 * Math.min(slots, experts) * width * size,
      flops: 4 * slots * width * size,
      arguments: [
        half,
        ...sorted,
        this.matrices(gates),
        this.matrices(ups),
        writes(units),
        ...[size, width, k].map(int),
      ],
    });
    this.nodes.kernel({
      kernel: "sortedProduct",
      grid: [blocksFor(size, TILE_ROWS), experts, groups],
      bytes: 2 * Math.min(slots, experts) * width * size,
      flops: 2 * slots * width * size,
      arguments: [reads(units), sorted[1], this.matrices(downs), writes(c.define(down, "bf16")), int(width), int(size)],
    });
    combineRows(c, { node: combine.node, y: down, weights });
  }
}
