/** Expert-to-dense cosine similarity: how far experts have moved from the parts of the parent's FFN they came from. */
import { at, entryOf } from "../base/at.js";
import { inputError } from "../base/errors.js";
import type { Checkpoint } from "../files/checkpoint/open.js";
import { cosineSimilarity, arithmeticMean } from "../files/numeric/similarity.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { EvalRecord } from "./records.js";
import { expertOrigins, originValues, type ExpertOrigin, type OriginLineage } from "../surgery/planning/lineage.js";

/** How alike experts and the parts of the parent's FFN are that they came from. */
export interface ExpertLikeness {
  /** Mean cosine over all experts and their matrices, by MoE layer. */
  readonly layers: readonly number[];
  /** Mean cosine over the matrices of each expert, by MoE layer. */
  readonly experts: readonly (readonly number[])[];
}

/** What a log says of similarity; `found` is undefined without a parent. */
export function similarityRecord(
  found: ExpertLikeness | undefined,
): Pick<EvalRecord, "similarity" | "expertSimilarity"> {
  if (found === undefined) return { similarity: [] };
  const experts = found.experts.map((layer) => layer.map((cosine) => Number(cosine.toFixed(5))));
  return { similarity: found.layers, expertSimilarity: experts };
}

/**
 * A function that reads a child's weights and gives, for each MoE layer and each of its experts, the mean cosine over
 * gate, up and down (He et al. 2024, section 3.2, measures the same quantity). `parents` are the dense models, the base
 * first; their FFNs are kept in memory. `lineage` is what the child's record says, null without one.
 */
export async function similarityTo(
  parents: readonly [Checkpoint, ...Checkpoint[]],
  child: DecoderSpec,
  lineage: OriginLineage | null,
): Promise<(read: (key: string) => Promise<Float32Array>) => Promise<ExpertLikeness>> {
  const origins = expertOrigins(parents[0].spec, child, lineage);
  const most = Math.max(0, ...origins.map(({ source }) => source));
  if (most >= parents.length)
    throw inputError(`the experts come from ${most + 1} dense models, ${parents.length} given`, {
      hint: "give all of them, the base first",
    });
  const nameOf = ({ source, from }: ExpertOrigin): string => `${source} ${from.key}`;
  const whole = new Map<string, Float32Array>();
  for (const origin of origins)
    if (!whole.has(nameOf(origin)))
      whole.set(nameOf(origin), await at(parents, origin.source).readFloat32(origin.from.key));
  return async (read) => {
    const byLayer = new Map<number, { readonly all: number[]; readonly byExpert: number[][] }>();
    for (const origin of origins) {
      const cosine = cosineSimilarity(await read(origin.key), originValues(entryOf(whole, nameOf(origin)), origin));
      const layer = byLayer.get(origin.layer) ?? { all: [], byExpert: [] };
      byLayer.set(origin.layer, layer);
      layer.all.push(cosine);
      (layer.byExpert[origin.expert] ??= []).push(cosine);
    }
    const layers = [...byLayer.values()];
    return {
      layers: layers.map(({ all }) => arithmeticMean(all)),
      experts: layers.map(({ byExpert }) => byExpert.map(arithmeticMean)),
    };
  };
}
