/**
 * The decoder blockwise: embedding, each layer's attention and FFN, final norm and head, each a graph of its own with
 * activations in and activations out. Run one after the other the blocks are the network of `decoder.ts`; in between,
 * weights can come and go. Parameters are graph inputs named by slot key, behind the activations.
 *
 * Letters: N tokens (= B batch x S sequence), H hidden, C columns of the head.
 */
import { at, entryOf } from "../../base/at.js";
import { GraphBuilder } from "../ir/builder.js";
import type { DType, Graph, ValueId } from "../ir/ir.js";
import { prune } from "../ir/passes.js";
import type { DecoderSpec, MoeFfn } from "../../model/decoder/types.js";
import { slotsOf } from "../../model/tensors/slots.js";
import { netContext, type BatchShape, type NetContext } from "./context.js";
import { attentionBranch, attentionInput, embedded, ffn, ffnBranch, ffnInput, ffnUnits } from "./decoder.js";
import { oneExpert, routerOf } from "./experts.js";
import { finalHidden, headLogits } from "./head.js";

/** One block of a decoder as a graph. */
export interface DecoderBlock {
  /** Inputs: the activations, then the parameters. */
  readonly graph: Graph;
  /** Keys of the parameters, in the order of their inputs. */
  readonly params: readonly string[];
}

interface BlockwiseDecoder {
  /** ids [N] -> residual stream [N, H] */
  embedding(shape: BatchShape): DecoderBlock;
  /** x [N, H] -> x plus what attention adds [N, H] */
  attention(layer: number, shape: BatchShape): DecoderBlock;
  /**
   * x [N, H] -> what the FFN adds, its norms and factors included [N, H]; experts in `excluded` are never chosen.
   */
  ffn(layer: number, rows: number, excluded?: readonly number[]): DecoderBlock;
  /** x [N, H] -> what the FFN and its router read [N, H] */
  ffnInput(layer: number, rows: number): DecoderBlock;
  /** What a dense FFN reads [N, H] -> the activations of its hidden units [N, F]. */
  units(layer: number, rows: number): DecoderBlock;
  /**
   * What the router reads [N, H] -> logits [N, E], weights [N, K], chosen experts [N, K]; of a layer of experts.
   */
  router(layer: number, rows: number): DecoderBlock;
  /** What an expert reads [N, H] -> what it makes of it, not weighted [N, H]; null: the layer's FFN as a whole. */
  unit(layer: number, expert: number | null, rows: number): DecoderBlock;
  /** x [N, H] -> what the head reads [N, H] */
  final(rows: number): DecoderBlock;
  /**
   * (hidden [N, H], rows of the head [C, H], where there is a bias its part [C]) -> logits [N, C]; the head's rows are
   * given as activations.
   */
  head(rows: number, columns: number): DecoderBlock;
}

/** What a block takes: a name, an element type, sizes. */
type BlockInput = readonly [name: string, dtype: DType, shape: readonly number[]];

/** Builds the blocks of a decoder as they are asked for, each for its own number of tokens. */
export function blockwiseDecoder(spec: DecoderSpec): BlockwiseDecoder {
  const shapes = new Map(slotsOf(spec).map(({ key, shape }) => [key, shape]));
  const block = (
    shape: BatchShape,
    input: BlockInput,
    build: (ctx: NetContext, x: ValueId) => ValueId | readonly ValueId[],
  ): DecoderBlock => {
    const b = new GraphBuilder();
    const x = b.input(...input);
    const params = new Map<string, ValueId>();
    const ctx = netContext(b, spec, shape, (key) => {
      const existing = params.get(key);
      if (existing !== undefined) return existing;
      const id = b.input(key, "f32", entryOf(shapes, key));
      params.set(key, id);
      return id;
    });
    const out = build(ctx, x);
    return { graph: prune(b.finish(typeof out === "number" ? [out] : out)), params: [...params.keys()] };
  };
  const stream = (rows: number): BlockInput => ["x", "f32", [rows, spec.hidden]];
  const oneSequence = (rows: number): BatchShape => ({ batch: 1, sequence: rows });
  /** What attention reads, where the FFN reads it too. */
  const sharedInput = (ctx: NetContext, x: ValueId, layer: number): ValueId =>
    spec.block === "parallel-shared" ? attentionInput(ctx, x, layer) : x;
  return {
    embedding: (shape) => block(shape, ["ids", "int", [shape.batch * shape.sequence]], embedded),
    attention: (layer, shape) =>
      block(shape, stream(shape.batch * shape.sequence), (ctx, x) => {
        const branch = attentionBranch(ctx, attentionInput(ctx, x, layer), at(spec.layers, layer), layer);
        return ctx.b.add(x, branch);
      }),
    ffn: (layer, rows, excluded) =>
      block(oneSequence(rows), stream(rows), (ctx, x) =>
        ffnBranch({ ...ctx, excluded }, x, at(spec.layers, layer), layer, sharedInput(ctx, x, layer)),
      ),
    ffnInput: (layer, rows) =>
      block(oneSequence(rows), stream(rows), (ctx, x) => ffnInput(ctx, x, layer, sharedInput(ctx, x, layer))),
    units: (layer, rows) =>
      block(oneSequence(rows), stream(rows), (ctx, x) => {
        const { ffn } = at(spec.layers, layer);
        if (ffn.kind === "moe") throw new Error(`layer ${layer} has experts, not one FFN`);
        return ffnUnits(ctx, x, ffn, layer);
      }),
    router: (layer, rows) =>
      block(oneSequence(rows), stream(rows), (ctx, x) => routerOf(ctx, x, expertsOf(spec, layer), layer)),
    unit: (layer, expert, rows) =>
      block(oneSequence(rows), stream(rows), (ctx, x) =>
        expert === null
          ? ffn(ctx, x, at(spec.layers, layer), layer)
          : oneExpert(ctx, x, expertsOf(spec, layer), layer, expert),
      ),
    final: (rows) => block(oneSequence(rows), stream(rows), finalHidden),
    head: (rows, columns) =>
      block(oneSequence(rows), stream(rows), ({ b }, hidden) => {
        const head = b.input("head", "f32", [columns, spec.hidden]);
        const headBias = spec.headBias ? b.input("headBias", "f32", [columns]) : null;
        return headLogits(b, spec, hidden, { head, headBias });
      }),
  };
}

/** The experts of a layer that has them. Throws an Error for a dense layer. */
function expertsOf({ layers }: DecoderSpec, layer: number): MoeFfn {
  const { ffn: own } = at(layers, layer);
  if (own.kind === "dense") throw new Error(`layer ${layer} is dense and has no experts`);
  return own;
}
