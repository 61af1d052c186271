/** Arguments, grids and operands of launches. */
import type { Access, Argument, BufferId, Operand, Storage } from "./launches.js";

/** Bytes of an element: float32 and int32. */
export const WORD = 4;
/** Threads of a block where a kernel does not ask for others. */
export const THREADS = 256;
/** Threads of a warp. */
export const WARP = 32;
/** Blocks of a kernel that walks over any number of elements. */
const MOST_BLOCKS = 1 << 14;

/** A buffer that a kernel reads. */
export const reads = (buffer: BufferId): Argument => ({ kind: "pointer", buffer, access: "read" });
/** A buffer that a kernel writes. */
export const writes = (buffer: BufferId): Argument => ({ kind: "pointer", buffer, access: "write" });
/** A buffer that a kernel reads, or the null pointer where there is none. */
export const readsOrNull = (buffer: BufferId | null): Argument => (buffer === null ? nothing : reads(buffer));
/** Tensor maps of matrices [rows, columns] of bfloat16, one for each buffer, for boxes of `boxRows` rows. */
export const tensorMaps = (
  buffers: readonly BufferId[],
  [rows, columns]: readonly [number, number],
  boxRows: number,
): Argument => ({ kind: "maps", buffers, rows, columns, boxRows });

/** As `tensorMaps`, of rows that may lie apart. */
export const viewMap = (
  { buffer, first, stride }: View,
  [rows, columns]: readonly [number, number],
  boxRows: number,
): Argument => ({
  kind: "maps",
  ...{ buffers: [buffer], rows, columns, boxRows },
  ...(stride === columns ? {} : { apart: { first, stride } }),
});
/** The null pointer, which tells a kernel that an input is absent. */
export const nothing: Argument = { kind: "null" };
/** A 32-bit whole number. */
export const int = (value: number): Argument => ({ kind: "int", value });
/** A 64-bit whole number. */
export const long = (value: number): Argument => ({ kind: "long", value });
/** A float32 number. */
export const float = (value: number): Argument => ({ kind: "float", value });
/** The addresses of several buffers, all of which a kernel reads or writes. */
export const bufferTable = (buffers: readonly BufferId[], access: "read" | "write"): Argument => ({
  kind: "table",
  buffers,
  access,
});

/** Blocks for `n` elements, one for each thread. */
export const blocksFor = (n: number, threads = THREADS): number => Math.max(1, Math.ceil(n / threads));

/** Elements that a thread takes at a time. */
export const EIGHT = 8;
/** Threads of a block for rows of `size` elements: as many as have work, in whole warps. */
export const threadsFor = (size: number): number => Math.max(32, Math.min(THREADS, Math.ceil(size / EIGHT / 32) * 32));

/** Rows of a block where each row has a warp. */
export const ROW_WARPS = 8;

/** The grid of a kernel that walks over `n` elements. */
export const gridFor = (n: number): readonly [number, number, number] => [
  Math.min(blocksFor(Math.ceil(n / EIGHT)), MOST_BLOCKS),
  1,
  1,
];

/** Bytes of an element. */
export const bytesPer: Readonly<Record<Storage, number>> = { f32: 4, bf16: 2 };

/** Rows of a value within a buffer: it begins at an element, and its rows are `stride` elements apart. */
export interface View {
  readonly buffer: BufferId;
  readonly first: number;
  readonly stride: number;
}

/** A whole buffer as an operand of a product, or from element `first` on. */
export const operand = (buffer: BufferId, first = 0, storage: Storage = "f32"): Operand => ({
  buffer,
  offset: first * bytesPer[storage],
});

/** A view as a kernel's argument. */
export const viewed = ({ buffer, first }: View, access: Access, storage: Storage): Argument => ({
  kind: "pointer",
  buffer,
  access,
  offset: first * bytesPer[storage],
});
