/**
 * Several laws fitted together with some parameters in common, as Table 2 of Liew et al. has one irreducible loss for
 * dense, MoE and upcycled models. Points say by their group which law they follow.
 */
import { at as elementAt, valueAt } from "../../base/at.js";
import { fitLaw } from "./fit.js";
import { joint } from "../forms/chinchilla.js";
import { upcycling } from "../forms/upcycling.js";
import { pick } from "./compare.js";
import { powerSumLaw, type PowerSum } from "../forms/power-sum.js";
import type { Law, Parameter } from "../forms/types.js";

export interface Group {
  readonly name: string;
  /** A law that is a sum of powers. */
  readonly law: Law & Partial<Pick<PowerSum, "terms" | "bounds" | "scan">>;
}

/**
 * Parameters of group g are named g.NAME, those in `shared` keep their names. Shared parameters must be constants of
 * every law.
 */
function sharedLaw(
  id: string,
  title: string,
  groups: readonly Group[],
  shared: readonly string[],
  source: string,
): Law {
  const own = (group: string, name: string): string => (shared.includes(name) ? name : `${group}.${name}`);
  const parameters: Parameter[] = [];
  for (const { name: group, law } of groups) {
    for (const parameter of law.parameters) {
      const name = own(group, parameter.name);
      if (!parameters.some((known) => known.name === name))
        parameters.push({
          ...parameter,
          name,
          meaning: shared.includes(parameter.name) ? parameter.meaning : `${parameter.meaning}, ${group}`,
        });
    }
  }
  const constants = parameters.filter(({ name }) => shared.includes(name));
  const terms = groups.flatMap(({ name: group, law }) =>
    law
      .terms!.filter(({ coefficient }) => !shared.includes(coefficient))
      .map((term) => ({
        coefficient: own(group, term.coefficient),
        groups: [group],
        powers: term.powers.map((power) => ({ ...power, exponent: own(group, power.exponent) })),
      })),
  );
  const columns = groups
    .flatMap(({ law }) => law.columns)
    .filter(({ name }, i, all) => all.findIndex((other) => other.name === name) === i);
  const law: Law = powerSumLaw({
    id,
    title,
    source,
    formula: groups.map(({ name, law: { formula } }) => `${name}: ${formula}`).join("; "),
    columns,
    parameters,
    groups: groups.map(({ name, law: part }) => ({ name, columns: part.columns.map((column) => column.name) })),
    terms: [...terms, ...constants.map(({ name }) => ({ coefficient: name, powers: [] }))],
    bounds: Object.fromEntries(
      groups.flatMap(({ name, law: { bounds = {} } }) =>
        Object.entries(bounds).map(([parameter, box]) => [own(name, parameter), box]),
      ),
    ),
    note:
      `${shared.join(", ")} in common; a column "group" says which points are ` +
      `${groups.map(({ name }) => name).join(", ")}`,
    projectedStarts: (points, bound) => {
      // Each group on its own, then together from there, with the shared constants of every group in turn and their
      // mean.
      const fits = groups.map(({ name, law: part }) => {
        const rows = Array.from({ length: points.n }, (_, i) => i).filter((i) => points.group?.[i] === name);
        return fitLaw(part, pick(points, rows), { loss: { name: "mse", delta: 0 } }).params;
      });
      const natural = (constant: (name: string) => number): Float64Array =>
        Float64Array.from(parameters, ({ name }) => {
          if (shared.includes(name)) return constant(name);
          const at = name.indexOf(".");
          return valueAt(
            elementAt(
              fits,
              groups.findIndex((group) => group.name === name.slice(0, at)),
            ),
            name.slice(at + 1),
          );
        });
      const mean = (name: string): number => fits.reduce((sum, params) => sum + valueAt(params, name) / fits.length, 0);
      return [natural(mean), ...fits.map((params) => natural((name) => valueAt(params, name)))].map((values) =>
        bound.internal(values),
      );
    },
  });
  return law;
}

/** Table 2: dense and MoE models by the joint law, upcycled ones by theirs, one E. */
export const upcyclingShared: Law = sharedLaw(
  "upcycling-shared",
  "dense, MoE and upcycled with one E",
  [
    { name: "dense", law: joint },
    { name: "moe", law: joint },
    { name: "upcycled", law: upcycling },
  ],
  ["E"],
  "Liew, Kato, Takase 2025 (arXiv 2502.03009), Table 2 as quoted in secondary sources",
);
