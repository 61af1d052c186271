/** What was found of an MoE's experts as one HTML file that opens without a network. */
import { fixed, grouped, percent, significant } from "../../base/format.js";
import type { ExpertLayer, ExpertsReport } from "../../model/results/experts.js";
import { escapeHtml } from "../page/escape.js";
import { factsAndCommand, pageSection, renderPage, type ReportAssets, type ReportBody } from "../page/shell.js";
import { framedTable } from "../page/table.js";
import { cosineScale, heatSvg, loadScale, multiplesOf, scaleMarkup, type HeatScale } from "../page/heat-map.js";
import {
  costRows,
  findings,
  largestPair,
  pairMean,
  pairWords,
  routerRows,
  similarityRows,
  specialists,
  textWords,
} from "./words.js";

/** What stands on the page beside the report. */
interface ExpertsPage {
  /** The model's and the parent's shown names. */
  readonly model: string;
  readonly parent: string | null;
  /** The command that makes the same page again. */
  readonly command: string;
  readonly version: string;
}

/** Cells of all matrices of a page: more would make it too large to open, and layers are left out evenly. */
const mostCells = 600_000;
/** Specialists that are listed. */
const mostSpecialists = 24;

interface ExpertsSource {
  readonly report: ExpertsReport;
  readonly page: ExpertsPage;
}

/** The page as the text of an HTML file. */
export function renderExpertsPage(report: ExpertsReport, page: ExpertsPage, assets: ReportAssets): string {
  const source = { report, page };
  return renderPage({ body: expertsBody(source), version: page.version, source: null }, assets);
}

/** The report of a model's experts. */
function expertsBody({ report, page }: ExpertsSource): ReportBody {
  return {
    kind: "experts",
    title: `${page.model} · Upcycle experts`,
    sections: [
      header(report, page),
      pageSection("routers", "Routers", routersSection(report)),
      pageSection("load", "Load", loadSection(report)),
      pageSection("special", "Specialisation", specialSection(report)),
      pageSection("similarity", "Similarity and co-activation", similaritySection(report)),
      report.costs.length === 0 ? "" : pageSection("costs", "Costs of leaving out and merging", costsSection(report)),
      pageSection("how", "How it was measured", howSection(report, page)),
    ],
    data: null,
  };
}

const usualShare = multiplesOf("× the expert's usual share");
const independent = multiplesOf("× what independent choices would give");

/** A row of a map: its name, shares and what stands behind it. Null shares: there is nothing to show. */
interface MapRow {
  readonly name: string;
  readonly shares: readonly number[] | null;
  readonly last: string;
}

/** Rows of shares as a map with their names in front. */
function shareMap(rows: readonly MapRow[], title: string, scale: HeatScale): string {
  const experts = Math.max(1, ...rows.map(({ shares }) => shares?.length ?? 0));
  return heatSvg({
    title,
    values: rows.map(({ shares }) => shares ?? new Array<null>(experts).fill(null)),
    rowName: (row) => rows[row]?.name ?? "",
    rowEnd: (row) => rows[row]?.last ?? "",
    scale,
  });
}

/** A square matrix of one layer as a map. */
function matrixMap(values: readonly (readonly (number | null)[])[], scale: HeatScale, title: string): string {
  return heatSvg({ title, values, rowName: String, scale, square: true }, matrixWidth);
}

/** CSS pixels of a matrix: three of them stand beside each other. */
const matrixWidth = 320;

function header(report: ExpertsReport, { model }: ExpertsPage): string {
  const [first, ...others] = findings(report);
  return `<header>
  <p class="kicker">Upcycle experts</p>
  <h1>${escapeHtml(model)}</h1>
  <p class="answer">${escapeHtml(first ?? "")}</p>
  <ul class="findings">${others.map((text) => `<li>${escapeHtml(text)}</li>`).join("")}</ul>
</header>`;
}

/** Rows of text as a table whose columns behind the first `names` are numbers. */
function textTable(rows: readonly (readonly string[])[], label: string, names = 1): string {
  const [head = [], ...body] = rows.map((row) => row.map((cell) => escapeHtml(cell.replaceAll("\n", " "))));
  return framedTable(head, body, (column) => column >= names, label);
}

function routersSection(report: ExpertsReport): string {
  return (
    textTable(routerRows(report), "Routers by layer") +
    `<p class="note">Shares are multiples of an equal share. Entropy is that of the softmax over all experts, of ` +
    `ln(experts). Mass is the chosen experts' share of all scores. Margin is the last chosen expert's score less ` +
    `that of the first one not chosen. Bits say what a choice tells of a token's class or text beyond chance; ~ ` +
    `marks what chance does as well.</p>`
  );
}

