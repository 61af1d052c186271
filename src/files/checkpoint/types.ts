/**
 * What an open model is for those who read it: the checkpoint, and the adapter merged into it.
 *
 * Letters: R rows of a tensor, its first dimension; C elements of a row, the product of all others.
 */
import type { AdapterConfig } from "../../base/schemas/index.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { FloatDtype } from "../numeric/dtype.js";
import type { SourceRectangle, TypedBytes } from "../numeric/rectangles.js";
import type { ReadableTensor, StoredTensor } from "./stored.js";

/** The LoRA adapter that an open model has merged in. */
export interface Adapter {
  /** The folder of its settings and tensors. */
  readonly dir: string;
  /** What adapter_config.json says of ranks and factors. */
  readonly config: AdapterConfig;
  /** The tensors of its files, by name. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Names of the model's stored tensors to which it adds a change. */
  readonly changed: readonly string[];
  /** Names of the model's stored tensors that it brings as a whole. */
  readonly wholes: readonly string[];
  /** The smallest and the largest rank among its modules. */
  readonly ranks: readonly [number, number];
}

/**
 * An open model: its description and access to its weights, of which nothing is held in memory.
 *
 * Slot keys are those of `slotsOf(spec)`; a key that is none of them throws a plain Error, since it is a defect of the
 * caller. Every read throws inputError where a file has been replaced, cut short or become unreadable since it was
 * opened, or has its header alone.
 */
export interface Checkpoint {
  /** The folder of config, tokenizer and weights. */
  readonly dir: string;
  /** The LoRA adapter that is merged in; null without one. */
  readonly adapter: Adapter | null;
  /** The model without its weights. */
  readonly spec: DecoderSpec;
  /** The parsed config.json. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Every tensor of the files by its Hugging Face name, used or not. */
  readonly tensors: ReadonlyMap<string, ReadableTensor>;
  /** Names of stored tensors that no slot reads, computed buffers and scales left out. */
  readonly unused: readonly string[];
  /** What else a user should know about how the files were read. */
  readonly notes: readonly string[];
  /** The precision that most of the weights are read in, an adapter aside: what it changes is read in float32. */
  readonly dtype: FloatDtype;
  /** A whole slot in its own shape, row-major. */
  readFloat32(slotKey: string): Promise<Float32Array>;
  /**
   * A whole slot as it is stored, row-major and little-endian. 8-bit weights come multiplied by their scales, in the
   * model's own precision; what an adapter changes comes merged, in float32.
   */
  readBytes(slotKey: string): Promise<TypedBytes>;
  /** The precision that `readBytes` and `readRectangle` give. */
  dtypeOf(slotKey: string): FloatDtype;
  /** The precision that the model's own tensor is read in, whatever an adapter makes of it. */
  storedDtypeOf(slotKey: string): FloatDtype;
  /**
   * A rectangle [rowCount, columnCount] of the slot `rectangle.key`, seen as a matrix [R, C], row-major. The bytes may
   * lie at the beginning of `into`; do not write into them where they do not.
   */
  readRectangle(rectangle: SourceRectangle, into?: Uint8Array): Promise<TypedBytes>;
  /**
   * Rows `start` to `start + count` of the slot as [count, C]. They lie at the beginning of `memory`, if there is any
   * and they fit. Throws a plain Error for rows that the slot does not have.
   */
  readRows(slotKey: string, start: number, count: number, memory?: ArrayBuffer): Promise<Float32Array>;
  /** Releases the open files. */
  close(): Promise<void>;
}
