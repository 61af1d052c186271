/** What is to be written into a model folder, as data: what executing it, comparing it and recognising it share. */
import type { WriteDtype, WriteOptions } from "../../files/checkpoint/write.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { PlannedSlot } from "../planning/plan.js";
import type { PlanMatrix } from "../planning/router-rows.js";
import type { LineageRecord } from "./lineage.js";

/** What is made of a source. */
export interface Work {
  /** In a few words, for whoever finds it unfinished. */
  readonly name: string;
  /** What else its bytes depend on, as plain data. */
  readonly settings: unknown;
  readonly target: DecoderSpec;
  readonly outputs: readonly PlannedSlot[];
  /** Matrices that outputs name. */
  readonly data?: readonly PlanMatrix[] | undefined;
  /** Of everything drawn. */
  readonly seed: number;
  readonly dtype: WriteDtype;
  /** `safetensors` if left out. */
  readonly format?: WriteOptions["format"];
  /** Of single slots, where they differ. */
  readonly slotDtype?: WriteOptions["slotDtype"];
  /** Folder whose tokenizer goes along; the first source's if left out. */
  readonly carry?: string | undefined;
  /** How the result's experts were made; left out for a dense model, or if nobody knows. */
  readonly lineage?: LineageRecord | undefined;
  /** Texts of further files. */
  readonly files: Readonly<Record<string, string>>;
}
