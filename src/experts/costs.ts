/**
 * What it costs to leave experts out or to merge them: the model's loss on held-out sequences with the change, against
 * its loss as it is. A change is followed from its first layer on beside the model itself, so that each layer's weights
 * pass by once for all of them and nothing is computed twice in front of a change.
 */
import { at, entryOf } from "../base/at.js";
import { meanOf } from "../base/mean.js";
import { unchangedFfn, type FfnChange } from "../evals/ffn-change.js";
import { throughLayer, type StreamedModel } from "../evals/streamed-model.js";
import { tokenLosses } from "../evals/token-losses.js";
import { studentQuantile } from "../laws/fitting/distributions.js";
import type { ChangeCost, ExpertsChange } from "../model/results/experts.js";
import { smallestOf } from "../base/extremes.js";
import { batchesOf, idsOf, joined } from "./observe.js";
import type { Sequence } from "./texts.js";

/** A change to measure. */
export interface AskedChange extends ExpertsChange {
  readonly asked: boolean;
  readonly expected: number | null;
}

/** The model's own loss and the costs of all changes. */
export interface Costs {
  readonly loss: number;
  /** Cheapest first. */
  readonly costs: readonly ChangeCost[];
}

/** Measures all changes. `onLayer` hears how many layers of how many are done; `checkpoint` throws to stop. */
export async function measureCosts(
  model: StreamedModel,
  sequences: readonly Sequence[],
  changes: readonly AskedChange[],
  texts: number,
  onLayer: (done: number, total: number) => void,
): Promise<Costs> {
  const batches = batchesOf(sequences);
  const own: number[] = [];
  const changed = changes.map((): number[] => []);
  for (const [i, batch] of batches.entries()) {
    const layers = model.spec.layers.length;
    const losses = await batchLosses(model, batch, changes, (done) =>
      onLayer(i * layers + done, batches.length * layers),
    );
    own.push(...losses.own);
    losses.changed.forEach((values, change) => at(changed, change).push(...values));
  }
  const costs = changes.map((change, i) => costOf(change, own, at(changed, i), sequences, texts));
  return { loss: meanOf(own), costs: costs.sort((a, b) => a.difference - b.difference) };
}

/** Mean losses of the sequences of a batch, of the model and of each change. */
async function batchLosses(
  model: StreamedModel,
  batch: readonly Sequence[],
  changes: readonly AskedChange[],
  onLayer: (done: number) => void,
): Promise<{ readonly own: number[]; readonly changed: readonly number[][] }> {
  const sequence = at(batch, 0).ids.length;
  const shape = { batch: batch.length, sequence };
  const byLayer = changes.map(changesByLayer);
  const begins = byLayer.map((layers) => smallestOf(layers.keys()));
  let x = await model.embed(idsOf(batch), shape);
  const streams = new Map<number, Float32Array>();
  for (let layer = 0; layer < model.spec.layers.length; layer++) {
    for (const [i, layers] of byLayer.entries()) {
      if (layer < at(begins, i)) continue;
      const from = streams.get(i) ?? x;
      streams.set(i, await throughLayer(model, layer, from, shape, layers.get(layer)));
    }
    x = await throughLayer(model, layer, x, shape);
    onLayer(layer + 1);
  }
  const targets = joined(
    Int32Array,
    batch.map((one) => one.targets),
  );
  const meanBySequence = async (stream: Float32Array): Promise<number[]> => {
    const losses = await tokenLosses(model, await model.final(stream), targets);
    return batch.map((_, i) => meanOf(losses.subarray(i * sequence, (i + 1) * sequence)));
  };
  const own = await meanBySequence(x);
  const changed: number[][] = [];
  for (const i of changes.keys()) changed.push(await meanBySequence(entryOf(streams, i)));
  return { own, changed };
}

/** What a change does to each layer that it names. */
function changesByLayer({ kind, groups }: ExpertsChange): ReadonlyMap<number, FfnChange> {
  const layers = new Map<number, FfnChange>();
  for (const { layer, experts } of groups) {
    const { without, merged } = layers.get(layer) ?? unchangedFfn;
    layers.set(
      layer,
      kind === "without" ? { without: [...without, ...experts], merged } : { without, merged: [...merged, experts] },
    );
  }
  return layers;
}

/** The paired difference of a change, over sequences of one length. */
function costOf(
  change: AskedChange,
  own: readonly number[],
  changed: readonly number[],
  sequences: readonly Sequence[],
  texts: number,
): ChangeCost {
  const differences = changed.map((loss, i) => loss - at(own, i));
  const difference = meanOf(differences);
  const error = standardError(differences);
  const reach = error === null ? null : studentQuantile(0.975, differences.length - 1) * error;
  const ofText = (text: number): number[] => differences.filter((_, i) => at(sequences, i).text === text);
  return {
    ...change,
    loss: meanOf(changed),
    difference,
    error,
    interval: reach === null ? null : [difference - reach, difference + reach],
    byText: Array.from({ length: texts }, (_, text) => meanOf(ofText(text))),
  };
}

/** Standard error of the mean of some values; null for a single one. */
function standardError(values: readonly number[]): number | null {
  if (values.length < 2) return null;
  const mean = meanOf(values);
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1) / values.length);
}
