/**
 * Seconds of one optimizer step, from FLOPs, bytes in memory and on links, and the pipeline's bubble. A model to rank
 * layouts and to budget with, not a measurement of your cluster: `mfu` of a plan replaces it, and a plan varies it.
 */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { blockActivationBytes } from "../../model/cost/memory.js";
import type { Gpu } from "./hardware.js";
import type { AttentionSpec } from "../../model/decoder/types.js";
import type { GpuBytes, ParallelLayout, LayoutRequest, LayoutSums, StepSeconds, SpeedModel } from "./layout-types.js";

/**
 * `matrices` and `attention` after bench/results/2026-11-22-kernels.json, one H200 with PyTorch
 * (bench/torch/kernels.py); the others are ours.
 */
export const defaultSpeed: SpeedModel = { matrices: 0.75, attention: 0.38, links: 0.7, rest: 0.85 };

/**
 * Share of `matrices` of a product [rows, k] x [k, n]: each side costs as if it were longer by a constant, fitted to
 * the 33 products of the same measurement (largest share 0.75; 17 % root mean square error).
 */
export function productShare(rows: number, k: number, n: number): number {
  const [short, long] = [Math.min(k, n), Math.max(k, n)];
  return (rows / (rows + 80)) * (short / (short + 300)) * (long / (long + 200));
}

/**
 * Mean share of `matrices` of attention's projections of `tokens` rows, of which a tensor-parallel rank has a part of
 * the heads. What goes down to the latents is not cut: each rank multiplies a part of the rows.
 */
function attentionShare(
  { heads, kvHeads, headDim, latent }: AttentionSpec,
  hidden: number,
  tokens: number,
  tp: number,
): number {
  const cut = (k: number, n: number): ProductSides => ({ rows: tokens, k, n, work: k * n * tp });
  const down = (n: number): ProductSides => ({ rows: tokens / tp, k: hidden, n, work: hidden * n });
  const own = heads / tp;
  const products =
    latent === null
      ? [cut(hidden, ((heads + 2 * kvHeads) * headDim) / tp), cut(own * headDim, hidden)]
      : [
          ...(latent.queryRank === null
            ? [cut(hidden, own * headDim)]
            : [down(latent.queryRank), cut(latent.queryRank, own * headDim)]),
          down(latent.kvRank + latent.ropeDim),
          cut(latent.kvRank, own * (headDim - latent.ropeDim + latent.valueDim)),
          cut(own * latent.valueDim, hidden),
        ];
  const work = products.reduce((sum, product) => sum + product.work, 0);
  return work / products.reduce((sum, { rows, k, n, work: part }) => sum + part / productShare(rows, k, n), 0);
}

/** One matrix product of a rank, [rows, k] x [k, n], and the multiply-adds per token of all ranks together. */
interface ProductSides {
  readonly rows: number;
  readonly k: number;
  readonly n: number;
  readonly work: number;
}

/**
 * How much faster products are in 8-bit floats: by the ratio of the peaks, because they reach the same shares of
 * theirs. (TileLang's `benchmark/matmul_fp8` has 858, 1129, 1343, 1467 and 1507 TFLOP/s on an H800 for [8192, k] x
 * [k, 8192], k from 512 to 8192: 0.43 to 0.76 of the peak, where `productShare` says 0.45 to 0.70.)
 */
function fp8Gain({ name, peak, fp8Peak }: Gpu): number {
  if (fp8Peak === null) throw inputError(`${name} has no speed in 8-bit floats`, { where: "precision" });
  return fp8Peak / peak;
}

/** Saved activations are written once and read about three times, forward and backward. This is our own estimate. */
const passesOverActivations = 4;

/**
 * Seconds of one optimizer step in a layout. `recomputed`: FLOPs per token that are computed again in the backward
 * pass. Throws inputError for FP8 on a GPU without.
 */
