/** Writes what a plan says into a model folder, chunk by chunk, and resumes an earlier attempt at the same work. */
import { entryOf } from "../../base/at.js";
import { eventsOf } from "../../base/events.js";
import type { Checkpoint } from "../../files/checkpoint/open.js";
import {
  rectangleWeights,
  writeCheckpoint,
  type RectangleWeights,
  type WriteDtype,
  type WriteOptions,
  type WrittenCheckpoint,
} from "../../files/checkpoint/write.js";
import { breathe } from "../../files/io/breath.js";
import { threadsThatFit } from "../../files/io/limits.js";
import { printExpr } from "../planning/expr.js";
import type { Slot } from "../../model/tensors/slots.js";
import { areasOf } from "./areas.js";
import { damageError } from "./damage.js";
import { damagedRecords, recordedDamage, type Damage } from "./damage-words.js";
import { sourceOf, type Parents } from "./parents.js";
import { identityOf, sourceStamps } from "./identity.js";
import { openThreads } from "./threads.js";
import { toolVersion } from "./version.js";
import type { Work } from "./work.js";
import type { ThreadWork } from "./worker.js";

/** Where and how to write a model folder. */
export interface ExecuteOptions {
  /** Folder to make. */
  readonly out: string;
  /** Most bytes of tensors in a weight file (default 5 GB). */
  readonly maxShardBytes?: number | undefined;
  /** Replace `out` if it is there. */
  readonly overwrite?: boolean | undefined;
  /**
   * Threads that make chunks (default 1: this one), as far as the system's limits allow. The bytes do not depend on
   * their number.
   */
  readonly threads?: number | undefined;
  /** Stops between two chunks; the same work, asked for again, resumes there. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Write weights that are NaN or infinite too, and say so; if left out the writing stops at the first one, with a
   * stopError that says where it stands.
   */
  readonly allowNonFinite?: boolean | undefined;
  /** How many bytes a chunk has, and after how many chunks are flushed and recorded: for tests and measurements. */
  readonly pace?: WriteOptions["pace"];
}

/** What is told while a folder is written. */
export type ExecuteEvent =
  /** An earlier attempt at the same work had written `done` bytes of weights. */
  | { readonly type: "resumed"; readonly done: number; readonly total: number }
  /** Other unfinished work, called `name`, was removed. */
  | { readonly type: "replaced"; readonly name: string }
  | {
      readonly type: "progress";
      /** Hugging Face name of the tensor just worked on. */
      readonly tensor: string;
      /** Bytes of weights. */
      readonly done: number;
      readonly total: number;
      readonly bytesPerSecond: number;
    };

/** A folder that is written. */
export interface ExecutedWork extends WrittenCheckpoint {
  /** Which tensors got values that are NaN or infinite, and how many. */
  readonly damage: Damage;
}

/**
 * Writes the folder. The base is the first of `sources`, and its tokenizer is copied. Throws inputError for a folder
 * that cannot be used, stopError for a full disk, interruptedError when the signal fires.
 */
export function executeWork(
  sources: Parents,
  work: Work,
  options: ExecuteOptions,
  damagedCard?: DamagedCard,
): AsyncGenerator<ExecuteEvent, ExecutedWork, undefined> {
  const written = (signal: AbortSignal, tell: (event: ExecuteEvent) => void): Promise<ExecutedWork> =>
    write(sources, work, { ...options, signal }, tell, damagedCard);
  return eventsOf((tell, signal) => written(signal, tell), options.signal);
}

/** The files beside the weights whose texts are others where weights are NaN or infinite. */
type DamagedCard = (damage: Damage) => Readonly<Record<string, string>>;

