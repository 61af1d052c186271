/**
 * A model folder opened for running: its weights in a forward runtime.
 *
 * Letters: B batch, S sequence, V vocabulary.
 */
import { at } from "../base/at.js";
import { inputError } from "../base/errors.js";
import { openCheckpoint, type ModelSource } from "../files/checkpoint/open.js";
import type { FloatDtype } from "../files/numeric/dtype.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import {
  extendProgram,
  logitsProgram,
  meanLossProgram,
  type ExtendAnswers,
  type ExtendProgram,
  type LogitsProgram,
} from "../graph/programs/programs.js";
import type { CachedShape } from "../graph/nn/cached.js";
import type { Backend, Extended, ExtendFeeds, LikelyTokens } from "../engine/runtime/runtime.js";
import { slotsOf } from "../model/tensors/slots.js";
import { watchedWeights } from "./finite-weights.js";

/** A model that gives logits, wherever its weights are. */
export interface RunnableModel {
  /** The model's folder. */
  readonly dir: string;
  readonly spec: DecoderSpec;
  /** The precision that most of the weights are stored in. */
  readonly precision: FloatDtype;
  /** How many values of each slot are NaN or infinite, of those that were read so far. */
  readonly nonFinite: ReadonlyMap<string, number>;
  /** Logits [rows or B*S, V] for ids [B*S]; `rows` picks positions of the flattened batch. */
  logits(
    ids: Int32Array,
    shape: { readonly batch: number; readonly sequence: number },
    rows?: Int32Array,
  ): Promise<Float32Array>;
  close(): Promise<void>;
}

/** A model whose weights are in memory: it also continues what it has seen, and gives losses without logits. */
export interface TextModel extends RunnableModel {
  /** New tokens behind the model's one cache of keys and values; see `ForwardRuntime.extend`. */
  extend(shape: CachedShape, feeds: ExtendFeeds, asked?: Pick<ExtendAnswers, "routed">): Promise<Extended>;
  /** Tokens of all rows that are best read at once; see `ForwardRuntime.tokensAtOnce`. */
  readonly tokensAtOnce?: number | undefined;
  /** So many likeliest tokens of each row, one behind the other; see `ForwardRuntime.likeliest`. */
  readonly likeliest?: ((shape: CachedShape, feeds: ExtendFeeds, steps: number) => Promise<LikelyTokens>) | undefined;
  /** Makes the cache's one row so many equal ones; see `ForwardRuntime.repeatCache`. */
  readonly repeatCache?: ((rows: number) => Promise<void>) | undefined;
  /** Mean loss in nats over the targets that are not negative, ids and targets [B*S]. */
  loss(
    ids: Int32Array,
    targets: Int32Array,
    shape: { readonly batch: number; readonly sequence: number },
  ): Promise<number>;
}

/**
 * Opens a model with its weights in memory, as float32; `threads` are the backend's. Throws inputError if the folder is
 * no supported model. `logits`, `extend` and `loss` reject with inputError for an id outside the vocabulary.
 */
export async function openModel(source: ModelSource, backend: Backend, threads: number): Promise<TextModel> {
  const checkpoint = await openCheckpoint(source);
  try {
    const { dir, spec } = checkpoint;
    const weights = watchedWeights(checkpoint);
    const runtime = await backend.openForward({ threads });
    try {
      const keys = slotsOf(spec).map(({ key }) => key);
      let next = keys[0] === undefined ? undefined : weights.readFloat32(keys[0]);
      for (const [i, key] of keys.entries()) {
        const data = await next;
        const following = keys[i + 1];
        // The next one is read while this one goes where it is used.
        next = following === undefined ? undefined : weights.readFloat32(following);
        next?.catch(() => undefined);
        if (data !== undefined) await runtime.write(key, data);
      }
    } catch (cause) {
      await runtime.close();
      throw cause;
    }
    const programs = new Map<string, LogitsProgram>();
    const extensions = new Map<string, ExtendProgram>();
    const extension = (
      shape: CachedShape,
      answer: Required<ExtendAnswers>,
    ): { name: string; program: ExtendProgram } => {
      const { batch, tokens, capacity, positions, branches } = shape;
      const name = `extend ${[batch, tokens, capacity, positions, branches, ...Object.values(answer)].join()}`;
      const program = extensions.get(name) ?? extendProgram(spec, shape, answer);
      extensions.set(name, program);
      return { name, program };
    };
    return {
      dir,
      spec,
      precision: checkpoint.dtype,
      nonFinite: weights.nonFinite,
      logits(ids, { batch, sequence }, rows) {
        requireIds(ids, spec.vocab, dir);
        const name = `${batch}x${sequence}x${rows?.length ?? "all"}`;
        const program = programs.get(name) ?? logitsProgram(spec, { batch, sequence, rows: rows?.length });
        programs.set(name, program);
        return runtime.run(name, program, rows === undefined ? [ids] : [ids, rows]);
      },
      extend(shape, feeds, { routed = false } = {}) {
        requireIds(feeds.ids, spec.vocab, dir);
        requireIds(feeds.targets ?? new Int32Array(), spec.vocab, dir);
        const { name, program } = extension(shape, {
          chosen: feeds.rows?.length ?? shape.batch,
          scored: feeds.targets !== undefined,
          routed,
          // Graphs of a GPU, where this was not measured, compute all tokens; a row's single token is always asked for.
          narrowed: !routed && runtime.tokensAtOnce === undefined && shape.tokens > 1,
        });
        return runtime.extend(name, program, feeds);
      },
      tokensAtOnce: runtime.tokensAtOnce,
      likeliest:
        runtime.likeliest === undefined
          ? undefined
          : (shape, feeds, steps) => {
              requireIds(feeds.ids, spec.vocab, dir);
              const answer = { chosen: shape.batch, scored: false, routed: false, narrowed: false };
              const { name, program } = extension(shape, answer);
              return runtime.likeliest!(name, program, feeds, steps);
            },
      repeatCache: runtime.repeatCache === undefined ? undefined : (rows) => runtime.repeatCache!(rows),
      async loss(ids, targets, { batch, sequence }) {
        requireIds(ids, spec.vocab, dir);
        const name = `loss ${batch}x${sequence}`;
        const program = programs.get(name) ?? meanLossProgram(spec, { batch, sequence });
        programs.set(name, program);
        return at(await runtime.run(name, program, [ids, targets]), 0);
      },
      close: () => runtime.close(),
    };
  } finally {
    await checkpoint.close();
  }
}

/** Throws inputError for an id outside the vocabulary. */
export function requireIds(ids: Int32Array, vocab: number, where: string): void {
  const bad = ids.find((id) => id < 0 || id >= vocab);
  if (bad !== undefined) throw inputError(`token id ${bad} is outside the vocabulary 0..${vocab - 1}`, { where });
}
