/** Multiplies the experts of an MoE model folder (`surgery/planning/multiply.ts`). */
import type { Checkpoint } from "../../files/checkpoint/open.js";
import { plannedWeightBytes } from "../../files/checkpoint/write.js";
import { explainExpectation } from "../planning/explain.js";
import { planMultiply, type MultiplyPlan, type MultiplyRecipe } from "../planning/multiply.js";
import { cardFile } from "./card.js";
import { derivedCard } from "./derived-card.js";
import { fileWarnings, ownDtype, type ExecuteOptions } from "./execute.js";
import { lineageRecord, multiplied, multiplyFile, readLineage } from "./lineage.js";
import {
  makeModel,
  planModel,
  type MadeModel,
  type MakeEvent,
  type PlannedModel,
  type PreparedWork,
  type SourceOptions,
  type Surgery,
} from "./make.js";
import { sourceName } from "./parents.js";
import { toolVersion } from "./version.js";

/** What to multiply, and how; the source is an MoE model. */
interface MultiplySourceOptions extends SourceOptions {
  readonly recipe: MultiplyRecipe;
}

/** What to multiply, how, and where to. */
export type MultiplyOptions = MultiplySourceOptions & ExecuteOptions;

/** What would be multiplied. */
export type MultiplyingPlan = PlannedModel<MultiplyPlan>;

interface MultiplyDetails {
  /** The text of README.md. */
  readonly card: string;
}

/** Multiplication as a surgery, for `makeModel` and the workflow. */
export function multiplying(options: MultiplySourceOptions): Surgery<MultiplyingPlan, MultiplyDetails> {
  return {
    sources: [options.source],
    plansByMeasuring: false,
    plan: ([checkpoint]) => planFor(checkpoint, options),
    prepare: ([checkpoint], planned) => prepare(checkpoint, planned, sourceName(options.source)),
    // The card says what is expected; what was measured lies beside it.
    card: ({ card }) => card,
  };
}

/** What `multiplyExperts` would do, from config and file headers alone; writes nothing. Throws like it. */
export async function planMultiplying(options: MultiplySourceOptions): Promise<MultiplyingPlan> {
  return planModel(multiplying(options));
}

/**
 * Makes the larger MoE model folder; `out` appears only when it is complete, and interrupted work resumes when asked
 * for again. Throws `input` for a source, recipe or folder that cannot be used, `stopped` for a full disk,
 * `interrupted` when `signal` fires.
 */
export function multiplyExperts(
  options: MultiplyOptions,
): AsyncGenerator<MakeEvent<MultiplyingPlan>, MadeModel<MultiplyingPlan, MultiplyDetails>, undefined> {
  return makeModel(multiplying(options), options);
}

async function prepare(
  checkpoint: Checkpoint,
  { plan, dtype, weightBytes, warnings }: MultiplyingPlan,
  name: string,
): Promise<PreparedWork<MultiplyDetails>> {
  const { recipe, source, target, expected } = plan;
  const card = await derivedCard(checkpoint, {
    title: `with ${recipe.copies} times the experts`,
    what: "A mixture of experts, with copies of the experts of",
    tags: ["moe", "mixture-of-experts", "upcycled"],
    target,
    dtype,
    weightBytes,
    warnings,
    summary: [
      ["experts", plan.how],
      ["function", explainExpectation(expected)],
    ],
  });
  const before = await readLineage(checkpoint);
  const lineage = before === null ? undefined : lineageRecord(multiplied(before, recipe.copies, plan.down));
  const from = { name, family: source.family };
  const record = { version: 1, upcycle: toolVersion, from, recipe, expected, warnings, lineage: lineage ?? null };
  const work = {
    name: `${recipe.copies} times the experts of ${source.family}`,
    settings: recipe,
    target,
    outputs: plan.outputs,
    seed: recipe.seed,
    dtype,
    lineage,
    files: { [multiplyFile]: `${JSON.stringify(record, null, 2)}\n`, [cardFile]: card },
  };
  return { work, details: { card } };
}

function planFor(checkpoint: Checkpoint, { recipe, dtype, maxShardBytes }: MultiplySourceOptions): MultiplyingPlan {
  const plan = planMultiply(checkpoint.spec, recipe);
  const written = dtype ?? ownDtype(checkpoint);
  return {
    plan,
    dtype: written,
    weightBytes: plannedWeightBytes(plan.target, written, maxShardBytes),
    warnings: [...plan.warnings, ...fileWarnings(checkpoint)],
  };
}
