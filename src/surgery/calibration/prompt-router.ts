/**
 * Makes router rows from prompts, so that a token is sent to the expert whose prompts it resembles. This is what
 * `mergekit-moe` does (public repository arcee-ai/mergekit, mergekit/moe/router.py), in float32 instead of bfloat16. A
 * row is made of one of two things:
 *
 * - `hidden`: at each layer, the residual stream that enters the layer, at each prompt's last token, averaged over the
 *   prompts;
 * - `cheap_embed`: the embeddings of all tokens of all prompts, summed and brought to length 1, the same for every
 *   layer;
 *
 * Those of the negative prompts are subtracted from those of the positive ones, and the difference is brought to length
 * 1. Every prompt begins with the BOS token, if the tokenizer has one. Letters: E experts, H hidden size.
 */
import { at, entryOf } from "../../base/at.js";
import { inputError, stopError } from "../../base/errors.js";
import { modelFolderOf } from "../../files/checkpoint/model-source.js";
import { openCheckpoint, type Checkpoint, type ModelSource } from "../../files/checkpoint/open.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { Backend } from "../../engine/runtime/runtime.js";
import { promptsOf, recipeName, type ExpertPrompts } from "../planning/recipe.js";
import type { RouterRows } from "../planning/router-rows.js";
import { withTokenizer, type TextTokenizer } from "../../text/tokenizer/load.js";
import { requireFiniteWeights } from "../../evals/finite-weights.js";
import { openStreamedModel, throughLayer } from "../../evals/streamed-model.js";
import { inTurn } from "./in-turn.js";
import { requireTokenizer, type LayerWork } from "./layer-work.js";

/** What to make a router from, and what runs the model. */
export type PromptRouterOptions = LayerWork;

/** A router that was made from prompts. */
export interface PromptRouter {
  /** A matrix [E, H] for each layer, [E + 1, H] where the shared expert has prompts. */
  readonly rows: RouterRows;
  readonly warnings: readonly string[];
}

/** A difference shorter than this has no direction. */
const shortest = 1e-8;
/** Rows whose cosine is above this send nearly the same tokens to both experts. */
const alike = 0.99;

/**
 * Makes the rows of every layer's router. Throws inputError for a model without tokenizer, a recipe without prompts, a
 * prompt without tokens or longer than the model's positions, and prompts whose rows vanish.
 */
export async function promptRouter({
  source,
  recipe,
  backend,
  threads,
  signal,
  onLayer,
}: PromptRouterOptions): Promise<PromptRouter> {
  const dir = modelFolderOf(source);
  const { routerInit } = recipe;
  const ofCopies = promptsOf(recipe);
  if (routerInit === null || ofCopies === null)
    throw inputError("the recipe has no prompts", { where: `recipe ${recipeName(recipe)}` });
  const { kind } = routerInit;
  const shared = recipe.sharedParent?.prompts ?? null;
  const prompts = shared === null ? ofCopies : [...ofCopies, shared];
  await requireTokenizer(
    source,
    `the router is to be made from prompts (${kind})`,
    "put its tokenizer beside it, or use a drawn router (gate_mode: random)",
  );
  const encoded = await withTokenizer(dir, { signal }, (tokenizer) =>
    encodePrompts(tokenizer, dir, prompts, recipe.expansion),
  );
  const rows =
    kind === "hidden"
      ? await hiddenRows(source, encoded, backend, { threads, signal }, onLayer)
      : await embeddingRows(source, encoded);
  return { rows, warnings: alikeWarnings(rows, prompts.length) };
}

interface Encoded {
  /** `copy 3`, or `the shared expert`. */
  readonly whose: string;
  readonly positive: readonly Int32Array[];
  readonly negative: readonly Int32Array[];
}

