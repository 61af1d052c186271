/**
 * The inner loops of fits, over vectors and rows of small matrices. The vectors of one call have one length; every loop
 * runs over that length, so its reads are inside.
 */

/** Sum of the products of two vectors. */
export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** Sum of the products of three vectors. */
export function dot3(a: Float64Array, b: Float64Array, c: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]! * c[i]!;
  return sum;
}

/** out += factor * vector. */
export function addScaled(out: Float64Array, factor: number, vector: Float64Array): void {
  for (let i = 0; i < out.length; i++) out[i]! += factor * vector[i]!;
}

/** out = a - b. */
export function subtract(out: Float64Array, a: Float64Array, b: Float64Array): void {
  for (let i = 0; i < out.length; i++) out[i] = a[i]! - b[i]!;
}

/** out = the matrix with these rows times a vector. */
export function multiply(out: Float64Array, rows: readonly Float64Array[], vector: Float64Array): void {
  for (let j = 0; j < out.length; j++) out[j] = dot(rows[j]!, vector);
}

/** Largest absolute value, 0 of none. */
export function largestSize(vector: Float64Array): number {
  let largest = 0;
  for (let i = 0; i < vector.length; i++) largest = Math.max(largest, Math.abs(vector[i]!));
  return largest;
}

/** A matrix of a few rows. `rows` are views of `values`, so writing to one changes the other. */
export interface Matrix {
  /** Row-major. */
  readonly values: Float64Array;
  readonly rows: readonly Float64Array[];
}

/** A matrix of zeros. */
export function zeros(rows: number, columns: number): Matrix {
  const values = new Float64Array(rows * columns);
  const views: Float64Array[] = [];
  for (let i = 0; i < rows; i++) views.push(values.subarray(i * columns, (i + 1) * columns));
  return { values, rows: views };
}
