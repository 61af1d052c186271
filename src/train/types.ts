/** The plain types of a training run, below everything that works on one. */
import type { TrainingBlock } from "../base/schemas/index.js";
import type { Backend } from "../engine/runtime/runtime.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { Slot } from "../model/tensors/slots.js";
import type { TokenRow } from "../text/tokens/batches.js";
import type { MixPart } from "../text/tokens/mix.js";
import type { NotedCommand } from "../files/io/command-file.js";
import type { LogFormat } from "./exported-logs.js";
import type { EvalRecord, RunMetrics, StepRecord } from "./records.js";
import type { ExpertLikeness } from "./similarity.js";

/** Fingerprints of the files that a training is made from, by path; under `tokens` that of its tokens. */
export type Sources = Readonly<Record<string, string>>;

/** One row of tokens, or the parts of a data mix with weights; the held-out loss of parts is their weighted mean. */
export interface RunText {
  readonly train: TokenRow | readonly MixPart[];
  readonly heldOut: TokenRow | readonly MixPart[];
}

/** What a training run is made of. */
export interface RunOptions {
  readonly dir: string;
  readonly spec: DecoderSpec;
  /** Gives the first weights of a slot, row-major in its shape. */
  readonly initial: (slot: Slot) => Promise<Float32Array>;
  /** Folder whose tokenizer files every checkpoint carries. */
  readonly carry: string | undefined;
  /** What every checkpoint says of how its experts were made (`lineageKey`). */
  readonly lineage?: unknown;
  /** Texts of further files that every checkpoint has, by name, such as the model's card. */
  readonly texts?: Readonly<Record<string, string>> | undefined;
  readonly text: RunText;
  /** The token that ends every document. */
  readonly documentEnd: number;
  readonly block: TrainingBlock;
  readonly evaluationTokens: number;
  /** Seed of the order in which the text is read. */
  readonly seed: number;
  readonly threads: number;
  readonly backend: Backend;
  /** Says what this run is beyond the above (model, text, parent); a folder with another identity is refused. */
  readonly identity: Readonly<Record<string, unknown>>;
  /** What the files that it is made from contain (`sourcesOf`). */
  readonly sources?: Sources | undefined;
  /** Expert-to-dense similarity, measured with every evaluation. */
  readonly similarity?: ((read: (key: string) => Promise<Float32Array>) => Promise<ExpertLikeness>) | undefined;
  /** Noted in the folder, for readers: the command that goes on with the run. */
  readonly command?: NotedCommand | undefined;
  /** Further forms in which the metrics are written, beside `metrics.jsonl`. */
  readonly log?: readonly LogFormat[] | undefined;
  /** Aborting finishes the step in hand, saves and throws interruptedError. */
  readonly signal?: AbortSignal | undefined;
}

/** What a training run tells whoever consumes it, in the order in which it happens. */
export type TrainEvent =
  | { readonly type: "open"; readonly step: number; readonly steps: number; readonly tokensPerStep: number }
  | StepRecord
  | EvalRecord
  | { readonly type: "save"; readonly step: number; readonly dir: string }
  | { readonly type: "done"; readonly result: RunResult };

/** What a finished run gives. */
export interface RunResult {
  readonly metrics: RunMetrics;
  /** Held-out loss at the end, in nats per token. */
  readonly finalLoss: number;
  readonly tokensPerSecond: number;
  /**
   * Share of the device's peak that the model's FLOPs reach: forward and backward, causal attention, nothing that is
   * computed again; null where the peak is not known.
   */
  readonly mfu: number | null;
  readonly peakRssBytes: number;
  /** Folder of the last checkpoint. */
  readonly last: string;
  /** Whether the folder held the finished run already, so that nothing was trained. */
  readonly found: boolean;
}
