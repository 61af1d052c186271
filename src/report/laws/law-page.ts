/** A fitted law as one HTML file that opens without a network. */
import { compact, fixed, grouped, significant } from "../../base/format.js";
import { embedAsset, embedJson, escapeHtml } from "../page/escape.js";
import type { ReportAssets } from "../study/html.js";
import { lawScript } from "./law-script.js";
import { lawCharts, type Chart, type LawResult } from "./law-view.js";
import { chartScript } from "../page/script-chart.js";
import { pageStyle } from "../page/style.js";

const contentPolicy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

export function renderLawHtml(result: LawResult, assets: ReportAssets): string {
  const { fit, version } = result;
  const charts = lawCharts(result);
  const of = (prefix: string): Chart[] => charts.filter(({ id }) => id.startsWith(prefix));
  const body = [
    header(result),
    tiles(result),
    section("parameters", "Parameters", parameterTable(result)),
    result.warnings.length === 0
      ? ""
      : section(
          "warnings",
          "What to be careful about",
          `<ul class="findings">${result.warnings.map((text) => `<li>${escapeHtml(text)}</li>`).join("")}</ul>`,
        ),
    section(
      "fit",
      "Fit and residuals",
      figures([...of("loss-"), ...of("residuals"), ...of("contours"), ...of("isoflop")]),
    ),
    result.predictions.length === 0 ? "" : section("predictions", "Predictions", predictionTable(result)),
    of("profile-").length === 0 ? "" : section("profiles", "Profiles", figures(of("profile-"))),
    of("cloud-").length === 0 ? "" : section("clouds", "Bootstrap", figures(of("cloud-"))),
    result.comparison.length === 0 ? "" : section("comparison", "Other laws", comparisonTable(result)),
    section("method", "How it was fitted", method(result)),
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${contentPolicy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="upcycle ${escapeHtml(version)}">
<title>${escapeHtml(fit.law.title)} · scaling law</title>
<link rel="icon" href="data:,">
<style>${embedAsset(assets.uplotCss)}</style>
<style>${pageStyle()}</style>
<script>document.documentElement.classList.add("with-script");</script>
</head>
<body>
<main>
${body.filter((part) => part !== "").join("\n")}
</main>
<footer><p>Written by upcycle ${escapeHtml(version)}. Nothing on this page is loaded from a network.</p></footer>
<script type="application/json" id="report-data">${embedJson({ charts })}</script>
<script>${embedAsset(assets.uplotJs)}</script>
<script>${chartScript}${lawScript}</script>
</body>
</html>
`;
}

function header({ fit, points, file }: LawResult): string {
  return `<header>
  <p class="kicker">Scaling law</p>
  <h1>${escapeHtml(fit.law.title[0]!.toUpperCase() + fit.law.title.slice(1))}</h1>
  <p class="answer"><code>${escapeHtml(fit.law.formula)}</code></p>
  <p class="facts"><em>${grouped(points.n)} points</em> <span aria-hidden="true">·</span> <em>${escapeHtml(file)}</em></p>
</header>`;
}

function tiles({ fit, quality }: LawResult): string {
  const status = { converged: "converged", "at-bound": "at a bound", "iteration-limit": "not converged" }[fit.status];
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
  const [drawn, profiled] = [Object.keys(bootstrap).length > 0, Object.keys(profiles).length > 0];
  const head = [
    "Parameter",
    "Value",
    ...(drawn ? [`${percent}bootstrap`, "Standard error"] : []),
    ...(profiled ? [`${percent}profile`] : []),
    "Meaning",
    "Unit",
  ];
  const rows = fit.law.parameters.map(({ name, meaning, unit }) => {
    const [one, other] = [bootstrap[name], profiles[name]];
    return [
      `<code>${escapeHtml(name)}</code>`,
      significant(fit.params[name]!, 6),
      ...(one === undefined
        ? []
        : [range(significant(one.low, 4), significant(one.high, 4)), significant(one.standardError)]),
      ...(other === undefined
        ? []
        : [
            range(
              other.lowOpen ? "open" : significant(other.low, 4),
              other.highOpen ? "open" : significant(other.high, 4),
            ),
          ]),
      escapeHtml(meaning),
      escapeHtml(unit),
    ];
  });
  return table(head, rows, head.length - 2);
}

function predictionTable({ predictions }: LawResult): string {
  const interval = (found: { low: number; high: number } | null): string =>
    found === null ? "" : range(fixed(found.low, 4), fixed(found.high, 4));
  const rows = predictions.map(({ at, group, loss, bootstrap, profile }) => [
    escapeHtml(
      (group === null ? "" : `${group}, `) +
        Object.entries(at)
          .map(([name, value]) => `${name} = ${compact(value)}`)
          .join(", "),
    ),
    fixed(loss, 4),
    interval(bootstrap),
    interval(profile),
  ]);
  return table(["Place", "Loss", "Bootstrap", "Profile"], rows, 4);
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
  const held = comparison[0]?.heldOut;
  const note =
    held === null || held === undefined
      ? ""
      : `<p class="note">Held-out: the ${held.n} points of the largest scale, predicted by a fit of the other ` +
        `${held.fitted}. Smaller is better in every column but the second.</p>`;
  return (
    table(["Law", "Parameters", "AIC less the best", "BIC less the best", "Held-out error", "Held-out bias"], rows, 6) +
    note
  );
}

/** Columns from the second up to `numbers` are numbers. */
function table(head: readonly string[], rows: readonly (readonly string[])[], numbers: number): string {
  const kind = (i: number): string => (i > 0 && i < numbers ? ' class="number"' : "");
  const cells = (row: readonly string[]): string =>
    row.map((text, i) => (i === 0 ? `<th scope="row">${text}</th>` : `<td${kind(i)}>${text}</td>`)).join("");
  return (
    "<div " +
    `class="frame"><table><thead><tr>${head.map((text, i) => `<th scope="col"${kind(i)}>${text}</th>`).join("")}</tr></thead><tbody>${rows.map((row) => `<tr>${cells(row)}</tr>`).join("")}</tbody></table></div>`
  );
}

function figures(charts: readonly Chart[]): string {
  const items = charts.map(({ id, title, note, series }) => {
    const legend = series
      .filter(({ kind }) => kind !== "line" || !series.some((other) => other.kind === "dots"))
      .map(({ label, tone }) => `<li><i class="swatch tone-${tone % 6}"></i>${escapeHtml(label)}</li>`);
    return (
      `<figure id="${escapeHtml(id)}"><figcaption><b>${escapeHtml(title)}.</b> ` +
      `${escapeHtml(note)}</figcaption><div class="plot" role="img" ` +
      `aria-label="${escapeHtml(title)}"></div>${legend.length > 1 ? `<ul class="scale">${legend.join("")}</ul>` : ""}</figure>`
    );
  });
  return `<div class="charts scripted">${items.join("")}</div>`;
}

function method({ fit, points, rows, leftOut, columns, file, command }: LawResult): string {
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
    [
      "Loss",
      `${loss.name}${loss.name === "huber" ? ` with delta ${loss.delta}` : ""} of ln predicted - ln observed, ` +
        `summed over points: ${String(fit.objective)}`,
    ],
    [
      "Solver",
      `${fit.starts.tried} starts, ${fit.evaluations} evaluations, largest gradient component ` +
        `${significant(fit.gradientNorm, 2)}`,
    ],
  ];
  const items = facts.map(([name, text]) => `<div><dt>${escapeHtml(name)}</dt><dd>${escapeHtml(text)}</dd></div>`);
  return (
    `<dl class="facts-list">${items.join("")}</dl><h3>Again</h3><div ` +
    `class="commands"><pre><code>${escapeHtml(command)}</code></pre></div>`
  );
}

function section(id: string, title: string, body: string): string {
  return `<section aria-labelledby="${id}-title" id="${id}"><h2 id="${id}-title">${title}</h2>${body}</section>`;
}
