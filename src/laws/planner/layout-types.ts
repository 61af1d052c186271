/**
 * What the search for a parallel layout and its speed model speak about: a layout, its bytes on the fullest GPU and its
 * seconds per step. The memory formula is in `layout.ts` (`stageBytes`), the seconds are in `speed.ts`.
 */
import type { ForwardFlops, Recompute } from "../../model/cost/flops.js";
import type { DecoderSpec, MoeFfn } from "../../model/decoder/types.js";
import type { Gpu } from "./hardware.js";

/** How a training is spread over GPUs: degrees of parallelism and micro-batches. */
export interface ParallelLayout {
  /**
   * Tensor, pipeline, virtual pipeline (chunks per stage), context, expert, expert-tensor, data, expert-data parallel
   * degrees.
   */
  readonly tp: number;
  readonly pp: number;
  readonly vpp: number;
  readonly cp: number;
  readonly ep: number;
  readonly etp: number;
  readonly dp: number;
  readonly edp: number;
  /** Sequences per micro-batch. */
  readonly microBatch: number;
  /** Micro-batches per step of one pipeline. */
  readonly microBatches: number;
  readonly recompute: Recompute;
}

/** Bytes on the fullest GPU. */
export interface GpuBytes {
  /** Parameters held there: not of routed experts, and of routed experts. */
  readonly plainParams: number;
  readonly expertParams: number;
  readonly weights: number;
  readonly gradients: number;
  readonly optimizer: number;
  readonly activations: number;
  readonly logits: number;
  readonly reserve: number;
  readonly total: number;
}

/** What the speed model assumes about a cluster; each is a share between 0 and 1. */
export interface SpeedModel {
  /** Share of peak that very large matrix products reach. */
  readonly matrices: number;
  /** Share of peak of causal flash attention, forward and backward together, causal FLOPs. */
  readonly attention: number;
  /** Share of the printed bandwidth that collectives and element-wise kernels reach. */
  readonly links: number;
  /** Share of a step left after launches, the optimizer, data loading and stragglers. */
  readonly rest: number;
}

/** Seconds of one optimizer step, by what they are spent on. */
export interface StepSeconds {
  readonly compute: number;
  /** Part of `compute` that is recomputation. */
  readonly recompute: number;
  /** Gathering and scattering rows for tensor parallelism. */
  readonly tensor: number;
  /** All-to-all of routed rows. */
  readonly expert: number;
  readonly context: number;
  /** Waiting for the pipeline to fill, and handing rows on. */
  readonly pipeline: number;
  /** Gradients and weights between data-parallel ranks, beyond what hides behind half of the computing. */
  readonly data: number;
  readonly total: number;
}

/** A layout with its bytes and its speed. */
export interface CostedLayout {
  readonly layout: ParallelLayout;
  readonly bytes: GpuBytes;
  readonly seconds: StepSeconds;
  readonly tokensPerStep: number;
  readonly tokensPerSecond: number;
  /** Model FLOPs (forward and backward, causal attention, nothing recomputed) over the peak in bf16. */
  readonly mfu: number;
}

/**
 * Number format of the matrix products of blocks (projections, FFNs, experts). With `fp8` attention, routers, norms,
 * the head, weights in memory and what is sent stay bfloat16, as in Transformer Engine; DeepSeek-V3 (arXiv
 * 2412.19437, section 3.3) keeps the same parts out of FP8.
 */
export type Precision = "bf16" | "fp8";

/** What is to be trained, and on what. */
export interface LayoutRequest {
  readonly spec: DecoderSpec;
  readonly gpu: Gpu;
  readonly gpus: number;
  readonly sequence: number;
  /** Tokens per optimizer step: kept exactly where a layout of whole micro-batches can. */
  readonly batchTokens: number;
  readonly speed: SpeedModel;
  /** `bf16` where nothing is said. */
  readonly precision?: Precision;
  /** Largest degree of tensor parallelism that the program can train with; a node's GPUs where nothing is said. */
  readonly mostTensor?: number;
  /** Whether every pipeline stage has to have as many layers. */
  readonly evenStages?: boolean;
}

/** The fastest layout that fits, and how the search went. */
export interface LayoutResult {
  /** Null: nothing fits. */
  readonly best: CostedLayout | null;
  /** Combinations of degrees and micro-batch looked at, and how many of them fit with some recomputation. */
  readonly tried: number;
  readonly fitting: number;
  /** The smallest bytes per GPU among all, activations left out where the rest alone is too much. */
  readonly leastBytes: number;
}

/** What all layouts of one request share. */
export interface LayoutSums {
  readonly flops: ForwardFlops;
  /** Prefix sums over layers of parameters split by TP, of those every rank has whole, of routed experts. */
  readonly split: Float64Array;
  readonly whole: Float64Array;
  readonly experts: Float64Array;
  readonly moe: MoeFfn | null;
  readonly moeLayers: number;
  /** Prefix sums over layers of how many are mixtures. */
  readonly mixed: Float64Array;
  readonly embedding: number;
  readonly activations: Map<number, Float64Array>;
  /** Stages after the first that can be the fullest, by their number. */
  readonly stages: Map<number, readonly number[]>;
}
