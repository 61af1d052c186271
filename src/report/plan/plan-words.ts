/** A plan in words, for terminal and page alike: the answer, the budget, and how tokens would best be split. */
import { at } from "../../base/at.js";
import { compact, fixed, notAvailable, percent, significant } from "../../base/format.js";
import type { CatchUp } from "../../laws/planner/crossing.js";
import type { ArmId, PlanBudget } from "../../laws/planner/arms.js";
import type { Plan } from "../../laws/planner/plan.js";
import type { ArmPlan } from "../../laws/planner/plan-types.js";

/** What the three uses of a budget are called. */
export const armNames: Readonly<Record<ArmId, string>> = {
  dense: "continued dense",
  upcycled: "upcycled",
  scratch: "from scratch",
};

/** An arm with its recipe, if it has one. */
export const planArmName = ({ id, recipe }: Pick<ArmPlan, "id" | "recipe">): string =>
  recipe === null ? armNames[id] : `${armNames[id]} ${recipe}`;

/** A loss with four decimals. */
export const loss4 = (value: number): string => fixed(value, 4);
/** A number in words, or `n/a` where there is none. */
export const orNone = (value: number | null, show: (number: number) => string): string =>
  value === null ? notAvailable : show(value);

/** A budget in words; of several limits the least counts. */
export function budgetWords({ tokens, gpuHours, money, days }: PlanBudget, currency: string): string {
  const parts = [
    tokens === null ? "" : `${compact(tokens)} tokens`,
    gpuHours === null ? "" : `${compact(gpuHours)} GPU hours`,
    money === null ? "" : `${compact(money)} ${currency}`,
    days === null ? "" : `${significant(days, 2)} days`,
  ].filter((part) => part !== "");
  return parts.length === 1 ? at(parts, 0) : `the least of ${parts.join(", ")}`;
}

/** The answer in two or three sentences, the first of which says what to do. */
export function planAnswer(plan: Plan): readonly string[] {
  const { best, main, recipes } = plan;
  const arms = plan.arms.filter(({ recipe }) => recipe === null || recipe === main);
  const [dense, upcycled, scratch] = (["dense", "upcycled", "scratch"] as const).map((kind) =>
    arms.find(({ id }) => id === kind),
  );
  if (best === null || !isTrainable(dense) || !isTrainable(upcycled) || !isTrainable(scratch)) {
    const out = arms.filter(({ loss }) => loss === null).map(planArmName);
    return [`No answer: ${out.join(", ")} cannot be trained on this hardware within this budget.`];
  }
  const winner = at(plan.arms, best.arm);
  const catchUp = recipes.find(({ name }) => name === main)?.sunk;
  return [
    choiceWords({ dense, upcycled, scratch }, plan)[winner.id],
    [catchUpSentence(catchUp), shareWords(best.share)].filter((text) => text !== "").join(" "),
    sensitivityWords(plan),
  ].filter((text) => text !== "");
}

/** An arm that the budget pays for. */
type TrainableArm = ArmPlan & { readonly loss: number };

const isTrainable = (arm: ArmPlan | undefined): arm is TrainableArm => arm !== undefined && arm.loss !== null;

/** What to do, for each arm that may come out best, and the losses that say so. */
function choiceWords(
  { dense, upcycled, scratch }: Readonly<Record<ArmId, TrainableArm>>,
  { aheadOfDense }: Plan,
): Readonly<Record<ArmId, string>> {
  const gain = dense.loss - upcycled.loss;
  const lead = scratch.loss - upcycled.loss;
  const tokens = (arm: TrainableArm): string => orNone(arm.tokens, compact);
  const reach = `with ${tokens(upcycled)} tokens ${planArmName(upcycled)} reaches ${loss4(upcycled.loss)}`;
  const comparison =
    `continued dense ${loss4(dense.loss)} with ${tokens(dense)}, from scratch ${loss4(scratch.loss)} ` +
    `with ${tokens(scratch)}`;
  const overtaking = aheadOfDense === null ? "" : ` At equal tokens upcycling moves ahead at ${compact(aheadOfDense)}.`;
  return {
    upcycled:
      `Upcycle: ${reach}, ${fixed(gain, 4)} nats below the dense model trained on and ${fixed(lead, 4)} ` +
      `below a mixture from scratch (${comparison}).`,
    dense: `Train the dense model on: ${reach}, no better (${comparison}).${overtaking}`,
    scratch:
      `By the laws a mixture from scratch gets furthest: ${reach}, ${fixed(-lead, 4)} nats above it ` +
      `(${comparison}).${gain > 0 ? " Upcycling still beats training the dense model on." : ""}`,
  };
}

/** Until when upcycling stays ahead. */
function catchUpSentence(catchUp: CatchUp | undefined): string {
  switch (catchUp?.outcome) {
    case undefined:
      return "";
    case "at":
      return (
        `Scratch catches up with the upcycled model at D* = ${orNone(catchUp?.tokens ?? null, compact)} tokens, the ` +
        "parent's training not counted."
      );
    case "always-ahead":
      return "Scratch never catches up within the laws, the parent's training not counted.";
    default:
      return "Scratch is ahead from the first token on.";
  }
}

/** How many draws of the coefficients agree on the best arm. */
function shareWords(share: number | null): string {
  if (share === null) return "";
  return share >= 0.7
    ? `The order holds in ${percent(share)} of draws of the coefficients.`
    : `Too close to call: only ${percent(share)} of draws of the coefficients agree.`;
}

/** Which assumptions would change the best choice. */
function sensitivityWords({ sensitivity }: Plan): string {
  const assumptions = sensitivity
    .filter(({ decides }) => decides)
    .map(({ assumption }) => at(assumption.split(","), 0));
  return assumptions.length === 0
    ? "No single assumption of those varied below changes the best choice."
    : `The choice hangs on: ${assumptions.join("; ")}.`;
}

/** How tokens and compute would best be split, in sentences. */
export function splitWords({ split, recipes, main, seen, size }: Plan): readonly string[] {
  const sentences: string[] = [];
  const first = recipes.find(({ name }) => name === main);
  if (first?.optimum != null) {
    const { size: best, tokens, loss } = first.optimum;
    const side = best > size ? "larger" : "smaller";
    sentences.push(
      `The compute of ${first.name}, with parents of any size that have seen D1 = ${compact(seen)} for ` +
        `nothing, is best spent on N = ${compact(best)} and D2 = ${compact(tokens)} (loss ${loss4(loss)}): ` +
        `${best / size > 1.25 || best / size < 0.8 ? `a ${side} parent than this one` : "about this size"}.`,
    );
  }
  if (split !== null) {
    sentences.push(
      `Were nothing trained yet: of ${compact(split.total)} tokens in all, ${percent(split.share)} dense and ` +
        `the rest upcycled would be best (${loss4(split.loss)}), and an MoE from scratch ` +
        `${split.scratch < split.loss ? "better still" : "worse"} (${loss4(split.scratch)}).`,
    );
  }
  return sentences;
}
