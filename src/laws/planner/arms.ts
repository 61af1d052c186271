/** The three things that can be done with a budget, and how far each gets. */
import type { Curves } from "./coefficients.js";
import type { Gpu } from "./hardware.js";

/**
 * `dense`: the parent trained on. `upcycled`: the MoE made of it. `scratch`: such an MoE from random weights.
 */
export type ArmId = "dense" | "upcycled" | "scratch";

/** What the three uses of a budget are called. */
export const armNames: Readonly<Record<ArmId, string>> = {
  dense: "continued dense",
  upcycled: "upcycled",
  scratch: "from scratch",
};

/** What may be spent. Limits that are null do not bind; of several the smallest one binds. */
export interface PlanBudget {
  /** D2. */
  readonly tokens: number | null;
  readonly gpuHours: number | null;
  /** In the hardware table's currency. */
  readonly money: number | null;
  readonly days: number | null;
}

/** The upcycled law, but never above the parent: training on from it does not start worse than it. */
export function upcycledLoss(curves: Curves, size: number, seen: number, tokens: number): number {
  return Math.min(curves.upcycled(size, seen, tokens), curves.dense(size, seen));
}

/** Loss in nats per token of an arm after `tokens` further tokens; `size` is N, `seen` is D1. */
export function lossOf(id: ArmId, curves: Curves, size: number, seen: number, tokens: number): number {
  switch (id) {
    case "dense":
      return curves.continued === undefined ? curves.dense(size, seen + tokens) : curves.continued(size, seen, tokens);
    case "upcycled":
      return upcycledLoss(curves, size, seen, tokens);
    case "scratch":
      return curves.scratch(size, tokens);
  }
}

/** Tokens that a budget pays for at a speed; null where that cannot be said. */
export function affordable(
  { tokens, gpuHours, money, days }: PlanBudget,
  gpu: Gpu,
  gpus: number,
  tokensPerSecond: number | null,
): number | null {
  const seconds = [
    ...(gpuHours === null ? [] : [(gpuHours * 3600) / gpus]),
    ...(money === null ? [] : [((money / gpu.price) * 3600) / gpus]),
    ...(days === null ? [] : [days * 86400]),
  ];
  if (seconds.length === 0) return tokens;
  if (tokensPerSecond === null) return null;
  return Math.min(tokens ?? Infinity, ...seconds.map((time) => time * tokensPerSecond));
}
