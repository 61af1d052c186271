/** Expert-to-dense cosine similarity: how far experts have moved from the parts of the parent's FFN they came from. */
import type { Checkpoint } from "../checkpoint/open.js";
import { cosineSimilarity, mean } from "../numeric/similarity.js";
import type { DecoderSpec } from "../spec/types.js";
import { expertOrigins, originValues } from "../surgery/lineage.js";

/**
 * A function that reads a child's weights and gives, for each MoE layer, the mean cosine over its experts and over gate, up and down
 * (He et al. 2024, section 3.2, measures the same quantity). The parent's FFNs are kept in memory.
 */
export async function similarityTo(
  parent: Checkpoint, child: DecoderSpec,
): Promise<(read: (key: string) => Promise<Float32Array>) => Promise<number[]>> {
  const origins = expertOrigins(parent.spec, child);
  const whole = new Map<string, Float32Array>();
  for (const { from } of origins) if (!whole.has(from.key)) whole.set(from.key, await parent.readFloat32(from.key));
  return async (read) => {
    const byLayer = new Map<number, number[]>();
    for (const origin of origins) {
      const cosine = cosineSimilarity(await read(origin.key), originValues(whole.get(origin.from.key)!, origin));
      byLayer.set(origin.layer, [...(byLayer.get(origin.layer) ?? []), cosine]);
    }
    return [...byLayer.values()].map(mean);
  };
}
