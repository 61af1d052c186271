/**
 * Merges the experts of an MoE model folder into a dense model folder: the way back from upcycling
 * (`surgery/planning/merge.ts`).
 */
import { inputError } from "../../base/errors.js";
import { foldersOf } from "../../files/checkpoint/model-source.js";
import { openCheckpoint, type Checkpoint, type ModelSource } from "../../files/checkpoint/open.js";
import { plannedWeightBytes, type WriteDtype } from "../../files/checkpoint/write.js";
import { paddingOf, planMerge, type MergeChoice, type MergePlan } from "../planning/merge.js";
import { recipeName } from "../planning/recipe.js";
import { slotKey, slotsOf } from "../../model/tensors/slots.js";
import { cardFile } from "./card.js";
import { derivedCard } from "./derived-card.js";
import { executeWork, fileWarnings, ownDtype, type ExecuteEvent, type ExecuteOptions } from "./execute.js";
import { readLineage } from "./lineage.js";
import { sourceName } from "./parents.js";
import { requireOut } from "./place.js";
import { toolVersion } from "./version.js";

/** In a merged model's folder: how it was made. */
export const mergeFile = "merge.json";

export interface MergeOptions extends ExecuteOptions {
  /** MoE model folder, with or without an adapter; an `upcycle.json` in it says how its experts were made. */
  readonly source: ModelSource;
  readonly choice: MergeChoice;
  /** Precision to write; the source's own if left out (float32 for a float64 source). */
  readonly dtype?: WriteDtype | undefined;
  readonly onEvent?: ((event: MergeEvent) => void) | undefined;
}

export type MergeEvent = ({ readonly type: "planned" } & MergingPlan) | ExecuteEvent;

export interface MergingPlan {
  readonly plan: MergePlan;
  readonly dtype: WriteDtype;
  readonly weightBytes: number;
  readonly warnings: readonly string[];
}

export interface Merged extends MergingPlan {
  readonly dir: string;
  readonly weightFiles: readonly string[];
  readonly seconds: number;
}

type PlanOptions = Pick<MergeOptions, "source" | "choice" | "dtype" | "maxShardBytes">;

/**
 * What `mergeCheckpoint` would do; reads no weights but shared experts that must be zero and routers without a record,
 * writes nothing. Throws like it.
 */
export async function planMerging(options: PlanOptions): Promise<MergingPlan> {
  const checkpoint = await openCheckpoint(options.source);
  try {
    return await planFor(checkpoint, options);
  } finally {
    await checkpoint.close();
  }
}

/**
 * Makes the dense model folder; `out` appears only when it is complete, and an interrupted merge goes on when asked for
 * again. Throws `input` for a source, choice or folder that cannot be used, `stopped` for a full disk, `interrupted`
 * when `signal` fires.
 */
export async function mergeCheckpoint(options: MergeOptions): Promise<Merged> {
  const { source, out, overwrite, onEvent } = options;
  await requireOut({ out, overwrite, folders: foldersOf(source) });
  const started = performance.now();
  const checkpoint = await openCheckpoint(source);
  try {
    const planned = await planFor(checkpoint, options);
    onEvent?.({ type: "planned", ...planned });
    const { plan, dtype } = planned;
    const files = {
      [mergeFile]: `${JSON.stringify(recordOf(planned, sourceName(source)), null, 2)}\n`,
      [cardFile]: await cardOf(checkpoint, planned),
    };
    const work = {
      name: `merge of ${plan.source.family}`,
      settings: { choice: plan.choice, lineage: plan.lineage },
      target: plan.target,
      outputs: plan.outputs,
      seed: plan.lineage?.recipe.seed ?? 0,
      dtype,
      files,
    };
    const { weightFiles } = await executeWork([checkpoint], work, options, onEvent);
    return { ...planned, dir: out, weightFiles, seconds: (performance.now() - started) / 1000 };
  } finally {
    await checkpoint.close();
  }
}

async function planFor(checkpoint: Checkpoint, { choice, dtype, maxShardBytes }: PlanOptions): Promise<MergingPlan> {
  const plan = planMerge(checkpoint.spec, choice, await readLineage(checkpoint));
  for (const key of plan.zeros) await requireZero(checkpoint, key);
  if (plan.lineage === null) await requireWholeExperts(checkpoint);
  const written = dtype ?? ownDtype(checkpoint);
  return {
    plan,
    dtype: written,
    weightBytes: plannedWeightBytes(plan.target, written, maxShardBytes),
    warnings: [...mergeWarnings(plan), ...fileWarnings(checkpoint)],
  };
}

