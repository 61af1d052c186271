/**
 * Several laws fitted together with some parameters in common, as Table 2 of Liew et al. has one irreducible loss for
 * dense, MoE and upcycled models. Points say by their group which law they follow.
 */
import { at as elementAt, valueAt } from "../../base/at.js";
import { fitLaw } from "./fit.js";
import { joint } from "../forms/chinchilla.js";
import { upcyclingLaw } from "../forms/upcycling.js";
import { pick } from "./compare.js";
import { powerSumLaw, type PowerSum } from "../forms/power-sum.js";
import type { Law, Parameter, Points } from "../forms/types.js";

/** One of the laws fitted together, and what its points are called. */
export interface Group {
  readonly name: string;
  /** A law that is a sum of powers. */
  readonly law: Law & Partial<Pick<PowerSum, "terms" | "bounds" | "scan">>;
}

interface SharedLaw {
  readonly id: string;
  readonly title: string;
  readonly source: string;
  readonly groups: readonly Group[];
  /** Parameters that all groups have in common; they must be constants of every law. */
  readonly common: readonly string[];
}

/** Parameters of group g are named g.NAME; those in common keep their names. */
function sharedLaw({ id, title, source, groups, common }: SharedLaw): Law {
  const isCommon = (name: string): boolean => common.includes(name);
  const nameIn = (group: string, name: string): string => (isCommon(name) ? name : `${group}.${name}`);
  const parameters = groups
    .flatMap(({ name: group, law }) =>
      law.parameters.map((parameter): Parameter => ({
        ...parameter,
        name: nameIn(group, parameter.name),
        meaning: isCommon(parameter.name) ? parameter.meaning : `${parameter.meaning}, ${group}`,
      })),
    )
    .filter(isFirstOfItsName);
  const ownTerms = groups.flatMap(({ name: group, law }) =>
    (law.terms ?? [])
      .filter(({ coefficient }) => !isCommon(coefficient))
      .map(({ coefficient, powers }) => ({
        coefficient: nameIn(group, coefficient),
        groups: [group],
        powers: powers.map((power) => ({ ...power, exponent: nameIn(group, power.exponent) })),
      })),
  );
  const constants = parameters.filter(({ name }) => isCommon(name));
  return powerSumLaw({
    id,
    title,
    source,
    formula: groups.map(({ name, law: { formula } }) => `${name}: ${formula}`).join("; "),
    columns: groups.flatMap(({ law }) => law.columns).filter(isFirstOfItsName),
    parameters,
    groups: groups.map(({ name, law }) => ({ name, columns: law.columns.map((column) => column.name) })),
    terms: [...ownTerms, ...constants.map(({ name }) => ({ coefficient: name, powers: [] }))],
    bounds: Object.fromEntries(
      groups.flatMap(({ name, law: { bounds = {} } }) =>
        Object.entries(bounds).map(([parameter, box]) => [nameIn(name, parameter), box]),
      ),
    ),
    note:
      `${common.join(", ")} in common; a column "group" says which points are ` +
      `${groups.map(({ name }) => name).join(", ")}`,
    projectedStarts: (points, bound) =>
      groupwiseStarts(groups, common, points).map((natural) => bound.internal(natural)),
  });
}

function isFirstOfItsName(
  one: { readonly name: string },
  i: number,
  all: readonly { readonly name: string }[],
): boolean {
  return all.findIndex(({ name }) => name === one.name) === i;
}

/**
 * Starts in natural parameters, in the order of `sharedLaw`: each group is fitted on its own, and the common constants
 * are the mean over the groups, then those of each group in turn.
 */
function groupwiseStarts(groups: readonly Group[], common: readonly string[], points: Points): Float64Array[] {
  const fits = groups.map(({ name, law }) => {
    const rows = Array.from({ length: points.n }, (_, i) => i).filter((i) => points.group?.[i] === name);
    return fitLaw(law, pick(points, rows), { loss: { name: "mse", delta: 0 } }).params;
  });
  const start = (constant: (name: string) => number): Float64Array => {
    const values = new Map<string, number>();
    for (const [g, { name: group, law }] of groups.entries())
      for (const { name } of law.parameters)
        if (common.includes(name)) values.set(name, constant(name));
        else values.set(`${group}.${name}`, valueAt(elementAt(fits, g), name));
    return Float64Array.from(values.values());
  };
  const mean = (name: string): number => fits.reduce((sum, params) => sum + valueAt(params, name) / fits.length, 0);
  return [start(mean), ...fits.map((params) => start((name) => valueAt(params, name)))];
}

/** Table 2: dense and MoE models by the joint law, upcycled ones by theirs, one E. */
export const upcyclingShared: Law = sharedLaw({
  id: "upcycling-shared",
  title: "dense, MoE and upcycled with one E",
  source: "Liew, Kato, Takase 2025 (arXiv 2502.03009), Table 2 as quoted in secondary sources",
  groups: [
    { name: "dense", law: joint },
    { name: "moe", law: joint },
    { name: "upcycled", law: upcyclingLaw },
  ],
  common: ["E"],
});
