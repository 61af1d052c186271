/**
 * How alike the experts of a layer are, by their weights and by what they make of the same inputs; and how alike to the
 * FFN of the dense model that they were made from.
 */
import { at } from "../base/at.js";
import { arithmeticMean, cosineSimilarity } from "../files/numeric/similarity.js";
import type { StreamedModel } from "../evals/streamed-model.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { ExpertSimilarity, ParentSimilarity } from "../model/results/experts.js";
import { slotKey } from "../model/tensors/slots.js";
import { expertOrigins, originValues, type ExpertOrigin, type OriginLineage } from "../surgery/planning/lineage.js";
import type { LayerRouting } from "./observe.js";
import { addTo, cosines, vectorProducts, weightProducts } from "./products.js";

/** The dense model that a model's experts were made from. */
export interface Parent {
  readonly model: StreamedModel;
  /** By layer. */
  readonly origins: ReadonlyMap<number, readonly ExpertOrigin[]>;
}

/**
 * The parent of a model, with where each expert came from. Throws inputError if the experts cannot have been cut out of
 * its FFNs.
 */
export function parentOf(model: StreamedModel, child: DecoderSpec, lineage: OriginLineage | null): Parent {
  const origins = new Map<number, ExpertOrigin[]>();
  for (const origin of expertOrigins(model.spec, child, lineage))
    origins.set(origin.layer, [...(origins.get(origin.layer) ?? []), origin]);
  return { model, origins };
}

/** What similarity is measured with. */
interface Measured {
  readonly similarity: ExpertSimilarity;
  /** Inner products of the experts' outputs [E, E], as means over inputs. */
  readonly products: readonly (readonly number[])[];
}

/** Measures one layer. `checkpoint` is called between pieces, and throws to stop. */
export async function layerSimilarity(
  model: StreamedModel,
  routing: LayerRouting,
  parent: Parent | null,
  checkpoint: () => void,
): Promise<Measured> {
  const { layer, ffn, inputs } = routing;
  const experts = Array.from({ length: ffn.experts }, (_, expert) => expert);
  const total = experts.map(() => new Array<number>(ffn.experts).fill(0));
  const matrices: Record<string, number[][]> = {};
  for (const part of ffn.gated ? (["gate", "up", "down"] as const) : (["up", "down"] as const)) {
    const { hidden } = model.spec;
    const shape = part === "down" ? ([hidden, ffn.ffnDim] as const) : ([ffn.ffnDim, hidden] as const);
    const keys = experts.map((expert) => slotKey({ part, layer, expert }));
    const products = await weightProducts(model.weights, model.operations, keys, shape, checkpoint);
    matrices[part] = cosines(products);
    addTo(total, products);
  }
  const whole = parent !== null && areWhole(parent, layer, ffn.ffnDim) ? parent : null;
  const products = await outputProducts(model, routing, whole, checkpoint);
  const ofOutputs = cosines(products);
  const count = inputs.length / model.spec.hidden;
  return {
    similarity: {
      weights: cosines(total),
      matrices,
      outputs: experts.map((expert) => at(ofOutputs, expert).slice(0, ffn.experts)),
      inputs: count,
      parent:
        parent === null
          ? null
          : await parentSimilarity(
              model,
              layer,
              parent,
              whole === null ? null : at(ofOutputs, ffn.experts),
              checkpoint,
            ),
    },
    products: experts.map((expert) =>
      at(products, expert)
        .slice(0, ffn.experts)
        .map((sum) => sum / count),
    ),
  };
}

/** Whether the experts of a layer are copies of the parent's whole FFN, as far as its size says. */
const areWhole = ({ model }: Parent, layer: number, ffnDim: number): boolean =>
  at(model.spec.layers, layer).ffn.ffnDim === ffnDim;

/** Inner products of what all experts make of a layer's inputs; with a parent, its FFN stands last. */
async function outputProducts(
  model: StreamedModel,
  { layer, ffn, inputs }: LayerRouting,
  parent: Parent | null,
  checkpoint: () => void,
): Promise<number[][]> {
  const count = ffn.experts + (parent === null ? 0 : 1);
  const outputs = new Float32Array(count * inputs.length);
  for (let expert = 0; expert < ffn.experts; expert++) {
    checkpoint();
    outputs.set(await model.unit(layer, expert, inputs), expert * inputs.length);
  }
  if (parent !== null) outputs.set(await parent.model.unit(layer, null, inputs), ffn.experts * inputs.length);
  return vectorProducts(model.operations, outputs, count);
}

async function parentSimilarity(
  model: StreamedModel,
  layer: number,
  parent: Parent,
  outputs: readonly number[] | null,
  checkpoint: () => void,
): Promise<ParentSimilarity> {
  const byExpert: number[][] = [];
  const wholes = new Map<string, Float32Array>();
  for (const origin of parent.origins.get(layer) ?? []) {
    checkpoint();
    const whole = wholes.get(origin.from.key) ?? (await parent.model.weights.readFloat32(origin.from.key));
    wholes.set(origin.from.key, whole);
    const cosine = cosineSimilarity(await model.weights.readFloat32(origin.key), originValues(whole, origin));
    (byExpert[origin.expert] ??= []).push(cosine);
  }
  return {
    weights: byExpert.map(arithmeticMean),
    outputs: outputs === null ? null : outputs.slice(0, byExpert.length),
  };
}
