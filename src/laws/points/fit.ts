/** A fit from points to everything a report says about it: optimum, intervals, comparison, warnings. */
import { at as elementAt, valueAt } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { clusterCount, naturalDraws, summarise, type BootstrapInterval } from "../fitting/bootstrap.js";
import { lawOf, type LawName } from "../fitting/catalogue.js";
import { checkPoints } from "../forms/check.js";
import { criteria, pick, qualityOf, type Criteria, type Quality } from "../fitting/compare.js";
import { bestOf, fitLaw, problemOf, startsOf, type Fit, type StartMethod } from "../fitting/fit.js";
import { extrapolationWarnings, identificationWarnings, type Warning } from "../fitting/identification.js";
import type { LocalFit, Problem } from "../solvers/local-fit.js";
import type { Loss } from "../solvers/loss.js";
import {
  linearPrediction,
  profileParameter,
  profilePrediction,
  type Interval,
  type Profile,
} from "../fitting/profile.js";
import { outOfRange, placesOf, predict, type Law, type Points } from "../forms/types.js";
import {
  dependenceOf,
  dependenceWarning,
  duplicateWarning,
  misfitWarning,
  outlierWarning,
  rivalWarnings,
  worthWarnings,
  type PointName,
} from "../fitting/findings.js";
import { misfitOf, type Misfit } from "../fitting/misfit.js";
import { newRunInterval, noiseOfOne } from "../fitting/new-run.js";
import { outliersOf } from "../fitting/outliers.js";
import { rivalsOf, type Rival } from "../fitting/rivals.js";
import type { Variance } from "../fitting/deviance.js";
import { runNoise, runNoiseOf, type RunNoise } from "../fitting/run-noise.js";
import { tangentOf } from "../fitting/tangent.js";
import type { Job } from "./jobs.js";
import { openPool, type Pool } from "./pool.js";

/** What is to be fitted, and what is to be said about it. */
export interface FitRequest {
  readonly law: LawName;
  readonly points: Points;
  /** Origin of the points, for errors. */
  readonly where?: string;
  /** Line of each point there. */
  readonly lines?: readonly number[];
  readonly loss: Loss;
  readonly starts: StartMethod;
  /** Bootstrap draws; 0 for none. */
  readonly bootstrap: number;
  readonly profile: boolean;
  /** Confidence of intervals, such as 0.95. */
  readonly level: number;
  readonly seed: number;
  readonly threads: number;
  /** Further laws fitted to the same points. */
  readonly compare: readonly LawName[];
  readonly predict: readonly PredictAt[];
  /** Columns whose unit the user stated. */
  readonly stated?: readonly string[];
}

/** A place to predict for; `group` says which law of several. */
export interface PredictAt {
  readonly columns: Readonly<Record<string, number>>;
  readonly group?: string;
}

interface Prediction {
  readonly at: Readonly<Record<string, number>>;
  readonly group: string | null;
  readonly loss: number;
  readonly profile: Profile | null;
  readonly bootstrap: BootstrapInterval | null;
  /** Where the loss of a new training run lies, which is wider than where the law lies. */
  readonly newRun: Interval;
  /** The same place by the forms that the points cannot tell from this one. */
  readonly rivals: Readonly<Record<string, number>>;
  readonly warnings: readonly Warning[];
}

/** What is known of a fit's points and of their noise. */
export interface Noise {
  /** Standard deviation of one point about the law, in ln L, of a run that was not fitted. */
  readonly ofOnePoint: number;
  /** Training runs, where a column names them; null where points are taken as independent. */
  readonly runs: number | null;
  /** Correlation of two points of one run; null where points are taken as independent. */
  readonly correlation: number | null;
}

