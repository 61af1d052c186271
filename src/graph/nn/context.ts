/** What the parts of a network have in common while its graph is built. Letters as in `decoder.ts`. */
import { GraphBuilder } from "../ir/builder.js";
import type { AttentionAttrs, PrimInputs, RouteRule, ValueId } from "../ir/ir.js";
import type { DecoderSpec, Rope } from "../../model/decoder/types.js";
import { slotKey, type SlotPart } from "../../model/tensors/slots.js";
import { ropeTables } from "./rope.js";

/** The values of one MoE layer's router in a graph. */
export interface RouterValues {
  readonly layer: number;
  readonly experts: number;
  readonly topK: number;
  readonly rule: RouteRule;
  /** [N, E] */
  readonly logits: ValueId;
  /** [N, K] */
  readonly weights: ValueId;
  /** [N, K], int */
  readonly chosen: ValueId;
  /** How often each expert was chosen [E], int. */
  readonly counts: ValueId;
  /** How many of those choices a capacity has left [E], int; null without one. */
  readonly kept: ValueId | null;
  /** The input that the router's input is multiplied by [N, H]; null without jitter. */
  readonly jitter: ValueId | null;
}

/** How routers work in training only. */
export interface TrainingRouting {
  /**
   * The router's input is multiplied by numbers from outside (Fedus et al. 2021, section 2.4; they are drawn around 1).
   * What the experts read is not.
   */
  readonly jitter: boolean;
  /**
   * Experts are chosen by Sinkhorn's balanced matrix (Clark et al. 2022, arXiv 2202.01169); their weights are those of
   * the router's rule, as ever.
   */
  readonly sinkhorn: boolean;
  /**
   * Each expert takes ceil(factor * N * K / E) choices of a batch at most, the rest add nothing, and a token's other
   * weights stay as they are; null: dropless.
   */
  readonly capacity: { readonly factor: number; readonly by: "weight" | "position" } | null;
}

/** Sizes of a batch, and what ends its documents. */
export interface BatchShape {
  readonly batch: number;
  readonly sequence: number;
  /**
   * Documents end with this token; attention does not look beyond their ends, and positions count from their starts.
   * Left out: rows are one text.
   */
  readonly documentEnd?: number | undefined;
}

/** Angles of one kind of rope as values of the graph. */
interface RopeTables {
  readonly cos: ValueId;
  readonly sin: ValueId;
  /** Angles of each token [N, rotary/2], not of each position [S, rotary/2]. */
  readonly perToken: boolean;
}

/** Where a network is being built. */
export interface NetContext extends BatchShape {
  readonly b: GraphBuilder;
  readonly spec: DecoderSpec;
  readonly param: (part: SlotPart, layer?: number, expert?: number) => ValueId;
  /** Tables of one kind of rope, shared by the layers that use it. */
  readonly rope: (settings: Rope) => RopeTables;
  readonly routers: RouterValues[];
  /** In training; null or left out: the model as it is. */
  readonly routing?: TrainingRouting | null | undefined;
  /** Experts of the layer in hand that its router may not choose; none where left out. */
  readonly excluded?: readonly number[] | undefined;
  /** Segment ids [N], int: the document of each token within its row, where documents are kept apart. */
  readonly segmentIds?: ValueId | undefined;
  /** Position of each token [N], int; row by row from 0 if left out. */
  readonly positions?: ValueId | undefined;
  /** Every position lies below it. */
  readonly positionCount: number;
  /** Attention in place of the plain one over `batch` x `sequence`; `attrs.window` is the layer's own. */
  readonly attend?:
    ((inputs: PrimInputs<ValueId>["attention"], attrs: AttentionAttrs, layer: number) => ValueId) | undefined;
}

/** A context over `b`; `input` gives the graph input of a slot, by its key. */
export function netContext(
  b: GraphBuilder,
  spec: DecoderSpec,
  { batch, sequence }: BatchShape,
  input: (slotKey: string) => ValueId,
): NetContext {
  return {
    b,
    spec,
    batch,
    sequence,
    param: (part, layer, expert) => input(slotKey({ part, layer, expert })),
    rope: ropeTablesOf(b, sequence),
    positionCount: sequence,
    routers: [],
  };
}

/** Tables of `length` positions; with `positions` [N], each token's own rows of them. */
export function ropeTablesOf(b: GraphBuilder, length: number, positions?: ValueId): NetContext["rope"] {
  const tables = new Map<string, RopeTables>();
  return (settings) => {
    const key = JSON.stringify(settings);
    const existing = tables.get(key);
    if (existing !== undefined) return existing;
    const { cos, sin } = ropeTables(settings, length);
    const table = (values: Float32Array): ValueId => {
      const whole = b.constant(values, [length, settings.rotary / 2]);
      return positions === undefined ? whole : b.op("embedding", [whole, positions], {});
    };
    const ids = { cos: table(cos), sin: table(sin), perToken: positions !== undefined };
    tables.set(key, ids);
    return ids;
  };
}

/** Each token's row of a table with a row for each position: [P, C] -> [N, C]. */
export function byPosition({ b, batch, sequence, positions }: NetContext, table: ValueId): ValueId {
  const all = (): ValueId => {
    const rows = Int32Array.from({ length: batch * sequence }, (_, row) => row % sequence);
    return b.constant(rows, [batch * sequence], "int");
  };
  return b.op("embedding", [table, positions ?? all()], {});
}

/** The same of numbers that follow from the position: [N, columns]. */
export function ofPosition(ctx: NetContext, columns: number, row: (position: number) => readonly number[]): ValueId {
  const values = Float32Array.from(Array.from({ length: ctx.positionCount }, (_, position) => row(position)).flat());
  return byPosition(ctx, ctx.b.constant(values, [ctx.positionCount, columns]));
}
