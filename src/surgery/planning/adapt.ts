/** Rewrites a draft until the target family can say it, without changing its function. */
import type { Draft } from "./draft.js";
import type { TargetFamily } from "./recipe.js";
import { targets } from "./targets.js";

/** The draft in the form of `family`. Whether the family can say it is not known yet: see `choose.ts`. */
export function adapt(draft: Draft, family: TargetFamily): Draft {
  const rewritten = targets[family].rewrites.reduce((done, rewrite) => rewrite(done), draft);
  return { ...rewritten, spec: { ...rewritten.spec, family } };
}
