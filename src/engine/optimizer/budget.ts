/** Budgets of a training: how many steps they allow, and the time after which it ends. */
import { inputError } from "../../base/errors.js";
import { scheduleProblem, type Budget, type BudgetedBlock, type TrainingBlock } from "../../base/schemas/training.js";

const milliseconds = { s: 1e3, m: 60e3, h: 3600e3, d: 86400e3 } as const;

/** Time that steps may take in all, in milliseconds; Infinity without a limit. */
export function timeBudget(budget: Budget | undefined): number {
  if (budget?.time === undefined) return Infinity;
  return Number(budget.time.slice(0, -1)) * milliseconds[budget.time.slice(-1) as keyof typeof milliseconds];
}

/**
 * The block with its length: the smallest of steps, the token budget and the FLOP budget, in whole steps.
 * Throws inputError for a budget below one step and for a warm-up or decay that does not fit.
 */
export function withSteps(block: BudgetedBlock, flopsPerToken: number): TrainingBlock {
  const { steps = Infinity, budget = {}, batch, sequence, accumulate } = block;
  const tokensPerStep = batch * sequence * accumulate;
  const { tokens = Infinity, flops = Infinity } = budget;
  const length = Math.min(
    steps,
    Math.floor(tokens / tokensPerStep),
    Math.floor(flops / (tokensPerStep * flopsPerToken)),
  );
  if (length < 1) {
    const cost = `${tokensPerStep} tokens, ${(tokensPerStep * flopsPerToken).toPrecision(3)} FLOPs`;
    throw inputError(`the budget is smaller than one step (${cost})`, {
      where: "training.budget",
      hint: "raise it, or lower batch, sequence or accumulate",
    });
  }
  const problem = scheduleProblem(block.lr, length);
  if (problem !== null)
    throw inputError(`${problem.message}, which the budget allows`, { where: `training.lr.${problem.key}` });
  return { ...block, steps: length };
}
