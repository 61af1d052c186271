/**
 * Measures what calibrated scaling needs. On real text it takes, at every layer, the sum m of the probabilities of the
 * experts that each token selects, with the router rows that the recipe draws and the inputs that the parent's FFNs
 * get. The factor that makes the mean squared error of the layer's output smallest is s = G E[m] / E[m^2]
 * (`surgery/planning/scaling.ts`). Weights are streamed; activations stay in memory.
 *
 * Letters: E experts, H hidden size, G parts of each copy of the FFN.
 */
import { at } from "../../base/at.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { evaluateFloat32 } from "../planning/evaluate.js";
import { planUpcycle } from "../planning/plan.js";
import type { UpcycleRecipe } from "../planning/recipe.js";
import { matricesOf, type RouterRows } from "../planning/router-rows.js";
import { openStreamedModel } from "../../evals/streamed-model.js";
import { sampledText, visitFfnInputs, type ReadText, type TextChoice } from "./ffn-inputs.js";
import { inTurn } from "./in-turn.js";
import type { LayerWork } from "./layer-work.js";

/** What to calibrate, and on which text. */
export interface CalibrationOptions extends LayerWork, TextChoice {
  /** The rows of a router that is made from prompts. */
  readonly routerRows?: RouterRows | undefined;
}

/** What was measured. */
export interface Calibration extends ReadText {
  /** The recipe with its `calibration` filled in. */
  readonly recipe: UpcycleRecipe;
  /** Mean selected probability of each layer; null for layers that stay dense. */
  readonly mass: readonly (number | null)[];
}

/**
 * Measures each layer's factor and the selected probability. Throws inputError for a model, recipe or text that cannot
 * be used, interruptedError when `signal` fires.
 */
export async function calibrate({
  source: from,
  recipe,
  routerRows,
  backend,
  threads,
  signal,
  onLayer,
  ...choice
}: CalibrationOptions): Promise<Calibration> {
  const model = await openStreamedModel(from, backend, { threads, signal });
  try {
    const { spec } = model;
    const routers = await routersOf(spec, recipe, routerRows);
    const sampled = await sampledText(model, choice, signal);
    const sums = routers.map((): Sums => ({ count: 0, first: 0, second: 0 }));
    await visitFfnInputs(model, sampled, {
      wants: (layer) => at(routers, layer) !== null,
      inputs: (layer, inputs) =>
        addMasses(at(sums, layer), at(routers, layer) ?? new Float32Array(), inputs, spec.hidden, recipe.topK),
      passed: (layer) => onLayer?.(layer + 1, spec.layers.length),
    });
    const { tokens, source } = sampled;
    const calibration = sums.map(({ count, first, second }) =>
      count === 0 ? null : (recipe.granularity * first) / second,
    );
    const mass = sums.map(({ count, first }) => (count === 0 ? null : first / count));
    return { recipe: { ...recipe, calibration }, mass, tokens, source };
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
