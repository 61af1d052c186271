/**
 * Makes router rows out of what each layer's FFN reads on real text: the inputs are clustered by spherical k-means
 * (`surgery/planning/clusters.ts`), and the rows are the centroids, of length 1. So every expert begins with tokens of
 * its own kind. The method is that of cluster-aware upcycling (arXiv 2604.13508), without its low-rank experts.
 *
 * Letters: N tokens, H hidden size, E router rows.
 */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { randomStream } from "../../base/random.js";
import { openStreamedModel } from "../../evals/streamed-model.js";
import { slotKey } from "../../model/tensors/slots.js";
import { cluster, directionsOf, firstCentroids } from "../planning/clusters.js";
import { chosenLayers } from "../planning/layers.js";
import { recipeName } from "../planning/recipe.js";
import { rowCountOf, type RouterRows } from "../planning/router-rows.js";
import { sampledText, visitFfnInputs, type ReadText, type TextChoice } from "./ffn-inputs.js";
import { requireTokenizer, type LayerWork } from "./layer-work.js";

/** What to make a router from, and what runs the model. */
export type CentroidRouterOptions = LayerWork & TextChoice;

/** How one layer's inputs were clustered. */
export interface LayerClusters {
  /** Share of the tokens in the smallest and in the largest cluster. */
  readonly smallest: number;
  readonly largest: number;
  /** Mean cosine between a token's input and its centroid. */
  readonly cosine: number;
}

/** A router whose rows are centroids. */
export interface CentroidRouter extends ReadText {
  /** A matrix [E, H] for each layer with experts. */
  readonly rows: RouterRows;
  /** Null for layers that stay dense. */
  readonly clusters: readonly (LayerClusters | null)[];
}

/**
 * Makes the rows of every layer's router. Throws inputError for a recipe without centroids, a model without tokenizer,
 * text with fewer tokens than the router has rows, and inputs that have fewer directions than that.
 */
export async function centroidRouter({
  source: from,
  recipe,
  backend,
  threads,
  signal,
  onLayer,
  ...choice
}: CentroidRouterOptions): Promise<CentroidRouter> {
  if (recipe.routerInit?.kind !== "centroids")
    throw inputError("the recipe's router is not made of centroids", { where: `recipe ${recipeName(recipe)}` });
  await requireTokenizer(from, "router rows are to be centroids of what the FFNs read on text");
  const model = await openStreamedModel(from, backend, { threads, signal });
  try {
    const { dir, spec } = model;
    const chosen = chosenLayers(recipe, spec.layers.length);
    const sampled = await sampledText(model, choice, signal);
    const { tokens, source } = sampled;
    const count = rowCountOf(recipe);
    requireTokens(tokens, count, source);
    const rows: (Float32Array | null)[] = [];
    const clusters: (LayerClusters | null)[] = [];
    let seen: Float32Array[] = [];
    await visitFfnInputs(model, sampled, {
      wants: (layer) => at(chosen, layer),
      inputs: (_, inputs) => {
        seen.push(inputs.slice());
      },
      passed: (layer) => {
        const made = seen.length === 0 ? null : centroids(seen, spec.hidden, count, recipe.seed, layer, dir);
        rows.push(made?.rows ?? null);
        clusters.push(made?.clusters ?? null);
        seen = [];
        onLayer?.(layer + 1, spec.layers.length);
      },
    });
    return { rows, clusters, tokens, source };
  } finally {
    await model.close();
  }
}

/** Throws inputError for fewer tokens than there are to be clusters. */
function requireTokens(tokens: number, count: number, source: string): void {
  if (tokens >= count) return;
  throw inputError(`${tokens} tokens cannot have ${count} centroids`, {
    where: source,
    hint: `give more text, or more of it (--calibration-tokens), or use at most ${tokens} experts`,
  });
}

function centroids(
  seen: readonly Float32Array[],
  width: number,
  count: number,
  seed: number,
  layer: number,
  dir: string,
): { readonly rows: Float32Array; readonly clusters: LayerClusters } {
  const points = seen.reduce((sum, { length }) => sum + length, 0) / width;
  const inputs = new Float32Array(points * width);
  let end = 0;
  for (const part of seen) {
    inputs.set(part, end);
    end += part.length;
  }
  const directions = directionsOf(inputs, width);
  const stream = randomStream(seed, `${slotKey({ part: "router", layer })}.centroids`);
  const first = firstCentroids(directions, width, count, stream);
  if (first.length < count)
    throw inputError(
      `what the FFN of layer ${layer} reads has ${first.length} directions among ${points} tokens, too few for ` +
        `${count} centroids`,
      { where: dir, hint: "give more varied text, or use fewer experts" },
    );
  const { centroids: made, sizes, cosine } = cluster(directions, width, first);
  const shares = sizes.map((size) => size / points);
  return {
    rows: Float32Array.from(made),
    clusters: { smallest: Math.min(...shares), largest: Math.max(...shares), cosine },
  };
}
