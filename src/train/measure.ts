/** Held-out loss and expert load of the current weights. */
import { at } from "../base/at.js";
import type { LossMetrics, TrainRuntime } from "../engine/runtime/runtime.js";
import { deadExperts, unseenCollapse } from "../model/results/collapse.js";
import { PairCounter, strongestPairs, weighted, type PairShares } from "./pairs.js";
import type { EvalRecord, RoutingRecord, TrainedRouting } from "./records.js";
import type { RunOptions } from "./types.js";
import { evalBatches, type EvalSettings, type TokenRow } from "../text/tokens/batches.js";
import { shares, type MixPart } from "../text/tokens/mix.js";

/** What one measurement of the current weights gives. */
export interface Measured {
  /** Mean next-token cross entropy in nats over all measured tokens. */
  readonly loss: number;
  /** Fractions of all assignments per expert, by MoE layer. */
  readonly load: number[][];
  /** Mean entropy of each router's softmax, in nats. */
  readonly entropy: number[];
  /** Share of the tokens that were given to both experts of each pair, by MoE layer; see `PairShares`. */
  readonly pairs: PairShares[];
}

interface MeasureSettings extends EvalSettings {
  /** Which weights are measured; the current ones if left out. */
  readonly weights?: "weight" | "average";
}

/**
 * Measures one row of tokens, or the parts of a data mix: there the weighted mean of losses and loads, each part
 * measured on its share of the tokens.
 */
export async function measureAll(
  runtime: TrainRuntime,
  text: TokenRow | readonly MixPart[],
  settings: MeasureSettings & { readonly limitTokens: number },
): Promise<Measured & { readonly parts: Readonly<Record<string, number>> | null }> {
  if (ArrayBuffer.isView(text)) return { ...(await measure(runtime, text, settings)), parts: null };
  const parts: Record<string, number> = {};
  let loss = 0;
  let load: number[][] = [];
  let entropy: number[] = [];
  let pairs: PairShares[] = [];
  for (const [i, share] of shares(text).entries()) {
    const { name, tokens } = at(text, i);
    const measured = await measure(runtime, tokens, {
      ...settings,
      limitTokens: Math.max(1, Math.round(settings.limitTokens * share)),
    });
    parts[name] = measured.loss;
    loss += share * measured.loss;
    load = measured.load.map((layer, l) => layer.map((value, e) => share * value + (load[l]?.[e] ?? 0)));
    entropy = measured.entropy.map((value, l) => share * value + (entropy[l] ?? 0));
    pairs = measured.pairs.map((layer, l) => weighted(layer, share, pairs[l]));
  }
  return { loss, load, entropy, pairs, parts };
}

/** Measures the current weights on one row of tokens. */
export async function measure(runtime: TrainRuntime, tokens: TokenRow, settings: MeasureSettings): Promise<Measured> {
  let sum = 0;
  let count = 0;
  let load: number[][] = [];
  let entropies: number[] = [];
  let batches = 0;
  const pairs = new PairCounter();
  for (const batch of evalBatches(tokens, settings)) {
    const { loss, counts, entropy, chosen } = await runtime.evaluate(
      { ids: batch.inputs, targets: batch.targets },
      settings.weights,
    );
    sum += loss * batch.count;
    count += batch.count;
    // The last batch may be padded, and padding is routed too: it counts only where there is nothing else.
    if (load.length > 0 && batch.count < settings.batch * settings.sequence) continue;
    batches++;
    entropies = entropy.map((value, l) => value + (entropies[l] ?? 0));
    pairs.add(
      chosen,
      counts.map(({ length }) => length),
      settings.batch * settings.sequence,
    );
    load = counts.map((layer, l) => layer.map((value, e) => value + (load[l]?.[e] ?? 0)));
  }
  return {
    loss: sum / count,
    load: load.map((layer) => fractions(layer)),
    entropy: entropies.map((value) => value / batches),
    pairs: pairs.shares,
  };
}

/** What a log says of experts that serve the same tokens; nothing where no token is given to two. */
export function coactivationRecord({ pairs }: Pick<Measured, "pairs">): Pick<EvalRecord, "coactivation"> {
  return pairs.some(({ shares: layer }) => layer.length > 0) ? { coactivation: pairs.map(strongestPairs) } : {};
}

/** What a log says of routing, or nothing for a dense model. */
export function routingRecord({ load, entropy }: Pick<Measured, "load" | "entropy">): {
  readonly routing?: RoutingRecord;
} {
  if (load.length === 0) return {};
  return {
    routing: {
      entropy,
      maxViolation: load.map((layer) => Math.max(...layer) * layer.length - 1),
      dead: load.map(deadExperts),
    },
  };
}

/**
 * What a log says once of a load-balancing loss over all layers together that does not show that layers have collapsed.
 * `balanceLoss`: of the last step, null before the first.
 */
export function collapseRecord(
  load: Measured["load"],
  { spec, block }: Pick<RunOptions, "spec" | "block">,
  balanceLoss: number | null,
): Pick<EvalRecord, "unseenCollapse"> {
  if (balanceLoss === null || block.routing?.balance !== "model" || block.auxLoss === 0) return {};
  const topK = spec.layers.flatMap(({ ffn }) => (ffn.kind === "moe" ? [ffn.topK] : []));
  const found = unseenCollapse(load, balanceLoss, topK);
  return found === null ? {} : { unseenCollapse: found };
}

/** What a log says of the routing of one step, or nothing for a dense model. */
export function trainedRouting(
  { counts, kept, entropy }: Pick<LossMetrics, "counts" | "kept" | "entropy">,
  withLoad: boolean,
): { readonly routing?: TrainedRouting } {
  const load = counts.map(fractions);
  const { routing } = routingRecord({ load, entropy: [...entropy] });
  if (routing === undefined) return {};
  const sum = (layer: readonly number[]): number => layer.reduce((a, b) => a + b, 0);
  const dropped = kept.length === 0 ? {} : { dropped: kept.map((layer, l) => 1 - sum(layer) / sum(at(counts, l))) };
  return { routing: { ...routing, ...dropped, ...(withLoad ? { load } : {}) } };
}

/** Each count's share of all; NaN where there are none. */
function fractions(counts: readonly number[]): number[] {
  const total = counts.reduce((a, b) => a + b, 0);
  return counts.map((count) => count / total);
}
