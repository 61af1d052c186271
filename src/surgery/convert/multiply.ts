/** Multiplies the experts of an MoE model folder (`surgery/planning/multiply.ts`). */
import { inputError } from "../../base/errors.js";
import { openCheckpoint, type Checkpoint } from "../../files/checkpoint/open.js";
import type { MergeLineage } from "../planning/merge-lineage.js";
import { withRounding } from "../planning/expectation.js";
import { explainExpectation } from "../planning/explain.js";
import {
  equalValues,
  planMultiply,
  type ExpertUtility,
  type MultiplyPlan,
  type MultiplyRecipe,
} from "../planning/multiply.js";
import { derivedSurgery, type DerivedDetails, type DerivedModel, type DerivedWork } from "./derived.js";
import type { ExecuteOptions } from "./execute.js";
import { lineageRecord, multiplied, multiplyFile, readLineage } from "./lineage.js";
import { makeModel, planModel, type MadeModel, type MakeEvent, type SourceOptions, type Surgery } from "./make.js";
import { measuredUtility, type MeasureEvent, type MeasureTools } from "./measure.js";

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
  const { recipe } = options;
  const surgery = derivedSurgery(options, {
    plan: async (checkpoint) => {
      const plan = planMultiply(checkpoint.spec, recipe);
      if (recipe.utility !== undefined) requireAlike(await readLineage(checkpoint));
      return { plan, warnings: plan.warnings };
    },
    withRounding: (plan, rounded) => ({ ...plan, expected: withRounding(plan.expected, rounded) }),
    work: workOf,
  });
  const { utility } = recipe;
  if (utility === undefined || utility.values !== null) return surgery;
  return {
    ...surgery,
    plansByMeasuring: true,
    beforehand: () => requirePlannableMultiplying(options),
    measured: (tools) => measured(options, utility, tools),
  };
}

/**
 * Throws inputError for experts that are not all made alike: with some of them copied more often, nothing would say any
 * longer which expert is which part, permutation or parent.
 */
function requireAlike(lineage: MergeLineage | null): void {
  if (lineage === null) return;
  const { recipe, from } = lineage;
  const refuse = (how: string): never => {
    throw inputError(`the experts ${how}, as ${from} says, and copies of single ones would lose which is which`, {
      hint: "copy all equally often: leave --multiply-by out",
    });
  };
  if (recipe.granularity > 1) refuse(`are ${recipe.granularity} parts of each copy of an FFN`);
  if (recipe.permute) refuse("have their units in orders of their own");
  if (recipe.parents !== null) refuse("come from several parents");
}

/** Throws inputError for what cannot be planned, whatever the experts are worth where that is still to be measured. */
export async function requirePlannableMultiplying(options: MultiplySourceOptions): Promise<void> {
  const { utility } = options.recipe;
  if (utility === undefined || utility.values !== null) {
    await planMultiplying(options);
    return;
  }
  const checkpoint = await openCheckpoint(options.source);
  await checkpoint.close();
  const values = equalValues(checkpoint.spec);
  await planMultiplying({ ...options, recipe: { ...options.recipe, utility: { ...utility, values } } });
}

/** The same multiplication with what the experts are worth. */
async function* measured(
  options: MultiplySourceOptions,
  utility: ExpertUtility,
  tools: MeasureTools,
): AsyncGenerator<MeasureEvent, Surgery<MultiplyingPlan, DerivedDetails>, undefined> {
  await requirePlannableMultiplying(options);
  const { values, ...text } = yield* measuredUtility(options.source, utility.by, tools);
  return multiplying({ ...options, recipe: { ...options.recipe, utility: { ...utility, values, text } } });
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
    record: {
      file: multiplyFile,
      content: {
        recipe,
        ...(recipe.utility === undefined ? {} : { origins: plan.origins }),
        expected,
        warnings,
        lineage: lineage ?? null,
      },
    },
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
