/** What a fit does not know: parameters the data leave open, and predictions beyond the data. */
import { at, valueAt } from "../../base/at.js";
import { compact, percent, significant } from "../../base/format.js";
import type { BootstrapInterval } from "./bootstrap.js";
import type { Fit } from "./fit.js";
import { inverse } from "../../base/linear-algebra.js";
import type { Problem } from "../solvers/local-fit.js";
import { isSquared } from "../solvers/loss.js";
import { Objective } from "../solvers/objective.js";
import { unscaledCurvature, type Profile } from "./profile.js";
import type { Places, Points } from "../forms/types.js";

/** Something that limits what a fit or a prediction can be trusted for. */
export interface Warning {
  readonly kind:
    | "not-converged"
    | "few-starts"
    | "flat"
    | "at-bound"
    | "open-interval"
    | "sign"
    | "correlated"
    | "intervals-differ"
    | "extrapolation"
    | "no-fit"
    | "misfit"
    | "clustered"
    | "rivals"
    | "outliers"
    | "duplicates";
  readonly parameters: readonly string[];
  /** One sentence. */
  readonly text: string;
}

/** Correlated beyond this, two internal parameters can trade against each other almost freely. */
const strongCorrelation = 0.99;
/** Below this share of starts at the optimum another, better one may have been missed. */
const fewStarts = 0.05;

/** A bootstrap interval this much wider than the profile's shows residuals that are not alike. */
const muchWider = 1.5;

/** Intervals are optional; with them the warnings say more. */
export interface Intervals {
  readonly profile?: Readonly<Record<string, Profile>>;
  readonly bootstrap?: Readonly<Record<string, BootstrapInterval>>;
}

/** What the data leave open about a fit. */
export function identificationWarnings(
  fit: Fit,
  problem: Problem,
  { profile = {}, bootstrap = {} }: Intervals = {},
): readonly Warning[] {
  return [
    ...searchWarnings(fit),
    ...flatnessWarnings(fit),
    ...fit.atBound.map((name): Warning => {
      const value = significant(valueAt(fit.params, name), 3);
      return warning("at-bound", [name], `${name} ended on its bound (${value}): the data do not identify it.`);
    }),
    ...profileWarnings(fit, profile),
    ...intervalWarnings(fit, profile, bootstrap),
    ...correlationWarnings(fit, problem),
  ];
}

/** A warning about these parameters. */
export function warning(kind: Warning["kind"], parameters: readonly string[], text: string): Warning {
  return { kind, parameters, text };
}

/** Whether the search came to an end, and from how many starts. */
function searchWarnings({ status, starts }: Fit): Warning[] {
  const warnings: Warning[] = [];
  if (status === "iteration-limit") {
    const text = "The fit stopped at its iteration limit: these numbers are the best seen, not an optimum.";
    warnings.push(warning("not-converged", [], text));
  }
  if (starts.share < fewStarts && starts.atOptimum < 3) {
    const text =
      `Only ${starts.atOptimum} of ${starts.tried} starts reached this optimum: there may be a better ` +
      "one; try --grid.";
    warnings.push(warning("few-starts", [], text));
  }
  return warnings;
}

/** Fewer residuals in the curved part of the loss than parameters: the optimum is not a single point. */
function flatnessWarnings({ loss, residuals, theta, atBound }: Fit): Warning[] {
  if (isSquared(loss.name)) return [];
  const near = loss.name === "huber" ? loss.delta : 1e-9;
  const count = residuals.filter((r) => Math.abs(r) <= near).length;
  if (count >= theta.length - atBound.length) return [];
  const text =
    `Other parameters fit equally well: only ${count} residuals lie within ${significant(near, 2)} of zero, ` +
    "and the loss is a straight line beyond; try a larger --delta, or --loss mse.";
  return [warning("flat", [], text)];
}