/**
 * Without a record every expert is taken to be a whole FFN. Parts of one share their router row (virtual groups) until
 * training moves it, and copies of experts keep their order: a first run of equal rows, followed by others, tells the
 * number of parts.
 */
async function requireWholeExperts(checkpoint: Checkpoint): Promise<void> {
  for (const [layer, { ffn }] of checkpoint.spec.layers.entries()) {
    if (ffn.kind === "dense") continue;
    const key = slotKey({ part: "router", layer });
    const rows = await checkpoint.readFloat32(key);
    const { hidden } = checkpoint.spec;
    const isFirst = (expert: number): boolean =>
      rows.subarray(expert * hidden, (expert + 1) * hidden).every((value, i) => value === rows[i]);
    let parts = 1;
    while (parts < ffn.experts && isFirst(parts)) parts++;
    if (parts === 1 || parts === ffn.experts) continue;
    throw inputError(
      `the first ${parts} experts share one router row, as the ${parts} parts of one FFN do, and no record ` +
        "says how they were cut",
      {
        where: `${checkpoint.dir}, ${key}`,
        hint:
          "put back what convert wrote: upcycle.json (multiply.json) beside the weights, or the key upcycle of " +
          "config.json",
      },
    );
  }
}

/** Values looked at in one go. */
const lookedAt = 1 << 20;

async function requireZero(checkpoint: Checkpoint, key: string): Promise<void> {
  const [rowCount = 1, columns = 1] = slotsOf(checkpoint.spec).find((slot) => slot.key === key)!.shape;
  const step = Math.max(1, Math.floor(lookedAt / columns));
  for (let start = 0; start < rowCount; start += step) {
    const values = await checkpoint.readRows(key, start, Math.min(step, rowCount - start));
    if (values.some((value) => value !== 0)) {
      throw inputError(
        "the shared expert is always added and is not zero, so it is no part of what the routed experts average to",
        {
          where: `${checkpoint.dir}, ${key}`,
          hint:
            "only a shared expert that adds nothing, or one that upcycle.json says is a part of the FFN " +
            "(--shared), can be merged",
        },
      );
    }
  }
}

function mergeWarnings({ lineage, source, target }: MergePlan): string[] {
  const gated =
    lineage?.recipe.shared != null && source.layers.some(({ ffn }) => ffn.kind === "moe" && ffn.shared?.gated === true);
  return [
    ...(lineage === null
      ? [
          "no record says how the experts were made (upcycle.json, multiply.json, the key upcycle of " +
            "config.json): each is taken to be a whole FFN, which parts of one are not",
        ]
      : []),
    ...(gated
      ? ["the shared expert's gate is taken to be a half, as upcycling started it; what training made of it is lost"]
      : []),
    ...(lineage?.recipe.pad === true && paddingOf(lineage) === "stays"
      ? [
          "units that filled the last part stay in the FFN: zeros, unless noise, drop or training made " +
            "something of them",
        ]
      : []),
    ...(target.family === "upcycle" && lineage?.family !== "upcycle"
      ? [
          "no dense family says what upcycling or the model's own family changed: written in our own format, " +
            "which only upcycle loads",
        ]
      : []),
  ];
}

function recordOf({ plan, warnings }: MergingPlan, name: string): Record<string, unknown> {
  const { lineage, choice, source, how, kept } = plan;
  return {
    version: 1,
    upcycle: toolVersion,
    from: { name, family: source.family },
    recipe: lineage === null ? null : recipeName(lineage.recipe),
    ...(choice.kind === "expert" ? { expert: choice.index } : { weights: choice.weights ?? "uniform" }),
    how,
    kept,
    warnings,
  };
}

async function cardOf(checkpoint: Checkpoint, { plan, dtype, weightBytes, warnings }: MergingPlan): Promise<string> {
  return derivedCard(checkpoint, {
    title: "merged",
    what: "A dense model, merged from the experts of",
    tags: ["merge"],
    target: plan.target,
    dtype,
    weightBytes,
    warnings,
    summary: [
      ["made of", plan.how],
      ["function", plan.kept],
    ],
  });
}