async function write(
  sources: Parents,
  work: Work,
  { out, threads = 1, maxShardBytes, overwrite, allowNonFinite = false, signal, pace }: ExecuteOptions,
  tell: (event: ExecuteEvent) => void,
  damagedCard: DamagedCard = () => ({}),
): Promise<ExecutedWork> {
  const { target, dtype, slotDtype, lineage, files } = work;
  await breathe(signal);
  const identity = await identityOf(
    work,
    {
      version: toolVersion,
      format: work.format,
      dtype,
      maxShardBytes: maxShardBytes ?? null,
      chunkBytes: pace?.chunkBytes ?? null,
      files,
    },
    sources,
  );
  await breathe(signal);
  const listeners = progressEvents(tell);
  const damage = new Map<string, number>();
  const written = await writeCheckpoint({
    dir: out,
    format: work.format,
    spec: target,
    dtype,
    slotDtype,
    weights: weightsOf(sources, work, threads),
    carry: work.carry ?? sources[0].dir,
    lineage,
    files,
    amended: () => (damage.size === 0 ? {} : { ...damagedRecords(files, damage), ...damagedCard(damage) }),
    maxShardBytes,
    overwrite,
    signal,
    pace,
    resume: { identity, sources: () => sourceStamps(sources), onFound: listeners.onFound },
    onProgress: listeners.onProgress,
    async onNonFinite(found) {
      if (!allowNonFinite) throw await damageError(sources, work, found);
      for (const name of found.names) damage.set(name, (damage.get(name) ?? 0) + found.values);
    },
  });
  return { ...written, damage: written.earlier ? await recordedDamage(out) : damage };
}

/** Listeners that turn the writer's calls into events. The speed is that of this attempt alone. */
function progressEvents(
  tell: (event: ExecuteEvent) => void,
): Pick<Required<WriteOptions>, "onProgress"> & Pick<NonNullable<WriteOptions["resume"]>, "onFound"> {
  let [startedAt, bytesBefore] = [performance.now(), 0];
  return {
    onFound(earlier) {
      if ("replaced" in earlier) return tell({ type: "replaced", name: earlier.replaced });
      [startedAt, bytesBefore] = [performance.now(), earlier.bytes];
      tell({ type: "resumed", done: earlier.bytes, total: earlier.totalBytes });
    },
    onProgress({ name, bytes, totalBytes }) {
      const seconds = Math.max(1e-3, (performance.now() - startedAt) / 1000);
      const bytesPerSecond = (bytes - bytesBefore) / seconds;
      tell({ type: "progress", tensor: name, done: bytes, total: totalBytes, bytesPerSecond });
    },
  };
}

/**
 * With more tensors than this the sources are read by this thread alone. Every further thread opens the sources for
 * itself, which would then take longer than it saves.
 */
const mostTensorsForThreads = 100_000;

function weightsOf(sources: Parents, { outputs, seed, data = [] }: Work, threads: number): RectangleWeights {
  const values = outputs.map(({ slot, value }) => [slot.key, value] as const);
  const texts = new Map(values.map(([key, value]) => [key, printExpr(value)]));
  const sameAs = ({ key }: Slot): string => entryOf(texts, key);
  const plan = { seed, values, data };
  const crowded = sources.reduce((sum, { tensors }) => sum + tensors.size, 0) > mostTensorsForThreads;
  const fitting = threads <= 1 || crowded ? 1 : threadsThatFit(threads);
  if (fitting <= 1) return rectangleWeights(areasOf(sources, plan), sameAs);
  return { sameAs, open: (target) => openThreads({ sources: sourcesOf(sources), plan, target }, fitting) };
}

function sourcesOf([base, ...others]: Parents): ThreadWork["sources"] {
  return [sourceOf(base), ...others.map(sourceOf)];
}

/** The precision to write if none is asked for: the source's own, float32 for a float64 source. */
export function ownDtype({ dtype }: Checkpoint): WriteDtype {
  return dtype === "F64" ? "F32" : dtype;
}

/** Remarks on the source's files: tensors that the model does not use, and the reader's own notes. */
export function fileWarnings({ unused, notes }: Checkpoint): string[] {
  const listed = unused.length <= 3 ? unused.join(", ") : `${unused.slice(0, 3).join(", ")}, ...`;
  const tensors = unused.length === 1 ? "1 tensor" : `${unused.length} tensors`;
  return [...(unused.length === 0 ? [] : [`${tensors} of the source not used: ${listed}`]), ...notes];
}
