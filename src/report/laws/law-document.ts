/** The output of `upcycle fit --json` as the report of a fit: all but the charts that need the points themselves. */
import type { Profile } from "../../laws/fitting/profile.js";
import { lawById } from "../../laws/fitting/catalogue.js";
import { endsOf, type LawSource } from "./law-source.js";
import { profileCharts } from "./law-view.js";

/** What `upcycle fit --json` prints, as far as a report shows it. */
export interface LawDocument extends Pick<
  LawSource,
  "quality" | "noise" | "misfit" | "rivals" | "comparison" | "rows" | "columns"
> {
  readonly law: string;
  readonly formula: string;
  readonly source: string;
  readonly params: Readonly<Record<string, number>>;
  readonly intervals: Readonly<
    Record<
      string,
      { readonly bootstrap: LawSource["bootstrap"][string] | null; readonly profile: Profile | null } | undefined
    >
  >;
  readonly objective: number;
  readonly status: LawSource["fit"]["status"];
  readonly atBound: readonly string[];
  readonly gradientNorm: number;
  readonly starts: LawSource["fit"]["starts"];
  readonly loss: { readonly name: LawSource["fit"]["loss"]["name"]; readonly delta?: number };
  readonly n: number;
  readonly outliers: readonly unknown[];
  readonly predictions: readonly (Omit<LawSource["predictions"][number], "profile" | "isOutside"> & {
    readonly profile: Profile | null;
    readonly warnings: readonly { readonly text: string }[];
  })[];
  readonly dropped: readonly unknown[];
  readonly notes: readonly string[];
  readonly warnings: readonly { readonly text: string }[];
}

/** The report's data of such a document; `file` is its name. Throws TypeError for a document of something else. */
export function lawSourceOf(document: LawDocument, file: string): LawSource {
  const { law: id, formula, source, params, intervals, loss } = document;
  const known = lawById(id);
  const names = Object.keys(params);
  const parameters = names.map((name) => {
    const found = known?.parameters.find((one) => one.name === name);
    return { name, meaning: found?.meaning ?? "", unit: found?.unit ?? "" };
  });
  const having = <T>(of: (name: string) => T | null | undefined): Record<string, T> =>
    Object.fromEntries(
      names.flatMap((name): [string, T][] => {
        const found = of(name);
        return found === null || found === undefined ? [] : [[name, found]];
      }),
    );
  const profiles = having((name) => intervals[name]?.profile);
  const { objective, status, atBound, gradientNorm, starts } = document;
  const fit = {
    law: { id, title: known?.title ?? formula, formula, source, parameters },
    loss: { name: loss.name, delta: loss.delta ?? 0 } as LawSource["fit"]["loss"],
    params,
    objective,
    status,
    atBound,
    gradientNorm,
    starts,
    evaluations: NaN,
  };
  const { quality, noise, misfit, rivals, comparison, rows, columns, n } = document;
  return {
    fit,
    n,
    quality,
    noise,
    misfit,
    rivals,
    comparison,
    rows,
    columns,
    profiles: Object.fromEntries(Object.entries(profiles).map(([name, profile]) => [name, endsOf(profile)])),
    bootstrap: having((name) => intervals[name]?.bootstrap),
    predictions: document.predictions.map(({ profile, warnings, ...one }) => ({
      ...one,
      profile: profile === null ? null : endsOf(profile),
      isOutside: warnings.length > 0,
    })),
    outliers: document.outliers.length,
    warnings: [...document.notes, ...document.warnings.map(({ text }) => text)],
    file,
    leftOut: document.dropped.length === 0 ? "" : "rows that the file names",
    version: "",
    command: `upcycle fit POINTS --law ${known === undefined ? `'${formula}'` : id} --json > ${file}`,
    charts: profileCharts({ fit, profiles }),
  };
}
