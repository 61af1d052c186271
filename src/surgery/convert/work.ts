/**
 * What is to be written into a model folder, as data. Writing it (`execute.ts`), resuming it (`identity.ts`) and
 * recognising the finished folder (`finished.ts`) share it.
 */
import type { WriteDtype, WriteOptions } from "../../files/checkpoint/write.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { PlannedSlot } from "../planning/plan.js";
import type { PlanMatrix } from "../planning/router-rows.js";
import type { LineageRecord } from "./lineage.js";

/** A model folder to be written. */
export interface Work {
  /** The work in a few words, for whoever finds it unfinished. */
  readonly name: string;
  /** What its bytes depend on besides outputs and data, as plain data. */
  readonly settings: unknown;
  readonly target: DecoderSpec;
  readonly outputs: readonly PlannedSlot[];
  /** Matrices that outputs name. */
  readonly data?: readonly PlanMatrix[] | undefined;
  /** Seed of everything that outputs draw. */
  readonly seed: number;
  readonly dtype: WriteDtype;
  /** Precision of each slot; left out: all have `dtype`. */
  readonly slotDtype?: WriteOptions["slotDtype"];
  /** How the result's experts were made; left out for a dense model, or if nobody knows. */
  readonly lineage?: LineageRecord | undefined;
  /** Texts of the files beside the weights, by name. */
  readonly files: Readonly<Record<string, string>>;
}
