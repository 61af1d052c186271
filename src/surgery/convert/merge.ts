/**
 * Merges the experts of an MoE model folder into a dense model folder: the way back from upcycling
 * (`surgery/planning/merge.ts`).
 */
import { inputError } from "../../base/errors.js";
import { openCheckpoint, type Checkpoint } from "../../files/checkpoint/open.js";
import { slotKey, slotsOf } from "../../model/tensors/slots.js";
import { planMerge, withRoundedTensors, type MergeChoice, type MergePlan } from "../planning/merge.js";
import { paddingOf } from "../planning/merge-lineage.js";
import { recipeName } from "../planning/recipe.js";
import { derivedSurgery, type DerivedDetails, type DerivedModel, type DerivedWork } from "./derived.js";
import type { ExecuteOptions } from "./execute.js";
import { readLineage } from "./lineage.js";
import { makeModel, planModel, type MadeModel, type MakeEvent, type SourceOptions, type Surgery } from "./make.js";

/** Name of the file in a merged model's folder that says how it was made. */
const mergeFile = "merge.json";

/** What to merge, and how; an `upcycle.json` in the source says how its experts were made. */
interface MergeSourceOptions extends SourceOptions {
  readonly choice: MergeChoice;
}

/** What to merge, how, and where to. */
export type MergeOptions = MergeSourceOptions & ExecuteOptions;

/** How a model would be merged. */
export type MergingPlan = DerivedModel<MergePlan>;

/** Merging as a surgery, for `makeModel` and the workflow. */
export function merging(options: MergeSourceOptions): Surgery<MergingPlan, DerivedDetails> {
  return derivedSurgery(options, {
    plan: (checkpoint) => planOf(checkpoint, options.choice),
    withRounding: withRoundedTensors,
    work: workOf,
  });
}

/**
 * What `mergeCheckpoint` would do; reads no weights but shared experts that must be zero and routers without a record,
 * writes nothing. Throws like it.
 */
export async function planMerging(options: MergeSourceOptions): Promise<MergingPlan> {
  return planModel(merging(options));
}

/**
 * Throws inputError for a source and a choice that do not go together, from config and file headers alone: what weights
 * decide is looked at by the plan.
 */
export async function requireMergeable({ source, choice }: MergeSourceOptions): Promise<void> {
  const checkpoint = await openCheckpoint(source);
  await checkpoint.close();
  planMerge(checkpoint.spec, choice, await readLineage(checkpoint));
}

/**
 * Makes the dense model folder; `out` appears only when it is complete, and an interrupted merge resumes when asked for
 * again. Throws inputError for a source, choice or folder that cannot be used, stopError for a full disk,
 * interruptedError when `signal` fires.
 */
export function mergeCheckpoint(
  options: MergeOptions,
): AsyncGenerator<MakeEvent<MergingPlan>, MadeModel<MergingPlan, DerivedDetails>, undefined> {
  return makeModel(merging(options), options);
}

async function planOf(
  checkpoint: Checkpoint,
  choice: MergeChoice,
): Promise<{ readonly plan: MergePlan; readonly warnings: readonly string[] }> {
  const plan = planMerge(checkpoint.spec, choice, await readLineage(checkpoint));
  for (const key of plan.zeros) await requireZero(checkpoint, key);
  if (plan.lineage === null) await requireWholeExperts(checkpoint);
  return { plan, warnings: mergeWarnings(plan) };
}

function workOf({ plan, warnings }: MergingPlan): DerivedWork {
  const { lineage, choice, source, how, kept } = plan;
  return {
    name: `merge of ${source.family}`,
    settings: { choice, lineage },
    seed: lineage?.recipe.seed ?? 0,
    record: {
      file: mergeFile,
      content: {
        recipe: lineage === null ? null : recipeName(lineage.recipe),
        ...(choice.kind === "expert" ? { expert: choice.index } : { weights: choice.weights ?? "uniform" }),
        how,
        kept,
        warnings,
      },
    },
    card: {
      title: "merged",
      what: "A dense model, merged from the experts of",
      tags: ["merge"],
      summary: [
        ["made of", how],
        ["function", kept],
      ],
    },
  };
}

/**
 * Throws inputError for experts that are parts of FFNs: without a record each counts as a whole FFN. Parts of one FFN
 * share their router row (virtual group) until training moves it, and copies of experts keep their order. So a run of
 * equal rows at the beginning, followed by others, tells the number of parts.
 */
async function requireWholeExperts(checkpoint: Checkpoint): Promise<void> {
  const { hidden, layers } = checkpoint.spec;
  for (const [layer, { ffn }] of layers.entries()) {
    if (ffn.kind === "dense") continue;
    const key = slotKey({ part: "router", layer });
    const parts = equalFirstRows(await checkpoint.readFloat32(key), hidden);
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

/** How many rows of `width` values at the beginning are equal to the first. */
function equalFirstRows(rows: Float32Array, width: number): number {
  const isFirst = (row: number): boolean =>
    rows.subarray(row * width, (row + 1) * width).every((value, i) => value === rows[i]);
  const count = rows.length / width;
  let equal = 1;
  while (equal < count && isFirst(equal)) equal++;
  return equal;
}

/** How many values are read at a time. */
const valuesAtOnce = 1 << 20;

/** Throws inputError for a shared expert's down matrix that is not zero. */
async function requireZero(checkpoint: Checkpoint, key: string): Promise<void> {
  const shape = slotsOf(checkpoint.spec).find((slot) => slot.key === key)?.shape;
  if (shape === undefined) throw new Error(`the plan leaves out ${key}, which the model does not have`);
  const [rowCount = 1, columns = 1] = shape;
  const step = Math.max(1, Math.floor(valuesAtOnce / columns));
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
  const hasGate = source.layers.some(({ ffn }) => ffn.kind === "moe" && ffn.shared?.gated === true);
  const gated = lineage !== null && lineage.recipe.shared !== null && hasGate;
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
