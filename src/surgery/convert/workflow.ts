/**
 * A conversion from its request to its proof, whatever the surgery is:
 *
 *   refuse -> (prompts, calibration: measured on text) -> plan -> write -> prove
 *
 * All that can be refused is refused before weights are read. The backend is handed in.
 */
import { foldersOf } from "../../files/checkpoint/model-source.js";
import type { Backend } from "../../engine/runtime/runtime.js";
import type { EncodedText } from "../calibration/ffn-inputs.js";
import {
  makeModel,
  planModel,
  type MadeModel,
  type MakeEvent,
  type MakeOptions,
  type PlannedModel,
  type Surgery,
} from "./make.js";
import type { MeasureEvent } from "./measure.js";
import { requireOut } from "./place.js";
import { prove, requireText, type Proof, type ProofEvent } from "./proof.js";

/** Threads of each step of the workflow. */
export interface WorkflowThreads {
  /** Threads that read prompts; the router's last bits depend on their number. */
  readonly prompts: number;
  readonly calibration: number;
  readonly writing: number;
  readonly proof: number;
}

/** What is measured before a conversion is measured on this text. */
export interface CalibrationText {
  readonly text?: readonly string[] | undefined;
  readonly tokens?: number | undefined;
  /** Text that is tokens already, in place of `text`. */
  readonly encoded?: EncodedText | undefined;
}

/** What a workflow measures with, and on which text. */
export interface WorkflowTools {
  readonly backend: Backend;
  readonly threads: WorkflowThreads;
  /** Text files or folders; none: built-in text, or random ids for a model without tokenizer. */
  readonly text?: readonly string[] | undefined;
  /** Text that routers, factors and the like are measured on, and how many tokens of it; `text` if left out. */
  readonly calibration?: CalibrationText | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Where and how to write, and whether to measure what was written. */
export interface WorkflowOptions extends WorkflowTools, Omit<MakeOptions, "threads" | "signal"> {
  /** Measure what of the base's function was kept, and write it beside the model. */
  readonly report: boolean;
}

/** What is told from the first measurement to the proof. */
export type WorkflowEvent<Planned extends PlannedModel = PlannedModel> = MeasureEvent | MakeEvent<Planned> | ProofEvent;

/** The model, and its proof if one was asked for. */
export interface WorkflowResult<Planned extends PlannedModel, Details> {
  readonly made: MadeModel<Planned, Details>;
  readonly proof: Proof | null;
}

/**
 * What would be made; writes nothing. Only what the plan has to know is measured on text. Throws inputError for sources
 * and settings that do not go together.
 */
export async function* planByWorkflow<Planned extends PlannedModel, Details>(
  surgery: Surgery<Planned, Details>,
  tools: WorkflowTools,
): AsyncGenerator<MeasureEvent, Planned, undefined> {
  return planModel(surgery.plansByMeasuring ? yield* measuredSurgery(surgery, tools) : surgery);
}

/**
 * Makes the model folder and measures it. A model that cannot be measured stands, and an event says why. Throws like
 * `makeModel`, and inputError for text that cannot be used.
 */
export async function* makeByWorkflow<Planned extends PlannedModel, Details>(
  surgery: Surgery<Planned, Details>,
  options: WorkflowOptions,
): AsyncGenerator<WorkflowEvent<Planned>, WorkflowResult<Planned, Details>, undefined> {
  const { backend, threads, text, calibration, report, signal, out, overwrite, acceptFinished } = options;
  const [source] = surgery.sources;
  await requireOut({ out, overwrite, acceptFinished, folders: surgery.sources.flatMap(foldersOf) });
  const measures = surgery.measured !== undefined;
  const texts = [
    ...(report || surgery.plansByMeasuring || measures ? [text] : []),
    ...(measures ? [calibration?.text] : []),
  ].filter((files) => files !== undefined);
  if (texts.length > 0) {
    // What cannot be made is refused before any text is read.
    await requirePlannable(surgery);
    for (const files of texts) await requireText(source, files);
  }
  const ready = yield* measuredSurgery(surgery, options);
  const made = yield* makeModel(ready, { ...options, threads: threads.writing });
  if (!report) return { made, proof: null };
  const proof = yield* prove({ dir: made.dir, card: (preservation) => ready.card(made, preservation) }, source, {
    backend,
    text,
    signal,
    threads: threads.proof,
  });
  return { made, proof };
}

/** Throws inputError for sources and settings that do not go together, as far as that shows before measuring. */
async function requirePlannable<Planned extends PlannedModel, Details>(
  surgery: Surgery<Planned, Details>,
): Promise<void> {
  if (surgery.beforehand !== undefined) await surgery.beforehand();
  else await planModel(surgery);
}

async function* measuredSurgery<Planned extends PlannedModel, Details>(
  surgery: Surgery<Planned, Details>,
  tools: WorkflowTools,
): AsyncGenerator<MeasureEvent, Surgery<Planned, Details>, undefined> {
  if (surgery.measured === undefined) return surgery;
  const { calibration = {}, text, ...others } = tools;
  const { tokens, encoded } = calibration;
  return yield* surgery.measured({ ...others, text: calibration.text ?? text, tokens, encoded });
}
