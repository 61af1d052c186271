/** How much of a parent's function a child preserves: opens both, finds text, compares, judges. */
import { totalmem } from "node:os";
import { modelFolderOf, type ModelSource } from "../files/checkpoint/model-source.js";
import { countParams } from "../model/cost/params.js";
import {
  judgePreservation,
  type FunctionComparison,
  type LayerError,
  type PreservationReport,
} from "../model/results/preservation.js";
import type { Backend } from "../engine/runtime/runtime.js";
import { partsBeyond } from "../model/decoder/length.js";
import { compareModels } from "./compare.js";
import { compareStreamed, type StreamedComparison } from "./compare-streamed.js";
import { openModel, type RunnableModel } from "./model.js";
import { sampleTokens } from "./sample-tokens.js";
import { openStreamedModel } from "./streamed-model.js";

/** What is compared, on what, and with which means. */
export interface PreservationOptions {
  /** Where it has an adapter, the child is compared with the model that has it merged in, in float32. */
  readonly parent: ModelSource;
  readonly child: ModelSource;
  /** Text files or folders; none: built-in text, or random ids for a parent without tokenizer. */
  readonly text?: readonly string[] | undefined;
  /** Tokens to predict; 4096 where the models are held in memory, 512 where their weights are streamed. */
  readonly tokens?: number | undefined;
  /** Tokens per sequence, at most the models' positions; 256 when left out. */
  readonly sequence?: number | undefined;
  readonly backend: Backend;
  readonly threads: number;
  /**
   * Bytes that may be used: models that do not fit are streamed. Half of the machine's memory when left out; 0 always
   * streams.
   */
  readonly memory?: number | undefined;
  readonly onEvent?: ((event: PreservationEvent) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a measurement tells while it runs. */
export type PreservationEvent =
  /** Before the comparison: predicted tokens, and what they are in words. */
  | { readonly type: "measuring"; readonly tokens: number; readonly source: string; readonly streamed: boolean }
  /** Layers done of all layers of all passes. */
  | { readonly type: "progress"; readonly done: number; readonly total: number };

const defaultTokens = { inMemory: 4096, streamed: 512 };
const defaultSequence = 256;
/** Layers are compared on this many tokens where the whole models are compared on more. */
const layerTokens = 256;
/** Engine, tokenizer, logits and activations beside the weights. */
const overhead = 700e6;
/** What a streamed comparison may hold in activations at least: one short sequence of any model. */
const leastActivations = 128e6;

/**
 * Compares a child with its parent on text: losses in nats, differences of logits, and each layer's FFN where layers
 * correspond. Throws inputError for folders or text that cannot be used, models of different vocabularies, and fewer
 * than two tokens.
 */
export async function measurePreservation(options: PreservationOptions): Promise<PreservationReport> {
  const { backend, threads, signal, onEvent, memory = totalmem() / 2 } = options;
  return withModels(
    [options.parent, options.child],
    (source) => openStreamedModel(source, backend, { threads, signal }),
    async (parent, child) => {
      const inMemory = fits(parent, child, memory);
      const limitTokens = options.tokens ?? (inMemory ? defaultTokens.inMemory : defaultTokens.streamed);
      // One more than is predicted: nothing predicts the first.
      const { tokens, source } = await sampleTokens({
        dir: modelFolderOf(options.parent),
        spec: parent.spec,
        files: options.text ?? [],
        limit: limitTokens + 1,
        signal,
      });
      const sequence = Math.min(
        options.sequence ?? defaultSequence,
        parent.spec.maxPositions,
        child.spec.maxPositions,
        tokens.length - 1,
      );
      onEvent?.({ type: "measuring", tokens: Math.min(limitTokens, tokens.length - 1), source, streamed: !inMemory });
      const stream = (most: number): Promise<StreamedComparison> =>
        compareStreamed(parent, child, tokens, {
          sequence,
          limitTokens: Math.min(limitTokens, most),
          activationBytes: Math.max(leastActivations, (memory - overhead) / 2),
          onProgress: (done, total) => onEvent?.({ type: "progress", done, total }),
        });
      const streamed = await stream(inMemory ? layerTokens : Infinity);
      const compared = inMemory ? await compareInMemory(options, tokens, sequence, limitTokens) : streamed;
      return reportOf(compared, streamed.layers, {
        source,
        sequence,
        unreached: [...new Set([parent, child].flatMap(({ spec }) => partsBeyond(spec, sequence)))].sort(),
        streamed: !inMemory,
        precision: { parent: parent.precision, child: child.precision },
      });
    },
  );
}

/** Both models' weights as float32, beside everything else. */
function fits(parent: RunnableModel, child: RunnableModel, memory: number): boolean {
  return 4 * (countParams(parent.spec).total + countParams(child.spec).total) + overhead <= memory;
}

async function compareInMemory(
  { parent, child, backend, threads, signal }: PreservationOptions,
  tokens: Int32Array,
  sequence: number,
  limitTokens: number,
): Promise<FunctionComparison> {
  signal?.throwIfAborted();
  return withModels(
    [parent, child],
    (source) => openModel(source, backend, threads),
    (a, b) => compareModels(a, b, tokens, { sequence, limitTokens, signal }),
  );
}

async function withModels<M extends RunnableModel, R>(
  [first, second]: readonly [ModelSource, ModelSource],
  open: (source: ModelSource) => Promise<M>,
  use: (first: M, second: M) => Promise<R>,
): Promise<R> {
  const a = await open(first);
  try {
    const b = await open(second);
    try {
      return await use(a, b);
    } finally {
      await b.close();
    }
  } finally {
    await a.close();
  }
}

function reportOf(
  compared: FunctionComparison,
  layers: readonly LayerError[] | null,
  how: Pick<PreservationReport, "source" | "sequence" | "unreached" | "streamed" | "precision">,
): PreservationReport {
  const { tokens, parentLoss, childLoss, maxAbsLogitDiff, meanAbsLogitDiff, maxAbsLogit, klDivergence, topAgreement } =
    compared;
  // Two models whose logits are all zero agree.
  const relative = maxAbsLogitDiff === 0 ? 0 : maxAbsLogitDiff / maxAbsLogit;
  return {
    version: 1,
    tokens,
    parentLoss,
    childLoss,
    maxAbsLogitDiff,
    meanAbsLogitDiff,
    maxAbsLogit,
    relative,
    klDivergence,
    topAgreement,
    layers,
    ...how,
    verdict: judgePreservation(relative, how.precision),
  };
}
