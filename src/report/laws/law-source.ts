/** A fit as plain data: all that its report is made of, so that it can be made again from the file of the report. */
import type { Chart, LawResult } from "./law-view.js";
import { lawCharts } from "./law-view.js";

type Fit = LawResult["fit"];
type Profile = LawResult["profiles"][string];

/** Ends of an interval, without the curve behind it. */
export type ProfileEnds = Omit<Profile, "curve" | "threshold">;

type Prediction = LawResult["predictions"][number];

/** Everything that the report of a fit shows. */
export interface LawSource extends Pick<
  LawResult,
  | "quality"
  | "bootstrap"
  | "misfit"
  | "rivals"
  | "noise"
  | "comparison"
  | "warnings"
  | "file"
  | "rows"
  | "leftOut"
  | "columns"
  | "version"
  | "command"
> {
  readonly fit: Pick<
    Fit,
    "loss" | "params" | "objective" | "status" | "atBound" | "gradientNorm" | "starts" | "evaluations"
  > & {
    readonly law: Pick<Fit["law"], "id" | "title" | "formula" | "source" | "note"> & {
      readonly parameters: readonly { readonly name: string; readonly meaning: string; readonly unit: string }[];
    };
  };
  /** Points that were fitted. */
  readonly n: number;
  readonly profiles: Readonly<Record<string, ProfileEnds>>;
  readonly predictions: readonly (Pick<Prediction, "at" | "group" | "loss" | "bootstrap" | "newRun"> & {
    readonly profile: ProfileEnds | null;
    /** Whether the place lies outside of the points. */
    readonly isOutside: boolean;
  })[];
  /** Points far from the fit. */
  readonly outliers: number;
  readonly charts: readonly Chart[];
}

/** The ends of a profile's interval. */
export const endsOf = ({ level, low, high, lowOpen, highOpen }: ProfileEnds): ProfileEnds => ({
  level,
  low,
  high,
  lowOpen,
  highOpen,
});

/** The plain data of a fit. */
export function lawSource(result: LawResult): LawSource {
  const { fit, points, profiles, predictions, outliers } = result;
  const { law, loss, params, objective, status, atBound, gradientNorm, starts, evaluations } = fit;
  const { quality, bootstrap, misfit, rivals, noise, comparison, warnings, file, rows, leftOut, columns } = result;
  const { id, title, formula, source, note } = law;
  return {
    fit: {
      law: {
        id,
        title,
        formula,
        source,
        ...(note !== undefined && { note }),
        parameters: law.parameters.map(({ name, meaning, unit }) => ({ name, meaning, unit })),
      },
      loss,
      params,
      objective,
      status,
      atBound,
      gradientNorm,
      starts,
      evaluations,
    },
    n: points.n,
    quality,
    profiles: Object.fromEntries(Object.entries(profiles).map(([name, profile]) => [name, endsOf(profile)])),
    bootstrap,
    predictions: predictions.map(
      ({ at, group, loss: predicted, bootstrap: draws, newRun, profile, warnings: far }) => ({
        at,
        group,
        loss: predicted,
        bootstrap: draws,
        newRun,
        profile: profile === null ? null : endsOf(profile),
        isOutside: far.length > 0,
      }),
    ),
    misfit,
    outliers: outliers.length,
    rivals: rivals.map(({ law: rival, verdict }) => ({ law: rival, verdict })),
    noise,
    comparison,
    warnings,
    file,
    rows,
    leftOut,
    columns,
    version: result.version,
    command: result.command,
    charts: lawCharts(result),
  };
}
