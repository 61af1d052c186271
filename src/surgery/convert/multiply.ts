/** Multiplies the experts of an MoE model folder (`surgery/planning/multiply.ts`). */
import type { Checkpoint } from "../../files/checkpoint/open.js";
import { explainExpectation } from "../planning/explain.js";
import { planMultiply, type MultiplyPlan, type MultiplyRecipe } from "../planning/multiply.js";
import { derivedSurgery, type DerivedDetails, type DerivedModel, type DerivedWork } from "./derived.js";
import type { ExecuteOptions } from "./execute.js";
import { lineageRecord, multiplied, multiplyFile, readLineage } from "./lineage.js";
import { makeModel, planModel, type MadeModel, type MakeEvent, type SourceOptions, type Surgery } from "./make.js";

/** What to multiply, and how; the source is an MoE model. */
interface MultiplySourceOptions extends SourceOptions {
  readonly recipe: MultiplyRecipe;
}

/** What to multiply, how, and where to. */
export type MultiplyOptions = MultiplySourceOptions & ExecuteOptions;

/** How a model's experts would be multiplied. */
export type MultiplyingPlan = DerivedModel<MultiplyPlan>;

/** Multiplication as a surgery, for `makeModel` and the workflow. */
export function multiplying(options: MultiplySourceOptions): Surgery<MultiplyingPlan, DerivedDetails> {
  return derivedSurgery(options, {
    plan: ({ spec }) => {
      const plan = planMultiply(spec, options.recipe);
      return { plan, warnings: plan.warnings };
    },
    work: workOf,
  });
}

/** What `multiplyExperts` would do, from config and file headers alone; writes nothing. Throws like it. */
export async function planMultiplying(options: MultiplySourceOptions): Promise<MultiplyingPlan> {
  return planModel(multiplying(options));
}

/**
 * Makes the larger MoE model folder; `out` appears only when it is complete, and interrupted work resumes when asked
 * for again. Throws inputError for a source, recipe or folder that cannot be used, stopError for a full disk,
 * interruptedError when `signal` fires.
 */
export function multiplyExperts(
  options: MultiplyOptions,
): AsyncGenerator<MakeEvent<MultiplyingPlan>, MadeModel<MultiplyingPlan, DerivedDetails>, undefined> {
  return makeModel(multiplying(options), options);
}

async function workOf({ plan, warnings }: MultiplyingPlan, checkpoint: Checkpoint): Promise<DerivedWork> {
  const { recipe, source, expected, how } = plan;
  const before = await readLineage(checkpoint);
  const lineage = before === null ? undefined : lineageRecord(multiplied(before, recipe.copies, plan.down));
  return {
    name: `${recipe.copies} times the experts of ${source.family}`,
    settings: recipe,
    seed: recipe.seed,
    lineage,
    record: { file: multiplyFile, content: { recipe, expected, warnings, lineage: lineage ?? null } },
    card: {
      title: `with ${recipe.copies} times the experts`,
      what: "A mixture of experts, with copies of the experts of",
      tags: ["moe", "mixture-of-experts", "upcycled"],
      summary: [
        ["experts", how],
        ["function", explainExpectation(expected)],
      ],
    },
  };
}
