/**
 * Products of one matrix with several weights that lie one behind the other, such as query, key and value: one product
 * makes all results, side by side in the rows of one buffer; and one makes the gradient of what they were made of, and
 * one that of their weights. N tokens, H hidden, W width of all results together.
 */
import { at, entryOf } from "../../../base/at.js";
import { matrixSizes, typeOf, type Graph, type Node, type NodeOf, type ValueId } from "../../../graph/ir/ir.js";
import { operand, type View } from "./arguments.js";
import type { Context } from "./context.js";
import { append } from "./graph-uses.js";
import type { BufferId } from "./launches.js";
import { readsRowsApart } from "./rules-attention.js";
import { inUnits, lowerTurned, turnedOf, type Turned } from "./turned.js";

/** A product with one of the weights, and its place among the nodes. */
interface Member {
  readonly index: number;
  readonly node: NodeOf<"matmul">;
  readonly weight: ValueId;
  /** Width of its result. */
  readonly width: number;
}

/** What is done backwards for the members of a joint. */
interface Backward {
  /** What the gradients of the weights are made of, beside those of the results: the value itself or one made again. */
  readonly x: ValueId;
  /** Gradients of the results, in the order of the members. */
  readonly gradients: readonly ValueId[];
  /** The sum of the gradients that the members give to what they were made of. */
  readonly dx: ValueId;
  /** Gradients of the weights. */
  readonly dweights: readonly ValueId[];
  /** Nodes that the two products replace. */
  readonly nodes: readonly number[];
}

interface Joint {
  readonly x: ValueId;
  readonly members: readonly Member[];
  readonly backward: Backward | null;
}

/** Elements between the beginnings of neighbours whose results take a multiple of so many. */
const EIGHT = 8;

/** Products of one value with inputs that are kept as bfloat16, in the order in which these lie. */
function candidates(c: Context): Member[][] {
  const { halves } = c.options.layout ?? { halves: new Map<number, number>() };
  const groups = new Map<ValueId, Member[]>();
  const places = new Map(c.graph.inputs.map((id, index) => [id, halves.get(index)]));
  for (const [index, node] of c.graph.nodes.entries()) {
    if (node.prim !== "matmul" || !isForward(node)) continue;
    const weight = c.rootOf(node.in[1]);
    if (places.get(weight) === undefined) continue;
    const x = c.rootOf(node.in[0]);
    const [width] = matrixSizes(typeOf(c.graph, node.in[1]));
    append(groups, x, { index, node, weight, width });
  }
  const placeOf = ({ weight }: Member): number => places.get(weight) ?? 0;
  return [...groups.values()].map((members) => members.sort((a, b) => placeOf(a) - placeOf(b)));
}

/** Members whose weights lie one behind the other, without a gap and each once; none where they do not. */
function neighbours(c: Context, members: readonly Member[]): readonly Member[] {
  const { halves } = c.options.layout ?? { halves: new Map<number, number>() };
  const placeOf = ({ weight }: Member): number => halves.get(c.inputPlace(weight)) ?? -1;
  const close = members.every((member, i) => {
    if (i === 0) return true;
    const before = at(members, i - 1);
    return placeOf(member) === placeOf(before) + c.sizeOf(before.weight);
  });
  // Nothing but what is known to read rows that lie apart may need the results at once: others get copies.
  return close && members.length > 1 && members.every(({ width }) => width % EIGHT === 0) ? members : [];
}

const onlyOf = (places: readonly number[]): number | null => (places.length === 1 ? (places[0] ?? null) : null);

const isRope =
  (c: Context) =>
  (index: number): boolean =>
    at(c.graph.nodes, index).prim === "rope";

/** Place of the node that makes a value. */
const makersOf = (c: Context, id: ValueId): number[] => {
  const index = c.graph.nodes.findIndex((node) => (node.out as readonly ValueId[]).includes(id));
  return index < 0 ? [] : [index];
};

const isForward = (node: Node): boolean => node.prim === "matmul" && !node.attrs.transA && node.attrs.transB;

/** The one value that sums of all of `parts`, and of nothing else, make; and the sums' places. */
function totalOf(c: Context, graph: Graph, parts: readonly ValueId[]): { total: ValueId; sums: number[] } | null {
  const open = new Set(parts.map((id) => c.rootOf(id)));
  const sums: number[] = [];
  for (const [index, node] of graph.nodes.entries()) {
    if (open.size === 1) break;
    if (node.prim !== "add") continue;
    const [a, b] = node.in.map((id) => c.rootOf(id)) as [ValueId, ValueId];
    const alone = [a, b].every((id) => open.has(id) && c.readingNodes(id).length === 1);
    if (a === b || !alone) continue;
    open.delete(a);
    open.delete(b);
    open.add(node.out[0]);
    sums.push(index);
  }
  const [total, ...others] = open;
  return total === undefined || others.length > 0 ? null : { total, sums };
}

