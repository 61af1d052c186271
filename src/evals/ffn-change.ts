/**
 * A layer of experts with some of them left out or merged, as a change of how it is run: nothing is written.
 *
 * - An expert that is left out is never chosen: its choice goes to the next best.
 * - Merged experts keep their rows of the router and share one set of weights, the mean of theirs (Li et al. 2023,
 *   arXiv 2310.01334, merges so too, weighted by how often each is chosen). Hidden units are matched by their place,
 *   as copies of one FFN have them.
 */
import { at } from "../base/at.js";
import { slotKey } from "../model/tensors/slots.js";
import type { WeightSource } from "./weight-rows.js";

/** What is changed of one layer of experts. */
export interface FfnChange {
  /** Experts that the router may not choose. */
  readonly without: readonly number[];
  /** Groups of experts that share the mean of their weights; no expert is in two groups. */
  readonly merged: readonly (readonly number[])[];
}

/** No change. */
export const unchangedFfn: FfnChange = { without: [], merged: [] };

const expertParts = ["gate", "up", "down", "gateBias", "upBias", "downBias"] as const;

/** The weights with those of merged experts of one layer replaced by their mean. */
export function mergedExperts(weights: WeightSource, layer: number, groups: FfnChange["merged"]): WeightSource {
  if (groups.length === 0) return weights;
  const sources = new Map<string, readonly string[]>();
  for (const group of groups)
    for (const part of expertParts) {
      const keys = group.map((expert) => slotKey({ part, layer, expert }));
      for (const key of keys) sources.set(key, keys);
    }
  return {
    readFloat32: async (key) =>
      meanOver(
        sources.get(key),
        (one) => weights.readFloat32(one),
        () => weights.readFloat32(key),
      ),
    readRows: async (key, start, count, memory) =>
      meanOver(
        sources.get(key),
        // The memory is for one result; the others get their own.
        (one, index) => weights.readRows(one, start, count, index === 0 ? memory : undefined),
        () => weights.readRows(key, start, count, memory),
      ),
  };
}

/** The mean of what is read of each key, in the first one's memory; what `plain` reads where there are no keys. */
async function meanOver(
  keys: readonly string[] | undefined,
  read: (key: string, index: number) => Promise<Float32Array>,
  plain: () => Promise<Float32Array>,
): Promise<Float32Array> {
  if (keys === undefined) return plain();
  const all: Float32Array[] = [];
  for (const [index, key] of keys.entries()) all.push(await read(key, index));
  const mean = at(all, 0);
  for (let i = 0; i < mean.length; i++) {
    let sum = 0;
    for (const values of all) sum += values[i]!;
    mean[i] = sum / all.length;
  }
  return mean;
}
