/**
 * Scaling and converting 16-bit values by looking each of the 65536 patterns up: the same bits as the arithmetic,
 * several times as fast.
 */
import { fromFloat32, toFloat32, type FloatDtype } from "../../files/numeric/dtype.js";

type Table = Uint16Array | Uint32Array;

/** Tables in memory at most: a plan uses few factors at a time, and a table is made in a millisecond. */
const mostTables = 8;
const tables = new Map<string, Table>();

/** What every bit pattern of `from`, multiplied by `factor`, is in `to`. */
export function halvesTable(from: "BF16" | "F16", to: Exclude<FloatDtype, "F64">, factor: number): Table {
  const name = `${from} ${to} ${factor}`;
  const existing = tables.get(name);
  if (existing !== undefined) return existing;
  const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const values = toFloat32(from, new Uint8Array(patterns.buffer));
  const bytes = fromFloat32(to, factor === 1 ? values : values.map((value) => value * factor));
  const table =
    to === "F32"
      ? new Uint32Array(bytes.buffer, bytes.byteOffset, 65536)
      : new Uint16Array(bytes.buffer, bytes.byteOffset, 65536);
  const [oldest] = tables.keys();
  if (tables.size >= mostTables && oldest !== undefined) tables.delete(oldest);
  tables.set(name, table);
  return table;
}

/**
 * Writes the entry of every 16-bit value of `bytes` to `out`. The two must not overlap; both may start at any byte.
 */
export function lookUp(table: Table, bytes: Uint8Array, out: Uint8Array): void {
  const aligned = bytes.byteOffset % 2 === 0 ? bytes : bytes.slice();
  const from = new Uint16Array(aligned.buffer, aligned.byteOffset, bytes.byteLength / 2);
  const size = table.BYTES_PER_ELEMENT;
  const direct = out.byteOffset % size === 0;
  const to = direct
    ? size === 2
      ? new Uint16Array(out.buffer, out.byteOffset, from.length)
      : new Uint32Array(out.buffer, out.byteOffset, from.length)
    : size === 2
      ? new Uint16Array(from.length)
      : new Uint32Array(from.length);
  for (let i = 0; i < from.length; i++) to[i] = table[from[i]!]!;
  if (!direct) out.set(new Uint8Array(to.buffer));
}
