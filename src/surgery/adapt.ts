/** Rewrites a draft until the target family can say it, without changing its function. */
import type { Draft } from "./draft.js";
import type { TargetFamily } from "./recipe.js";

/** The draft as a model of `family`; what cannot be rewritten was refused before (`targets.ts`). */
export function adapt({ spec, values }: Draft, family: TargetFamily): Draft {
  return { spec: { ...spec, family }, values };
}
