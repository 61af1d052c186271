/**
 * How a model is laid out over GPUs for training: every sensible combination of parallel degrees is costed in bytes and
 * seconds, and the fastest that fits is taken. Attention ranks TP*CP*DP*PP and expert ranks ETP*EP*EDP*PP share the
 * same GPUs (Megatron-Core's parallel folding).
 *
 * The planner's MEMORY FORMULA is here, in `stageBytes`: bytes on the fullest GPU = (2 + 4) per parameter held
 * (bfloat16 weights, float32 gradients) + 12 per parameter over its data-parallel ranks (AdamW) + saved activations +
 * logits + reserve. Bytes per parameter and per token of an activation are in `model/cost/memory.ts`.
 */
import { at } from "../../base/at.js";
import { blockActivationBytes, bytesPerParam, headActivationBytes } from "../../model/cost/memory.js";
import { forwardFlops, recomputedFlops, type Recompute } from "../../model/cost/flops.js";
import { layerParams } from "../../model/cost/params.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type {
  GpuBytes,
  ParallelLayout,
  LayoutRequest,
  LayoutResult,
  CostedLayout,
  LayoutSums,
} from "./layout-types.js";
import { stepSeconds } from "./speed.js";

/** Bytes for CUDA context, communication buffers, workspace and fragmentation. This is our own estimate. */
export const reserved = (memory: number): number => 3e9 + 0.04 * memory;
/** Tokens of the busiest expert-parallel rank over the mean, for memory. This is our own estimate. */
const busiestRank = 1.25;
/** Context parallelism below this does not pay. */
const contextFrom = 8192;

/** No error of the tokens per step. */
const exactly = 0;
/** Largest errors of the tokens per step, as shares, where no layout that fits makes them exactly. */
const nearly = [0.125, 1] as const;

/**
 * The fastest layout that fits into memory. Its tokens per step are `batchTokens` wherever a layout that fits can make
 * them of whole micro-batches, else as near as can be.
 */
export function bestLayout(request: LayoutRequest): LayoutResult {
  const prepared = prepare(request);
  let leastBytes = Infinity;
  let result = searched(request, prepared, exactly);
  for (const error of nearly) {
    if (result.best !== null) break;
    leastBytes = Math.min(leastBytes, result.leastBytes);
    result = searched(request, prepared, error);
  }
  return { ...result, leastBytes: Math.min(leastBytes, result.leastBytes) };
}

/** The fastest layout whose tokens per step are within `batchError` of those asked. */
function searched(request: LayoutRequest, prepared: LayoutSums, batchError: number): LayoutResult {
  const { memory } = request.gpu;
  const [one, other] = [new Float64Array(6), new Float64Array(6)];
  let best: CostedLayout | null = null;
  let [triedCount, fitting, leastBytes] = [0, 0, Infinity];
  for (const base of candidates(request, prepared, batchError)) {
    triedCount += 1;
    // Recomputing is never faster: the first that fits is the best of its layout.
    for (const recompute of recomputes) {
      const layout: ParallelLayout = { ...base, recompute };
      const sums = fullest(request, prepared, layout, one, other);
      const states = at(sums, TOTAL) - at(sums, ACTIVATIONS);
      // Weights and states alone do not fit: recomputing cannot help.
      leastBytes = Math.min(leastBytes, states > memory ? states : at(sums, TOTAL));
      if (states > memory) break;
      if (at(sums, TOTAL) > memory) continue;
      fitting += 1;
      const placed = timed(request, prepared, layout, bytesFrom(sums, memory));
      if (best === null || placed.tokensPerSecond > best.tokensPerSecond * 1.002) best = placed;
      break;
    }
  }
  return { best, tried: triedCount, fitting, leastBytes };
}

/** A layout that is given, with its bytes and its seconds, whether it fits or not. */
export function costLayout(request: LayoutRequest, layout: ParallelLayout): CostedLayout {
  const prepared = prepare(request);
  const sums = fullest(request, prepared, layout, new Float64Array(6), new Float64Array(6));
  return timed(request, prepared, layout, bytesFrom(sums, request.gpu.memory));
}

const recomputes: readonly Recompute[] = ["none", "selective", "full"];

/** Fewest GPUs, whole nodes from one node on, on which anything fits; null above 65,536. */
export function fewestGpus(request: LayoutRequest): number | null {
  for (let gpus = 1; gpus <= 65536; gpus *= 2) {
    if (bestLayout({ ...request, gpus }).best !== null) return gpus;
  }
  return null;
}

/** Sums over layers that every layout of a request is costed from. */
function prepare({ spec, sequence }: LayoutRequest): LayoutSums {
  const count = spec.layers.length;
  const zeros = (): Float64Array => new Float64Array(count + 1);
  const [split, whole, experts, mixed] = [zeros(), zeros(), zeros(), zeros()];
  spec.layers.forEach((layer, i) => {
    const parts = layerParams(spec, layer);
    split[i + 1] = at(split, i) + parts.attention + parts.ffn + parts.shared;
    whole[i + 1] = at(whole, i) + parts.norms + parts.router;
    experts[i + 1] = at(experts, i) + parts.experts;
    mixed[i + 1] = at(mixed, i) + (layer.ffn.kind === "moe" ? 1 : 0);
  });
  const mixtures = spec.layers.flatMap(({ ffn }) => (ffn.kind === "moe" ? [ffn] : []));
  return {
    flops: forwardFlops(spec, sequence, "causal"),
    split,
    whole,
    experts,
    moe: mixtures[0] ?? null,
    moeLayers: mixtures.length,
    mixed,
    embedding: spec.vocab * spec.hidden,
    activations: new Map(),
    stages: new Map(),
  };
}

