/**
 * Whether residuals still hold a pattern that the law's form cannot describe. Smooth functions of the columns
 * (monomials
 * of their logarithms) are added to the fit's tangent; an F test says whether they take more of the residuals than
 * chance
 * would give them. Points at one place several times show the noise by itself, whatever the form, and are tested
 * too. In
 * runs of several points both parts are tested by themselves: differences within runs, and means of runs.
 */
import { at, valueAt } from "../../base/at.js";
import { dot } from "../../base/vectors.js";
import type { Points } from "../forms/types.js";
import { fisherTail } from "./distributions.js";
import type { Fit } from "./fit.js";
import type { Tangent } from "./tangent.js";

/** The most telling of the tests of one fit. */
export interface Misfit {
  /** Probability of a pattern at least as strong if the form were true; corrected for the number of tests. */
  readonly probability: number;
  readonly isFlagged: boolean;
  /** What was compared: smooth patterns, or points at equal places. */
  readonly by: "patterns" | "replicates";
  /** Share of the residuals' variance that the patterns take. */
  readonly share: number;
  readonly freedom: readonly [patterns: number, noise: number];
}

/** True forms are flagged this often. */
const falseAlarms = 0.06;
/** A pattern of which less than this part is new to the fit is no pattern. */
const leastNew = 0.02;
/** Constants and the columns themselves are in the span of most laws: what little they leave would only add noise. */
const leastNewOfLines = 0.2;
const largestDegree = 3;
/** Points at equal places say something about the noise from this many degrees of freedom on. */
const fewestReplicates = 4;

interface Test {
  readonly probability: number;
  readonly by: Misfit["by"];
  readonly share: number;
  readonly freedom: readonly [number, number];
}

/** Tests a fit; null where there are too few points to. */
export function misfitOf(fit: Fit, points: Points, tangent: Tangent): Misfit | null {
  const residuals = winsorised(fit.residuals);
  const parts = points.cluster === undefined ? [whole] : runParts(points.cluster);
  const { lines, curved } = patterns(points);
  const tests = parts.flatMap(({ map, lost }) => {
    const [r, X] = [map(residuals), tangent.rows.map(map)];
    const smooth = curved.flatMap((_, i) => {
      const added = curved.slice(0, i + 1).flat();
      return patternTest(r, X, { lines: lines.map(map), curves: added.map(map) }, lost);
    });
    const replicated = points.cluster === undefined ? replicateTest(r, points, tangent.rows.length) : [];
    return [...smooth, ...replicated];
  });
  if (tests.length === 0) return null;
  const best = tests.reduce((least, test) => (test.probability < least.probability ? test : least));
  const probability = Math.min(1, best.probability * tests.length);
  return { ...best, probability, isFlagged: probability < falseAlarms };
}

/** A part of the points' values that is tested by itself. */
interface Part {
  /** The part of a vector [n]. */
  readonly map: (values: Float64Array) => Float64Array;
  /** Degrees of freedom that taking the part costs. */
  readonly lost: number;
}

const whole: Part = { map: (values) => values, lost: 0 };

/** Differences from the mean of each run, and the means with the weight of their points. */
function runParts(runs: readonly string[]): readonly Part[] {
  const indexOf = new Map([...new Set(runs)].map((name, g) => [name, g]));
  const G = indexOf.size;
  const run = runs.map((name) => indexOf.get(name) ?? 0);
  const sizes = new Float64Array(G);
  for (const g of run) sizes[g]! += 1;
  const means = (values: Float64Array): Float64Array => {
    const sums = new Float64Array(G);
    values.forEach((value, i) => (sums[at(run, i)]! += value));
    return sums.map((sum, g) => sum / at(sizes, g));
  };
  return [
    {
      lost: G,
      map: (values) => {
        const own = means(values);
        return values.map((value, i) => value - at(own, at(run, i)));
      },
    },
    { lost: 0, map: (values) => means(values).map((mean, g) => mean * Math.sqrt(at(sizes, g))) },
  ];
}

/** Residuals, with those beyond four times the usual size moved there: one outlier is no pattern. */
function winsorised(residuals: Float64Array): Float64Array {
  const sizes = residuals.map(Math.abs).sort();
  const limit = 4 * 1.4826 * at(sizes, sizes.length >> 1);
  return limit > 0 ? residuals.map((r) => Math.min(limit, Math.max(-limit, r))) : residuals;
}

/** Monomials of the columns. */
interface Patterns {
  /** A constant and the columns themselves. */
  readonly lines: readonly Float64Array[];
  /** Squares and products, then those of degree three. */
  readonly curved: readonly (readonly Float64Array[])[];
}

/** Monomials by their degree; of a law over groups those of each group. */
function patterns({ n, columns, group }: Points): Patterns {
  const groups = group === undefined ? [null] : [...new Set(group)];
  const byGroup = groups.map((name) => {
    const isIn = (i: number): boolean => name === null || group?.[i] === name;
    const features = Object.keys(columns).flatMap((column) => standardised(valueAt(columns, column), isIn));
    return monomials(
      features,
      Float64Array.from({ length: n }, (_, i) => (isIn(i) ? 1 : 0)),
    );
  });
  return {
    lines: byGroup.flatMap((degrees) => degrees.slice(0, 2).flat()),
    curved: [2, 3].map((degree) => byGroup.flatMap((degrees) => at(degrees, degree))).filter((list) => list.length > 0),
  };
}

