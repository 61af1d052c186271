/** Held-out loss and expert load of the current weights. */
import type { TrainRuntime } from "../step/runtime.js";
import { evalBatches, type EvalSettings } from "../text/batches.js";

export interface Measured {
  /** Mean next-token cross entropy in nats over all measured tokens. */
  readonly loss: number;
  /** Fractions of all assignments per expert, by MoE layer. */
  readonly load: number[][];
}

export async function measure(runtime: TrainRuntime, tokens: Int32Array, settings: EvalSettings): Promise<Measured> {
  let sum = 0;
  let count = 0;
  let load: number[][] = [];
  for (const batch of evalBatches(tokens, settings)) {
    const { loss, counts } = await runtime.evaluate({ ids: batch.inputs, targets: batch.targets });
    sum += loss * batch.count;
    count += batch.count;
    // The last batch may be padded, and padding is routed too: it counts only where there is nothing else.
    if (load.length > 0 && batch.count < settings.batch * settings.sequence) continue;
    load = counts.map((layer, l) => layer.map((value, e) => value + (load[l]?.[e] ?? 0)));
  }
  return { loss: sum / count, load: load.map((layer) => fractions(layer)) };
}

function fractions(counts: readonly number[]): number[] {
  const total = counts.reduce((a, b) => a + b, 0);
  return counts.map((count) => count / total);
}
