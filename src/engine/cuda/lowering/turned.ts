/**
 * Query, key and value side by side in a joint product's result: one launch turns the first two by their positions and
 * brings all three to where attention reads them, and one does it the other way round for their gradients.
 */
import { at } from "../../../base/at.js";
import type { NodeOf } from "../../../graph/ir/ir.js";
import { bytesPer, gridFor, int, reads, viewed, type View } from "./arguments.js";
import type { Context } from "./context.js";

/** Elements that a thread takes at a time. */
const UNIT = 16;

/** Whether a value of such rows can be one of the three. */
export const inUnits = (width: number): boolean => width % UNIT === 0;

/** Two ropes of one kind, in the order in which their values lie, and the value beside them. */
export interface Turned {
  readonly ropes: readonly [TurnedRope, TurnedRope];
  /** Place of the value that does not turn among the three. */
  readonly plain: number;
}

interface TurnedRope {
  readonly index: number;
  readonly node: NodeOf<"rope">;
  /** Place of its value among the three. */
  readonly place: number;
}

/** How a rope turns, but for the number of heads. */
const kindOf = ({ in: [, cos, sin], attrs }: NodeOf<"rope">): string =>
  JSON.stringify([cos, sin, { ...attrs, heads: 0 }]);

/**
 * The ropes among `nodes` (places in the graph, one for each of three values; null: no node of its own) where one
 * launch can do what they do: two, of one kind, over whole heads in halves.
 */
export function turnedOf(c: Context, nodes: readonly (number | null)[]): Turned | null {
  if (nodes.length !== 3) return null;
  const ropes = nodes.flatMap((index, place): TurnedRope[] => {
    const node = index === null ? undefined : at(c.graph.nodes, index);
    return node?.prim === "rope" && index !== null ? [{ index, node, place }] : [];
  });
  const [first, second, ...more] = ropes;
  if (first === undefined || second === undefined || more.length > 0) return null;
  const { headDim, rotary, interleaved } = first.node.attrs;
  const whole = !interleaved && rotary === headDim && headDim % UNIT === 0;
  if (!whole || kindOf(first.node) !== kindOf(second.node)) return null;
  return { ropes: [first, second], plain: 3 - first.place - second.place };
}

/**
 * Launches both ropes and the copy, from and to rows of the three values in their order. What lies where it belongs is
 * not copied.
 */
export function lowerTurned(
  c: Context,
  { ropes, plain }: Turned,
  {
    from,
    to,
    widths: all,
  }: { readonly from: readonly View[]; readonly to: readonly View[]; readonly widths: readonly number[] },
): void {
  const [{ node }] = ropes;
  const { batch, sequence, headDim, inverse } = node.attrs;
  const [, cos, sin] = node.in;
  const tokens = batch * sequence;
  const order = [ropes[0].place, ropes[1].place, plain];
  const stays = at(from, plain) === at(to, plain);
  const widths = order.map((place) => (place === plain && stays ? 0 : at(all, place)));
  const width = widths.reduce((sum, each) => sum + each, 0);
  c.kernel({
    module: "tokens",
    kernel: "ropeTogether",
    real: "bf16",
    grid: gridFor((tokens * width) / 2),
    bytes: 2 * tokens * width * bytesPer.bf16,
    flops: 3 * tokens * width,
    arguments: [
      reads(c.of(cos)),
      reads(c.of(sin)),
      ...order.flatMap((place, i) => {
        const [source, target] = [at(from, place), at(to, place)];
        return [
          viewed(source, "read", "bf16"),
          viewed(target, "write", "bf16"),
          ...[source.stride, target.stride, at(widths, i) / UNIT].map(int),
        ];
      }),
      ...[tokens, sequence, headDim, Number(inverse)].map(int),
    ],
  });
}
