/** `upcycle convert MOE --expert-multiply M`: an MoE with more experts out of an MoE. */
import { inputError } from "../base/errors.js";
import { bytes, compact } from "../base/format.js";
import type { ModelSource } from "../files/checkpoint/model-source.js";
import { multiplying, type MultiplyingPlan } from "../surgery/convert/multiply.js";
import { countParams } from "../model/cost/params.js";
import { explainExpectation } from "../surgery/planning/explain.js";
import { multiplyRecipe, type ExpertUtility, type MultiplyRecipe } from "../surgery/planning/multiply.js";
import type { CommandContext } from "./context.js";
import { defaultThreads } from "./options.js";
import { carryOut, dtypeName, dtypeOf, resultView, type MakeFlags } from "./workflow.js";

/** The flags of `convert` that mean something with `--expert-multiply`. */
export interface MultiplyFlags extends MakeFlags {
  readonly expertMultiply?: number;
  readonly topk?: number;
  readonly routerStd?: number;
  readonly seed?: number;
  readonly multiplyBy?: ExpertUtility["by"];
  readonly report: boolean;
}

/** Options of `convert` that mean something with `--expert-multiply`. */
const meaningful: ReadonlySet<string> = new Set([
  "expertMultiply",
  "multiplyBy",
  "calibration",
  "calibrationTokens",
  "topk",
  "routerStd",
  "seed",
  "out",
  "dtype",
  "shardSize",
  "overwrite",
  "allowNonfinite",
  "threads",
  "dryRun",
  "report",
  "text",
  "json",
  "debug",
]);

/** The recipe that flags with `--expert-multiply` say. Throws inputError for flags of recipes for dense models. */
export function requestedMultiply(flags: MultiplyFlags & { readonly expertMultiply: number }): MultiplyRecipe {
  const other = Object.keys(flags).find((flag) => !meaningful.has(flag));
  if (other !== undefined) {
    const name = `--${other.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    throw inputError("does not go with --expert-multiply, which copies experts as they are", {
      where: name,
      hint: "leave it out; --topk, --router-std, --multiply-by and --seed do",
    });
  }
  const { expertMultiply: copies, topk: topK, routerStd, seed, multiplyBy: by } = flags;
  return multiplyRecipe({ copies, topK, routerStd, seed, by });
}

/** Makes the larger model, or shows the plan in a dry run; every other run needs `--out`. */
export async function runMultiply(
  source: ModelSource,
  recipe: MultiplyRecipe,
  flags: MultiplyFlags,
  context: CommandContext,
): Promise<void> {
  const { threads, report, shardSize } = flags;
  const writing = threads ?? 1;
  const measuring = threads ?? defaultThreads();
  const surgery = multiplying({ source, recipe, dtype: dtypeOf(flags.dtype), maxShardBytes: shardSize });
  const running = { threads: { prompts: writing, calibration: measuring, writing, proof: measuring }, report };
  await carryOut(surgery, flags, running, resultView(facts, lines), context);
}

function facts({ plan, dtype, weightBytes, warnings }: MultiplyingPlan): Record<string, unknown> {
  const { recipe, source, target, expected, how } = plan;
  return {
    recipe,
    family: target.family,
    how,
    dtype: dtypeName(dtype),
    weightBytes,
    expected,
    warnings,
    params: countParams(target),
    parentParams: countParams(source),
  };
}

function lines({ plan, dtype, weightBytes }: MultiplyingPlan): string[] {
  const { total, active } = countParams(plan.target);
  const size =
    `parameters: ${compact(total)}, ${compact(active)} active (of ${compact(countParams(plan.source).total)}); ` +
    `${bytes(weightBytes, 3)} as ${dtypeName(dtype)}`;
  return [plan.how, size, explainExpectation(plan.expected)];
}
