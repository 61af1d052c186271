/** What was found of an MoE's experts as one HTML file that opens without a network. */
import { fixed, grouped, percent, significant } from "../../base/format.js";
import type { ExpertLayer, ExpertsReport } from "../../model/results/experts.js";
import { escapeHtml } from "../page/escape.js";
import { factsAndCommand, pageSection, renderPage, type ReportAssets, type ReportBody } from "../page/shell.js";
import { framedTable } from "../page/table.js";
import {
  cosineScale,
  heatSvg,
  loadScale,
  multiplesOf,
  scaleMarkup,
  type HeatMapSpec,
  type HeatScale,
} from "../page/heat-map.js";
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

/** All that a page is made of; JSON. */
export interface ExpertsSource {
  readonly report: ExpertsReport;
  readonly page: ExpertsPage;
}

/** A map of the page as the script draws it: what `heatSvg` takes, with names in place of functions; JSON. */
export interface ExpertsMap extends Pick<HeatMapSpec, "title" | "values" | "scale" | "square"> {
  readonly rows: readonly string[];
  /** What stands behind each row; null for nothing. */
  readonly ends: readonly string[] | null;
}

/** The maps of a page by the places that they are put into. */
export interface ExpertsData {
  readonly maps: Readonly<Record<string, ExpertsMap>>;
}

/** Characters of the data from which the studio makes the page again: of a larger page it shows the file in a frame. */
const mostSource = 24e6;

/** The page as the text of an HTML file. */
export function renderExpertsPage(report: ExpertsReport, page: ExpertsPage, assets: ReportAssets): string {
  const source = { report: pageReport(report), page };
  const isSmall = JSON.stringify(source).length <= mostSource;
  return renderPage({ body: expertsBody(source), version: page.version, source: isSmall ? source : null }, assets);
}

/** What the page needs of a report: matrices with seven digits, and without those that it does not show. */
function pageReport(report: ExpertsReport): ExpertsReport {
  const seven = (value: number): number => Number(value.toPrecision(7));
  const square = (matrix: readonly (readonly number[])[]): number[][] => matrix.map((row) => row.map(seven));
  return {
    ...report,
    layers: report.layers.map(({ coactivation, similarity, ...layer }) => ({
      ...layer,
      coactivation: coactivation && {
        ...coactivation,
        counts: [],
        ratios: coactivation.ratios.map((row) => row.map((value) => (value === null ? null : seven(value)))),
      },
      similarity: {
        ...similarity,
        weights: square(similarity.weights),
        outputs: square(similarity.outputs),
        matrices: {},
      },
    })),
  };
}

/** The maps that were drawn so far: each stands as SVG in its place, until a script puts one that can be read there. */
class Maps {
  readonly all: Record<string, ExpertsMap> = {};

  /** The markup of a map; `width` in CSS pixels. */
  add(map: ExpertsMap, caption: string, width?: number): string {
    const name = `map-${Object.keys(this.all).length}`;
    this.all[name] = map;
    const { rows, ends, ...spec } = map;
    const rowEnd = ends === null ? {} : { rowEnd: (row: number) => ends[row] ?? "" };
    const drawing = heatSvg({ ...spec, rowName: (row) => rows[row] ?? "", ...rowEnd }, width);
    return `<div data-island="${name}"><figure>${drawing}${caption}</figure></div>`;
  }
}

