/**
 * Measures on text which hidden units of each FFN are active together, and splits the FFN by it
 * (`surgery/planning/activation-split.ts`): a shared expert of the units that are active most, clusters of the others,
 * and router rows that are the directions of the weights of each cluster's representative unit (its row of gate, or of
 * up where there is no gate).
 *
 * The authors' router computes |act(gate x) up x| for every representative, which no released architecture does; a
 * linear one has to do, and the row of gate is the part that decides whether the unit is active. Its length changes no
 * choice. It is set so that logits have a standard deviation of `logitStd` on the text, because the selected experts
 * then begin with nearly equal weights, as they do in CMoE.
 *
 * Letters: N tokens, H hidden size, F hidden units, G parts.
 */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { openStreamedModel } from "../../evals/streamed-model.js";
import { openCheckpoint, type Checkpoint } from "../../files/checkpoint/open.js";
import { slotKey } from "../../model/tensors/slots.js";
import { Activity, splitByActivity } from "../planning/activation-split.js";
import { ffnOf } from "../planning/ffn-tensors.js";
import { chosenLayers } from "../planning/layers.js";
import { recipeName } from "../planning/recipe.js";
import type { RouterRows, UnitOrders } from "../planning/router-rows.js";
import { sampledText, visitFfnInputs, type ReadText, type TextChoice } from "./ffn-inputs.js";
import { requireTokenizer, type LayerWork } from "./layer-work.js";

/** What to split, on which text, and what runs the model. */
export type SplitOptions = LayerWork & TextChoice;

/** How all FFNs are split. */
export interface MeasuredSplit extends ReadText {
  /** A matrix [G, H] for each layer with experts. */
  readonly rows: RouterRows;
  readonly orders: UnitOrders;
  /** For which share of the tokens a unit of the shared expert is active, in the mean over layers; of others. */
  readonly sharedRate: number;
  readonly routedRate: number;
}

/** Standard deviation of the router's logits on the text that the split was measured on. */
const logitStd = 0.1;

/**
 * Splits every FFN. Throws inputError for a recipe without such a split, a model without tokenizer, and text with fewer
 * tokens than there are parts.
 */
export async function activationSplit({
  source: from,
  recipe,
  backend,
  threads,
  signal,
  onLayer,
  ...choice
}: SplitOptions): Promise<MeasuredSplit> {
  const { granularity, shared } = recipe;
  if (recipe.split === null)
    throw inputError("the recipe does not split by activation", { where: `recipe ${recipeName(recipe)}` });
  await requireTokenizer(from, "the FFNs' activations are to be measured on text");
  const checkpoint = await openCheckpoint(from);
  const model = await openStreamedModel(from, backend, { threads, signal }).catch(async (cause: unknown) => {
    await checkpoint.close();
    throw cause;
  });
  try {
    const { spec } = model;
    const chosen = chosenLayers(recipe, spec.layers.length);
    const sampled = await sampledText(model, choice, signal);
    const { tokens, source } = sampled;
    if (tokens < granularity)
      throw inputError(`${tokens} tokens do not tell ${granularity} parts apart`, {
        where: source,
        hint: "give more text, or more of it (--calibration-tokens), or use a smaller G",
      });
    const rows: (Float32Array | null)[] = [];
    const orders: (Int32Array | null)[] = [];
    const rates: { readonly sharedRate: number; readonly routedRate: number }[] = [];
    let seen: Float32Array[] = [];
    let activity: Activity | null = null;
    await visitFfnInputs(model, sampled, {
      wants: (layer) => at(chosen, layer),
      inputs: async (layer, inputs) => {
        const { ffnDim } = ffnOf(spec, layer);
        activity ??= new Activity(ffnDim, tokens);
        const activations = await model.units(layer, inputs);
        for (let start = 0; start < activations.length; start += ffnDim)
          activity.add(activations.subarray(start, start + ffnDim));
        seen.push(inputs.slice());
      },
      passed: async (layer) => {
        const split = activity === null ? null : splitByActivity(activity, shared ?? 0, granularity);
        orders.push(split?.order ?? null);
        rows.push(split === null ? null : await routerRows(checkpoint, layer, split.representatives, seen));
        if (split !== null) rates.push(split);
        [activity, seen] = [null, []];
        onLayer?.(layer + 1, spec.layers.length);
      },
    });
    const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
    return {
      rows,
      orders,
      tokens,
      source,
      sharedRate: mean(rates.map(({ sharedRate }) => sharedRate)),
      routedRate: mean(rates.map(({ routedRate }) => routedRate)),
    };
  } finally {
    await model.close();
    await checkpoint.close();
  }
}

/** The directions of the representatives' weights, all of one length; see `logitStd`. */
async function routerRows(
  checkpoint: Checkpoint,
  layer: number,
  representatives: readonly number[],
  inputs: readonly Float32Array[],
): Promise<Float32Array> {
  const { spec } = checkpoint;
  const { hidden } = spec;
  const key = slotKey({ part: ffnOf(spec, layer).gated ? "gate" : "up", layer });
  const rows = new Float32Array(representatives.length * hidden);
  for (const [part, unit] of representatives.entries()) {
    const row = await checkpoint.readRows(key, unit, 1);
    const length = Math.hypot(...row);
    // A unit without weights is never active; its row stays zero.
    rows.set(length === 0 ? row : row.map((value) => value / length), part * hidden);
  }
  const std = logitSpread(rows, inputs, hidden);
  return std === 0 ? rows : rows.map((value) => (value * logitStd) / std);
}

/** Standard deviation of a token's logits about their mean, over all tokens. */
function logitSpread(rows: Float32Array, inputs: readonly Float32Array[], hidden: number): number {
  const parts = rows.length / hidden;
  let [count, squares] = [0, 0];
  const logits = new Float64Array(parts);
  for (const matrix of inputs) {
    for (let token = 0; token < matrix.length; token += hidden) {
      for (let part = 0; part < parts; part++) {
        let sum = 0;
        for (let i = 0; i < hidden; i++) sum += rows[part * hidden + i]! * matrix[token + i]!;
        logits[part] = sum;
      }
      const mean = logits.reduce((a, b) => a + b, 0) / parts;
      for (const logit of logits) squares += (logit - mean) ** 2;
      count += parts;
    }
  }
  return Math.sqrt(squares / count);
}
