/**
 * Makes a model folder out of others, chunk by chunk: what upcycling, merging and multiplying have in common.
 *
 *   place free? -> open -> plan -> (per chunk: read, evaluate, write to each of its places) -> config, tokenizer,
 *   record, card -> rename into place
 *
 * Memory: a few chunks, whatever the model's size. Interrupted work resumes when it is asked for again.
 */
import { foldersOf, type ModelSource } from "../../files/checkpoint/model-source.js";
import type { WriteDtype } from "../../files/checkpoint/write.js";
import { cardFile } from "../../files/formats/model-files.js";
import { breathe } from "../../files/io/breath.js";
import type { PreservationReport } from "../../model/results/preservation.js";
import type { Damage } from "./damage-words.js";
import { executeWork, type ExecuteEvent, type ExecuteOptions } from "./execute.js";
import { finishedFiles } from "./finished.js";
import type { MeasureEvent, MeasureTools } from "./measure.js";
import { closeParents, openParents, type Parents, type ParentSources } from "./parents.js";
import { requireOut } from "./place.js";
import type { Work } from "./work.js";

/** What every way of making a model folder takes. */
export interface SourceOptions {
  /** Model folder, with or without a LoRA adapter, which is then merged in. */
  readonly source: ModelSource;
  /** Precision to write; the source's own if left out (float32 for a float64 source). */
  readonly dtype?: WriteDtype | undefined;
  /** Most bytes of tensors per weight file (default 5 GB). */
  readonly maxShardBytes?: number | undefined;
}

/** What would be made, from config and file headers; `Plan` says how each tensor is made. */
export interface PlannedModel<Plan = unknown> {
  readonly plan: Plan;
  readonly dtype: WriteDtype;
  /** Size of the weight files that will be written, headers included. */
  readonly weightBytes: number;
  /** The plan's warnings and those about the source's files. */
  readonly warnings: readonly string[];
}

/** What is told while a model is made: first the plan, then the progress of writing. */
export type MakeEvent<Planned extends PlannedModel> = ({ readonly type: "planned" } & Planned) | ExecuteEvent;

/** A complete model folder. */
interface MadeFolder {
  readonly dir: string;
  readonly weightFiles: readonly string[];
  readonly seconds: number;
  /** Whether the folder was there already (`acceptFinished`). */
  readonly found: boolean;
  /** Which tensors got values that are NaN or infinite. */
  readonly damage: Damage;
}

/** Of a folder whose weights are written, and nothing else. */
const nothingYet = { weightFiles: [], seconds: 0, found: false } as const;

/** What was planned and made, with the texts (`Details`) that were written beside the weights. */
export type MadeModel<Planned extends PlannedModel, Details = unknown> = Planned & Details & MadeFolder;

/** Where and how to write. */
export interface MakeOptions extends ExecuteOptions {
  /** If `out` already holds this conversion's complete but unmeasured result, use it instead of refusing the folder. */
  readonly acceptFinished?: boolean | undefined;
}

/** Work that is ready to be executed, and what the caller is told of it. */
export interface PreparedWork<Details> {
  readonly work: Work;
  readonly details: Details;
}

/** One way of making a model folder: what it reads, what it plans, what it writes. */
export interface Surgery<Planned extends PlannedModel, Details> {
  /** The models that are read, the base first. */
  readonly sources: ParentSources;
  /** Opens the models in another way than by their folders; one thread reads then. */
  readonly open?: () => Promise<Parents>;
  /** Whether even a plan that is only shown needs what is measured on text (`measured`). */
  readonly plansByMeasuring: boolean;
  /** Refuses what cannot be planned where `plan` needs what is measured on text; left out where it does not. */
  readonly beforehand?: () => Promise<void>;
  /** Plans the model. It reads only weights that decide whether it can be made, and throws inputError if it cannot. */
  readonly plan: (parents: Parents) => Planned | Promise<Planned>;
  /** Throws inputError for a plan that can be shown, not carried out. */
  readonly requireComplete?: (planned: Planned) => void;
  /** The plan as executable work, with the texts to be written beside the weights. Writes nothing. */
  readonly prepare: (parents: Parents, planned: Planned) => Promise<PreparedWork<Details>>;
  /** The same surgery with what had to be measured on text; left out where nothing has. */
  readonly measured?: (tools: MeasureTools) => AsyncGenerator<MeasureEvent, Surgery<Planned, Details>, undefined>;
  /** The text of the model card with what was measured on the finished model; null: nothing was. */
  readonly card: (made: MadeModel<Planned, Details>, preservation: PreservationReport | null) => string;
}

/** What would be made; writes nothing. Throws inputError for sources and settings that do not go together. */
export async function planModel<Planned extends PlannedModel>(
  surgery: Pick<Surgery<Planned, unknown>, "sources" | "open" | "plan">,
): Promise<Planned> {
  const parents = await (surgery.open?.() ?? openParents(surgery.sources));
  try {
    return await surgery.plan(parents);
  } finally {
    await closeParents(parents);
  }
}

/**
 * Makes the folder; `out` appears only when it is complete. Throws inputError for sources, settings or a folder that
 * cannot be used, stopError for a full disk, interruptedError when `signal` fires. Whoever stops listening stops the
 * work as the signal does.
 */
export async function* makeModel<Planned extends PlannedModel, Details>(
  surgery: Surgery<Planned, Details>,
  options: MakeOptions,
): AsyncGenerator<MakeEvent<Planned>, MadeModel<Planned, Details>, undefined> {
  const { out, overwrite, acceptFinished, maxShardBytes, signal } = options;
  const { sources } = surgery;
  await requireOut({ out, overwrite, acceptFinished, folders: sources.flatMap(foldersOf) });
  const started = performance.now();
  const parents = await (surgery.open?.() ?? openParents(sources));
  try {
    await breathe(signal);
    const planned = await surgery.plan(parents);
    await breathe(signal);
    surgery.requireComplete?.(planned);
    yield { type: "planned", ...planned };
    const { work, details } = await surgery.prepare(parents, planned);
    const finished =
      acceptFinished === true && overwrite !== true ? await finishedFiles(out, work, maxShardBytes, parents) : null;
    const threads = surgery.open === undefined ? options : { ...options, threads: 1 };
    const { weightFiles, damage } =
      finished === null
        ? yield* executeWork(parents, work, threads, (found) => ({
            [cardFile]: surgery.card({ ...planned, ...details, ...nothingYet, dir: out, damage: found }, null),
          }))
        : { weightFiles: finished, damage: new Map<string, number>() };
    const seconds = (performance.now() - started) / 1000;
    return { ...planned, ...details, dir: out, weightFiles, seconds, found: finished !== null, damage };
  } finally {
    await closeParents(parents);
  }
}
