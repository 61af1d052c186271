/** Shapes of tensors. */

/** How many elements a tensor of this shape has; 1 for a scalar. */
export function elements(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}
