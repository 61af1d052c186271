/** What an open model is for those who read it: the checkpoint, and the adapter merged into it. */
import type { AdapterConfig } from "../../base/schemas/index.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { FloatDtype } from "../numeric/dtype.js";
import type { SourceRectangle } from "../numeric/rectangles.js";
import type { StoredTensor } from "./stored.js";

/** The LoRA adapter that an open model has merged in. */
export interface Adapter {
  readonly dir: string;
  /** What adapter_config.json says of ranks and factors. */
  readonly config: AdapterConfig;
  /** The tensors of its files, by name. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Names of the model's stored tensors that it changes. */
  readonly changed: readonly string[];
  /** The smallest and the largest rank among its modules. */
  readonly ranks: readonly [number, number];
}

/** An open model: its description and access to its weights, of which nothing is held in memory. */
export interface Checkpoint {
  /** The folder of config, tokenizer and weights. */
  readonly dir: string;
  /** The LoRA adapter that is merged in; null without one. */
  readonly adapter: Adapter | null;
  readonly spec: DecoderSpec;
  /** The parsed config.json. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Every tensor of the files by its Hugging Face name, used or not. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Names of stored tensors that no slot reads, computed buffers and scales left out. */
  readonly unused: readonly string[];
  /** What else a user should know about how the files were read. */
  readonly notes: readonly string[];
  /** The precision that most of the weights are read in, an adapter aside: what it changes is read in float32. */
  readonly dtype: FloatDtype;
  /** A whole tensor, row-major. Slot keys are those of `slotsOf(spec)`; an unknown key is a defect of the caller. */
  readFloat32(slotKey: string): Promise<Float32Array>;
  /**
   * The stored bytes, little-endian; 8-bit weights come multiplied by their scales, in the model's own precision; what
   * an adapter changes comes merged.
   */
  readBytes(slotKey: string): Promise<{ dtype: FloatDtype; bytes: Uint8Array }>;
  /** The precision that `readBytes` and `readRectangle` give. */
  dtypeOf(slotKey: string): FloatDtype;
  /**
   * A rectangle of the slot `rectangle.key`, its rows one after the other; it may lie in `into`, from its beginning. Do
   * not write into it otherwise.
   */
  readRectangle(rectangle: SourceRectangle, into?: Uint8Array): Promise<{ dtype: FloatDtype; bytes: Uint8Array }>;
  /**
   * Rows `start` to `start + count` along the first axis; at the beginning of `memory`, if there is any and they fit.
   */
  readRows(slotKey: string, start: number, count: number, memory?: ArrayBuffer): Promise<Float32Array>;
  /** Releases the open files. */
  close(): Promise<void>;
}