/** A fit with its intervals, predictions, comparison and warnings. */
export interface FitReport {
  readonly fit: Fit;
  readonly quality: Quality;
  readonly profiles: Readonly<Record<string, Profile>>;
  readonly bootstrap: Readonly<Record<string, BootstrapInterval>>;
  /** Natural parameters of every draw, by parameter. */
  readonly draws: Readonly<Record<string, Float64Array>>;
  readonly predictions: readonly Prediction[];
  readonly noise: Noise;
  /** The test of whether residuals hold a pattern; null where there are too few points for it. */
  readonly misfit: Misfit | null;
  /** Points far from the fit, by their place among the points, and their lines where those are known. */
  readonly outliers: readonly { readonly line: number | null; readonly residual: number; readonly size: number }[];
  /** Other forms over the same columns. */
  readonly rivals: readonly { readonly law: string; readonly lead: number; readonly verdict: Rival["verdict"] }[];
  /** Sentences about the points. */
  readonly notes: readonly string[];
  readonly warnings: readonly Warning[];
  /** This law first. Empty unless a comparison was asked for. */
  readonly comparison: readonly Criteria[];
}

/** How far a fit has come: `done` of `total` pieces of the work named `what`. */
export interface FitProgress {
  readonly what: "starts" | "bootstrap" | "profile" | "comparison";
  readonly done: number;
  readonly total: number;
}

/** Pieces of work do not depend on the number of threads, so neither do results. */
const startsPerJob = 50;
const drawsPerJob = 50;
/** Fewer starts than this are done before a thread has started. */
const startsWorthThreads = 200;
const drawsWorthThreads = 200;

/** Resampling fewer runs than this understates how much they differ. */
const fewRuns = 10;

/**
 * Fits a law to points, with everything that the request asks to be said about the fit. Throws inputError for points
 * that cannot be fitted and places that cannot be predicted.
 */
export async function runFit(
  request: FitRequest,
  progress: (state: FitProgress) => void = () => undefined,
): Promise<FitReport> {
  const { points, loss, bootstrap } = request;
  const law = lawOf(request.law);
  const notes = [...checkedPoints(law, request), ...bootstrapNotes(request)];
  checkPlaces(law, request.predict);
  // What the comparison says is of no use after minutes of fitting: `report` fits these laws last.
  for (const name of request.compare) checkedPoints(lawOf(name), request);
  const bound = law.bind(points);
  const problem = problemOf(bound, points, loss);
  const starts = startsOf(bound, { starts: request.starts });
  const isWorthThreads = starts.length >= startsWorthThreads || bootstrap >= drawsWorthThreads;
  const pool = openPool({ law: request.law, points, loss }, isWorthThreads ? request.threads : 1);
  try {
    const fit = bestOf(problem, points, await localFits(pool, starts, progress));
    const draws = await drawFits(pool, fit, request, progress);
    return report(request, law, problem, fit, draws, notes, progress);
  } finally {
    await pool.close();
  }
}

/** Warnings about the points. Throws inputError where they cannot be fitted. */
function checkedPoints(law: Law, { points, where, stated, lines }: FitRequest): readonly string[] {
  return checkPoints(law, points, {
    ...(where !== undefined && { where }),
    ...(stated && { stated }),
    ...(lines && { pointName: (i: number) => `line ${lines[i]}` }),
  });
}

/** How far intervals by bootstrap can be trusted: docs/fitting.md has what was measured. */
function bootstrapNotes({ points, bootstrap, profile }: FitRequest): string[] {
  if (bootstrap === 0) return [];
  const runs = clusterCount(points);
  if (points.cluster !== undefined && runs < fewRuns)
    return [`Only ${runs} runs to resample: bootstrap intervals will be too narrow.`];
  if (profile) return [];
  return [
    "Intervals by bootstrap are approximate: nominal 90 % held the truth in 84 to 88 % of simulated studies of 36 " +
      "points. --profile gives closer ones.",
  ];
}

async function localFits(
  pool: Pool,
  starts: readonly Float64Array[],
  progress: (state: FitProgress) => void,
): Promise<LocalFit[]> {
  const jobs = ranges(starts.length, startsPerJob).map(([from, to]): Extract<Job, { type: "starts" }> => ({
    type: "starts",
    starts: starts.slice(from, to),
  }));
  const batches = await pool.run(jobs, (done) => progress({ what: "starts", done, total: jobs.length }));
  return batches.flat();
}

