/** What a fit does not know: parameters the data leave open, and predictions beyond the data. */
import { at, valueAt } from "../../base/at.js";
import { compact, percent, significant } from "../../base/format.js";
import type { BootstrapInterval } from "./bootstrap.js";
import type { Fit } from "./fit.js";
import { inverse } from "../../base/linear-algebra.js";
import type { Problem } from "../solvers/local-fit.js";
import { Objective } from "../solvers/objective.js";
import { unscaledCurvature, type Profile } from "./profile.js";
import type { Places, Points } from "../forms/types.js";

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
    | "extrapolation";
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

export function identificationWarnings(
  fit: Fit,
  problem: Problem,
  { profile = {}, bootstrap = {} }: Intervals = {},
): readonly Warning[] {
  const warnings: Warning[] = [];
  const add = (kind: Warning["kind"], parameters: readonly string[], text: string): void =>
    void warnings.push({ kind, parameters, text });
  if (fit.status === "iteration-limit")
    add(
      "not-converged",
      [],
      "The fit stopped at its iteration limit: these numbers are the best seen, not an optimum.",
    );
  if (fit.starts.share < fewStarts && fit.starts.atOptimum < 3) {
    add(
      "few-starts",
      [],
      `Only ${fit.starts.atOptimum} of ${fit.starts.tried} starts reached this optimum: there may be a better ` +
        "one; try --grid.",
    );
  }
  if (fit.loss.name !== "mse") {
    const near = fit.loss.name === "huber" ? fit.loss.delta : 1e-9;
    const held = fit.residuals.filter((r) => Math.abs(r) <= near).length;
    if (held < fit.theta.length - fit.atBound.length) {
      add(
        "flat",
        [],
        `Other parameters fit equally well: only ${held} residuals lie within ${significant(near, 2)} of zero, ` +
          "and the loss is a straight line beyond; try a larger --delta, or --loss mse.",
      );
    }
  }
  for (const name of fit.atBound) {
    add(
      "at-bound",
      [name],
      `${name} ended on its bound (${significant(valueAt(fit.params, name), 3)}): the data do not identify it.`,
    );
  }
  for (const { name } of fit.law.parameters) {
    const found = profile[name];
    if (found === undefined || fit.atBound.includes(name)) continue;
    const sides = [...(found.lowOpen ? ["below"] : []), ...(found.highOpen ? ["above"] : [])];
    if (sides.length > 0)
      add("open-interval", [name], `${name} is not bounded from ${sides.join(" or ")}: its profile is flat there.`);
    else if (found.low < 0 && found.high > 0)
      add("sign", [name], `The sign of ${name} is not identified: its ${percent(found.level)} interval contains 0.`);
  }
  const wider = fit.law.parameters.flatMap(({ name }): [string, number][] => {
    const [one, other] = [profile[name], bootstrap[name]];
    if (one === undefined || other === undefined || one.lowOpen || one.highOpen) return [];
    const ratio = (other.high - other.low) / (one.high - one.low);
    return ratio > muchWider ? [[name, ratio]] : [];
  });
  if (wider.length > 0) {
    const [names, ratios] = [wider.map(([name]) => name), wider.map(([, ratio]) => ratio)];
    const [low, high] = [significant(Math.min(...ratios), 2), significant(Math.max(...ratios), 2)];
    add(
      "intervals-differ",
      names,
      `Bootstrap intervals of ${names.join(", ")} are ${low === high ? low : `${low} to ${high}`} times as ` +
        "wide as profile intervals: residuals are not alike everywhere, so trust the bootstrap.",
    );
  }
  const pairs = correlations(fit, problem);
  if (pairs.length > 0) {
    const list = pairs.map(([one, other]) => `${one} and ${other}`).join(", ");
    add(
      "correlated",
      [...new Set(pairs.flatMap(([one, other]) => [one, other]))],
      `Nearly free to trade against each other (correlation above ${strongCorrelation}): ${list}.`,
    );
  }
  return warnings;
}

/** Pairs of internal parameters whose estimates are strongly correlated. */
function correlations(fit: Fit, problem: Problem): readonly [string, string][] {
  const { bound, logLoss, weights } = problem;
  const objective = new Objective(bound, logLoss, weights, "mse", 0);
  const covariance = inverse(unscaledCurvature(problem, fit.theta, objective), bound.p);
  if (covariance === null) return [];
  const found: [string, string][] = [];
  const names = fit.law.parameters.map(({ name }) => name);
  for (let j = 0; j < bound.p; j++) {
    for (let k = j + 1; k < bound.p; k++) {
      if (fit.atBound.includes(at(names, j)) || fit.atBound.includes(at(names, k))) continue;
      const value =
        covariance[j * bound.p + k]! / Math.sqrt(covariance[j * bound.p + j]! * covariance[k * bound.p + k]!);
      if (Math.abs(value) > strongCorrelation) found.push([at(names, j), at(names, k)]);
    }
  }
  return found;
}

/** How far a place lies outside the range of each column, as sentences; empty inside. */
export function extrapolationWarnings(points: Points, place: Places): readonly Warning[] {
  return Object.entries(place.columns).flatMap(([name, [value]]): Warning[] => {
    const known = Object.hasOwn(points.columns, name) ? points.columns[name] : undefined;
    if (known === undefined || value === undefined) return [];
    const [low, high] = [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))];
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