export function stepSeconds(
  { spec, gpu, gpus, sequence, speed, precision }: LayoutRequest,
  { flops, moe, moeLayers }: LayoutSums,
  layout: ParallelLayout,
  bytes: GpuBytes,
  recomputed: number,
): StepSeconds {
  const { tp, pp, vpp, cp, ep, etp, dp, edp, microBatch, microBatches } = layout;
  const tokens = (sequence * microBatch) / cp;
  const rows = tokens / tp;
  // Every stage waits for the longest one.
  const perStage = Math.ceil(spec.layers.length / pp);
  const waiting = (perStage * pp) / spec.layers.length;
  const { hidden } = spec;
  const row = 2 * hidden;
  const link = (span: number): number => speed.links * (span <= gpu.perNode ? gpu.intra : gpu.inter);

  // Cost of the forward pass of one token, in FLOPs at peak; every GPU does its share of the step's tokens.
  const share = (count: number, k: number, n: number): number => speed.matrices * productShare(count, k, n);
  const projections = speed.matrices * attentionShare(spec.attn, hidden, tokens, tp);
  const dense = spec.layers.find(({ ffn }) => ffn.kind === "dense")?.ffn;
  const ffn = dense === undefined ? 0 : flops.ffn / share(tokens, hidden, dense.ffnDim / tp);
  const shared = moe?.shared == null ? 0 : flops.shared / share(tokens, hidden, moe.shared.ffnDim / tp);
  const routed =
    moe === null ? 0 : flops.experts / share((rows * moe.topK * ep * etp) / moe.experts, hidden, moe.ffnDim / etp);
  const gain = precision === "fp8" ? fp8Gain(gpu) : 1;
  const head = flops.head / share(tokens, hidden, spec.vocab / tp);
  const blocks =
    (flops.projections / projections + ffn + shared + routed) / gain +
    flops.router / projections +
    flops.attention / speed.attention;
  const stepTokens = microBatches * microBatch * dp * sequence;
  const unit = stepTokens / (gpus * gpu.peak * speed.rest);
  const recompute = recomputed === 0 ? 0 : unit * blocks;
  const activationBytes =
    spec.layers.length *
    blockActivationBytes(spec, at(spec.layers, spec.layers.length - 1), "none", {
      tensor: 1,
      expertTensor: 1,
      imbalance: 1,
    });
  const elements = (passesOverActivations * activationBytes * stepTokens) / (gpus * gpu.hbm * speed.links);
  const compute = waiting * (unit * 3 * (blocks + head) + recompute + elements);

  // The rest is about one GPU and all micro-batches of the step.
  const layerRuns = microBatches * perStage;
  const mixed = moeLayers / spec.layers.length;
  // Attention, and a dense FFN or a shared expert: gather and scatter forward, the same and one gather more backward.
  const gathers = 5 * (1 + (1 - mixed) + (moe?.shared ? mixed : 0));
  const copies = moe?.topK ?? 0;
  const tensor =
    ((layerRuns * (gathers * row * tokens * (tp - 1))) / tp + layerRuns * mixed * 5 * row * rows * copies * (etp - 1)) /
    link(tp);
  // Dispatch and combine, forward and backward. The part that leaves the node goes over the slower link.
  const inside = Math.min(ep, Math.max(1, gpu.perNode / etp));
  const sent = (4 * row * rows * copies * layerRuns * mixed) / speed.links;
  const expert = ep === 1 ? 0 : sent * ((inside - 1) / ep / gpu.intra + (ep - inside) / ep / gpu.inter);
  // Keys and values round a ring, forward once and backward twice; half hides behind attention.
  const context =
    cp === 1 ? 0 : (0.5 * 3 * layerRuns * 4 * spec.attn.kvHeads * spec.attn.headDim * rows * (cp - 1)) / link(tp * cp);
  const busy = compute + tensor + expert + context;
  const handing = pp === 1 ? 0 : (2 * microBatches * vpp * row * rows) / link(gpus);
  const pipeline = (busy * (pp - 1)) / (vpp * microBatches) + handing;
  const shards = dp * cp;
  // Float32 gradients scattered, bfloat16 weights gathered, once a step.
  const reduce =
    (6 * bytes.plainParams * (shards - 1)) / shards / link(shards * tp) +
    (6 * bytes.expertParams * (edp - 1)) / edp / link(edp * ep * etp);
  const data = Math.max(0, reduce - 0.5 * busy);
  return { compute, recompute, tensor, expert, context, pipeline, data, total: busy + pipeline + data };
}
