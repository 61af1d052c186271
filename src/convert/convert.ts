/**
 * Upcycles a dense model folder into an MoE model folder, chunk by chunk.
 *
 *   open -> plan -> (per chunk: read, evaluate, write to each of its places) -> config, tokenizer, upcycle.json -> rename into place
 *
 * Memory: a few chunks, whatever the model's size. A conversion that was interrupted goes on when it is asked for again.
 */
import { realpath } from "node:fs/promises";
import { resolve, sep } from "node:path";
import { inputError } from "../base/errors.js";
import { openCheckpoint, type Checkpoint } from "../checkpoint/open.js";
import { areaWeights, plannedWeightBytes, writeCheckpoint, type AreaWeights, type WriteDtype, type WriteOptions } from "../checkpoint/write.js";
import { modelName } from "../hub/reference.js";
import { printExpr } from "../surgery/expr.js";
import { planUpcycle, type SurgeryPlan } from "../surgery/plan.js";
import type { UpcycleRecipe } from "../surgery/recipe.js";
import type { Slot } from "../tensors/slots.js";
import { areasOf } from "./areas.js";
import { identityOf, sourceStamps } from "./identity.js";
import { cardFile, modelCard, type CardFacts } from "./card.js";
import { readParentCard } from "./parent-card.js";
import { recordFile, recordOf, type UpcycleRecord } from "./record.js";
import { openThreads } from "./threads.js";
import { toolVersion } from "./version.js";

export interface ConvertOptions {
  /** Dense model folder. */
  readonly source: string;
  readonly recipe: UpcycleRecipe;
  /** Folder to make. */
  readonly out: string;
  /** Precision to write; the source's own if left out (float32 for a float64 source). */
  readonly dtype?: WriteDtype | undefined;
  readonly maxShardBytes?: number | undefined;
  /** Replace `out` if it is there. */
  readonly overwrite?: boolean | undefined;
  readonly onEvent?: ((event: ConvertEvent) => void) | undefined;
  /** Threads that make chunks (default 1: this one). The bytes do not depend on it. */
  readonly threads?: number | undefined;
  /** Stops between two chunks; the same conversion, asked for again, goes on from there. */
  readonly signal?: AbortSignal | undefined;
  /** Bytes made in one go, and bytes after which they are flushed and recorded: for tests and measurements. */
  readonly pace?: WriteOptions["pace"];
}

export type ConvertEvent =
  | ({ readonly type: "planned" } & ConversionPlan)
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

export interface ConversionPlan {
  readonly plan: SurgeryPlan;
  readonly dtype: WriteDtype;
  /** Size of the weight files that will be written, headers included. */
  readonly weightBytes: number;
  /** The plan's warnings and those about the source's files. */
  readonly warnings: readonly string[];
}

export interface Conversion extends ConversionPlan {
  readonly dir: string;
  readonly weightFiles: readonly string[];
  readonly record: UpcycleRecord;
  /** What README.md in the folder says; nothing has been measured yet. */
  readonly card: CardFacts;
  readonly seconds: number;
}

type PlanOptions = Pick<ConvertOptions, "source" | "recipe" | "dtype" | "maxShardBytes">;

/** What `convertCheckpoint` would do, from config and file headers alone; writes nothing. Throws like it. */
export async function planConversion(options: PlanOptions): Promise<ConversionPlan> {
  const checkpoint = await openCheckpoint(options.source);
  try {
    return planFor(checkpoint, options);
  } finally {
    await checkpoint.close();
  }
}

/**
 * Makes the MoE model folder; `out` appears only when it is complete.
 * Throws `input` for a source, recipe, target or folder that cannot be used, `stopped` for a full disk, `interrupted`
 * when `signal` fires.
 */
export async function convertCheckpoint(options: ConvertOptions): Promise<Conversion> {
  const { source, out, onEvent, signal } = options;
  await requireApart(source, out);
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  const checkpoint = await openCheckpoint(source);
  try {
    const planned = planFor(checkpoint, options);
    onEvent?.({ type: "planned", ...planned });
    const card = await cardOf(checkpoint, planned);
    const record = recordOf(planned.plan, modelName(source), toolVersion, planned.warnings);
    const files = { [recordFile]: `${JSON.stringify(record, null, 2)}\n`, [cardFile]: modelCard(card) };
    const identity = await identityOf(planned.plan, {
      version: toolVersion, dtype: planned.dtype, maxShardBytes: options.maxShardBytes ?? null, chunkBytes: options.pace?.chunkBytes ?? null, files,
    }, checkpoint);
    let [began, before] = [performance.now(), 0];
    const written = await writeCheckpoint({
      dir: out,
      spec: planned.plan.target,
      dtype: planned.dtype,
      weights: weightsOf(checkpoint, planned.plan, options.threads ?? 1),
      carry: source,
      files,
      maxShardBytes: options.maxShardBytes,
      overwrite: options.overwrite,
      signal,
      pace: options.pace,
      resume: {
        identity,
        sources: () => sourceStamps(checkpoint),
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
    return { ...planned, dir: out, weightFiles: written.weightFiles, record, card, seconds: seconds() };
  } finally {
    await checkpoint.close();
  }
}

async function cardOf({ dir, config }: Checkpoint, { plan, dtype, weightBytes, warnings }: ConversionPlan): Promise<CardFacts> {
  const parent = await readParentCard(dir, config);
  return { parentName: modelName(dir), parent, plan, dtype, weightBytes, warnings, preservation: null };
}

/** Replacing a folder that is or holds the source would destroy the parent. */
async function requireApart(source: string, out: string): Promise<void> {
  const real = (path: string): Promise<string> => realpath(path).catch(() => resolve(path));
  const [from, to] = [await real(source), await real(out)];
  if (`${from}${sep}`.startsWith(`${to}${sep}`)) {
    throw inputError(from === to ? "this is the source folder itself" : "the source folder lies inside this folder", {
      where: out,
      hint: "choose another folder to write to",
    });
  }
}

function planFor(checkpoint: Checkpoint, { recipe, dtype, maxShardBytes }: PlanOptions): ConversionPlan {
  const plan = planUpcycle(checkpoint.spec, recipe);
  const written = dtype ?? (checkpoint.dtype === "F64" ? "F32" : checkpoint.dtype);
  const { unused } = checkpoint;
  const tensors = unused.length === 1 ? "1 tensor" : `${unused.length} tensors`;
  const leftOver = unused.length === 0 ? [] : [`${tensors} of the source not used: ${listed(unused)}`];
  return {
    plan,
    dtype: written,
    weightBytes: plannedWeightBytes(plan.target, written, maxShardBytes),
    warnings: [...plan.warnings, ...leftOver, ...checkpoint.notes],
  };
}

function listed(names: readonly string[]): string {
  return names.length <= 3 ? names.join(", ") : `${names.slice(0, 3).join(", ")}, ...`;
}

function weightsOf(checkpoint: Checkpoint, { outputs, recipe }: SurgeryPlan, threads: number): AreaWeights {
  const values = outputs.map(({ slot, value }) => [slot.key, value] as const);
  const texts = new Map(values.map(([key, value]) => [key, printExpr(value)]));
  const sameAs = ({ key }: Slot): string => texts.get(key)!;
  const plan = { seed: recipe.seed, values };
  if (threads <= 1) return areaWeights(areasOf(checkpoint, plan), sameAs);
  return { sameAs, open: (target) => openThreads({ source: checkpoint.dir, plan, target }, threads) };
}
