/** What views of experts say alike. */
import { multiplesOf } from "../../report/page/heat-map.js";
import { plural } from "../../report/study/wording.js";

/** Ratios of pairs to independent choices. */
export const togetherScale = multiplesOf("× independent choices", "never");

/** Experts of a layer by their numbers. */
export const expertWords = (experts: readonly number[]): string =>
  `${experts.length === 1 ? "expert" : "experts"} ${experts.join(", ")}`;

/** How many experts are dead, of how many where that is known, as the beginning of a sentence. */
export function deadCount(count: number, all?: number): string {
  if (count === 0) return "No expert is dead";
  const verb = count === 1 ? "is" : "are";
  return all === undefined ? `${plural(count, "expert")} ${verb} dead` : `${count} of ${all} experts ${verb} dead`;
}

/** Dead experts by layer, in words. */
export function deadWords(list: readonly { readonly layer: number; readonly experts: readonly number[] }[]): string {
  const some = list.filter(({ experts }) => experts.length > 0);
  return some.map(({ layer, experts }) => `layer ${layer}: ${expertWords(experts)}`).join("; ");
}
