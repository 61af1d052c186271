/**
 * The one narrow interface behind which a backend lives: compile a program, own the state, run, read metrics.
 * State never crosses the interface during training; only token ids go in and a few numbers come out.
 */
import type { Graph } from "../../graph/ir/ir.js";
import type { ExtendProgram, LogitsProgram, TrainProgram } from "../../graph/programs/programs.js";

/** Sequences that go through the network at once. */
export interface MicroBatch {
  /** [batch * sequence] */
  readonly ids: Int32Array;
  /** [batch * sequence]; negative targets are ignored. */
  readonly targets: Int32Array;
}

/** AdamW with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2, as torch.optim.AdamW computes it). */
export interface AdamW {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** `matrices`: no decay on norms and biases; `all`: on every parameter. */
  readonly decayOn: "matrices" | "all";
  /** Largest gradient norm over all parameters, or null for no clipping. */
  readonly clipNorm: number | null;
  /** 1 for the first update: the bias corrections need it. */
  readonly update: number;
}

/** How one parameter departs from the common settings. */
export interface ParamTuning {
  /** Factor on the learning rate. */
  readonly rate: number;
  /** Weight decay in place of the common one, or null; `decayOn` says as ever where decay applies. */
  readonly decay: number | null;
  /** AdamW if left out. Muon takes matrices, and keeps one moment. */
  readonly method?: "muon" | undefined;
}

/** Muon (Jordan 2024, github.com/KellerJordan/Muon), for parameters whose tuning names it; see `muon.ts`. */
export interface Muon {
  readonly momentum: number;
  readonly nesterov: boolean;
  /** The rule for a matrix's factor on the learning rate, see `muonScale`. */
  readonly scale: MuonScale;
}

/** Factor of a matrix's size on Muon's learning rate, see `muonScale`. */
export type MuonScale = "rms" | "spectral";

/** What a step's random numbers are a function of, with micro-batch and layer. */
export interface Draw {
  readonly seed: number;
  readonly step: number;
  /** Routers' inputs are multiplied by numbers uniform from 1 - jitter to 1 + jitter. */
  readonly jitter: number;
}

/** One update: AdamW, and what stands beside it. */
export interface StepSettings extends AdamW {
  readonly muon?: Muon | undefined;
  /**
   * Averaged weights become decay * average + (1 - decay) * weight after the update; only where the run was opened with
   * `average`.
   */
  readonly averageDecay?: number | undefined;
  /** What random numbers are drawn from; programs with jitter need it. */
  readonly draw?: Draw | undefined;
  /** A step above one of these is a spike: weights, moments and averages stay as they are. */
  readonly limits?: { readonly loss: number; readonly gradNorm: number } | undefined;
}

/** Losses and routing of one batch, or of a step's micro-batches together. */
export interface LossMetrics {
  /** Mean next-token cross entropy in nats. */
  readonly loss: number;
  /** Load-balancing loss before its coefficient, or null for a dense model. */
  readonly balanceLoss: number | null;
  /** Router z-loss before its coefficient, or null for a dense model. */
  readonly zLoss: number | null;
  /** How often each expert was chosen, by MoE layer. */
  readonly counts: readonly (readonly number[])[];
  /** How many of those choices a capacity has left, by MoE layer; empty where nothing is dropped. */
  readonly kept: readonly (readonly number[])[];
  /** Mean entropy of the router's softmax in nats, by MoE layer. */
  readonly entropy: readonly number[];
  /** The experts of each token of an evaluated batch [tokens * topK], by MoE layer; empty for a step. */
  readonly chosen: readonly (readonly number[])[];
}

/** Losses and routing of a step, and what became of its update. */
export interface StepMetrics extends LossMetrics {
  /** Norm of the mean gradient over all trained parameters, before clipping. */
  readonly gradNorm: number;
  /** False if loss or gradient was not finite, or a spike: then no weight was touched. */
  readonly applied: boolean;
  /** What exceeded its limit; null where nothing did. */
  readonly spike: "loss" | "gradient" | null;
}

/** What a run keeps of a parameter: its weights, the optimizer's moments, the running average. */
export type StateKind = "weight" | "moment1" | "moment2" | "average";

/** An open training run: a backend that owns weights and optimizer state. */
export interface TrainRuntime {
  /** Whether a step may be asked for before the one before it has answered, so that the device goes on at once. */
  readonly queues?: boolean;
  /** One update from the mean gradient of the micro-batches. */
  step(batches: readonly MicroBatch[], settings: StepSettings): Promise<StepMetrics>;
  /** Losses of one batch with the current weights, or with their averages. */
  evaluate(batch: MicroBatch, weights?: "weight" | "average"): Promise<LossMetrics>;
  /**
   * A copy of a parameter's state. Moments and averages exist only for parameters that are trained, the second moment
   * only for AdamW; rejects for others.
   */
  read(kind: StateKind, key: string): Promise<Float32Array>;
  /** Replaces a parameter's state; rejects for state that does not exist and for another number of elements. */
  write(kind: StateKind, key: string, data: Float32Array): Promise<void>;
  /**
   * A copy of the state behind the steps that were asked for so far, to be read while steps go on; null where there is
   * no room for one. Left out by runtimes whose state is saved as fast as it is copied.
   */
  snapshot?(): Promise<StateSnapshot | null>;
  /** Largest resident memory of the process right after a step of this runtime, in bytes. */
  peakMemory(): Promise<number>;
  /** FLOP/s of the device at most, in the precision of its fastest products; null or left out where it is not known. */
  readonly peakFlops?: number | null;
  close(): Promise<void>;
}

