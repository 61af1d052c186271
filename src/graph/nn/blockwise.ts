/**
 * The decoder blockwise: embedding, each layer's attention and FFN, final norm and head, each a graph of its own with
 * activations in and activations out. Run one after the other the blocks are the network of `decoder.ts`; in between,
 * weights can come and go. Parameters are graph inputs named by slot key, behind the activations.
 *
 * Letters: N tokens (= B batch x S sequence), H hidden, C columns of the head.
 */
import { GraphBuilder } from "../ir/builder.js";
import type { DType, Graph, ValueId } from "../ir/ir.js";
import { prune } from "../ir/passes.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { slotsOf } from "../../model/tensors/slots.js";
import {
  attentionBranch,
  attentionInput,
  embedded,
  ffnBranch,
  ffnInput,
  finalHidden,
  netContext,
  type BatchShape,
  type NetContext,
} from "./decoder.js";

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
  /** x [N, H] -> what the FFN adds, its norms and factors included [N, H]. */
  ffn(layer: number, rows: number): DecoderBlock;
  /** x [N, H] -> what the FFN and its router read [N, H] */
  ffnInput(layer: number, rows: number): DecoderBlock;
  /** x [N, H] -> what the head reads [N, H] */
  final(rows: number): DecoderBlock;
  /** (hidden [N, H], rows of the head [C, H]) -> logits [N, C]; the head's rows are given as an activation. */
  head(rows: number, columns: number): DecoderBlock;
}

/** Builds the blocks of a decoder as they are asked for, each for its own number of tokens. */
export function blockwiseDecoder(spec: DecoderSpec): BlockwiseDecoder {
  const slots = new Map(slotsOf(spec).map((slot) => [slot.key, slot]));
  const block = (
    shape: BatchShape,
    inputs: readonly (readonly [string, DType, readonly number[]])[],
    build: (ctx: NetContext, inputs: readonly ValueId[]) => ValueId,
  ): DecoderBlock => {
    const b = new GraphBuilder();
    const given = inputs.map(([name, dtype, size]) => b.input(name, dtype, size));
    const params = new Map<string, ValueId>();
    const ctx = netContext(b, spec, shape, (key) => {
      const known = params.get(key);
      if (known !== undefined) return known;
      const made = b.input(key, "f32", slots.get(key)!.shape);
      params.set(key, made);
      return made;
    });
    const out = build(ctx, given);
    return { graph: prune(b.finish([out])), params: [...params.keys()] };
  };
  const stream = (rows: number): readonly [string, DType, readonly number[]] => ["x", "f32", [rows, spec.hidden]];
  const oneSequence = (rows: number): BatchShape => ({ batch: 1, sequence: rows });
  return {
    embedding: (shape) =>
      block(shape, [["ids", "int", [shape.batch * shape.sequence]]], (ctx, [ids]) => embedded(ctx, ids!)),
    attention: (layer, shape) =>
      block(shape, [stream(shape.batch * shape.sequence)], (ctx, [x]) =>
        ctx.b.add(x!, attentionBranch(ctx, attentionInput(ctx, x!, layer), spec.layers[layer]!, layer)),
      ),
    ffn: (layer, rows) =>
      block(oneSequence(rows), [stream(rows)], (ctx, [x]) =>
        ffnBranch(
          ctx,
          x!,
          spec.layers[layer]!,
          layer,
          spec.block === "parallel-shared" ? attentionInput(ctx, x!, layer) : x!,
        ),
      ),
    ffnInput: (layer, rows) =>
      block(oneSequence(rows), [stream(rows)], (ctx, [x]) =>
        ffnInput(ctx, x!, layer, spec.block === "parallel-shared" ? attentionInput(ctx, x!, layer) : x!),
      ),
    final: (rows) => block(oneSequence(rows), [stream(rows)], (ctx, [x]) => finalHidden(ctx, x!)),
    head: (rows, columns) =>
      block(oneSequence(rows), [stream(rows), ["head", "f32", [columns, spec.hidden]]], ({ b }, [hidden, head]) => {
        const raw = b.linear(hidden!, head!);
        const cap = spec.logitSoftcap;
        return cap === null ? raw : b.scale(b.op("tanh", [b.scale(raw, 1 / cap)], {}), cap);
      }),
  };
}