/** Parameters whose profile is open, or does not say which sign they have. */
function profileWarnings(fit: Fit, profiles: Readonly<Record<string, Profile>>): Warning[] {
  return fit.law.parameters.flatMap(({ name }): Warning[] => {
    const profile = profiles[name];
    if (profile === undefined || fit.atBound.includes(name)) return [];
    const { low, high, lowOpen, highOpen, level } = profile;
    const sides = [...(lowOpen ? ["below"] : []), ...(highOpen ? ["above"] : [])];
    if (sides.length > 0) {
      const text = `${name} is not bounded from ${sides.join(" or ")}: its profile is flat there.`;
      return [warning("open-interval", [name], text)];
    }
    if (!(low < 0 && high > 0)) return [];
    const text = `The sign of ${name} is not identified: its ${percent(level)} interval contains 0.`;
    return [warning("sign", [name], text)];
  });
}

/** Bootstrap intervals that are much wider than those of profiles. */
function intervalWarnings(
  fit: Fit,
  profiles: Readonly<Record<string, Profile>>,
  bootstraps: Readonly<Record<string, BootstrapInterval>>,
): Warning[] {
  const wider = fit.law.parameters.flatMap(({ name }) => {
    const [profile, bootstrap] = [profiles[name], bootstraps[name]];
    if (profile === undefined || bootstrap === undefined || profile.lowOpen || profile.highOpen) return [];
    const ratio = (bootstrap.high - bootstrap.low) / (profile.high - profile.low);
    return ratio > muchWider ? [{ name, ratio }] : [];
  });
  if (wider.length === 0) return [];
  const names = wider.map(({ name }) => name);
  const ratios = wider.map(({ ratio }) => ratio);
  const [low, high] = [significant(Math.min(...ratios), 2), significant(Math.max(...ratios), 2)];
  const text =
    `Bootstrap intervals of ${names.join(", ")} are ${low === high ? low : `${low} to ${high}`} times as ` +
    "wide as profile intervals: residuals are not alike everywhere, so trust the bootstrap.";
  return [warning("intervals-differ", names, text)];
}

function correlationWarnings(fit: Fit, problem: Problem): Warning[] {
  const pairs = correlations(fit, problem);
  if (pairs.length === 0) return [];
  const list = pairs.map(([one, other]) => `${one} and ${other}`).join(", ");
  const text = `Nearly free to trade against each other (correlation above ${strongCorrelation}): ${list}.`;
  return [warning("correlated", [...new Set(pairs.flat())], text)];
}

/** Pairs of internal parameters whose estimates are strongly correlated. */
function correlations(fit: Fit, problem: Problem): readonly [string, string][] {
  const { bound, logLoss, weights } = problem;
  const objective = new Objective(bound, logLoss, weights, "mse", 0);
  const covariance = inverse(unscaledCurvature(problem, fit.theta, objective), bound.p);
  if (covariance === null) return [];
  const entry = (j: number, k: number): number => at(covariance, j * bound.p + k);
  const free = fit.law.parameters.map(({ name }, j) => ({ name, j })).filter(({ name }) => !fit.atBound.includes(name));
  return free.flatMap(({ name, j }) =>
    free
      .filter(({ j: k }) => k > j && Math.abs(entry(j, k) / Math.sqrt(entry(j, j) * entry(k, k))) > strongCorrelation)
      .map((other): [string, string] => [name, other.name]),
  );
}

/** How far a place lies outside the range of each column, as sentences; empty inside. */
export function extrapolationWarnings(points: Points, place: Places): readonly Warning[] {
  return Object.entries(place.columns).flatMap(([name, [value]]): Warning[] => {
    const fitted = Object.hasOwn(points.columns, name) ? points.columns[name] : undefined;
    if (fitted === undefined || value === undefined) return [];
    const [low, high] = [fitted.reduce((a, b) => Math.min(a, b)), fitted.reduce((a, b) => Math.max(a, b))];
    if (value >= low && value <= high) return [];
    const [factor, side] = value > high ? [value / high, "above the largest"] : [low / value, "below the smallest"];
    return [
      {
        kind: "extrapolation",
        parameters: [],
        text:
          `${name} = ${compact(value)} lies a factor of ${significant(factor, 2)} ${side} fitted ` +
          `(${compact(value > high ? high : low)}): this prediction extrapolates.`,
      },
    ];
  });
}
