/** A fitted law as one HTML file that opens without a network. */
import { valueAt } from "../../base/at.js";
import { compact, fixed, grouped, significant } from "../../base/format.js";
import { css } from "../page/css.js";
import { escapeHtml } from "../page/escape.js";
import { factsAndCommand, pageSection, renderPage, type ReportAssets } from "../page/shell.js";
import { framedTable } from "../page/table.js";
import { fitAnswer } from "./law-answer.js";
import { lawScript } from "./law-script.js";
import { lawCharts, type Chart, type LawResult } from "./law-view.js";

/** The page of a fit as the text of an HTML file; `assets` are the texts of the chart library, which stand in it. */
export function renderLawHtml(result: LawResult, assets: ReportAssets): string {
  const { fit, version } = result;
  const charts = lawCharts(result);
  const page = {
    title: `${fit.law.title} · scaling law`,
    version,
    footer: ". Nothing on this page is loaded from a network.",
    body: sections(result, charts),
    data: { charts },
    script: lawScript,
    style: lawStyle,
  };
  return renderPage(page, assets);
}

/** Paths and formulas break where they must; a tile's word stays whole on a narrow screen. */
const lawStyle = css`
  .facts em,
  .formula code,
  .facts-list dd {
    overflow-wrap: anywhere;
    white-space: normal;
  }
  .formula {
    margin: 1rem 0 0;
  }
  #parameters td:nth-last-child(2) {
    min-width: 13rem;
  }
  @media (max-width: 30rem) {
    .tiles b {
      font-size: 1.15rem;
      overflow-wrap: normal;
    }
  }
`;

/** The sections of the page; those that the fit has nothing for are empty. */
function sections(result: LawResult, charts: readonly Chart[]): string[] {
  const { warnings, predictions, comparison } = result;
  const of = (...prefixes: readonly string[]): Chart[] =>
    prefixes.flatMap((prefix) => charts.filter(({ id }) => id.startsWith(prefix)));
  const [profiles, clouds] = [of("profile-"), of("cloud-")];
  const section = (isThere: boolean, id: string, title: string, body: () => string): string =>
    isThere ? pageSection(id, title, body()) : "";
  return [
    header(result),
    tiles(result),
    pageSection("parameters", "Parameters", parameterTable(result)),
    section(warnings.length > 0, "warnings", "What to be careful about", () => warningList(warnings)),
    pageSection("fit", "Fit and residuals", figures(of("loss-", "residuals", "contours", "isoflop"))),
    section(predictions.length > 0, "predictions", "Predictions", () => predictionTable(result)),
    section(profiles.length > 0, "profiles", "Profiles", () => figures(profiles)),
    section(clouds.length > 0, "clouds", "Bootstrap", () => figures(clouds)),
    section(comparison.length > 0, "comparison", "Other laws", () => comparisonTable(result)),
    pageSection("method", "How it was fitted", method(result)),
  ];
}

const warningList = (warnings: readonly string[]): string =>
  `<ul class="findings">${warnings.map((text) => `<li>${escapeHtml(text)}</li>`).join("")}</ul>`;

function header(result: LawResult): string {
  const { title, formula } = result.fit.law;
  const { headline, prediction, doubts } = fitAnswer(result);
  const answer = prediction === "" ? doubts : `${prediction} ${doubts}`;
  const facts = [`${grouped(result.points.n)} points`, escapeHtml(result.file)].map((fact) => `<em>${fact}</em>`);
  return `<header>
  <p class="kicker">Scaling law: ${escapeHtml(title)}</p>
  <h1>${escapeHtml(headline)}</h1>
  <p class="answer">${escapeHtml(answer)}</p>
  <p class="formula"><code>${escapeHtml(formula)}</code></p>
  <p class="facts">${facts.join(' <span aria-hidden="true">·</span> ')}</p>
</header>`;
}

function tiles({ fit, quality }: LawResult): string {
  const status = {
    converged: "converged",
    "at-bound": "at a bound",
    "iteration-limit": "not converged",
    "no-better-than-constant": "no fit",
  }[fit.status];
  const items = [
    ["Optimum", status, `${fit.starts.atOptimum} of ${fit.starts.tried} starts reach it`],
    ["Error of the fit", `${significant(100 * quality.logRmse)} %`, `RMSE ${significant(quality.rmse)} nats`],
    ["Variance described", `${(100 * quality.r2).toFixed(2)} %`, "R2 of the loss"],
    [
      "Objective",
      significant(fit.objective, 4),
      `sum of ${fit.loss.name}${fit.loss.name === "huber" ? `, delta ${fit.loss.delta}` : ""} over ln-residuals`,
    ],
  ].map(([name, value, note]) => `<div><dt>${name}</dt><dd><b>${value}</b><span>${note}</span></dd></div>`);
  return `<section aria-label="Key numbers"><dl class="tiles">${items.join("")}</dl></section>`;
}

const range = (low: string, high: string): string => `${low} .. ${high}`;

function parameterTable({ fit, profiles, bootstrap }: LawResult): string {
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

function bootstrapCells(interval: LawResult["bootstrap"][string] | undefined): string[] {
  if (interval === undefined) return [];
  const { low, high, standardError } = interval;
  return [range(significant(low, 4), significant(high, 4)), significant(standardError)];
}

function profileCells(profile: LawResult["profiles"][string] | undefined): string[] {
  if (profile === undefined) return [];
  const { low, high, lowOpen, highOpen } = profile;
  return [range(lowOpen ? "open" : significant(low, 4), highOpen ? "open" : significant(high, 4))];
}

function predictionTable({ predictions }: LawResult): string {
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

function comparisonTable({ comparison }: LawResult): string {
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

/** The swatch of a series, in the colour that the script draws it with. */
function swatch({ tone, ramp }: Chart["series"][number]): string {
  if (ramp === undefined) return `<i class="swatch tone-${tone % 6}"></i>`;
  const share = Number((100 * ramp).toFixed(1));
  return `<i class="swatch" style="--swatch: color-mix(in srgb, var(--ramp-high) ${share}%, var(--ramp-low))"></i>`;
}

function figures(charts: readonly Chart[]): string {
  const items = charts.map(({ id, title, note, series }) => {
    const legend = series
      .filter(({ kind }) => kind !== "line" || !series.some((other) => other.kind === "dots"))
      .map((entry) => `<li>${swatch(entry)}${escapeHtml(entry.label)}</li>`);
    const scale = legend.length > 1 ? `<ul class="scale">${legend.join("")}</ul>` : "";
    return (
      `<figure id="${escapeHtml(id)}"><figcaption><b>${escapeHtml(title)}.</b> ${escapeHtml(note)}</figcaption>` +
      `<div class="plot" role="img" aria-label="${escapeHtml(title)}"></div>${scale}</figure>`
    );
  });
  return `<div class="charts scripted">${items.join("")}</div>`;
}

function method({ fit, points, rows, leftOut, columns, file, command, noise }: LawResult): string {
  const { law, loss } = fit;
  const facts: [string, string][] = [
    ["Law", `${law.id}, from ${law.source}`],
    ...(law.note === undefined ? [] : [["Note", law.note] as [string, string]]),
    ["Points", `${points.n} of ${rows} rows of ${file}${leftOut === "" ? "" : `; left out: ${leftOut}`}`],
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
