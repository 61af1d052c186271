/** A stored tensor: what it is, where it lies, and how to read a part of it as numbers. */
import type { Dtype } from "../formats/safetensors.js";
import { itemSizes } from "../formats/safetensors.js";
import type { RangeFile } from "../io/ranges.js";
import type { FloatDtype } from "../numeric/dtype.js";
import { isFloatDtype } from "../numeric/dtype.js";

/** A tensor of a file: its dtype, shape and size. */
export interface StoredTensor {
  /** File name inside the folder. */
  readonly file: string;
  /** Further files that hold parts of it. */
  readonly otherFiles?: readonly string[];
  /** The stored dtype. */
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Size in the file. */
  readonly bytes: number;
  /** The precision it is read in, where that is not the stored one. */
  readonly readAs?: FloatDtype;
  /**
   * The scales that its values are multiplied by, if there are any: the name of their tensor, and such as `per row`.
   */
  readonly scales?: { readonly tensor: string; readonly per: string };
}

/** A stored tensor whose elements can be read. */
export interface ReadableTensor extends StoredTensor {
  /** The precision that `read` gives; null if the tensor holds no floating-point numbers. */
  readonly presented: FloatDtype | null;
  /** Set where the file has its header alone: `read` refuses then. */
  readonly weightless?: true;
  /**
   * `count` elements from element `start` on, in row-major order, little-endian in the `presented` precision (else as
   * stored). They may lie in `into`, from its beginning.
   */
  read(start: number, count: number, into?: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
}

/** A tensor whose elements lie one after the other from byte `begin` of a file. */
export function contiguous(source: RangeFile, begin: number, tensor: StoredTensor): ReadableTensor {
  return new Contiguous(source, begin, tensor);
}

/** A class, since closures of their own for 500,000 tensors take several times the memory. */
class Contiguous implements ReadableTensor {
  readonly file: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly presented: FloatDtype | null;
  readonly #source: RangeFile;
  readonly #begin: number;

  constructor(source: RangeFile, begin: number, { file, dtype, shape, bytes }: StoredTensor) {
    [this.file, this.dtype, this.shape, this.bytes] = [file, dtype, shape, bytes];
    this.presented = isFloatDtype(dtype) ? dtype : null;
    [this.#source, this.#begin] = [source, begin];
  }

  read(start: number, count: number, into?: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
    const size = itemSizes[this.dtype];
    return this.#source.read(this.#begin + start * size, count * size, into);
  }
}