/** Internal parameters of every bootstrap draw, one after another. */
async function drawFits(
  pool: Pool,
  { theta: optimum }: Fit,
  { bootstrap, seed }: FitRequest,
  progress: (state: FitProgress) => void,
): Promise<Float64Array> {
  const jobs = ranges(bootstrap, drawsPerJob).map(([from, to]): Extract<Job, { type: "bootstrap" }> => ({
    type: "bootstrap",
    optimum,
    seed,
    from,
    to,
  }));
  const parts = await pool.run(jobs, (done) => progress({ what: "bootstrap", done, total: jobs.length }));
  return joined(parts);
}

function report(
  { points, loss, lines, level, profile, compare, predict: places }: FitRequest,
  law: Law,
  problem: Problem,
  fit: Fit,
  draws: Float64Array,
  notes: readonly string[],
  progress: (state: FitProgress) => void,
): FitReport {
  const pointName: PointName = (i) => (lines === undefined ? `point ${i + 1}` : `line ${lines[i]}`);
  const tangent = tangentOf(fit, problem);
  const { cluster } = points;
  const noise = cluster === undefined ? null : runNoiseOf(fit, problem, cluster);
  const ofOne = noiseOfOne(
    fit.residuals,
    fit.bound.p,
    cluster === undefined ? null : runNoise(tangent, cluster, fit.residuals),
  );
  const quality = qualityOf(fit, points);
  const dependence = dependenceOf(fit, points, tangent);
  // Points that go together would pass for a pattern.
  const misfit = misfitOf(fit, dependence === null ? points : { ...points, cluster: dependence.runs }, tangent);
  const outliers = outliersOf(fit, problem);
  const rivals = rivalsOf(fit, points, loss);
  const natural = draws.length === 0 ? [] : naturalDraws(fit.bound, draws);
  const profiles: Record<string, Profile> = {};
  const intervals: Record<string, BootstrapInterval> = {};
  law.parameters.forEach(({ name }, j) => {
    if (profile) {
      profiles[name] = profileParameter(fit, problem, j, { level, noise });
      progress({ what: "profile", done: j + 1, total: law.parameters.length });
    }
    if (natural.length > 0) intervals[name] = summarise(elementAt(natural, j), level);
  });
  const others = compare.map((name, i) => {
    const other = lawOf(name);
    progress({ what: "comparison", done: i + 1, total: compare.length });
    return criteria(fitLaw(other, points, { loss }), points);
  });
  return {
    fit,
    profiles,
    notes,
    quality,
    misfit,
    noise: {
      ofOnePoint: Math.sqrt(ofOne.value),
      runs: noise?.runs ?? null,
      correlation: noise?.correlation ?? null,
    },
    outliers: outliers.map(({ point, ...rest }) => ({ line: lines?.[point] ?? null, ...rest })),
    rivals: rivals.map(({ fit: { law: rival }, lead, verdict }) => ({ law: rival.id, lead, verdict })),
    comparison: others.length === 0 ? [] : [criteria(fit, points), ...others],
    bootstrap: intervals,
    draws: Object.fromEntries(natural.map((values, j) => [elementAt(law.parameters, j).name, values])),
    predictions: places.map((at) =>
      predictionAt(at, points, problem, fit, draws, { profile, level, noise, ofOne, rivals }),
    ),
    warnings: [
      ...worthWarnings(fit, quality),
      ...identificationWarnings(fit, problem, { profile: profiles, bootstrap: intervals }),
      ...(misfit?.isFlagged === true ? [misfitWarning(misfit)] : []),
      ...(dependence === null ? [] : [dependenceWarning(fit, dependence)]),
      ...rivalWarnings(rivals),
      ...outlierWarning(outliers, fit.loss.name, pointName),
      ...duplicateWarning(points, pointName),
    ],
  };
}

