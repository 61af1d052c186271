/**
 * Thin products of decoding: kernels that read each weight once for all of few tokens, norm what they read and finish
 * what they make.
 */
import { at } from "../../../base/at.js";
import { matrixSizes, typeOf } from "../../../graph/ir/ir.js";
import type { Node, NodeOf, ValueId } from "../../../graph/ir/ir.js";
import { EIGHT, ROW_WARPS, blocksFor, bytesPer, float, int, nothing, reads, readsOrNull, writes } from "./arguments.js";
import type { Context } from "./context.js";
import {
  BLOCK_TOKENS,
  FEW_TOKENS,
  TILE_ROWS,
  is,
  type DecodingNodes,
  type Fusion,
  type Placed,
} from "./decoding-nodes.js";
import type { Argument } from "./launches.js";

/** Of more tokens than a few, the most bytes of them that a product's blocks may read together. */
const MOST_REREAD = 24e6;
/** Matrices of one launch. */
const MOST_MATRICES = 3;

/** A value that a thin product reads, and the norm that its launch makes of it. */
interface Source {
  readonly x: ValueId;
  readonly norm: { readonly weight: ValueId; readonly eps: number } | null;
}

/** Thin products of a graph. */
export class ThinProducts {
  private readonly c: Context;

  constructor(private readonly nodes: DecodingNodes) {
    this.c = nodes.c;
  }

  /** Whether all products of tokens with weights are thin; those of the outputs may be others. */
  get takesAll(): boolean {
    const { c } = this;
    return c.graph.nodes.every((node) => !this.hasWeight(node) || c.feedsOutput(node.out[0]) || this.fits(node));
  }

  /** Routers' products, which are made in float32. */
  routers(): Fusion[] {
    const { c } = this;
    return [...c.graph.nodes.entries()].flatMap(([index, node]) =>
      this.isProduct(node) && c.feedsFloats(node.out[0]) ? [this.floatProduct({ index, node })] : [],
    );
  }

  /** All products that are not taken yet, those of one value together. */
  *groups(): Generator<Fusion> {
    const { c } = this;
    const groups = new Map<string, Placed<"matmul">[]>();
    for (const [index, node] of c.graph.nodes.entries()) {
      if (!this.isProduct(node) || this.nodes.taken.has(index)) continue;
      const key = `${c.rootOf(node.in[0])} ${c.feedsOutput(node.out[0])}`;
      groups.set(key, [...(groups.get(key) ?? []), { index, node }]);
    }
    for (const members of groups.values())
      for (let first = 0; first < members.length; first += MOST_MATRICES)
        yield this.products(members.slice(first, first + MOST_MATRICES));
  }

  /** Whether a node multiplies tokens by a weight. */
  private hasWeight(node: Node): node is NodeOf<"matmul"> & Node {
    if (!is(node, "matmul") || node.attrs.transA || !node.attrs.transB) return false;
    return this.c.inputPlace(this.c.rootOf(node.in[1])) >= 0;
  }

  /**
   * Whether a thin product takes a node's sizes. Every tile of the weight reads all tokens: with more than a few of
   * them and a large weight that costs more than what the tile itself gains.
   */
  private fits(node: NodeOf<"matmul">): boolean {
    const { c } = this;
    const [rows, size] = matrixSizes(typeOf(c.graph, node.in[0]));
    const [width] = matrixSizes(typeOf(c.graph, node.in[1]));
    const reread = 2 * blocksFor(width, TILE_ROWS) * rows * size;
    return size % EIGHT === 0 && (this.nodes.tokens <= FEW_TOKENS[1] || reread <= MOST_REREAD);
  }

  /** Whether a node multiplies tokens by a weight that a thin product can read. */
  private isProduct(node: Node): node is NodeOf<"matmul"> & Node {
    return this.hasWeight(node) && this.fits(node);
  }

  /** What a thin launch reads in place of a value: where nothing but such launches read a norm, its own input. */
  private sourceOf(x: ValueId): Source {
    const { c } = this;
    const norm = this.nodes.maker(x, "rmsNorm");
    const alone =
      norm !== null &&
      !c.isOutput(x) &&
      c.readingNodes(x).every((place) => {
        const node = at(c.graph.nodes, place);
        return this.isProduct(node) && c.rootOf(node.in[0]) === c.rootOf(x) && !c.feedsFloats(node.out[0]);
      });
    if (!alone) return { x, norm: null };
    this.nodes.taken.add(norm.index);
    c.skip(norm.index);
    return { x: norm.node.in[0], norm: { weight: norm.node.in[1], eps: norm.node.attrs.eps } };
  }

  private inputsOf({ x, norm }: Source): ValueId[] {
    return norm === null ? [x] : [x, norm.weight];
  }

  /** x, the norm's weight, and its eps. */
  private sourceArguments({ x, norm }: Source): Argument[] {
    const { c } = this;
    return [
      reads(c.as(x, "bf16")),
      norm === null ? nothing : reads(c.of(norm.weight)),
      float(norm === null ? 0 : norm.eps),
    ];
  }