/** A copy of a training's state. */
export interface StateSnapshot {
  /** As `TrainRuntime.read`; what it gives may lose its content at `close`. */
  read(kind: StateKind, key: string): Promise<Float32Array>;
  close(): Promise<void>;
}

/** New tokens of each row of a batch, and where they stand. Letters: B rows, T new tokens, R tokens with logits. */
export interface ExtendFeeds {
  /** [B*T]; what is not needed at a row's end is filled with any id. */
  readonly ids: Int32Array;
  /** Tokens of each row that the cache holds [B]. */
  readonly lengths: Int32Array;
  /**
   * Of the T new tokens of each row, how many join the cache [B]. Where `rows` is left out, the logits are those of the
   * last of them, of no use where there is none.
   */
  readonly counts: Int32Array;
  /**
   * Where the text of each new token begins among those of its row [B*T], for programs with branches; none of them may
   * join the cache.
   */
  readonly starts?: Int32Array | undefined;
  /** Places among the B*T new tokens whose logits are given [R], whether they join the cache or not. */
  readonly rows?: Int32Array | undefined;
  /** Ids of the tokens behind those places [R], for programs that give their scores in place of logits. */
  readonly targets?: Int32Array | undefined;
  /** Keys that the cache must have room for afterwards, in a program without a past. */
  readonly capacity: number;
}

/** What a run of new tokens gives. */
export interface Extended {
  /**
   * Logits [B, V] of each row's next token, or [R, V] of the token behind each chosen one; or scores of targets [R, 2]
   * as of the primitive `headScores`.
   */
  readonly output: Float32Array;
  /** Which experts the new tokens were given to, by layer of experts; empty where the program was not asked for it. */
  readonly routing: readonly ChosenExperts[];
  readonly ms: number;
}

/** What a layer's router did with new tokens. Letters: N tokens (B*T), K experts per token. */
export interface ChosenExperts {
  readonly layer: number;
  /** Experts of the layer. */
  readonly experts: number;
  /** [N, K] */
  readonly chosen: Int32Array;
  /** What each expert's output is multiplied by [N, K]. */
  readonly weights: Float32Array;
}

/** Tokens that were chosen where the logits are. */
export interface LikelyTokens {
  /** [steps, B]; -1 where no logit can be chosen, see `argmax`. */
  readonly ids: Int32Array;
  readonly ms: number;
}

/** Forward graphs over one set of weights, which the runtime owns. */
export interface ForwardRuntime {
  /** Tokens of all rows that are best read at once; left out where reading many at once costs more for each. */
  readonly tokensAtOnce?: number;
  /** Sets a weight, by slot key. */
  write(key: string, data: Float32Array): Promise<void>;
  /** Programs are compiled once per `name`. Returns the program's single output. */
  run(name: string, program: LogitsProgram, feeds: readonly Int32Array[]): Promise<Float32Array>;
  /**
   * Runs new tokens behind the runtime's one cache of keys and values and appends theirs to it; returns logits or
   * scores, and the milliseconds it took. Programs are compiled once per `name`, which is not counted. One without
   * a past begins the cache anew; one of another capacity moves it.
   */
  extend(name: string, program: ExtendProgram, feeds: ExtendFeeds): Promise<Extended>;
  /**
   * So many runs of a program of one new token in each row, each behind the likeliest tokens of the one before, of
   * which the first are fed: gives all that were chosen. Rows whose count is 0 stay where they are. The cache must have
   * room for all of them. A program of more tokens in each row runs once. Runtimes whose logits are where they are
   * needed anyway leave it out.
   */
  likeliest?(name: string, program: ExtendProgram, feeds: ExtendFeeds, steps: number): Promise<LikelyTokens>;
  /**
   * Makes the cache's one row so many equal ones. Runtimes that cannot copy rows leave it out: the same tokens, read in
   * so many rows, give the same cache.
   */
  repeatCache?(rows: number): Promise<void>;
  close(): Promise<void>;
}

/** Float32 for values, int32 for indices and counts. */
export type ArrayData = Float32Array | Int32Array;

/** Runs graphs that hold no state: everything comes in, everything goes out. For models that are too large to hold. */
export interface OperationRuntime {
  /**
   * Graphs are compiled once per `name`. Feeds in the order of the graph's inputs, outputs in that of its outputs.
   * Feeds at the places named in `given` must lie in what `memory` gave, and belong to the runtime from then on.
   */
  run(
    name: string,
    graph: Graph,
    feeds: readonly ArrayData[],
    given?: readonly number[],
  ): Promise<readonly ArrayData[]>;
  /** At least so many bytes of any content, for a feed to give away; buffers that were given away are used again. */
  memory(bytes: number): ArrayBuffer;
  close(): Promise<void>;
}

/** How a backend is opened. */
export interface BackendOptions {
  readonly threads: number;
}

/** How a training run is opened. */
export interface TrainOptions extends BackendOptions {
  /** Steps may have several micro-batches. */
  readonly accumulate: boolean;
  /** Tuning by parameter key; parameters that are left out follow the common settings. */
  readonly tuning?: Readonly<Record<string, ParamTuning>> | undefined;
  /** Keep a running average of every trained parameter. */
  readonly average?: boolean | undefined;
}

/** What runs graphs: it opens runtimes, each with weights and state of its own. */
export interface Backend {
  readonly name: string;
  /** What of it decides the numbers: the same for all devices that compute alike, whichever of them it uses. */
  readonly numerics: string;
  openTrain(program: TrainProgram, options: TrainOptions): Promise<TrainRuntime>;
  openForward(options: BackendOptions): Promise<ForwardRuntime>;
  openOperations(options: BackendOptions): Promise<OperationRuntime>;
}
