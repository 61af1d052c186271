/**
 * Upcycles a dense model folder into an MoE model folder, one tensor at a time.
 *
 *   open -> plan -> (per tensor: read, evaluate, write) -> config, tokenizer, upcycle.json -> rename into place
 *
 * Memory: the largest tensor, or the FFN of one layer twice (as stored, and cut into experts).
 */
import { realpath } from "node:fs/promises";
import { basename, resolve, sep } from "node:path";
import { inputError, interruptedError } from "../base/errors.js";
import { openCheckpoint, type Checkpoint } from "../checkpoint/open.js";
import { plannedWeightBytes, writeCheckpoint, type WriteDtype } from "../checkpoint/write.js";
import { evaluate, type StoredTensor } from "../surgery/evaluate.js";
import { printExpr, sourceKey } from "../surgery/expr.js";
import { planUpcycle, sourceShapes, type SurgeryPlan } from "../surgery/plan.js";
import type { UpcycleRecipe } from "../surgery/recipe.js";
import type { Slot } from "../tensors/slots.js";
import { recordFile, recordOf, type UpcycleRecord } from "./record.js";
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
  /** Stops between two tensors; nothing is left behind. */
  readonly signal?: AbortSignal | undefined;
}

export type ConvertEvent =
  | ({ readonly type: "planned" } & ConversionPlan)
  | {
      readonly type: "progress";
      /** Hugging Face name of the tensor just written. */
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
    const record = recordOf(planned.plan, basename(resolve(source)), toolVersion, planned.warnings);
    const tensor = tensorMaker(checkpoint, planned);
    const written = await writeCheckpoint({
      dir: out,
      spec: planned.plan.target,
      dtype: planned.dtype,
      tensor: (slot) => {
        if (signal?.aborted === true) throw interruptedError("conversion stopped, nothing was written", { where: out });
        return tensor(slot);
      },
      carry: source,
      files: { [recordFile]: `${JSON.stringify(record, null, 2)}\n` },
      maxShardBytes: options.maxShardBytes,
      overwrite: options.overwrite,
      onProgress: ({ name, bytes, totalBytes }) => {
        onEvent?.({ type: "progress", tensor: name, done: bytes, total: totalBytes, bytesPerSecond: bytes / seconds() });
      },
    });
    return { ...planned, dir: out, weightFiles: written.weightFiles, record, seconds: seconds() };
  } finally {
    await checkpoint.close();
  }
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
    warnings: [...plan.warnings, ...leftOver],
  };
}

function listed(names: readonly string[]): string {
  return names.length <= 3 ? names.join(", ") : `${names.slice(0, 3).join(", ")}, ...`;
}

/**
 * Gives the stored form of one output after another, in write order. Within a layer every source tensor is read once
 * and every distinct part is cut, scaled and rounded once, however many experts are copies of it.
 */
function tensorMaker(checkpoint: Checkpoint, { plan, dtype }: ConversionPlan): (slot: Slot) => Promise<StoredTensor> {
  const values = new Map(plan.outputs.map(({ slot, value }) => [slot.key, value]));
  const uses = countUses(plan);
  const sources = new Map<string, Promise<StoredTensor>>();
  const parts = new Map<string, Promise<Uint8Array>>();
  let currentLayer: number | undefined;
  const readBytes = (key: string): Promise<StoredTensor> =>
    uses.get(key) === 1 ? checkpoint.readBytes(key) : remember(sources, key, () => checkpoint.readBytes(key));
  const context = { shapes: sourceShapes(plan.source), seed: plan.recipe.seed, readBytes };
  return async ({ key, at, shape }) => {
    if (at.layer !== currentLayer) {
      sources.clear();
      parts.clear();
      currentLayer = at.layer;
    }
    const value = values.get(key)!;
    const source = sourceKey(value);
    const shared = source !== null && uses.get(source)! > 1;
    const make = (): Promise<Uint8Array> => evaluate(value, shape, dtype, context);
    return { dtype, bytes: await (shared ? remember(parts, printExpr(value), make) : make()) };
  };
}

/** How many outputs read each source tensor. */
function countUses(plan: SurgeryPlan): Map<string, number> {
  const uses = new Map<string, number>();
  for (const { value } of plan.outputs) {
    const key = sourceKey(value);
    if (key !== null) uses.set(key, (uses.get(key) ?? 0) + 1);
  }
  return uses;
}

function remember<V>(known: Map<string, Promise<V>>, key: string, make: () => Promise<V>): Promise<V> {
  const found = known.get(key);
  if (found !== undefined) return found;
  const made = make();
  known.set(key, made);
  return made;
}
