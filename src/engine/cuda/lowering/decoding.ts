/**
 * Launches of programs that run behind a cache of keys and values (see decode.cu): new keys and values join it; one new
 * token in each row attends to it by a kernel that turns its query and key, too (`decoding-attention.ts`); and products
 * of few tokens are made by kernels that read each weight once, norm what they read and finish what they make
 * (`decoding-products.ts`, `decoding-experts.ts`). B rows, T new tokens in each, N = B * T.
 */
import { at } from "../../../base/at.js";
import type { Node, Prim, ValueId } from "../../../graph/ir/ir.js";
import type { Context } from "./context.js";
import { CachedAttention } from "./decoding-attention.js";
import { DecodingExperts } from "./decoding-experts.js";
import { DecodingNodes, is, type Fusion, type Placed } from "./decoding-nodes.js";
import { ThinProducts } from "./decoding-products.js";

/** Most tokens of thin products. */
const MOST_TOKENS = 64;
/** Tokens whose routers' products are made one by one. */
const MOST_ROUTED = 128;

/** Decoding's launches of a graph, found before it is lowered. */
export class Decoding {
  /** Whether products are made by the kernels for few tokens. */
  readonly isThin: boolean;
  private readonly fusions = new Map<number, Fusion>();
  private readonly nodes: DecodingNodes;
  private readonly cached: CachedAttention | null;

  constructor(
    private readonly c: Context,
    outputs: readonly ValueId[],
  ) {
    const { cache, precision } = c.options;
    const tokens = cache === undefined ? 0 : c.sizeOf(at(c.graph.inputs, 0));
    this.nodes = new DecodingNodes(c, tokens);
    const products = new ThinProducts(this.nodes);
    const isHalf = cache?.firstInput != null && precision === "bf16";
    this.isThin = isHalf && tokens <= MOST_TOKENS && products.takesAll;
    this.cached = cache === undefined ? null : new CachedAttention(this.nodes, outputs.slice(cache.firstOutput));
    const { cached } = this;
    if (cached === null) return;
    this.find("cachedAttention", (placed) => cached.fusion(placed));
    if (isHalf && tokens <= MOST_ROUTED) for (const fusion of products.routers()) this.take(fusion);
    if (!this.isThin) return;
    const experts = new DecodingExperts(this.nodes);
    this.find("combine", (placed) => experts.fusion(placed));
    this.find("swiglu", (placed) => products.gated(placed));
    for (const fusion of products.groups()) this.take(fusion);
  }

  private find<P extends Prim>(prim: P, make: (placed: Placed<P>) => Fusion | null): void {
    for (const [index, node] of this.c.graph.nodes.entries())
      if (is(node, prim) && !this.nodes.taken.has(index)) {
        const fusion = make({ index, node });
        if (fusion !== null) this.take(fusion);
      }
  }

  private take(fusion: Fusion): void {
    const { c, nodes } = this;
    for (const index of [fusion.index, ...fusion.replaced]) nodes.taken.add(index);
    for (const id of fusion.inputs) c.extend(id, fusion.index);
    for (const index of fusion.replaced) c.skip(index);
    this.fusions.set(fusion.index, fusion);
  }

  /** Launches what stands at this place; false where the node is left to its rule. */
  lower(index: number): boolean {
    this.fusions.get(index)?.launch();
    return this.nodes.taken.has(index);
  }

  /** Lets the new keys and values of an attention that was lowered by its rule join the cache. */
  append(node: Node): void {
    this.cached?.append(node);
  }
}
