/** A fitted law as a report: its sections, and one HTML file that opens without a network. */
import { valueAt } from "../../base/at.js";
import { compact, fixed, grouped, significant } from "../../base/format.js";
import { escapeHtml } from "../page/escape.js";
import { factsAndCommand, pageSection, renderPage, type ReportAssets, type ReportBody } from "../page/shell.js";
import { framedTable } from "../page/table.js";
import { tilesSection } from "../page/tiles.js";
import { fitAnswer } from "./law-answer.js";
import { lawSource, type LawSource, type ProfileEnds } from "./law-source.js";
import type { LawResult } from "./law-view.js";

/** The page of a fit as the text of an HTML file. */
export function renderLawHtml(result: LawResult, assets: ReportAssets): string {
  const source = lawSource(result);
  // The charts stand in the body's data already.
  const facts = { ...source, charts: undefined };
  return renderPage({ body: lawBody(source), version: source.version, source: facts }, assets);
}

/** The report of a fit; sections that it has nothing for are empty. */
export function lawBody(source: LawSource): ReportBody {
  const { warnings, predictions, comparison, charts, fit } = source;
  const has = (prefix: string): boolean => charts.some(({ id }) => id.startsWith(prefix));
  const section = (isThere: boolean, id: string, title: string, body: () => string): string =>
    isThere ? pageSection(id, title, body()) : "";
  const island = (name: string): string => `<div class="scripted" data-island="${name}"></div>`;
  return {
    kind: "law",
    title: `${fit.law.title} · scaling law`,
    sections: [
      header(source),
      tiles(source),
      pageSection("parameters", "Parameters", parameterTable(source)),
      section(warnings.length > 0, "warnings", "What to be careful about", () => warningList(warnings)),
      has("residuals") ? pageSection("fit", "Fit and residuals", island("fit"), "scripted") : "",
      section(predictions.length > 0, "predictions", "Predictions", () => predictionTable(source)),
      section(has("profile-"), "profiles", "Profiles", () => island("profiles")),
      section(has("cloud-"), "clouds", "Bootstrap", () => island("clouds")),
      section(comparison.length > 0, "comparison", "Other laws", () => comparisonTable(source)),
      pageSection("method", "How it was fitted", method(source)),
    ],
    data: { charts },
  };
}

const warningList = (warnings: readonly string[]): string =>
  `<ul class="findings">${warnings.map((text) => `<li>${escapeHtml(text)}</li>`).join("")}</ul>`;

function header(result: LawSource): string {
  const { title, formula } = result.fit.law;
  const { headline, prediction, doubts } = fitAnswer(result);
  const answer = prediction === "" ? doubts : `${prediction} ${doubts}`;
  const facts = [`${grouped(result.n)} points`, escapeHtml(result.file)].map((fact) => `<em>${fact}</em>`);
  return `<header>
  <p class="kicker">Scaling law: ${escapeHtml(title)}</p>
  <h1>${escapeHtml(headline)}</h1>
  <p class="answer">${escapeHtml(answer)}</p>
  <p class="formula" role="region" tabindex="0" aria-label="Formula"><code>${escapeHtml(formula)}</code></p>
  <p class="facts">${facts.join(' <span aria-hidden="true">·</span> ')}</p>
</header>`;
}

function tiles({ fit, quality }: LawSource): string {
  const status = {
    converged: "converged",
    "at-bound": "at a bound",
    "iteration-limit": "not converged",
    "no-better-than-constant": "no fit",
  }[fit.status];
  const { name, delta } = fit.loss;
  return tilesSection([
    { name: "Optimum", value: status, note: `${fit.starts.atOptimum} of ${fit.starts.tried} starts reach it` },
    {
      name: "Error of the fit",
      value: `${significant(100 * quality.logRmse)} %`,
      note: `RMSE ${significant(quality.rmse)} nats`,
    },
    { name: "Variance described", value: `${fixed(100 * quality.r2, 2)} %`, note: "R2 of the loss" },
    {
      name: "Objective",
      value: significant(fit.objective, 4),
      note: `sum of ${name}${name === "huber" ? `, delta ${delta}` : ""} over ln-residuals`,
    },
  ]);
}

const range = (low: string, high: string): string => `${low} .. ${high}`;

function parameterTable({ fit, profiles, bootstrap }: LawSource): string {
  const level = Object.values(profiles)[0]?.level ?? Object.values(bootstrap)[0]?.level;
  const percent = level === undefined ? "" : `${Number((100 * level).toFixed(2))} % `;
  const [withBootstrap, withProfile] = [Object.keys(bootstrap).length > 0, Object.keys(profiles).length > 0];
  const head = [
    "Parameter",
    "Value",
    ...(withBootstrap ? [`${percent}bootstrap`, "Standard error"] : []),
    ...(withProfile ? [`${percent}profile`] : []),
    "Meaning",
    "Unit",
  ];
  const rows = fit.law.parameters.map(({ name, meaning, unit }) => [
    `<code>${escapeHtml(name)}</code>`,
    significant(valueAt(fit.params, name), 6),
    ...bootstrapCells(bootstrap[name]),
    ...profileCells(profiles[name]),
    escapeHtml(meaning),
    escapeHtml(unit),
  ]);
  return table(head, rows, head.length - 2);
}