/** The gradients of a joint's members where they are what they are expected to be, in one place; else null. */
function backwardOf(c: Context, members: readonly Member[]): Backward | null {
  const { graph, options } = c;
  const outputs = options.layout?.outputs ?? new Map<number, number>();
  const gradients: ValueId[] = [];
  const sources = new Set<ValueId>();
  const [dx, dweights, nodes]: [ValueId[], ValueId[], number[]] = [[], [], []];
  for (const { weight } of members) {
    // dx = d W, and dW = d^T x, of the same d.
    const back = c.readingNodes(weight).filter((i) => !isForward(at(graph.nodes, i)));
    const [first, ...more] = back;
    if (first === undefined || more.length > 0) return null;
    const toX = at(graph.nodes, first);
    if (toX.prim !== "matmul" || toX.attrs.transA || toX.attrs.transB || c.rootOf(toX.in[1]) !== weight) return null;
    const gradient = c.rootOf(toX.in[0]);
    const others = c.readingNodes(gradient).filter((i) => i !== first);
    const [second] = others;
    if (second === undefined || others.length > 1) return null;
    const toW = at(graph.nodes, second);
    if (toW.prim !== "matmul" || !toW.attrs.transA || toW.attrs.transB) return null;
    if (c.rootOf(toW.in[0]) !== gradient) return null;
    sources.add(c.rootOf(toW.in[1]));
    gradients.push(gradient);
    dx.push(toX.out[0]);
    dweights.push(toW.out[0]);
    nodes.push(first, second);
  }
  const placeOf = (id: ValueId): number => outputs.get(c.outputPlace(id)) ?? NaN;
  const close = dweights.every(
    (id, i) => placeOf(id) === (i === 0 ? placeOf(id) : placeOf(at(dweights, i - 1)) + c.sizeOf(at(dweights, i - 1))),
  );
  const made = new Set(graph.nodes.flatMap((node) => node.out));
  const sum = totalOf(c, graph, dx);
  const [x, ...others] = sources;
  if (x === undefined || others.length > 0) return null;
  if (!close || sum === null || new Set(gradients).size < gradients.length) return null;
  // A gradient that is a constant, or a reshaped value of another size, is no row of a joint buffer.
  if (!gradients.every((id, i) => made.has(id) && c.rowsOf(id)[1] === at(members, i).width)) return null;
  return { x, gradients, dx: sum.total, dweights, nodes: [...nodes, ...sum.sums] };
}

/** Joints of a graph, found before it is lowered, and lowered as their first nodes come up. */
export class Joints {
  /** Joints by the place of their first product forwards. */
  private readonly forward = new Map<number, Joint>();
  /** Joints by the place of the last of their products backwards. */
  private readonly backward = new Map<number, Joint>();
  /** Ropes over a joint's results, by the place of the first of them; and those that make its gradients. */
  private readonly turns = new Map<
    number,
    { readonly joint: Joint; readonly turned: Turned; readonly back: boolean }
  >();
  /** The results of a joint's products forwards. */
  private readonly made = new Map<Joint, BufferId>();
  private readonly results = new Map<Joint, BufferId>();

  constructor(private readonly c: Context) {
    if (c.options.precision !== "bf16") return;
    // Weights whose products are made again in the backward pass have more than one group, and one backward.
    const settled = new Set<ValueId>();
    for (const group of candidates(c)) {
      const members = neighbours(c, group);
      const [first] = members;
      if (first === undefined || members.some(({ node }) => !c.keepsHalf(node.out[0]))) continue;
      const x = c.rootOf(first.node.in[0]);
      const joint: Joint = { x, members, backward: settled.has(first.weight) ? null : backwardOf(c, members) };
      this.forward.set(Math.min(...members.map(({ index }) => index)), joint);
      this.turn(
        joint,
        false,
        members.map(({ node }) => onlyOf(c.readingNodes(node.out[0]).filter(isRope(c)))),
      );
      if (joint.backward === null) continue;
      settled.add(first.weight);
      this.backward.set(Math.max(...joint.backward.nodes), joint);
      this.aim(joint, joint.backward);
    }
  }

  private widthOf({ members }: Joint): number {
    return members.reduce((sum, { width }) => sum + width, 0);
  }

  /** Gradients of the results come to lie side by side. */
  private aim(joint: Joint, { gradients }: Backward): void {
    const { c } = this;
    const stride = this.widthOf(joint);
    const [rows] = c.rowsOf(at(joint.members, 0).node.out[0]);
    const buffer = c.scratch(rows * stride, "bf16");
    this.results.set(joint, buffer);
    for (const node of joint.backward?.nodes ?? []) c.skip(node);
    const makers = gradients.map((id) => onlyOf(makersOf(c, id).filter(isRope(c))));
    if (this.turn(joint, true, makers)) return;
    let first = 0;
    for (const [i, id] of gradients.entries()) {
      c.aimAt(id, { buffer, first, stride });
      first += at(joint.members, i).width;
    }
  }