function loadSection({ layers }: ExpertsReport): string {
  const rows = layers.map(({ layer, load }): MapRow => ({
    name: `layer ${layer}`,
    shares: load.shares,
    last: `${significant(load.largest, 2)}×`,
  }));
  const title = `Load by layer and expert. ${rows.map(({ name, last }) => `${name}: busiest ${last}`).join("; ")}`;
  return `${scaleMarkup(loadScale)}${shareMap(rows, title, loadScale)}`;
}

function specialSection(report: ExpertsReport): string {
  const { layers, texts, classes } = report;
  const figures = layers.map((layer) => {
    const ofTexts =
      texts.length === 1 ? [] : texts.map(({ name }, i) => relativeRow(layer, name, layer.byText[i] ?? null));
    const ofClasses = classes.map(({ name }, i) => relativeRow(layer, name, layer.byClass[i] ?? null));
    const label =
      `Layer ${layer.layer}: share of each expert among the tokens of a text or class, ` + "over its usual share";
    return (
      `<figure><figcaption><b>layer ${layer.layer}</b></figcaption>` +
      `${shareMap([...ofTexts, ...ofClasses], label, usualShare)}</figure>`
    );
  });
  const found = specialists(report, mostSpecialists).map(({ layer, expert, what, times, share }) => [
    `${layer}:${expert}`,
    what,
    significant(times, 2),
    percent(share),
  ]);
  return (
    `${scaleMarkup(usualShare)}<div class="shares">${figures.join("")}</div>` +
    (found.length === 0
      ? ""
      : `<h3>Strongest preferences</h3>` +
        textTable([["expert", "prefers", "times its usual share", "share of those"], ...found], "Specialists", 2))
  );
}

/** Shares of a text or class over the experts' usual ones; an expert that is never chosen stays at 0. */
function relativeRow({ load }: ExpertLayer, name: string, shares: readonly number[] | null): MapRow {
  const relative = shares?.map((share, expert) => (share === 0 ? 0 : share / (load.shares[expert] ?? NaN))) ?? null;
  return { name, shares: relative, last: relative === null ? "none" : `${significant(Math.max(...relative), 2)}×` };
}

function similaritySection(report: ExpertsReport): string {
  const { layers } = report;
  const cells = layers.reduce((sum, { experts }) => sum + 3 * experts * experts, 0);
  const every = Math.max(1, Math.ceil(cells / mostCells));
  const shown = layers.filter((_, i) => i % every === 0);
  const note = every === 1 ? "" : `<p class="note">One layer in ${every} is drawn; --json has all.</p>`;
  return (
    `${textTable(similarityRows(report), "Similarity by layer")}<h3>Cosines of weights and of outputs</h3>` +
    `${scaleMarkup(cosineScale)}<div class="matrices">${shown.map(cosineFigures).join("")}</div>` +
    `<h3>Chosen by one token</h3>${scaleMarkup(independent)}` +
    `<div class="matrices">${shown.map(togetherFigure).join("")}</div>${note}`
  );
}

function cosineFigures({ layer, similarity: { weights, outputs } }: ExpertLayer): string {
  return [["weights", weights] as const, ["outputs", outputs] as const]
    .map(([what, matrix]) => {
      const most = pairWords(largestPair(matrix), 3);
      const words = `layer ${layer}, ${what}: mean ${fixed(pairMean(matrix), 3)}, most alike ${most}`;
      return figure(matrixMap(matrix, cosineScale, words), words);
    })
    .join("");
}

function togetherFigure({ layer, coactivation }: ExpertLayer): string {
  if (coactivation === null) return "";
  const words = `layer ${layer}: most often together ${pairWords(largestPair(coactivation.ratios))}`;
  return figure(matrixMap(coactivation.ratios, independent, words), words);
}

const figure = (drawing: string, caption: string): string =>
  `<figure>${drawing}<figcaption class="small">${escapeHtml(caption)}</figcaption></figure>`;

function costsSection(report: ExpertsReport): string {
  return (
    textTable(costRows(report), "Costs of changes") +
    `<p class="note">Loss with the change less loss without it, each held-out sequence against itself; the interval ` +
    `is Student&#39;s over sequences. The cheapest of many candidates looks cheaper than it is: measure the one you ` +
    `choose on other text.</p>`
  );
}

function howSection(report: ExpertsReport, { model, parent, command }: ExpertsPage): string {
  return factsAndCommand(
    [
      ["model", `${model} (${report.family})`],
      ...(parent === null ? [] : [["parent", parent] as const]),
      ["text", textWords(report)],
      ...report.classes.map(({ name, tokens }) => [name, `${grouped(tokens)} tokens`] as const),
      ["seed", String(report.seed)],
    ],
    command,
  );
}