/** Powers of two up to `most`, at least 1. */
const powers = (most: number): number[] =>
  Array.from({ length: Math.floor(Math.log2(Math.max(1, most))) + 1 }, (_, i) => 2 ** i);

/**
 * Layers can be cut into `stages` of a pipeline: evenly, or into a power of two of stages of which the largest is at
 * most 15 % above the mean. (DeepSeek-V3 has 61 layers.)
 */
function isCut(layers: number, stages: number): boolean {
  if (layers % stages === 0) return true;
  return Number.isInteger(Math.log2(stages)) && Math.ceil(layers / stages) * stages <= 1.15 * layers;
}

/** Where stage `index` of `stages` begins: stages are spread evenly, the first is never longer than another. */
const stageStart = (layers: number, stages: number, index: number): number => Math.floor((index * layers) / stages);

/** Every combination of degrees that divides what it cuts and can be the fastest. */
function* candidates(
  { spec, gpu, gpus, sequence, batchTokens, mostTensor = gpu.perNode, evenStages = false }: LayoutRequest,
  { moe }: LayoutSums,
  batchError: number,
): Generator<Omit<ParallelLayout, "recompute">> {
  const layers = spec.layers.length;
  const sequences = batchTokens / sequence;
  const { heads, kvHeads } = spec.attn;
  for (const tp of powers(Math.min(gpu.perNode, mostTensor, gpus)).filter(
    (t) => heads % t === 0 && kvHeads % t === 0,
  )) {
    for (const cp of sequence < contextFrom ? [1] : powers(Math.min(8, sequence / 4096, gpus / tp))) {
      for (let pp = 1; pp <= Math.min(layers, gpus / (tp * cp)); pp++) {
        if (!(evenStages ? layers % pp === 0 : isCut(layers, pp)) || gpus % (tp * cp * pp) !== 0) continue;
        const dp = gpus / (tp * cp * pp);
        for (const etp of moe === null || tp === 1 ? [1] : [1, tp]) {
          if (moe !== null && moe.ffnDim % etp !== 0) continue;
          for (const ep of moe === null ? [1] : powers(Math.min(moe.experts, gpus / (pp * etp)))) {
            if (moe !== null && (moe.experts % ep !== 0 || (gpus / pp) % (etp * ep) !== 0)) continue;
            // All-to-all over many nodes is never the fastest where the experts fit on fewer.
            if (etp * ep > 8 * gpu.perNode) continue;
            const edp = gpus / (pp * etp * ep);
            for (const microBatch of [1, 2, 4, 8]) {
              const microBatches = Math.max(1, Math.round(sequences / (dp * microBatch)));
              if (Math.abs((microBatches * dp * microBatch) / sequences - 1) > batchError) continue;
              const chunks =
                pp === 1 || microBatches % pp !== 0 ? [1] : [1, 2, 4].filter((v) => v === 1 || layers % (pp * v) === 0);
              for (const vpp of chunks) yield { tp, pp, vpp, cp, ep, etp, dp, edp, microBatch, microBatches };
            }
          }
        }
      }
    }
  }
}

/** Places in the working memory of one candidate: no object is made of those that do not fit. */
const [PLAIN, EXPERT, OPTIMIZER, ACTIVATIONS, LOGITS, TOTAL] = [0, 1, 2, 3, 4, 5] as const;

/** Writes the sums of the fullest GPU. */
function fullest(
  request: LayoutRequest,
  prepared: LayoutSums,
  layout: ParallelLayout,
  out: Float64Array,
  spare: Float64Array,
): Float64Array {
  let [most, other] = [out, spare];
  stageBytes(request, prepared, layout, 0, most);
  for (const index of laterStages(prepared, layout.pp)) {
    stageBytes(request, prepared, layout, index, other);
    if (at(other, TOTAL) > at(most, TOTAL)) [most, other] = [other, most];
  }
  return most;
}

/**
 * Stages after the first that can be the fullest: the last, which has the head and the logits, and those that hold more
 * of something than every earlier one. (A later stage has fewer micro-batches in flight. The first stages of
 * DeepSeek-V3 are dense and small.)
 */
function laterStages(prepared: LayoutSums, pp: number): readonly number[] {
  const earlier = prepared.stages.get(pp);
  if (earlier !== undefined) return earlier;
  const { split, whole, experts, mixed } = prepared;
  const layers = split.length - 1;
  const holds = Array.from({ length: pp }, (_, index) => {
    const [from, to] = [stageStart(layers, pp, index), stageStart(layers, pp, index + 1)];
    const sums = [split, whole, experts, mixed].map((sum) => at(sum, to) - at(sum, from));
    return [...sums, to - from];
  });
  const isCovered = (index: number): boolean =>
    holds.slice(0, index).some((other) => at(holds, index).every((amount, k) => amount <= at(other, k)));
  const stages = holds.flatMap((_, index) => (index > 0 && (index === pp - 1 || !isCovered(index)) ? [index] : []));
  prepared.stages.set(pp, stages);
  return stages;
}

