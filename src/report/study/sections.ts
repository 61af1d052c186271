/** The sections of a study's page as markup. Charts are empty frames, which the page's script fills. */
import { at } from "../../base/at.js";
import { bytes, compact, duration, fixed, flops, grouped, percent, significant } from "../../base/format.js";
import { escapeHtml } from "../page/escape.js";
import { factRows, pageSection } from "../page/shell.js";
import { byFinalLoss } from "./findings.js";
import { loadMaps } from "./load-map.js";
import { resultTables } from "./result-tables.js";
import type { ArmResult, ParentResult } from "../../model/results/result.js";
import { comparisonsAmong, type ArmComparison } from "./comparisons.js";
import { mainParent, spread } from "./statistics.js";
import { armsTable, lossTable, preservationTable, seedsTable } from "./tables.js";
import { framedTable } from "../page/table.js";
import { tilesSection, type Tile } from "../page/tiles.js";
import { lossName, type ShownStudy, type StudyProgress } from "./shown.js";
import type { ReportData } from "./view.js";
import { plural } from "./wording.js";

/** The top of the page: what was asked and its answer, or the most important finding; name and size of the study. */
export function header(result: ShownStudy): string {
  const { arms, seeds, name, startedAt, progress } = result;
  const runs = progress?.runs ?? arms.reduce((sum, arm) => sum + arm.runs.length, 0);
  const facts = [
    `<time datetime="${escapeHtml(startedAt)}">${escapeHtml(startedAt.slice(0, 10))}</time>`,
    `<em>${plural(runs, "run")} of ${plural(arms.length, "arm")}</em>`,
    `<em>${plural(seeds.length, "seed")}</em>`,
    // A study under way has noted the time of earlier commands alone.
    ...(result.seconds < 1 ? [] : [`<em>${duration(result.seconds)}</em>`]),
  ];
  return `<header>
  <p class="kicker">Upcycle study <span>${escapeHtml(name)}</span></p>
  ${answer(result)}
  ${progress === undefined ? "" : progressWords(progress)}
  <p class="facts">${facts.join(' <span aria-hidden="true">·</span> ')}</p>
</header>`;
}

/** How far a study is, and what is missing of it. */
function progressWords({ finished, runs, isEarly, missing }: StudyProgress): string {
  const early = isEarly ? " Runs are compared before their ends: the order of the arms may still change." : "";
  const items = missing.map((text) => `<li>${escapeHtml(text)}</li>`).join("");
  const state =
    finished === runs
      ? `All ${plural(runs, "run")} have ended; the study has not written its result.`
      : `Not finished: ${finished} of ${plural(runs, "run")}.`;
  return `<p class="because"><b>${state}</b>${early}</p><ul class="because">${items}</ul>`;
}

/** Characters from which a headline is set smaller. */
const longHeadline = 60;

