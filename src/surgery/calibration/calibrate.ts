/**
 * Measures what calibrated scaling needs. On real text it takes, at every layer, the sum m of the probabilities of the
 * experts that each token selects, with the router rows that the recipe draws and the inputs that the parent's FFNs
 * get. The factor that makes the mean squared error of the layer's output smallest is s = G E[m] / E[m^2]
 * (`surgery/planning/scaling.ts`). Weights are streamed; activations stay in memory.
 *
 * Letters: E experts, H hidden size, G parts of each copy of the FFN.
 */
import { isParallel } from "../../graph/nn/decoder.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { Backend } from "../../engine/runtime/runtime.js";
import { evaluateFloat32 } from "../planning/evaluate.js";
import { planUpcycle } from "../planning/plan.js";
import type { UpcycleRecipe } from "../planning/recipe.js";
import { matricesOf, type RouterRows } from "../planning/router-rows.js";
import type { ModelSource } from "../../files/checkpoint/model-source.js";
import { sampleTokens } from "../../evals/sample-tokens.js";
import { requireFiniteWeights } from "../../evals/finite-weights.js";
import { openStreamedModel, plus } from "../../evals/streamed-model.js";
import { inTurn } from "./in-turn.js";

/** What to calibrate, and on which text. */
export interface CalibrationOptions {
  /** The dense model. */
  readonly source: ModelSource;
  readonly recipe: UpcycleRecipe;
  /** The rows of a router that is made from prompts. */
  readonly routerRows?: RouterRows | undefined;
  /** Text files or folders; none: built-in text, or random ids for a model without tokenizer. */
  readonly text?: readonly string[] | undefined;
  /** Tokens to measure on; 4096 when left out. */
  readonly tokens?: number | undefined;
  /** Tokens per sequence, at most the model's positions; 256 when left out. */
  readonly sequence?: number | undefined;
  readonly backend: Backend;
  readonly threads: number;
  readonly signal?: AbortSignal | undefined;
  readonly onLayer?: ((done: number, total: number) => void) | undefined;
}

/** What was measured. */
export interface Calibration {
  /** The recipe with its `calibration` filled in. */
  readonly recipe: UpcycleRecipe;
  /** Mean selected probability of each layer; null for layers that stay dense. */
  readonly mass: readonly (number | null)[];
  readonly tokens: number;
  /** What the tokens are, in words. */
  readonly source: string;
}

/**
 * Measures each layer's factor and the selected probability. Throws inputError for a model, recipe or text that cannot
 * be used, interruptedError when `signal` fires.
 */
export async function calibrate({
  source: from,
  recipe,
  routerRows,
  text = [],
  tokens: limit = 4096,
  sequence = 256,
  backend,
  threads,
  signal,
  onLayer,
}: CalibrationOptions): Promise<Calibration> {
  const model = await openStreamedModel(from, backend, { threads, signal });
  try {
    const { dir, spec } = model;
    const routers = await routersOf(spec, recipe, routerRows);
    const { tokens, source } = await sampleTokens({ dir, spec, files: text, limit, signal });
    const length = Math.min(sequence, spec.maxPositions, tokens.length);
    const starts = Array.from({ length: Math.floor(tokens.length / length) }, (_, i) => i * length);
    const shape = { batch: 1, sequence: length };
    let streams = await inTurn(starts, (start) => model.embed(tokens.slice(start, start + length), shape));
    const calibration: (number | null)[] = [];
    const mass: (number | null)[] = [];
    for (const [layer, router] of routers.entries()) {
      const sums = { count: 0, first: 0, second: 0 };
      streams = await inTurn(streams, async (x) => {
        const attended = await model.attention(layer, x, shape);
        const into = isParallel(spec) ? x : attended;
        if (router !== null) addMasses(sums, router, await model.ffnInput(layer, into), spec.hidden, recipe.topK);
        return plus(attended, await model.ffn(layer, into));
      });
      requireFiniteWeights(model);
      calibration.push(sums.count === 0 ? null : (recipe.granularity * sums.first) / sums.second);
      mass.push(sums.count === 0 ? null : sums.first / sums.count);
      onLayer?.(layer + 1, spec.layers.length);
    }
    return { recipe: { ...recipe, calibration }, mass, tokens: starts.length * length, source };
  } finally {
    await model.close();
  }
}

/** The router rows [E, H] that the recipe draws, or was given, for each layer; null for layers that stay dense. */
async function routersOf(
  spec: DecoderSpec,
  recipe: UpcycleRecipe,
  rows: RouterRows | undefined,
): Promise<(Float32Array | null)[]> {
  const plan = planUpcycle(spec, { ...recipe, scaling: "none" }, rows);
  const refuse = (): never => {
    throw new Error("a fresh router reads the source");
  };
  const context = {
    shapes: new Map(),
    seed: recipe.seed,
    data: matricesOf(plan.data),
    dtypeOf: refuse,
    readRectangle: refuse,
  };
  const byLayer = new Map(
    plan.outputs.filter(({ slot }) => slot.at.part === "router").map((output) => [output.slot.at.layer, output]),
  );
  return inTurn(spec.layers.keys(), async (layer) => {
    const output = byLayer.get(layer);
    return output === undefined ? null : evaluateFloat32(output.value, output.slot.shape, context);
  });
}

/** Sums over tokens of m and of its square. */
interface Sums {
  count: number;
  first: number;
  second: number;
}

/** Adds the selected probability of every row of `inputs`: softmax over all experts, the largest `topK`. */
function addMasses(sums: Sums, router: Float32Array, inputs: Float32Array, hidden: number, topK: number): void {
  const experts = router.length / hidden;
  const logits = new Float64Array(experts);
  for (let row = 0; row < inputs.length; row += hidden) {
    for (let expert = 0; expert < experts; expert++) {
      let sum = 0;
      for (let i = 0; i < hidden; i++) sum += router[expert * hidden + i]! * inputs[row + i]!;
      logits[expert] = sum;
    }
    const largest = logits.reduce((a, b) => Math.max(a, b));
    const shares = logits.map((logit) => Math.exp(logit - largest)).sort();
    const selected = shares.subarray(experts - topK).reduce((a, b) => a + b, 0) / shares.reduce((a, b) => a + b, 0);
    sums.count += 1;
    sums.first += selected;
    sums.second += selected ** 2;
  }
}