async function encodePrompts(
  tokenizer: TextTokenizer,
  dir: string,
  prompts: readonly ExpertPrompts[],
  copies: number,
): Promise<Encoded[]> {
  const encode = async (text: string, whose: string): Promise<Int32Array> => {
    const ids = await tokenizer.encode(text);
    const all = tokenizer.bosId === undefined ? ids : Int32Array.of(tokenizer.bosId, ...ids);
    if (all.length === 0)
      throw inputError(`a prompt of ${whose} has no tokens: ${JSON.stringify(text)}`, { where: dir });
    return all;
  };
  const all: Encoded[] = [];
  for (const [copy, { positive, negative }] of prompts.entries()) {
    const whose = copy < copies ? `copy ${copy}` : "the shared expert";
    all.push({
      whose,
      positive: await inTurn(positive, (text) => encode(text, whose)),
      negative: await inTurn(negative, (text) => encode(text, whose)),
    });
  }
  return all;
}

/** One pass over the layers for all prompts: weights pass by once. */
async function hiddenRows(
  source: ModelSource,
  encoded: readonly Encoded[],
  backend: Backend,
  options: { threads: number; signal: AbortSignal | undefined },
  onLayer: PromptRouterOptions["onLayer"],
): Promise<RouterRows> {
  const model = await openStreamedModel(source, backend, options);
  try {
    const { dir, spec } = model;
    requirePositions(encoded, spec, dir);
    const shapeOf = (ids: Int32Array): { batch: number; sequence: number } => ({ batch: 1, sequence: ids.length });
    const texts = encoded.flatMap(({ positive, negative }) => [...positive, ...negative]);
    let streams = await inTurn(texts, (ids) => model.embed(ids, shapeOf(ids)));
    const rows: Float32Array[] = [];
    for (let layer = 0; layer < spec.layers.length; layer++) {
      requireFiniteWeights(model);
      const last = streams.map((x) => x.subarray(x.length - spec.hidden));
      // Streams are in the order of `texts`: the positive prompts of the first expert, its negative ones, and so on.
      let start = 0;
      const nextAverage = (count: number): Float64Array => {
        start += count;
        return averageOf(last.slice(start - count, start), spec.hidden);
      };
      const directions = encoded.map(({ whose, positive, negative }) =>
        direction(nextAverage(positive.length), nextAverage(negative.length), `${whose}, layer ${layer}`, dir),
      );
      rows.push(joined(directions, spec.hidden));
      // Nobody reads what leaves the last layer.
      if (layer + 1 < spec.layers.length)
        streams = await inTurn(streams, (x, i) => throughLayer(model, layer, x, shapeOf(at(texts, i))));
      onLayer?.(layer + 1, spec.layers.length);
    }
    return rows;
  } finally {
    await model.close();
  }
}

/** The rows of all layers, from the embeddings of the prompts' tokens. */
async function embeddingRows(source: ModelSource, encoded: readonly Encoded[]): Promise<RouterRows> {
  const checkpoint = await openCheckpoint(source);
  try {
    const { dir, spec } = checkpoint;
    const embeddings = await embeddingsOf(checkpoint, encoded);
    if (![...embeddings.values()].every((row) => row.every(Number.isFinite)))
      throw stopError("embeddings of the prompts are NaN or infinite: the model is damaged", {
        where: dir,
        hint: "use an earlier checkpoint",
      });
    const sumOf = (texts: readonly Int32Array[]): Float64Array => {
      const tokens = texts.flatMap((ids) => Array.from(ids, (id) => entryOf(embeddings, id)));
      return unit(averageOf(tokens, spec.hidden));
    };
    const directions = encoded.map(({ whose, positive, negative }) =>
      direction(sumOf(positive), sumOf(negative), whose, dir),
    );
    const matrix = joined(directions, spec.hidden);
    return spec.layers.map(() => matrix);
  } finally {
    await checkpoint.close();
  }
}

/**
 * The embedding of every token of the prompts, by token id. Throws inputError for an id that the model does not have.
 */
