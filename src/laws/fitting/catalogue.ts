/** All laws with a name. */
import { expressionLaw, type ParameterHints } from "../forms/expression-law.js";
import { chinchilla, joint } from "../forms/chinchilla.js";
import { clark } from "../forms/clark.js";
import { dataConstrained, dataConstrainedReuse } from "../forms/data-constrained.js";
import { kaplan } from "../forms/kaplan.js";
import { efficiencyLeverage, farseer, sparsity } from "../forms/leverage.js";
import { learningRateAnnealing } from "../forms/schedules.js";
import { ludziejewski } from "../forms/ludziejewski.js";
import { abnar, krajewski } from "../forms/moe.js";
import {
  upcyclingLaw,
  upcyclingAdditive,
  upcyclingData,
  upcyclingDataAdditive,
  upcyclingDataNoInteraction,
  upcyclingDataTotal,
  upcyclingNoInteraction,
  upcyclingTotal,
} from "../forms/upcycling.js";
import { upcyclingShared } from "./shared.js";
import type { Law } from "../forms/types.js";

/** All laws, in the order in which they are listed to users. */
export const laws: readonly Law[] = [
  chinchilla,
  joint,
  kaplan,
  farseer,
  dataConstrained,
  dataConstrainedReuse,
  learningRateAnnealing,
  upcyclingLaw,
  upcyclingNoInteraction,
  upcyclingAdditive,
  upcyclingTotal,
  upcyclingData,
  upcyclingDataNoInteraction,
  upcyclingDataAdditive,
  upcyclingDataTotal,
  upcyclingShared,
  krajewski,
  ludziejewski,
  clark,
  abnar,
  sparsity,
  efficiencyLeverage,
];

/** What names a law to another thread: an id of the catalogue, or a formula with its columns, starts and bounds. */
export type LawName =
  { readonly id: string } | ({ readonly formula: string; readonly columns: readonly string[] } & ParameterHints);

/** The law that a name stands for. Throws Error for an id that is not in the catalogue. */
export function lawOf(name: LawName): Law {
  if ("formula" in name) return expressionLaw(name.formula, name.columns, name);
  const law = lawById(name.id);
  if (law === undefined) throw new Error(`no law ${name.id}`);
  return law;
}

/** The law with this id; undefined: there is none. */
export function lawById(id: string): Law | undefined {
  return laws.find((law) => law.id === id);
}
