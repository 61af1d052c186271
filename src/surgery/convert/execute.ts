/**
 * Writes what a plan says into a model folder, chunk by chunk; goes on where an earlier attempt at the same stopped.
 */
import { sep } from "node:path";
import { inputError } from "../../base/errors.js";
import type { Checkpoint } from "../../files/checkpoint/open.js";
import {
  rectangleWeights,
  writeCheckpoint,
  type RectangleWeights,
  type SlotDtype,
  type WriteDtype,
  type WriteOptions,
  type WrittenCheckpoint,
} from "../../files/checkpoint/write.js";
import { realPath, requireNamed } from "../../files/io/atomic.js";
import { breathe } from "../../files/io/breath.js";
import { threadsThatFit } from "../../files/io/limits.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { printExpr } from "../planning/expr.js";
import type { PlannedSlot } from "../planning/plan.js";
import type { PlanMatrix } from "../planning/router-rows.js";
import type { Slot } from "../../model/tensors/slots.js";
import { areasOf } from "./areas.js";
import { sourceOf } from "./parents.js";
import type { LineageRecord } from "./lineage.js";
import { identityOf, sourceStamps } from "./identity.js";
import { openThreads } from "./threads.js";
import { toolVersion } from "./version.js";

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
  /** Of single slots, where they differ. */
  readonly slotDtype?: Exclude<SlotDtype, WriteDtype> | undefined;
  /** How the result's experts were made; left out for a dense model, or if nobody knows. */
  readonly lineage?: LineageRecord | undefined;
  /** Texts of further files. */
  readonly files: Readonly<Record<string, string>>;
}

export interface ExecuteOptions {
  /** Folder to make. */
  readonly out: string;
  readonly maxShardBytes?: number | undefined;
  /** Replace `out` if it is there. */
  readonly overwrite?: boolean | undefined;
  /**
   * Threads that make chunks (default 1: this one), as far as the system lets us have them. The bytes do not depend on
   * it.
   */
  readonly threads?: number | undefined;
  /** Stops between two chunks; the same work, asked for again, goes on from there. */
  readonly signal?: AbortSignal | undefined;
  /** Bytes made in one go, and bytes after which they are flushed and recorded: for tests and measurements. */
  readonly pace?: WriteOptions["pace"];
}

export type ExecuteEvent =
  /** An earlier attempt had written `done` bytes of weights, or other unfinished work was removed. */
  | { readonly type: "resumed"; readonly done: number; readonly total: number }
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

/**
 * `sources`: the base first, whose tokenizer is carried along. Throws `input` for a folder that cannot be used,
 * `stopped` for a full disk, `interrupted` when the signal fires.
 */
export async function executeWork(
  sources: readonly Checkpoint[],
  work: Work,
  { out, threads = 1, maxShardBytes, overwrite, signal, pace }: ExecuteOptions,
  onEvent?: (event: ExecuteEvent) => void,
): Promise<WrittenCheckpoint> {
  const { target, dtype, slotDtype, lineage, files } = work;
  await breathe(signal);
  const identity = await identityOf(
    work,
    { version: toolVersion, dtype, maxShardBytes: maxShardBytes ?? null, chunkBytes: pace?.chunkBytes ?? null, files },
    sources,
  );
  await breathe(signal);
  let [began, before] = [performance.now(), 0];
  return writeCheckpoint({
    dir: out,
    spec: target,
    dtype,
    slotDtype,
    weights: weightsOf(sources, work, threads),
    carry: sources[0]!.dir,
    lineage,
    files,
    maxShardBytes,
    overwrite,
    signal,
    pace,
    resume: {
      identity,
      sources: () => sourceStamps(sources),
      onFound: (found) => {
        if ("replaced" in found) return onEvent?.({ type: "replaced", name: found.replaced });
        [began, before] = [performance.now(), found.bytes];
        onEvent?.({ type: "resumed", done: found.bytes, total: found.totalBytes });
      },
    },
    onProgress: ({ name, bytes, totalBytes }) => {
      const bytesPerSecond = (bytes - before) / Math.max(1e-3, (performance.now() - began) / 1000);
      onEvent?.({ type: "progress", tensor: name, done: bytes, total: totalBytes, bytesPerSecond });
    },
  });
}

/**
 * Tensors of sources with more are listed on this thread alone: each thread opens the sources for itself, which then
 * takes longer than it saves.
 */
const mostShared = 100_000;

function weightsOf(
  sources: readonly Checkpoint[],
  { outputs, seed, data = [] }: Work,
  threads: number,
): RectangleWeights {
  const values = outputs.map(({ slot, value }) => [slot.key, value] as const);
  const texts = new Map(values.map(([key, value]) => [key, printExpr(value)]));
  const sameAs = ({ key }: Slot): string => texts.get(key)!;
  const plan = { seed, values, data };
  const crowded = sources.reduce((sum, { tensors }) => sum + tensors.size, 0) > mostShared;
  const fitting = threads <= 1 || crowded ? 1 : threadsThatFit(threads);
  if (fitting <= 1) return rectangleWeights(areasOf(sources, plan), sameAs);
  return { sameAs, open: (target) => openThreads({ sources: sources.map(sourceOf), plan, target }, fitting) };
}

/** Replacing a folder that is or holds the source would destroy it. Throws `input`. */
export async function requireApart(source: string, out: string): Promise<void> {
  requireNamed(out);
  const [from, to] = [await realPath(source), await realPath(out)];
  if (`${from}${sep}`.startsWith(`${to}${sep}`)) {
    throw inputError(from === to ? "this is the source folder itself" : "the source folder lies inside this folder", {
      where: out,
      hint: "choose another folder to write to",
    });
  }
}

/** The precision to write where none is asked for. */
export function ownDtype({ dtype }: Checkpoint): WriteDtype {
  return dtype === "F64" ? "F32" : dtype;
}

/** Remarks on the source's files. */
export function fileWarnings({ unused, notes }: Checkpoint): string[] {
  const listed = unused.length <= 3 ? unused.join(", ") : `${unused.slice(0, 3).join(", ")}, ...`;
  const tensors = unused.length === 1 ? "1 tensor" : `${unused.length} tensors`;
  return [...(unused.length === 0 ? [] : [`${tensors} of the source not used: ${listed}`]), ...notes];
}