  /** The kernel of a thin product of so many tokens, and how many groups of them its blocks take. */
  private thin(name: "Product" | "Gated", tokens: number): { readonly kernel: string; readonly groups: number } {
    const few = FEW_TOKENS.find((most) => tokens <= most);
    return few === undefined
      ? { kernel: `thin${name}${BLOCK_TOKENS}`, groups: blocksFor(tokens, BLOCK_TOKENS) }
      : { kernel: `thin${name}${few}`, groups: 1 };
  }

  /** A router's product, in float32. */
  private floatProduct({ index, node }: Placed<"matmul">): Fusion {
    const { c } = this;
    const [x, weight] = node.in;
    const [tokens, size] = matrixSizes(typeOf(c.graph, x));
    const [width] = matrixSizes(typeOf(c.graph, weight));
    return {
      index,
      replaced: [],
      inputs: [],
      launch: () => {
        this.nodes.kernel({
          kernel: "floatProduct",
          grid: [blocksFor(tokens * width, ROW_WARPS), 1, 1],
          bytes: 4 * width * size,
          flops: 2 * tokens * width * size,
          arguments: [
            reads(c.as(x, "bf16")),
            reads(c.of(weight)),
            writes(c.define(node.out[0])),
            ...[tokens, width, size].map(int),
          ],
        });
      },
    };
  }

  /** Products of one value with up to three weights. */
  private products(members: readonly Placed<"matmul">[]): Fusion {
    const { c } = this;
    const [{ index, node }, ...others] = members as [Placed<"matmul">, ...Placed<"matmul">[]];
    const [x] = node.in;
    const source = this.sourceOf(x);
    const [tokens, size] = matrixSizes(typeOf(c.graph, x));
    return {
      index,
      replaced: others.map((other) => other.index),
      inputs: this.inputsOf(source),
      launch: () => {
        const stored = c.feedsOutput(node.out[0]) ? "f32" : "bf16";
        const sum = others.length === 0 && stored === "bf16" ? c.sumOf(node.out[0], stored) : null;
        const addend = sum === null ? null : c.as(sum.other, stored);
        const from = this.sourceArguments(source);
        const widths = members.map((member) => matrixSizes(typeOf(c.graph, member.node.in[1]))[0]);
        const total = widths.reduce((all, width) => all + width, 0);
        const targets = members.flatMap((member, i): Argument[] => {
          const [, weight] = member.node.in;
          const to = sum === null ? c.define(member.node.out[0], stored) : c.defineSum(sum, stored);
          return [reads(c.as(weight, "bf16")), this.nodes.sumTarget(to, addend), int(at(widths, i))];
        });
        const none = members.length < MOST_MATRICES ? MOST_MATRICES - members.length : 0;
        const { kernel, groups } = this.thin("Product", tokens);
        this.nodes.kernel(
          {
            kernel,
            grid: [widths.reduce((tiles, width) => tiles + blocksFor(width, TILE_ROWS), 0), groups, 1],
            bytes: 2 * size * (tokens + total) + bytesPer[stored] * tokens * total,
            flops: 2 * tokens * total * size,
            arguments: [
              ...from,
              readsOrNull(addend),
              ...[Number(stored === "f32"), tokens, size].map(int),
              ...targets,
              ...Array.from({ length: none }, () => [nothing, nothing, int(0)]).flat(),
            ],
          },
          size,
        );
      },
    };
  }

  /** A gated unit of two products of one value. */
  gated({ index, node }: Placed<"swiglu">): Fusion | null {
    const { c } = this;
    const [gate, up] = node.in.map((id) => this.nodes.maker(id, "matmul")) as [
      Placed<"matmul"> | null,
      Placed<"matmul"> | null,
    ];
    if (gate === null || up === null || gate.index === up.index) return null;
    if (!this.isProduct(gate.node) || !this.isProduct(up.node)) return null;
    const [x] = gate.node.in;
    const alone = node.in.every((id) => this.nodes.onlyReadBy(id, index));
    if (!alone || c.rootOf(x) !== c.rootOf(up.node.in[0])) return null;
    const source = this.sourceOf(x);
    const [tokens, size] = matrixSizes(typeOf(c.graph, x));
    const [, width] = matrixSizes(typeOf(c.graph, node.in[0]));
    return {
      index,
      replaced: [gate.index, up.index],
      inputs: this.inputsOf(source),
      launch: () => {
        const from = this.sourceArguments(source);
        const weights = [gate, up].map((product) => reads(c.as(product.node.in[1], "bf16")));
        const { kernel, groups } = this.thin("Gated", tokens);
        this.nodes.kernel(
          {
            kernel,
            grid: [blocksFor(width, TILE_ROWS), groups, 1],
            bytes: 2 * (size * (tokens + 2 * width) + tokens * width),
            flops: 4 * tokens * width * size,
            arguments: [...from, ...weights, writes(c.define(node.out[0], "bf16")), ...[tokens, size, width].map(int)],
          },
          size,
        );
      },
    };
  }
}
