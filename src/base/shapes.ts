/** Shapes of tensors. */

/** The number of elements of a tensor of this shape; 1 for a scalar. */
export function elements(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}