async function embeddingsOf(
  checkpoint: Checkpoint,
  encoded: readonly Encoded[],
): Promise<ReadonlyMap<number, Float32Array>> {
  const { dir, spec } = checkpoint;
  const ids = new Set(
    encoded.flatMap(({ positive, negative }) => [...positive, ...negative].flatMap((text) => [...text])),
  );
  const embeddings = new Map<number, Float32Array>();
  for (const id of ids) {
    if (id >= spec.vocab)
      throw inputError(`the tokenizer gives id ${id}, the model has ${spec.vocab}`, {
        where: dir,
        hint: "is this the model's own tokenizer?",
      });
    embeddings.set(id, await checkpoint.readRows("embed", id, 1));
  }
  return embeddings;
}

function requirePositions(encoded: readonly Encoded[], { maxPositions }: DecoderSpec, dir: string): void {
  encoded.forEach(({ whose, positive, negative }) => {
    const longest = Math.max(...[...positive, ...negative].map((ids) => ids.length));
    if (longest > maxPositions)
      throw inputError(`a prompt of ${whose} has ${longest} tokens, the model has ${maxPositions} positions`, {
        where: dir,
        hint: "shorten it",
      });
  });
}

/** The average of rows of `hidden` values; zeros if there are none. */
function averageOf(rows: readonly Float32Array[], hidden: number): Float64Array {
  const sum = new Float64Array(hidden);
  for (const row of rows) for (const [i, value] of row.entries()) sum[i] = at(sum, i) + value / rows.length;
  return sum;
}

function unit(values: Float64Array): Float64Array {
  const norm = Math.max(Math.hypot(...values), shortest);
  return values.map((value) => value / norm);
}

function direction(positive: Float64Array, negative: Float64Array, what: string, dir: string): Float64Array {
  const difference = positive.map((value, i) => value - at(negative, i));
  if (!(Math.hypot(...difference) > shortest)) {
    throw inputError(`the prompts of ${what} give no direction: the positive ones less the negative ones are zero`, {
      where: dir,
      hint: "use other prompts",
    });
  }
  return unit(difference);
}

function joined(rows: readonly Float64Array[], hidden: number): Float32Array {
  const matrix = new Float32Array(rows.length * hidden);
  rows.forEach((row, i) => matrix.set(row, i * hidden));
  return matrix;
}

/** One remark on the two experts whose rows are most alike, if any rows are too much alike. */
function alikeWarnings(rows: RouterRows, count: number): string[] {
  const pairs = rows.flatMap((matrix, layer) =>
    matrix === null ? [] : alikePairs(matrix, count).map((pair) => ({ ...pair, layer })),
  );
  const [first, ...others] = pairs;
  if (first === undefined) return [];
  const worst = others.reduce((a, b) => (b.cosine > a.cosine ? b : a), first);
  const layers = new Set(pairs.map(({ layer }) => layer));
  return [
    `the prompts are too much alike in ${layers.size} of ${rows.length} layers (experts ${worst.a} and ${worst.b} ` +
      `at layer ${worst.layer}: cosine ${worst.cosine.toFixed(4)}), so tokens would choose both or neither`,
  ];
}

/** Every two of `count` rows, all of length 1, whose cosine is above `alike`. */
function alikePairs(matrix: Float32Array, count: number): { a: number; b: number; cosine: number }[] {
  const hidden = matrix.length / count;
  const rowOf = (expert: number): Float32Array => matrix.subarray(expert * hidden, (expert + 1) * hidden);
  const pairs: { a: number; b: number; cosine: number }[] = [];
  for (let a = 0; a < count; a++) {
    for (let b = a + 1; b < count; b++) {
      const cosine = dot(rowOf(a), rowOf(b));
      if (cosine > alike) pairs.push({ a, b, cosine });
    }
  }
  return pairs;
}

function dot(x: Float32Array, y: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * y[i]!;
  return sum;
}