/** The first finding as the page's headline: the question above it where it answers one, the numbers below. */
function answer({ findings, questions, name }: ShownStudy): string {
  const [first = ""] = findings;
  const asked = questions[0]?.ask;
  const isAnswer = asked !== undefined && first.startsWith(asked);
  const [claim, numbers] = claimAndNumbers(isAnswer ? first.slice(asked.length).trim() : first);
  const headline = claim === "" ? name : capital(claim);
  const size = headline.length > longHeadline ? ' class="long"' : "";
  return (
    (isAnswer ? `<p class="asked">${sentence(asked)}</p>` : "") +
    `<h1${size}>${sentence(headline)}</h1>` +
    (numbers === "" ? "" : `<p class="answer">${sentence(capital(numbers))}</p>`)
  );
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** The key numbers: final losses and the differences between the best upcycled arm and the dense one. */
export function tiles(result: ShownStudy, data: ReportData): string {
  const toneOf = (arm: ArmResult): number => at(data.arms, result.arms.indexOf(arm)).tone;
  const parent = mainParent(result);
  const own = result.arms.filter((arm) => arm.parent === parent.id);
  const dense = own.find((arm) => arm.kind === "dense");
  const scratch = own.find((arm) => arm.kind === "scratch");
  const best = byFinalLoss(own.filter((arm) => arm.kind === "upcycled"))[0];
  const allTiles: Tile[] = [
    {
      name: "Parent",
      value: fixed(mainParent(result).loss),
      note: `${compact(mainParent(result).params.total)} parameters`,
    },
  ];
  for (const arm of [dense, best, scratch]) {
    if (arm !== undefined) allTiles.push(lossTile(arm, toneOf(arm)));
  }
  if (best !== undefined && dense !== undefined) {
    const compare = comparisonsAmong(result.arms);
    allTiles.push(...differenceTile("At equal tokens", compare(best, dense, "tokens")));
    allTiles.push(...differenceTile("At equal FLOPs", compare(best, dense, "flops")));
  }
  const differences =
    best !== undefined && dense !== undefined ? `; differences are ${best.label} less ${dense.label}` : "";
  return tilesSection(allTiles, `${lossName(result)} in nats per token${differences}.`);
}

function lossTile(arm: ArmResult, tone: number): Tile {
  const loss = spread(arm.runs.map((run) => run.finalLoss));
  const note =
    loss === null
      ? arm.runs.length === 0
        ? "no run to compare yet"
        : "no finite loss"
      : loss.n === 1
        ? "1 seed"
        : `${fixed(loss.min)} to ${fixed(loss.max)}, ${loss.n} seeds`;
  return { name: arm.label, value: fixed(loss?.mean ?? Number.NaN), note, tone };
}

function differenceTile(name: string, comparison: ArmComparison | null): Tile[] {
  if (comparison === null) return [];
  const size = Math.abs(comparison.difference);
  const digits = size < 0.01 ? significant(size, 2) : fixed(size);
  const sign = comparison.difference === 0 ? "" : comparison.difference < 0 ? "−" : "+";
  const meaning = { beyond: "more than chance", chance: "may be chance", unknown: "too few seeds" };
  return [
    {
      name,
      value: sign + digits,
      note: `${sign}${percent(Math.abs(comparison.relative))}, ${meaning[comparison.judgement.verdict]}`,
    },
  ];
}

/** All findings but the first, which stands at the top of the page. */
export function findingsSection(result: ShownStudy): string {
  const items = result.findings.slice(1).map((finding) => `<li>${emphasized(finding)}</li>`);
  return items.length === 0
    ? ""
    : pageSection("findings", "What was found", `<ul class="findings">${items.join("")}</ul>`);
}

/** Characters; a claim about two comparisons has up to about 180, and more where arms have long names. */
const longestClaim = 260;

/** The claim before the first colon stands out; the numbers behind it follow. */
function emphasized(finding: string): string {
  const [claim, numbers] = claimAndNumbers(finding);
  return numbers === "" ? sentence(claim) : `<b>${sentence(claim)}:</b> ${sentence(numbers)}`;
}

/** What stands before the first colon and what behind it; all of a finding that has none, and nothing. */
function claimAndNumbers(finding: string): readonly [claim: string, numbers: string] {
  const colon = finding.indexOf(": ");
  return colon < 0 || colon > longestClaim ? [finding, ""] : [finding.slice(0, colon), finding.slice(colon + 2)];
}

/** Escaped; the minus of 1.2e-6, the space before a percent sign, "p = 0.13" and "t-test" do not break lines. */
function sentence(text: string): string {
  const kept = text
    .replace(/(\de)-(\d)/g, "$1\u2011$2")
    .replace(/ %/g, "\u00a0%")
    .replace(/\bp ([=<]) /g, "p\u00a0$1\u00a0")
    .replace(/\bt-test\b/g, "t\u2011test");
  return escapeHtml(kept);
}

/** The questions of the study with their answers; empty without any. */
export function questionsSection(result: ShownStudy): string {
  const table = resultTables(result).find(({ id }) => id === "questions");
  if (table === undefined) return "";
  const rows = table.rows.map((row) => row.map(escapeHtml));
  const body = framedTable(table.headings, rows, (column) => column >= table.texts, table.caption, true);
  return pageSection("questions", "What was asked", body);
}

/** The charts of the loss, which need a script; `lossWithoutScript` stands in for them. */
export const lossSection = (): string =>
  pageSection(
    "loss",
    "Loss",
    `<div class="scripted" data-island="loss"></div>
<p class="note scripted">Lines are means over the seeds, bands run from the lowest to the highest seed, and the dashed
line is the parent. Drag across a chart to zoom in, double-click to zoom out; arrow keys read a chart that has the
focus.</p>`,
    "scripted",
  );

/** The losses as a table, for readers without scripts. */
export const lossWithoutScript = (result: ShownStudy): string => `<noscript>${lossTable(result)}</noscript>`;

/** How much of the parent's function the upcycled arms have kept. */
export function preservationSection(result: ShownStudy): string {
  const tokens = result.arms.flatMap((arm) => arm.runs.flatMap((run) => run.preservation?.tokens ?? []))[0];
  const where = tokens === undefined ? "" : ` Measured on ${grouped(tokens)} held-out tokens.`;
  const lead =
    `<p class="lead">Does the new model compute what its parent computed? Before any training, on the same ` +
    `text.${where}</p>`;
  return pageSection("preservation", "Was the parent's function kept?", lead + preservationTable(result));
}

/** The load of the experts, its balance, and how far they have moved from the parent; empty without MoE arms. */
export function expertsSection({ arms }: ReportData): string {
  if (arms.every(({ load }) => load === null)) return "";
  const similarity = `<h3>Experts against the parent's FFN</h3><p class="lead">${similarityLead}</p>
<div data-island="similarity"></div>`;
  return pageSection(
    "experts",
    "The experts",
    `
<h3>Load per expert</h3>
<p class="lead">${loadLead}</p>
<div class="scripted" data-island="load"></div>
<div class="scripted"><h3>Imbalance over time</h3>
<p class="lead">${imbalanceLead}, mean over the layers: 1 is perfect balance.</p>
<div data-island="imbalance"></div>
${arms.every((arm) => arm.similarity === null) ? "" : similarity}</div>`,
  );
}

/** The load of the experts at the last measurement, for readers without scripts. */
export function loadWithoutScript(data: ReportData): string {
  const maps = loadMaps(data);
  return maps === "" ? "" : `<noscript>${maps}</noscript>`;
}

const loadLead =
  "The share of assignments that each expert took, as a multiple of an equal share. Rows are MoE layers, columns " +
  "experts; the number at the end of a row is its busiest expert.";
const imbalanceLead = "Busiest expert as a multiple of an equal share";
const similarityLead =
  "Mean cosine similarity of each expert's weights to the part of the parent that it began as, by layer: 1 is an " +
  "untouched copy.";

/** Size and price of the arms, their final losses seed by seed, and their routers. */
export function armsSection(result: ShownStudy): string {
  const routers = result.arms.flatMap(({ label, router }): [string, string][] =>
    router === null ? [] : [[label, router]],
  );
  const list =
    routers.length === 0
      ? ""
      : `<div><p class="caption">Routers</p><dl class="facts-list">${factRows(routers)}</dl></div>`;
  return pageSection("arms", "The arms", `${armsTable(result)}<div class="columns">${seedsTable(result)}${list}</div>`);
}

type Facts = readonly (readonly [name: string, text: string])[];

/** What the study was made with: its parent, its text and the machine. */
export function setupSection({ parents, arms, text, environment }: ShownStudy): string {
  const groups: readonly (readonly [title: string, facts: Facts])[] = [
    ...parents.map((parent) => [parents.length === 1 ? "Parent" : `Parent ${parent.id}`, parentFacts(parent)] as const),
    ...(text === undefined ? [] : [["Text", textFacts(text, { parents, arms })] as const]),
    ...(environment === undefined ? [] : [["Machine", machineFacts(environment)] as const]),
  ];
  const columns = groups.map(
    ([title, facts]) => `<div><h3>${escapeHtml(title)}</h3><dl class="facts-list">${factRows(facts)}</dl></div>`,
  );
  return pageSection("setup", "Parent, text and machine", `<div class="columns">${columns.join("")}</div>`);
}

function parentFacts({ label, params, tokens, points, path }: ParentResult): Facts {
  const work = points.at(-1)?.flops;
  const origin = tokens === null ? "brought by the user" : `trained here on ${compact(tokens)} tokens`;
  return [
    ["Model", label],
    ["Parameters", grouped(params.total)],
    ["Training", origin + (work === undefined ? "" : `, ${flops(work)}`)],
    ["Folder", path],
  ];
}

function textFacts(text: NonNullable<ShownStudy["text"]>, result: Pick<ShownStudy, "parents" | "arms">): Facts {
  const sources = text.sources.map(
    (source) => `${source.name} (${plural(source.documents, "document")}, ${bytes(source.bytes, 3)})`,
  );
  return [
    ["Sources", sources.join("; ")],
    ["Training", `${plural(text.trainDocuments, "document")}, ${compact(text.trainTokens)} tokens`],
    ["Passes over it", passesWords(text, result)],
    [
      "Held out",
      `${plural(text.heldOutDocuments, "document")}, ${compact(text.heldOutTokens)} tokens, losses on ` +
        `${compact(text.judgedTokens)} of them`,
    ],
    ["Tokenizer", `${grouped(text.vocab)} tokens, ${significant(text.bytesPerToken, 3)} bytes each`],
  ];
}

/** How often the trainings have read the text: the parent, and the run of an arm that has read the most of it. */
function passesWords(
  { trainTokens }: NonNullable<ShownStudy["text"]>,
  { parents, arms }: Pick<ShownStudy, "parents" | "arms">,
): string {
  const passes = (tokens: number): string => significant(tokens / trainTokens, 2);
  const ofParents = parents.flatMap(({ tokens }) => (tokens === null ? [] : [tokens]));
  const ofArms = arms.flatMap(({ runs }) => runs.map(({ points }) => points.at(-1)?.tokens ?? 0));
  const further = `${passes(Math.max(0, ...ofArms))} in a run of an arm`;
  return ofParents.length === 0 ? further : `${passes(Math.max(...ofParents))} in the parent's training, ${further}`;
}

function machineFacts({
  cpu,
  threads,
  device,
  platform,
  upcycle,
  node,
  onnxruntime,
}: NonNullable<ShownStudy["environment"]>): Facts {
  return [
    ["Processor", `${cpu}, ${plural(threads, "thread")}`],
    ...(device === undefined ? [] : ([["Trained on", device]] as const)),
    ["Platform", platform],
    ["Software", `upcycle ${upcycle}, Node ${node}, ONNX Runtime ${onnxruntime}`],
  ];
}

const copyButton = '<button type="button" class="scripted" data-copy="commands">Copy</button>';

/** The commands that make the study again. */
export function reproduceSection(result: ShownStudy): string {
  const commands = result.commands.map(escapeHtml).join("\n");
  const seeds = result.seeds.map((seed) => escapeHtml(String(seed))).join(", ");
  return pageSection(
    "reproduce",
    "Make it again",
    `
<p class="lead">The same commands with the same seeds (${seeds}) give the same numbers on the same machine.</p>
<div class="commands">${copyButton}<pre id="commands" tabindex="0">${commands}</pre></div>`,
  );
}
