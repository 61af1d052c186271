/** Cosine similarity of weight matrices, summed in double precision. */

/**
 * The cosine a.b / (|a| |b|) of two matrices seen as vectors, in [-1, 1]. Two zero vectors are alike (1); one zero
 * vector is like nothing (0). Throws a plain error if the lengths differ.
 */
export function cosineSimilarity(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) throw new Error(`cosine of ${a.length} and ${b.length} values`);
  let dot = 0;
  let squaresA = 0;
  let squaresB = 0;
  for (let i = 0; i < a.length; i++) {
    const x = a[i]!;
    const y = b[i]!;
    dot += x * y;
    squaresA += x * x;
    squaresB += y * y;
  }
  if (squaresA === 0 && squaresB === 0) return 1;
  if (squaresA === 0 || squaresB === 0) return 0;
  return Math.min(1, Math.max(-1, dot / (Math.sqrt(squaresA) * Math.sqrt(squaresB))));
}

/** The arithmetic mean of values; NaN where there are none. */
export function arithmeticMean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
