/**
 * Router rows from prompts: a token is sent to the expert whose prompts it resembles. What `mergekit-moe` does (public
 * repository arcee-ai/mergekit, mergekit/moe/router.py), in float32 instead of bfloat16:
 *
 * - `hidden`: at each layer, the residual stream that enters the layer, at each prompt's last token, averaged over the
 *   prompts;
 * - `cheap_embed`: the embeddings of all tokens of all prompts, summed and brought to length 1, the same for every
 *   layer;
 *
 * those of the negative prompts subtracted, then brought to length 1. Every prompt begins with the BOS token, where the
 * tokenizer has one.
 */
import { join } from "node:path";
import { inputError } from "../../base/errors.js";
import { modelFolderOf } from "../../files/checkpoint/model-source.js";
import { openCheckpoint, type ModelSource } from "../../files/checkpoint/open.js";
import { exists } from "../../files/io/atomic.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { Backend } from "../../engine/runtime/runtime.js";
import { recipeName, type ExpertPrompts, type UpcycleRecipe } from "../planning/recipe.js";
import type { RouterRows } from "../planning/router-rows.js";
import { withTokenizer, type TextTokenizer } from "../../text/tokenizer/load.js";
import { openStreamedModel, throughLayer } from "../../evals/streamed-model.js";

export interface PromptRouterOptions {
  /** The base's folder, with its tokenizer. */
  readonly source: ModelSource;
  readonly recipe: UpcycleRecipe;
  readonly backend: Backend;
  readonly threads: number;
  readonly signal?: AbortSignal | undefined;
  readonly onLayer?: ((done: number, total: number) => void) | undefined;
}

export interface PromptRouter {
  /** [E, H] for each layer, [E + 1, H] where the shared expert has prompts. */
  readonly rows: RouterRows;
  readonly warnings: readonly string[];
}

/** Shorter than this counts as no direction. */
const shortest = 1e-8;
/** Rows whose cosine is above this send nearly the same tokens to both experts. */
const alike = 0.99;

/**
 * Throws inputError for a model without tokenizer, a recipe without prompts, a prompt without tokens or longer than the
 * model's positions, and prompts whose rows vanish.
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
  if (routerInit === null || routerInit.kind === "uniform_random")
    throw inputError("the recipe has no prompts", { where: `recipe ${recipeName(recipe)}` });
  const { kind } = routerInit;
  const shared = recipe.sharedParent?.prompts ?? null;
  const prompts = shared === null ? routerInit.prompts : [...routerInit.prompts, shared];
  if (!(await exists(join(dir, "tokenizer.json")))) {
    throw inputError(`the router is to be made from prompts (${kind}), but the model has no tokenizer.json`, {
      where: dir,
      hint: "put its tokenizer beside it, or use a drawn router (gate_mode: random)",
    });
  }
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
      const last = streams.map((x) => x.subarray(x.length - spec.hidden));
      let at = 0;
      const take = (count: number): Float64Array => averageOf(last.slice(at, (at += count)), spec.hidden);
      rows.push(
        joined(
          encoded.map(({ whose, positive, negative }) =>
            direction(take(positive.length), take(negative.length), `${whose}, layer ${layer}`, dir),
          ),
          spec.hidden,
        ),
      );
      // Nobody reads what leaves the last layer.
      if (layer + 1 < spec.layers.length)
        streams = await inTurn(streams, (x, i) => throughLayer(model, layer, x, shapeOf(texts[i]!)));
      onLayer?.(layer + 1, spec.layers.length);
    }
    return rows;
  } finally {
    await model.close();
  }
}

async function embeddingRows(source: ModelSource, encoded: readonly Encoded[]): Promise<RouterRows> {
  const checkpoint = await openCheckpoint(source);
  try {
    const {
      dir,
      spec: { hidden, layers, vocab },
    } = checkpoint;
    const known = new Map<number, Float32Array>();
    for (const { positive, negative } of encoded) {
      for (const id of [...positive, ...negative].flatMap((ids) => [...ids])) {
        if (id >= vocab)
          throw inputError(`the tokenizer gives id ${id}, the model has ${vocab}`, {
            where: dir,
            hint: "is this the model's own tokenizer?",
          });
        if (!known.has(id)) known.set(id, await checkpoint.readRows("embed", id, 1));
      }
    }
    const sumOf = (texts: readonly Int32Array[]): Float64Array =>
      unit(
        averageOf(
          texts.flatMap((ids) => [...ids].map((id) => known.get(id)!)),
          hidden,
        ),
      );
    const own = joined(
      encoded.map(({ whose, positive, negative }) => direction(sumOf(positive), sumOf(negative), whose, dir)),
      hidden,
    );
    return layers.map(() => own);
  } finally {
    await checkpoint.close();
  }
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

/** Zeros where there are none. */
function averageOf(rows: readonly Float32Array[], hidden: number): Float64Array {
  const sum = new Float64Array(hidden);
  for (const row of rows) for (let i = 0; i < hidden; i++) sum[i]! += row[i]! / rows.length;
  return sum;
}

function unit(values: Float64Array): Float64Array {
  const norm = Math.max(Math.hypot(...values), shortest);
  return values.map((value) => value / norm);
}

function direction(positive: Float64Array, negative: Float64Array, what: string, dir: string): Float64Array {
  const difference = positive.map((value, i) => value - negative[i]!);
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

/** One remark for the most alike pair of experts in the layers where there is one. */
function alikeWarnings(rows: RouterRows, count: number): string[] {
  let [worst, words] = [alike, ""];
  const layers = new Set<number>();
  rows.forEach((matrix, layer) => {
    const hidden = matrix!.length / count;
    for (let a = 0; a < count; a++) {
      for (let b = a + 1; b < count; b++) {
        let cosine = 0;
        for (let i = 0; i < hidden; i++) cosine += matrix![a * hidden + i]! * matrix![b * hidden + i]!;
        if (cosine <= alike) continue;
        layers.add(layer);
        if (cosine > worst) [worst, words] = [cosine, `experts ${a} and ${b} at layer ${layer}`];
      }
    }
  });
  if (layers.size === 0) return [];
  return [
    `the prompts are too much alike in ${layers.size} of ${rows.length} layers (${words}: cosine ` +
      `${worst.toFixed(4)}), so tokens would choose both or neither`,
  ];
}

async function inTurn<A, B>(items: readonly A[], work: (item: A, index: number) => Promise<B>): Promise<B[]> {
  const done: B[] = [];
  for (const [index, item] of items.entries()) done.push(await work(item, index));
  return done;
}
