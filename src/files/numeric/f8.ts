/**
 * 8-bit floats, and the scales that quantized checkpoints store beside them. Formats: "FP8 Formats for Deep Learning"
 * (arXiv 2209.05433), as `torch.float8_e4m3fn` and `torch.float8_e5m2` have them; scales of power-of-two type as in the
 * OCP Microscaling specification (E8M0).
 *
 * Letters: R rows and C columns of a weight matrix, of which a weight [..., R, C] has one or several.
 */

/** Stored dtypes of 8-bit weights: 4 exponent bits without infinities, or 5 with. */
export const f8Dtypes = ["F8_E4M3", "F8_E5M2"] as const;
/** An 8-bit floating-point dtype. */
export type F8Dtype = (typeof f8Dtypes)[number];

/** Whether a stored dtype is one of `F8Dtype`. */
export function isF8Dtype(dtype: string): dtype is F8Dtype {
  return (f8Dtypes as readonly string[]).includes(dtype);
}

const tables = new Map<F8Dtype, Float32Array>();

/** The value of each of the 256 bytes; every one is exact in float32. */
export function f8Values(dtype: F8Dtype): Float32Array {
  const cached = tables.get(dtype);
  if (cached !== undefined) return cached;
  const table = Float32Array.from({ length: 256 }, (_, byte) => valueOf(dtype, byte));
  tables.set(dtype, table);
  return table;
}

function valueOf(dtype: F8Dtype, byte: number): number {
  const [mantissaBits, bias] = dtype === "F8_E4M3" ? [3, 7] : [2, 15];
  const sign = byte & 0x80 ? -1 : 1;
  const exponent = (byte & 0x7f) >> mantissaBits;
  const mantissa = byte & ((1 << mantissaBits) - 1);
  // E4M3 gives the top exponent to numbers, and only the last pattern to NaN; E5M2 is a shortened float16.
  if (dtype === "F8_E4M3" && (byte & 0x7f) === 0x7f) return NaN;
  if (dtype === "F8_E5M2" && exponent === 31) return mantissa === 0 ? sign * Infinity : NaN;
  const fraction = mantissa / 2 ** mantissaBits;
  return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
}

/** The values of power-of-two scales: each byte is an exponent with bias 127, and 255 is NaN. */
export function e8m0ToFloat32(bytes: Uint8Array): Float32Array {
  return Float32Array.from(bytes, (byte) => (byte === 255 ? NaN : 2 ** (byte - 127)));
}

/**
 * Which scale an element has. The weight is seen as matrices [R, C] (`rows`, `columns`) one after the other, each with
 * a grid [gridRows, gridColumns] of scales, one per block of `blockRows` x `blockColumns`; blocks at the edges may be
 * smaller.
 */
export interface ScaleGrid {
  readonly rows: number;
  readonly columns: number;
  readonly gridRows: number;
  readonly gridColumns: number;
  readonly blockRows: number;
  readonly blockColumns: number;
  /** Whether all matrices have one grid, instead of one each. */
  readonly shared: boolean;
}

/** Edge of the square blocks of DeepSeek-V3 (arXiv 2412.19437, section 3.3.2), which others took over. */
const usualBlock = 128;

/**
 * The grid that a scale tensor of this shape has over a weight, or null if the shapes do not fit together: one scale in
 * all, one per matrix, one per row, or one per block. `block` is the block size that the config states; else
 * `usualBlock` if it fits, else whatever divides evenly.
 */
export function scaleGrid(
  weight: readonly number[],
  scale: readonly number[],
  block: readonly [number, number] | null,
): ScaleGrid | null {
  const isVector = weight.length < 2;
  const [rows = 1, columns = 1] = isVector ? weight : weight.slice(-2);
  const outer = weight.slice(0, -2);
  const matrices = outer.reduce((a, b) => a * b, 1);
  const grid = (gridRows: number, gridColumns: number, size: readonly [number, number], shared = false): ScaleGrid => ({
    rows,
    columns,
    gridRows,
    gridColumns,
    blockRows: size[0],
    blockColumns: size[1],
    shared,
  });
  const whole: [number, number] = [Math.max(rows, 1), Math.max(columns, 1)];
  if (scale.every((size) => size === 1)) return grid(1, 1, whole, true);
  if (outer.length > 0 && scale.length === outer.length && scale.join() === outer.join()) return grid(1, 1, whole);
  // One scale per row is also written without its last dimension.
  const full = scale.length === weight.length - 1 || isVector ? [...scale, 1] : scale;
  const [gridRows = 0, gridColumns = 0] = full.slice(-2);
  if (full.slice(0, -2).join() !== outer.join() || gridRows < 1 || gridColumns < 1 || matrices < 1) return null;
  const fits = ([height, width]: readonly [number, number]): boolean =>
    gridRows === Math.ceil(rows / height) && gridColumns === Math.ceil(columns / width);
  if (fits([1, whole[1]])) return grid(gridRows, 1, [1, whole[1]]);
  for (const size of [block, [usualBlock, usualBlock] as const])
    if (size !== null && fits(size)) return grid(gridRows, gridColumns, size);
  if (rows % gridRows !== 0 || columns % gridColumns !== 0) return null;
  return grid(gridRows, gridColumns, [rows / gridRows, columns / gridColumns]);
}

/**
 * Values of consecutive 8-bit elements, the first of them the weight's element number `start` in row-major order, times
 * their scales. Products are rounded to float32, as in transformers' `Fp8Dequantize`.
 */
export function dequantizeF8(
  dtype: F8Dtype,
  bytes: Uint8Array,
  start: number,
  grid: ScaleGrid | null,
  scales: Float32Array,
): Float32Array {
  const table = f8Values(dtype);
  const out = new Float32Array(bytes.length);
  if (grid === null) {
    for (let i = 0; i < out.length; i++) out[i] = table[bytes[i]!]!;
    return out;
  }
  const { rows, columns, gridRows, gridColumns, blockRows, blockColumns, shared } = grid;
  for (let done = 0; done < out.length;) {
    const row = Math.floor((start + done) / columns);
    const column = (start + done) % columns;
    const block = Math.floor(column / blockColumns);
    const matrix = shared ? 0 : Math.floor(row / rows);
    const scale = scales[(matrix * gridRows + Math.floor((row % rows) / blockRows)) * gridColumns + block]!;
    // To the end of the block or of the row.
    const end = Math.min(out.length, done + Math.min((block + 1) * blockColumns, columns) - column);
    for (; done < end; done++) out[done] = table[bytes[done]!]! * scale;
  }
  return out;
}