interface PredictionOptions {
  readonly profile: boolean;
  readonly level: number;
  readonly noise: RunNoise | null;
  /** Variance of one new point. */
  readonly ofOne: Variance;
  readonly rivals: readonly Rival[];
}

function predictionAt(
  { columns, group }: PredictAt,
  points: Points,
  problem: Problem,
  fit: Fit,
  draws: Float64Array,
  { profile, level, noise, ofOne, rivals }: PredictionOptions,
): Prediction {
  const values = Object.fromEntries(Object.entries(columns).map(([name, value]) => [name, [value]]));
  // Columns that the group's law does not use have no value.
  const unused = Object.fromEntries(
    fit.law.columns.filter(({ name }) => columns[name] === undefined).map(({ name }) => [name, [NaN]]),
  );
  const place = placesOf({ ...values, ...unused }, group === undefined ? undefined : [group]);
  const alike =
    group === undefined
      ? points
      : pick(
          points,
          Array.from({ length: points.n }, (_, i) => i).filter((i) => points.group?.[i] === group),
        );
  const p = fit.bound.p;
  const evaluator = fit.bound.at(place);
  const out = new Float64Array(1);
  const drawnLosses = Float64Array.from({ length: draws.length / p }, (_, i) => {
    evaluator.evaluate(draws.subarray(i * p, (i + 1) * p), out);
    return Math.exp(elementAt(out, 0));
  });
  const loss = elementAt(predict(fit.law, fit.params, place), 0);
  const byProfile = profile ? profilePrediction(fit, problem, place, { level, noise }) : null;
  const byBootstrap = drawnLosses.length === 0 ? null : summarise(drawnLosses, level);
  const own: Interval =
    byProfile ??
    (byBootstrap === null
      ? linearPrediction(fit, problem, place, { level, noise })
      : { ...byBootstrap, lowOpen: false, highOpen: false });
  const { low, high, lowOpen, highOpen } = newRunInterval(own, loss, ofOne);
  return {
    at: columns,
    group: group ?? null,
    loss,
    profile: byProfile,
    bootstrap: byBootstrap,
    newRun: { level, low, high, lowOpen, highOpen },
    rivals: Object.fromEntries(
      rivals
        .filter(({ verdict }) => verdict !== "worse")
        .map(({ fit: rival }) => [rival.law.id, elementAt(predict(rival.law, rival.params, place), 0)]),
    ),
    warnings: extrapolationWarnings(alike, placesOf(values)),
  };
}

/** Throws inputError for a place that lacks a column, or names no group of the law. */
function checkPlaces(law: Law, places: FitRequest["predict"]): void {
  const where = "--predict";
  for (const { columns, group } of places) {
    const part = law.groups?.find(({ name }) => name === group);
    if (law.groups !== undefined && part === undefined) {
      throw inputError(
        group === undefined ? `the law ${law.id} is several laws: which one?` : `"${group}" is no group of ${law.id}`,
        { where, hint: `write group=${law.groups.map(({ name }) => name).join("|")},...` },
      );
    }
    if (law.groups === undefined && group !== undefined) throw inputError(`the law ${law.id} has no groups`, { where });
    const required = law.columns.filter(({ name }) => part === undefined || part.columns.includes(name));
    const names = [...(group === undefined ? [] : [`group=${group}`]), ...required.map(({ name }) => `${name}=...`)];
    for (const column of required) {
      const { name } = column;
      if (!Object.hasOwn(columns, name))
        throw inputError(`a prediction of ${law.id} needs ${name}`, { where, hint: `write ${names.join(",")}` });
      const wrong = outOfRange(column, valueAt(columns, name));
      if (wrong !== null) throw inputError(`${name} is ${columns[name]}, ${wrong}`, { where });
    }
  }
}

/** Ranges [from, to) of at most `size` that cover `count` items. */
function ranges(count: number, size: number): [number, number][] {
  return Array.from({ length: Math.ceil(count / size) }, (_, i) => [i * size, Math.min(count, (i + 1) * size)]);
}

function joined(parts: readonly Float64Array[]): Float64Array {
  const out = new Float64Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