/** Writes the bytes of one GPU of pipeline stage `index`. */
function stageBytes(
  { spec, gpu, sequence }: LayoutRequest,
  prepared: LayoutSums,
  layout: ParallelLayout,
  index: number,
  out: Float64Array,
): void {
  const { tp, pp, vpp, cp, ep, etp, dp, edp, microBatch, microBatches, recompute } = layout;
  const tokens = (sequence * microBatch) / cp;
  const perLayer = activationSums(spec, prepared, layout);
  const from = stageStart(spec.layers.length, pp, index);
  const to = stageStart(spec.layers.length, pp, index + 1);
  const first = index === 0;
  const last = index === pp - 1;
  // A tied matrix lies on the first stage and, where that is another, on the last.
  const matrices = (first ? 1 : 0) + (last && (pp > 1 || !spec.tiedHead) ? 1 : 0);
  const positions = first && spec.learnedPositions ? (spec.maxPositions + spec.positionsOffset) * spec.hidden : 0;
  const plain =
    (at(prepared.split, to) - at(prepared.split, from) + matrices * prepared.embedding) / tp +
    at(prepared.whole, to) -
    at(prepared.whole, from) +
    positions +
    (last ? spec.hidden : 0);
  const expert = (at(prepared.experts, to) - at(prepared.experts, from)) / (ep * etp);
  const inFlight = Math.min(pp - index, microBatches) * (vpp > 1 ? 1 + (pp - 1) / (pp * vpp) : 1);
  const optimizer = bytesPerParam.optimizer * (plain / (dp * cp) + expert / edp);
  const activations =
    (at(perLayer, to) - at(perLayer, from)) * tokens * inFlight +
    (recompute === "full" ? workingSet(spec, layout) * tokens : 0) +
    (first ? (2 * spec.hidden * tokens) / tp : 0);
  const logits = last ? headActivationBytes(spec, tp) * tokens : 0;
  out[PLAIN] = plain;
  out[EXPERT] = expert;
  out[OPTIMIZER] = optimizer;
  out[ACTIVATIONS] = activations;
  out[LOGITS] = logits;
  out[TOTAL] =
    (bytesPerParam.weights + bytesPerParam.gradients) * (plain + expert) +
    optimizer +
    activations +
    logits +
    reserved(gpu.memory);
}

function bytesFrom(sums: Float64Array, memory: number): GpuBytes {
  const params = at(sums, PLAIN) + at(sums, EXPERT);
  return {
    plainParams: at(sums, PLAIN),
    expertParams: at(sums, EXPERT),
    weights: bytesPerParam.weights * params,
    gradients: bytesPerParam.gradients * params,
    optimizer: at(sums, OPTIMIZER),
    activations: at(sums, ACTIVATIONS),
    logits: at(sums, LOGITS),
    reserve: reserved(memory),
    total: at(sums, TOTAL),
  };
}

/** Prefix sums over layers of saved activations, in bytes per token. */
function activationSums(
  spec: DecoderSpec,
  { activations }: LayoutSums,
  { tp, etp, recompute }: ParallelLayout,
): Float64Array {
  const key = (tp * 1024 + etp) * 4 + recomputes.indexOf(recompute);
  const earlier = activations.get(key);
  if (earlier !== undefined) return earlier;
  const sums = new Float64Array(spec.layers.length + 1);
  spec.layers.forEach((layer, i) => {
    sums[i + 1] =
      at(sums, i) +
      blockActivationBytes(spec, layer, recompute, { tensor: tp, expertTensor: etp, imbalance: busiestRank });
  });
  activations.set(key, sums);
  return sums;
}

/** Bytes per token of the one block that is computed again, which then has all its activations. */
function workingSet(spec: DecoderSpec, { tp, etp }: ParallelLayout): number {
  const last = at(spec.layers, spec.layers.length - 1);
  return blockActivationBytes(spec, last, "none", { tensor: tp, expertTensor: etp, imbalance: busiestRank });
}

/** A layout with its bytes, costed in seconds. */
function timed(request: LayoutRequest, prepared: LayoutSums, layout: ParallelLayout, bytes: GpuBytes): CostedLayout {
  const { gpu, gpus, sequence } = request;
  const tokensPerStep = layout.microBatches * layout.microBatch * layout.dp * sequence;
  const seconds = stepSeconds(request, prepared, layout, bytes, recomputedFlops(prepared.flops, layout.recompute));
  const tokensPerSecond = tokensPerStep / seconds.total;
  return {
    layout,
    bytes,
    seconds,
    tokensPerStep,
    tokensPerSecond,
    mfu: (3 * prepared.flops.total * tokensPerSecond) / (gpus * gpu.peak),
  };
}