  /** Notes ropes that one launch can do together; false where there are none. */
  private turn(joint: Joint, back: boolean, ropes: readonly (number | null)[]): boolean {
    const turned = joint.members.every(({ width }) => inUnits(width)) ? turnedOf(this.c, ropes) : null;
    if (turned === null) return false;
    const places = turned.ropes.map(({ index }) => index);
    const { c } = this;
    // Attention may turn its queries and keys by itself.
    if (places.some((index) => c.isSkipped(index))) return false;
    // What does not turn has to be there when the ropes come up.
    const plain = back ? at(joint.backward?.gradients ?? [], turned.plain) : null;
    if (plain !== null && makersOf(c, plain).some((maker) => maker > Math.min(...places))) return false;
    if (!back && c.readingNodes(at(joint.members, turned.plain).node.out[0]).length === 0) return false;
    this.turns.set(Math.min(...places), { joint, turned, back });
    for (const index of places) c.skip(index);
    return true;
  }

  /** Rows of a joint's members side by side in a buffer. */
  private rowsIn(joint: Joint, buffer: BufferId): View[] {
    const stride = this.widthOf(joint);
    let first = 0;
    return joint.members.map(({ width }) => {
      const view = { buffer, first, stride };
      first += width;
      return view;
    });
  }

  /** Whether query and key may turn where they lie: nothing else reads them before, and rows apart do behind. */
  private turnsInPlace({ members }: Joint, { ropes, plain }: Turned): boolean {
    const { c } = this;
    const alone = ropes.every(({ place }) => c.readingNodes(at(members, place).node.out[0]).length === 1);
    const read = [...ropes.map(({ node }) => node.out[0]), at(members, plain).node.out[0]];
    return (
      alone &&
      read.every((id) => !c.isOutput(id) && c.readingNodes(id).every((i) => readsRowsApart(c, at(c.graph.nodes, i))))
    );
  }

  private lowerTurns({ joint, turned, back }: { joint: Joint; turned: Turned; back: boolean }): void {
    const { c } = this;
    const buffer = entryOf(back ? this.results : this.made, joint);
    const widths = joint.members.map(({ width }) => width);
    const joined = this.rowsIn(joint, buffer);
    if (!back && this.turnsInPlace(joint, turned)) {
      for (const { node, place } of turned.ropes) c.defineView(node.out[0], at(joined, place), "bf16");
      lowerTurned(c, turned, { from: joined, to: joined, widths });
      return;
    }
    const apart = joint.members.map(({ node, width }, place): View => {
      const rope = turned.ropes.find((each) => each.place === place)?.node;
      const gradient = joint.backward?.gradients[place];
      if (back) return { buffer: c.as(rope?.in[0] ?? gradient ?? node.out[0], "bf16"), first: 0, stride: width };
      const own = rope === undefined ? c.gatherHere(node.out[0], "bf16") : c.define(rope.out[0], "bf16");
      return { buffer: own, first: 0, stride: width };
    });
    lowerTurned(c, turned, back ? { from: apart, to: joined, widths } : { from: joined, to: apart, widths });
  }

  /** Lowers what stands at this place of the nodes; false where nothing of a joint does. */
  lower(index: number): boolean {
    const forward = this.forward.get(index);
    if (forward !== undefined) this.lowerForward(forward);
    const backward = this.backward.get(index);
    if (backward?.backward != null) this.lowerBackward(backward, backward.backward);
    const turns = this.turns.get(index);
    if (turns !== undefined) this.lowerTurns(turns);
    return forward !== undefined || backward !== undefined || turns !== undefined;
  }

  private lowerForward(joint: Joint): void {
    const { c } = this;
    const { members, x } = joint;
    const stride = this.widthOf(joint);
    const [rows, size] = c.rowsOf(x);
    const buffer = c.scratch(rows * stride, "bf16");
    c.product(
      { m: rows, n: stride, k: size },
      { transB: true, real: "bf16", stored: "bf16" },
      {
        a: operand(c.as(x, "bf16")),
        b: operand(c.halves(members.map(({ weight }) => weight))),
        out: operand(buffer),
      },
    );
    this.made.set(joint, buffer);
    for (const [i, view] of this.rowsIn(joint, buffer).entries()) {
      const { index, node } = at(members, i);
      c.defineView(node.out[0], view, "bf16");
      c.skip(index);
    }
  }

  private lowerBackward(joint: Joint, { x, dx, dweights }: Backward): void {
    const { c } = this;
    const width = this.widthOf(joint);
    const [rows, size] = c.rowsOf(joint.x);
    const gradients = this.results.get(joint);
    if (gradients === undefined) throw new Error("a joint product's gradients have no memory");
    const sum = c.sumOf(dx, "bf16");
    const weights = operand(c.halves(joint.members.map(({ weight }) => weight)));
    const [addend, to] =
      sum === null ? [null, c.define(dx, "bf16")] : [operand(c.as(sum.other, "bf16")), c.defineProductSum(sum, "bf16")];
    const real = "bf16";
    c.product(
      { m: rows, n: size, k: width },
      { real, stored: real },
      { a: operand(gradients), b: weights, addend, out: operand(to) },
    );
    c.product(
      { m: width, n: size, k: rows },
      { transA: true, real },
      { a: operand(gradients), b: operand(c.as(x, real)), out: operand(c.outputs(dweights)) },
    );
  }
}