function bootstrapCells(interval: LawSource["bootstrap"][string] | undefined): string[] {
  if (interval === undefined) return [];
  const { low, high, standardError } = interval;
  return [range(significant(low, 4), significant(high, 4)), significant(standardError)];
}

function profileCells(profile: ProfileEnds | undefined): string[] {
  if (profile === undefined) return [];
  const { low, high, lowOpen, highOpen } = profile;
  return [range(lowOpen ? "open" : significant(low, 4), highOpen ? "open" : significant(high, 4))];
}

function predictionTable({ predictions }: LawSource): string {
  const interval = (ends: { low: number; high: number } | null): string =>
    ends === null ? "" : range(fixed(ends.low, 4), fixed(ends.high, 4));
  const ends = ({ low, high, lowOpen, highOpen }: (typeof predictions)[number]["newRun"]): string =>
    range(lowOpen ? "open" : fixed(low, 4), highOpen ? "open" : fixed(high, 4));
  const [withBootstrap, withProfile] = [
    predictions.some(({ bootstrap }) => bootstrap !== null),
    predictions.some(({ profile }) => profile !== null),
  ];
  const rows = predictions.map(({ at, group, loss, bootstrap, profile, newRun }) => [
    escapeHtml(
      (group === null ? "" : `${group}, `) +
        Object.entries(at)
          .map(([name, value]) => `${name} = ${compact(value)}`)
          .join(", "),
    ),
    fixed(loss, 4),
    ...(withBootstrap ? [interval(bootstrap)] : []),
    ...(withProfile ? [interval(profile)] : []),
    ends(newRun),
  ]);
  const head = [
    "Place",
    "Loss",
    ...(withBootstrap ? ["Law, bootstrap"] : []),
    ...(withProfile ? ["Law, profile"] : []),
    "A new run",
  ];
  const percent = `${Number((100 * (predictions[0]?.newRun.level ?? NaN)).toFixed(2))} %`;
  return (
    table(head, rows, head.length) +
    `<p class="note">Intervals of ${percent}: of the law are those in which its own loss lies, of a new run those in ` +
    "which one more training would end, with the scatter that the points have.</p>"
  );
}

function comparisonTable({ comparison }: LawSource): string {
  const [aic, bic] = [
    Math.min(...comparison.map((entry) => entry.aic)),
    Math.min(...comparison.map((entry) => entry.bic)),
  ];
  const rows = comparison.map(({ law, k, heldOut, ...entry }) => [
    escapeHtml(law),
    String(k - 1),
    (entry.aic - aic).toFixed(1),
    (entry.bic - bic).toFixed(1),
    heldOut === null ? "n/a" : `${significant(100 * heldOut.rmse)} %`,
    heldOut === null ? "n/a" : `${significant(100 * heldOut.bias, 2)} %`,
  ]);
  const heldOut = comparison[0]?.heldOut ?? null;
  const note =
    heldOut === null
      ? ""
      : `<p class="note">Held-out: the ${heldOut.n} points of the largest scale, predicted by a fit of the other ` +
        `${heldOut.fitted}. Smaller is better in every column but the second.</p>`;
  return (
    table(["Law", "Parameters", "AIC less the best", "BIC less the best", "Held-out error", "Held-out bias"], rows, 6) +
    note
  );
}

/** A framed table in which the columns from the second up to number `numbers` hold numbers. */
function table(head: readonly string[], rows: readonly (readonly string[])[], numbers: number): string {
  return framedTable(head, rows, (column) => column > 0 && column < numbers);
}

function method({ fit, n, rows, leftOut, columns, file, command, noise }: LawSource): string {
  const { law, loss } = fit;
  const facts: [string, string][] = [
    ["Law", `${law.id}, from ${law.source}`],
    ...(law.note === undefined ? [] : [["Note", law.note] as [string, string]]),
    ["Points", `${n} of ${rows} rows of ${file}${leftOut === "" ? "" : `; left out: ${leftOut}`}`],
    [
      "Columns",
      Object.entries(columns)
        .map(([name, from]) => `${name} = ${from}`)
        .join(", "),
    ],
    ...(noise.runs === null
      ? []
      : [
          [
            "Runs",
            `${noise.runs} of several points each; correlation within a run ` +
              `${significant(noise.correlation ?? NaN, 2)}`,
          ] as [string, string],
        ]),
    [
      "Loss",
      `${loss.name}${loss.name === "huber" ? ` with delta ${loss.delta}` : ""} of ` +
        `${loss.name === "mse-raw" ? "predicted - observed" : "ln predicted - ln observed"}, ` +
        `summed over points: ${String(fit.objective)}`,
    ],
    [
      "Solver",
      `${fit.starts.tried} starts, ${fit.evaluations} evaluations, largest gradient component ` +
        `${significant(fit.gradientNorm, 2)}`,
    ],
  ];
  return factsAndCommand(facts, command);
}
