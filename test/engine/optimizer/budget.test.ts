import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import type { BudgetedBlock } from "../../../src/base/schemas/index.js";
import { timeBudget, withSteps } from "../../../src/engine/optimizer/budget.js";
import { block } from "../../support/runs.js";

const budgeted = (changes: Partial<BudgetedBlock>): BudgetedBlock => ({ ...block, steps: undefined, ...changes });
const flopsPerToken = 1000;

describe("a budget", () => {
  // block: 2 x 16 tokens, two micro-batches: 64 tokens and 64,000 FLOPs a step.
  it.each<[string, Partial<BudgetedBlock>, number]>([
    ["steps alone", { steps: 7 }, 7],
    ["tokens, rounded down to whole steps", { budget: { tokens: 64 * 9 + 63 } }, 9],
    ["FLOPs, rounded down", { budget: { flops: 64_000 * 5.99 } }, 5],
    ["the smallest of all", { steps: 8, budget: { tokens: 64 * 6, flops: 64_000 * 7 } }, 6],
    ["no time", { steps: 8, budget: { time: "0s" } }, 8],
  ])("of %s gives the length", (_, changes, steps) => {
    expect(withSteps(budgeted(changes), flopsPerToken).steps).toBe(steps);
  });

  it("smaller than a step, or than the warm-up, is refused", () => {
    const line = (changes: Partial<BudgetedBlock>): string => {
      try {
        withSteps(budgeted(changes), flopsPerToken);
        return "no error";
      } catch (error) {
        return (error as UpcycleError).line;
      }
    };
    expect(line({ budget: { tokens: 63 } })).toBe(
      "training.budget: the budget is smaller than one step (64 tokens, 6.40e+4 FLOPs); raise it, or lower " +
        "batch, sequence or accumulate",
    );
    expect(line({ budget: { flops: 70_000 }, lr: { ...block.lr, warmup: 2 } })).toBe(
      "training.lr.warmup: warmup 2 is longer than steps 1, which the budget allows",
    );
    expect(line({ budget: { tokens: 640 }, lr: { ...block.lr, schedule: "wsd", decay: 9 } })).toBe(
      "training.lr.decay: warmup 2 and decay 9 are longer than steps 10, which the budget allows",
    );
  });

  it.each([
    ["90s", 90e3],
    ["1.5m", 90e3],
    ["2h", 7200e3],
    ["1d", 86400e3],
  ])("of %s is %d ms", (time, ms) => {
    expect(timeBudget({ time })).toBe(ms);
  });

  it("is endless where the budget has no time", () => {
    expect([timeBudget(undefined), timeBudget({ tokens: 1 })]).toEqual([Infinity, Infinity]);
  });
});
