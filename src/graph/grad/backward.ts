/** Graph -> graph: the backward pass, by one walk over the nodes in reverse. */
import { at } from "../../base/at.js";
import type { GraphBuilder } from "../ir/builder.js";
import type { Node, ValueId } from "../ir/ir.js";
import { gradRules } from "./rules.js";

/** A rule of any primitive; the table `gradRules` proves that a node meets the rule of its own primitive. */
type Rule = (b: GraphBuilder, node: Node, dout: readonly (ValueId | null)[]) => readonly (ValueId | null)[];

/**
 * Appends the gradients of the scalar `loss` with respect to `wrt` to the builder and returns them, in order.
 * A value that the loss does not depend on gets a zero gradient.
 * @throws Error if a rule is missing on the way (a defect of ours), naming the primitive.
 */
export function backward(b: GraphBuilder, loss: ValueId, wrt: readonly ValueId[]): ValueId[] {
  if (b.shape(loss).length !== 0) throw new Error(`the loss must be a scalar, got [${b.shape(loss)}]`);
  const forward = [...b.nodes];
  // Only nodes that depend on a value of `wrt` need a gradient.
  const depends = new Set<ValueId>(wrt);
  for (const node of forward) if (node.in.some((id) => depends.has(id))) for (const id of node.out) depends.add(id);

  const parts = new Map<ValueId, ValueId[]>([[loss, [b.constant([1], [])]]]);
  const gradientOf = (id: ValueId): ValueId | null => {
    const terms = parts.get(id);
    if (terms === undefined) return null;
    const sum = terms.reduce((total, part) => b.add(total, part));
    parts.set(id, [sum]);
    return sum;
  };
  for (const node of forward.reverse()) {
    if (!node.out.some((id) => depends.has(id) && parts.has(id))) continue;
    const rule = gradRules[node.prim] as Rule | string;
    if (typeof rule === "string") {
      // An input that only moves a choice leaves the output constant almost everywhere.
      if (rule === "integer output" || rule === "a choice") continue;
      throw new Error(`${node.prim} has no gradient: ${rule}`);
    }
    const gradients = rule(b, node, node.out.map(gradientOf));
    if (gradients.length !== node.in.length)
      throw new Error(`${node.prim}: ${gradients.length} gradients for ${node.in.length} inputs`);
    gradients.forEach((gradient, i) => {
      const id = at(node.in, i);
      if (gradient === null || !depends.has(id)) return;
      if (b.shape(gradient).join() !== b.shape(id).join()) {
        throw new Error(`${node.prim}: gradient of input ${i} is [${b.shape(gradient)}], the input [${b.shape(id)}]`);
      }
      const terms = parts.get(id);
      if (terms === undefined) parts.set(id, [gradient]);
      else terms.push(gradient);
    });
  }
  return wrt.map((id) => gradientOf(id) ?? b.constant([0], b.shape(id)));
}