/** The report of a model's experts. Throws TypeError for data that are none. */
export function expertsBody({ report, page }: ExpertsSource): ReportBody {
  const maps = new Maps();
  return {
    kind: "experts",
    title: `${page.model} · Upcycle experts`,
    sections: [
      header(report, page),
      pageSection("routers", "Routers", routersSection(report)),
      pageSection("load", "Load", loadSection(report, maps)),
      pageSection("special", "Specialisation", specialSection(report, maps)),
      pageSection("similarity", "Similarity and co-activation", similaritySection(report, maps)),
      report.costs.length === 0 ? "" : pageSection("costs", "Costs of leaving out and merging", costsSection(report)),
      pageSection("how", "How it was measured", howSection(report, page)),
    ],
    data: { maps: maps.all } satisfies ExpertsData,
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
function shareMap(rows: readonly MapRow[], title: string, scale: HeatScale): ExpertsMap {
  const experts = Math.max(1, ...rows.map(({ shares }) => shares?.length ?? 0));
  return {
    title,
    values: rows.map(({ shares }) => shares ?? new Array<null>(experts).fill(null)),
    rows: rows.map(({ name }) => name),
    ends: rows.map(({ last }) => last),
    scale,
  };
}

/** A square matrix of one layer as a map. */
const matrixMap = (values: ExpertsMap["values"], scale: HeatScale, title: string): ExpertsMap => ({
  title,
  values,
  rows: values.map((_, row) => String(row)),
  ends: null,
  scale,
  square: true,
});

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

function loadSection({ layers }: ExpertsReport, maps: Maps): string {
  const rows = layers.map(({ layer, load }): MapRow => ({
    name: `layer ${layer}`,
    shares: load.shares,
    last: `${significant(load.largest, 2)}×`,
  }));
  return `${scaleMarkup(loadScale)}${maps.add(shareMap(rows, "Load by layer and expert", loadScale), "")}`;
}

function specialSection(report: ExpertsReport, maps: Maps): string {
  const { layers, texts, classes } = report;
  const figures = layers.map((layer) => {
    const ofTexts =
      texts.length === 1 ? [] : texts.map(({ name }, i) => relativeRow(layer, name, layer.byText[i] ?? null));
    const ofClasses = classes.map(({ name }, i) => relativeRow(layer, name, layer.byClass[i] ?? null));
    const label = `Layer ${layer.layer}: share among the tokens of a text or class`;
    const map = shareMap([...ofTexts, ...ofClasses], label, usualShare);
    return maps.add(map, `<figcaption><b>layer ${layer.layer}</b></figcaption>`);
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

function similaritySection(report: ExpertsReport, maps: Maps): string {
  const { layers } = report;
  const cells = layers.reduce((sum, { experts }) => sum + 3 * experts * experts, 0);
  const every = Math.max(1, Math.ceil(cells / mostCells));
  const shown = layers.filter((_, i) => i % every === 0);
  const note = every === 1 ? "" : `<p class="note">One layer in ${every} is drawn; --json has all.</p>`;
  return (
    `${textTable(similarityRows(report), "Similarity by layer")}<h3>Cosines of weights and of outputs</h3>` +
    scaleMarkup(cosineScale) +
    `<div class="matrices">${shown.map((layer) => cosineFigures(layer, maps)).join("")}</div>` +
    `<h3>Chosen by one token</h3>${scaleMarkup(independent)}` +
    `<div class="matrices">${shown.map((layer) => togetherFigure(layer, maps)).join("")}</div>${note}`
  );
}

function cosineFigures({ layer, similarity: { weights, outputs } }: ExpertLayer, maps: Maps): string {
  return [["weights", weights] as const, ["outputs", outputs] as const]
    .map(([what, matrix]) => {
      const most = pairWords(largestPair(matrix), 3);
      const words = `layer ${layer}, ${what}: mean ${fixed(pairMean(matrix), 3)}, most alike ${most}`;
      return maps.add(matrixMap(matrix, cosineScale, words), captionOf(words), matrixWidth);
    })
    .join("");
}

function togetherFigure({ layer, coactivation }: ExpertLayer, maps: Maps): string {
  if (coactivation === null) return "";
  const words = `layer ${layer}: most often together ${pairWords(largestPair(coactivation.ratios))}`;
  return maps.add(matrixMap(coactivation.ratios, independent, words), captionOf(words), matrixWidth);
}

const captionOf = (words: string): string => `<figcaption class="small">${escapeHtml(words)}</figcaption>`;

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
