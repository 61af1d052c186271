/** Losses of single tokens, with the vocabulary taken some rows at a time. */
import { at } from "../base/at.js";
import { vocabularyRuns, type StreamedModel } from "./streamed-model.js";

/**
 * -log softmax(logits)[target] of each row of `hidden` [rows, H], which `final` gives: [rows] in float64. Sums run over
 * the vocabulary in order, relative to the largest logit so far.
 */
export async function tokenLosses(
  model: StreamedModel,
  hidden: Float32Array,
  targets: Int32Array,
): Promise<Float64Array> {
  const rows = targets.length;
  const [largest, sums, wanted] = [
    new Float64Array(rows).fill(-Infinity),
    new Float64Array(rows),
    new Float64Array(rows),
  ];
  for (const [first, count] of vocabularyRuns(model.spec)) {
    const logits = await model.head(hidden, first, count);
    for (let row = 0; row < rows; row++) {
      const own = logits.subarray(row * count, (row + 1) * count);
      let max = largest[row]!;
      for (let i = 0; i < count; i++) max = Math.max(max, own[i]!);
      let sum = sums[row]! * Math.exp(largest[row]! - max);
      for (let i = 0; i < count; i++) sum += Math.exp(own[i]! - max);
      largest[row] = max;
      sums[row] = sum;
      const target = at(targets, row) - first;
      if (target >= 0 && target < count) wanted[row] = at(own, target);
    }
  }
  return sums.map((sum, row) => at(largest, row) + Math.log(sum) - at(wanted, row));
}