/** A column's logarithm, or the column where it is not positive, about its mean in its own spread; 0 elsewhere. */
function standardised(column: Float64Array, isIn: (i: number) => boolean): Float64Array[] {
  const rows = [...column.keys()].filter((i) => isIn(i) && Number.isFinite(at(column, i)));
  const isPositive = rows.every((i) => at(column, i) > 0);
  const value = (i: number): number => (isPositive ? Math.log(at(column, i)) : at(column, i));
  const mean = rows.reduce((sum, i) => sum + value(i), 0) / rows.length;
  const spread = Math.sqrt(rows.reduce((sum, i) => sum + (value(i) - mean) ** 2, 0) / rows.length);
  if (!(spread > 0)) return [];
  const out = new Float64Array(column.length);
  for (const i of rows) out[i] = (value(i) - mean) / spread;
  return [out];
}

/** All products of up to `largestDegree` features, by degree. */
function monomials(features: readonly Float64Array[], one: Float64Array): readonly (readonly Float64Array[])[] {
  interface Monomial {
    readonly last: number;
    readonly values: Float64Array;
  }
  const degrees: Monomial[][] = [[{ last: 0, values: one }]];
  for (let degree = 1; degree <= largestDegree; degree++)
    degrees.push(
      at(degrees, degree - 1).flatMap(({ last, values }) =>
        features.slice(last).map((feature, k) => ({
          last: last + k,
          values: values.map((value, i) => value * at(feature, i)),
        })),
      ),
    );
  return degrees.map((list) => list.map(({ values }) => values));
}

/** The F test of patterns beside the columns of the fit; empty where too little is left over for the noise. */
function patternTest(
  residuals: Float64Array,
  columns: readonly Float64Array[],
  { lines, curves }: { readonly lines: readonly Float64Array[]; readonly curves: readonly Float64Array[] },
  lost: number,
): Test[] {
  const basis = orthonormal(columns, [], 1e-9);
  const most = Math.floor((residuals.length - lost - basis.length) / 2);
  const straight = orthonormal(lines, basis, leastNewOfLines);
  const bent = orthonormal(curves, [...basis, ...straight], leastNew);
  const extra = [...straight, ...bent].slice(0, Math.max(0, most));
  const noise = residuals.length - lost - basis.length - extra.length;
  if (extra.length === 0 || noise < 2) return [];
  const rest = without(residuals, basis);
  const taken = extra.reduce((sum, column) => sum + dot(column, rest) ** 2, 0);
  const total = dot(rest, rest);
  const left = Math.max(total - taken, 1e-300);
  return [
    {
      probability: fisherTail(taken / extra.length / (left / noise), extra.length, noise),
      by: "patterns",
      share: total > 0 ? taken / total : 0,
      freedom: [extra.length, noise],
    },
  ];
}

/** Residuals of the places' means against the scatter of the points at one place. */
function replicateTest(residuals: Float64Array, points: Points, p: number): Test[] {
  const places = new Map<string, number[]>();
  for (let i = 0; i < points.n; i++) {
    const values = Object.values(points.columns).map((column) => at(column, i));
    const key = JSON.stringify([points.group?.[i], ...values]);
    places.set(key, [...(places.get(key) ?? []), i]);
  }
  const noise = points.n - places.size;
  const patternCount = places.size - p;
  if (noise < fewestReplicates || patternCount < 1) return [];
  let scatter = 0;
  for (const rows of places.values()) {
    const mean = rows.reduce((sum, i) => sum + at(residuals, i), 0) / rows.length;
    scatter += rows.reduce((sum, i) => sum + (at(residuals, i) - mean) ** 2, 0);
  }
  const total = dot(residuals, residuals);
  const taken = Math.max(0, total - scatter);
  const ratio = taken / patternCount / Math.max(scatter / noise, 1e-300);
  return [
    {
      probability: fisherTail(ratio, patternCount, noise),
      by: "replicates",
      share: total > 0 ? taken / total : 0,
      freedom: [patternCount, noise],
    },
  ];
}

/** Orthonormal directions of the columns that `basis` lacks; those of which less than `least` is new are left out. */
function orthonormal(
  columns: readonly Float64Array[],
  basis: readonly Float64Array[],
  least: number,
): readonly Float64Array[] {
  const found: Float64Array[] = [];
  for (const column of columns) {
    const size = Math.sqrt(dot(column, column));
    const rest = without(without(column, [...basis, ...found]), [...basis, ...found]);
    const left = Math.sqrt(dot(rest, rest));
    if (left > least * size && left > 0) found.push(rest.map((value) => value / left));
  }
  return found;
}

function without(values: Float64Array, basis: readonly Float64Array[]): Float64Array {
  const rest = values.slice();
  for (const column of basis) {
    const part = dot(column, rest);
    for (let i = 0; i < rest.length; i++) rest[i]! -= part * column[i]!;
  }
  return rest;
}
