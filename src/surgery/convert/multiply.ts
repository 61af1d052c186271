/** Multiplies the experts of an MoE model folder (`surgery/planning/multiply.ts`). */
import { foldersOf } from "../../files/checkpoint/model-source.js";
import { openCheckpoint, type Checkpoint, type ModelSource } from "../../files/checkpoint/open.js";
import { plannedWeightBytes, type WriteDtype } from "../../files/checkpoint/write.js";
import { explainExpectation } from "../planning/explain.js";
import { planMultiply, type MultiplyPlan, type MultiplyRecipe } from "../planning/multiply.js";
import { cardFile } from "./card.js";
import { derivedCard } from "./derived-card.js";
import { executeWork, fileWarnings, ownDtype, type ExecuteEvent, type ExecuteOptions } from "./execute.js";
import { lineageRecord, multiplied, multiplyFile, readLineage } from "./lineage.js";
import { sourceName } from "./parents.js";
import { requireOut } from "./place.js";
import { toolVersion } from "./version.js";

export interface MultiplyOptions extends ExecuteOptions {
  /** MoE model folder, with or without an adapter. */
  readonly source: ModelSource;
  readonly recipe: MultiplyRecipe;
  /** Precision to write; the source's own if left out (float32 for a float64 source). */
  readonly dtype?: WriteDtype | undefined;
  readonly onEvent?: ((event: MultiplyEvent) => void) | undefined;
}

export type MultiplyEvent = ({ readonly type: "planned" } & MultiplyingPlan) | ExecuteEvent;

export interface MultiplyingPlan {
  readonly plan: MultiplyPlan;
  readonly dtype: WriteDtype;
  readonly weightBytes: number;
  readonly warnings: readonly string[];
}

export interface Multiplied extends MultiplyingPlan {
  readonly dir: string;
  readonly weightFiles: readonly string[];
  readonly seconds: number;
  /** The text of README.md. */
  readonly card: string;
}

type PlanOptions = Pick<MultiplyOptions, "source" | "recipe" | "dtype" | "maxShardBytes">;

/** What `multiplyExperts` would do, from config and file headers alone; writes nothing. Throws like it. */
export async function planMultiplying(options: PlanOptions): Promise<MultiplyingPlan> {
  const checkpoint = await openCheckpoint(options.source);
  try {
    return planFor(checkpoint, options);
  } finally {
    await checkpoint.close();
  }
}

/**
 * Makes the larger MoE model folder; `out` appears only when it is complete, and interrupted work goes on when asked
 * for again. Throws `input` for a source, recipe or folder that cannot be used, `stopped` for a full disk,
 * `interrupted` when `signal` fires.
 */
export async function multiplyExperts(options: MultiplyOptions): Promise<Multiplied> {
  const { source, out, overwrite, onEvent } = options;
  await requireOut({ out, overwrite, folders: foldersOf(source) });
  const started = performance.now();
  const checkpoint = await openCheckpoint(source);
  try {
    const planned = planFor(checkpoint, options);
    onEvent?.({ type: "planned", ...planned });
    const { plan, dtype, weightBytes, warnings } = planned;
    const card = await derivedCard(checkpoint, {
      title: `with ${plan.recipe.copies} times the experts`,
      what: "A mixture of experts, with copies of the experts of",
      tags: ["moe", "mixture-of-experts", "upcycled"],
      target: plan.target,
      dtype,
      weightBytes,
      warnings,
      summary: [
        ["experts", plan.how],
        ["function", explainExpectation(plan.expected)],
      ],
    });
    const before = await readLineage(checkpoint);
    const lineage = before === null ? undefined : lineageRecord(multiplied(before, plan.recipe.copies, plan.down));
    const record = {
      version: 1,
      upcycle: toolVersion,
      from: { name: sourceName(source), family: plan.source.family },
      recipe: plan.recipe,
      expected: plan.expected,
      warnings,
      lineage: lineage ?? null,
    };
    const files = { [multiplyFile]: `${JSON.stringify(record, null, 2)}\n`, [cardFile]: card };
    const work = {
      name: `${plan.recipe.copies} times the experts of ${plan.source.family}`,
      settings: plan.recipe,
      target: plan.target,
      outputs: plan.outputs,
      seed: plan.recipe.seed,
      dtype,
      lineage,
      files,
    };
    const { weightFiles } = await executeWork([checkpoint], work, options, onEvent);
    return { ...planned, dir: out, weightFiles, seconds: (performance.now() - started) / 1000, card };
  } finally {
    await checkpoint.close();
  }
}

function planFor(checkpoint: Checkpoint, { recipe, dtype, maxShardBytes }: PlanOptions): MultiplyingPlan {
  const plan = planMultiply(checkpoint.spec, recipe);
  const written = dtype ?? ownDtype(checkpoint);
  return {
    plan,
    dtype: written,
    weightBytes: plannedWeightBytes(plan.target, written, maxShardBytes),
    warnings: [...plan.warnings, ...fileWarnings(checkpoint)],
  };
}
