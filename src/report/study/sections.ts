/** The page's sections as markup; charts are empty frames here that the page's script fills. */
import { at } from "../../base/at.js";
import { bytes, compact, duration, fixed, flops, grouped, percent, significant } from "../../base/format.js";
import { escapeHtml } from "../page/escape.js";
import { factRows, pageSection } from "../page/shell.js";
import { byFinalLoss } from "./findings.js";
import { loadSection } from "./load-map.js";
import type { ArmResult, StudyResult } from "../../model/results/result.js";
import { compareArms, spread, type ArmComparison } from "./statistics.js";
import { armsTable, lossTable, preservationTable, seedsTable } from "./tables.js";
import type { ReportData } from "./view.js";
import { plural } from "./wording.js";

export function header(result: StudyResult): string {
  const runs = result.arms.reduce((sum, arm) => sum + arm.runs.length, 0);
  const facts = [
    `<time datetime="${escapeHtml(result.startedAt)}">${escapeHtml(result.startedAt.slice(0, 10))}</time>`,
    `<em>${plural(runs, "run")} of ${plural(result.arms.length, "arm")}</em>`,
    `<em>${plural(result.seeds.length, "seed")}</em>`,
    `<em>${duration(result.seconds)}</em>`,
  ];
  const answer = result.findings[0];
  return `<header>
  <p class="kicker">Upcycle study</p>
  <h1>${escapeHtml(result.name)}</h1>
  ${answer === undefined ? "" : `<p class="answer">${sentence(answer)}</p>`}
  <p class="facts">${facts.join(' <span aria-hidden="true">·</span> ')}</p>
</header>`;
}

interface Tile {
  readonly name: string;
  readonly value: string;
  readonly note: string;
  readonly tone?: number;
}

export function tiles(result: StudyResult, data: ReportData): string {
  const toneOf = (arm: ArmResult): number => at(data.arms, result.arms.indexOf(arm)).tone;
  const dense = result.arms.find((arm) => arm.kind === "dense");
  const scratch = result.arms.find((arm) => arm.kind === "scratch");
  const best = byFinalLoss(result.arms.filter((arm) => arm.kind === "upcycled"))[0];
  const shown: Tile[] = [
    { name: "Parent", value: fixed(result.parent.loss), note: `${compact(result.parent.params.total)} parameters` },
  ];
  for (const arm of [dense, best, scratch]) {
    if (arm !== undefined) shown.push(lossTile(arm, toneOf(arm)));
  }
  if (best !== undefined && dense !== undefined) {
    shown.push(...differenceTile("At equal tokens", compareArms(best, dense, "tokens")));
    shown.push(...differenceTile("At equal FLOPs", compareArms(best, dense, "flops")));
  }
  const items = shown.map(({ name, value, note, tone }) => {
    const swatch = tone === undefined ? "" : `<i class="swatch tone-${tone}"></i>`;
    return `<div><dt>${swatch}${escapeHtml(name)}</dt><dd><b>${value}</b><span>${escapeHtml(note)}</span></dd></div>`;
  });
  const differences =
    best !== undefined && dense !== undefined ? `; differences are ${best.label} less ${dense.label}` : "";
  return `<section aria-label="Key numbers"><dl class="tiles">${items.join("")}</dl>
<p class="muted small">Held-out loss in nats per token${escapeHtml(differences)}.</p></section>`;
}

function lossTile(arm: ArmResult, tone: number): Tile {
  const loss = spread(arm.runs.map((run) => run.finalLoss));
  const note =
    loss === null
      ? "no finite loss"
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
  const verdict = {
    within: "not distinguishable",
    narrow: "just beyond the spread",
    clear: "beyond the spread",
    unknown: "1 seed",
  };
  return [
    {
      name,
      value: sign + digits,
      note: `${sign}${percent(Math.abs(comparison.relative))}, ${verdict[comparison.verdict]}`,
    },
  ];
}

export function findingsSection(result: StudyResult): string {
  const items = result.findings.slice(1).map((finding) => `<li>${emphasized(finding)}</li>`);
  return items.length === 0
    ? ""
    : pageSection("findings", "What was found", `<ul class="findings">${items.join("")}</ul>`);
}

const longestClaim = 110;

/** The claim before the first colon stands out; the numbers behind it follow. */
function emphasized(finding: string): string {
  const colon = finding.indexOf(": ");
  if (colon < 0 || colon > longestClaim) return sentence(finding);
  return `<b>${sentence(finding.slice(0, colon))}:</b>${sentence(finding.slice(colon + 1))}`;
}

/** Escaped; the minus of 1.2e-6 and the space before a percent sign do not break lines. */
function sentence(text: string): string {
  return escapeHtml(text.replace(/(\de)-(\d)/g, "$1\u2011$2").replace(/ %/g, "\u00a0%"));
}

export function lossSection(result: StudyResult): string {
  const parent =
    result.parent.points.length === 0
      ? ""
      : `<label><input type="checkbox" id="with-parent"> count the parent's training</label>`;
  const body = `
<div class="controls scripted">
  ${toggle("x-scale", "Horizontal axis", [
    ["linear", "linear"],
    ["log", "log"],
  ])}
  ${toggle("y-range", "Vertical axis", [
    ["close", "close up"],
    ["all", "everything"],
  ])}
  ${parent}
</div>
<div class="charts">
  ${chart("loss-tokens", "Loss against tokens", "Held-out loss against training tokens, one line per arm")}
  ${chart("loss-flops", "Loss against FLOPs", "Held-out loss against training FLOPs, one line per arm")}
</div>
${lossNote(result)}
<noscript>${lossTable(result)}</noscript>`;
  return pageSection("loss", "Loss", body);
}

function lossNote({ parent }: StudyResult): string {
  const lines =
    "Lines are means over the seeds, bands run from the lowest to the highest seed, and the dashed line is the parent";
  const hands =
    "Drag across a chart to zoom in, double-click to zoom out; arrow keys move the reading on a chart that has the " +
    "focus.";
  return `<p class="note scripted">${lines}
(${fixed(parent.loss)}). ${hands}
<span id="loss-outside"></span></p>`;
}

export function preservationSection(result: StudyResult): string {
  const tokens = result.arms.flatMap((arm) => arm.runs.flatMap((run) => run.preservation?.tokens ?? []))[0];
  const where = tokens === undefined ? "" : ` Measured on ${grouped(tokens)} held-out tokens.`;
  const lead =
    `<p class="lead">Does the new model compute what its parent computed? Before any training, on the same ` +
    `text.${where}</p>`;
  return pageSection("preservation", "Was the parent's function kept?", lead + preservationTable(result));
}

export function expertsSection(data: ReportData): string {
  const maps = loadSection(data);
  if (maps === "") return "";
  const similar = data.arms
    .map((arm, index) =>
      arm.similarity === null
        ? ""
        : chart(
            `similarity-${index}`,
            arm.label,
            `Cosine similarity of experts to the parent's FFN by layer, ${arm.label}`,
            arm.tone,
          ),
    )
    .join("");
  const similarity =
    similar === ""
      ? ""
      : `<div class="scripted"><h3>Experts against the parent's FFN</h3>
<p class="lead">${similarityLead}</p>
<div class="charts">${similar}</div></div>`;
  const imbalance = chart("imbalance", "", `${imbalanceLead} against training steps, one line per MoE arm`);
  return pageSection(
    "experts",
    "The experts",
    `
<h3>Load per expert</h3>
<p class="lead">${loadLead}</p>
${maps}
<div class="scripted"><h3>Imbalance over time</h3>
<p class="lead">${imbalanceLead}, mean over the layers: 1 is perfect balance.</p>
<div class="charts">${imbalance}</div></div>
${similarity}`,
  );
}

const loadLead =
  "The share of assignments that each expert took, as a multiple of an equal share. Rows are MoE layers, columns " +
  "experts; the number at the end of a row is its busiest expert.";
const imbalanceLead = "Busiest expert as a multiple of an equal share";
const similarityLead =
  "Mean cosine similarity of each expert's weights to the part of the parent that it began as, by layer: 1 is an " +
  "untouched copy.";

export function armsSection(result: StudyResult): string {
  const routers = result.arms.flatMap(({ label, router }): [string, string][] =>
    router === null ? [] : [[label, router]],
  );
  const list =
    routers.length === 0
      ? ""
      : `<div><p class="caption">Routers</p><dl class="facts-list">${factRows(routers)}</dl></div>`;
  return pageSection("arms", "The arms", `${armsTable(result)}<div class="columns">${seedsTable(result)}${list}</div>`);
}

export function setupSection(result: StudyResult): string {
  const { text, environment, parent } = result;
  const sources = text.sources.map(
    (source) => `${source.name} (${plural(source.documents, "document")}, ${bytes(source.bytes, 3)})`,
  );
  const parentFlops = parent.points.at(-1)?.flops;
  const trained = parent.tokens === null ? "brought by the user" : `trained here on ${compact(parent.tokens)} tokens`;
  const groups: [string, [string, string][]][] = [
    [
      "Parent",
      [
        ["Model", parent.label],
        ["Parameters", grouped(parent.params.total)],
        ["Training", trained + (parentFlops === undefined ? "" : `, ${flops(parentFlops)}`)],
        ["Folder", parent.path],
      ],
    ],
    [
      "Text",
      [
        ["Sources", sources.join("; ")],
        ["Training", `${plural(text.trainDocuments, "document")}, ${compact(text.trainTokens)} tokens`],
        [
          "Held out",
          `${plural(text.heldOutDocuments, "document")}, ${compact(text.heldOutTokens)} tokens, losses on ` +
            `${compact(text.judgedTokens)} of them`,
        ],
        ["Tokenizer", `${grouped(text.vocab)} tokens, ${significant(text.bytesPerToken, 3)} bytes each`],
      ],
    ],
    [
      "Machine",
      [
        ["Processor", `${environment.cpu}, ${plural(environment.threads, "thread")}`],
        ["Platform", environment.platform],
        [
          "Software",
          `upcycle ${environment.upcycle}, Node ${environment.node}, ONNX Runtime ${environment.onnxruntime}`,
        ],
      ],
    ],
  ];
  const columns = groups.map(
    ([title, facts]) => `<div><h3>${title}</h3><dl class="facts-list">${factRows(facts)}</dl></div>`,
  );
  return pageSection("setup", "Parent, text and machine", `<div class="columns">${columns.join("")}</div>`);
}

const copyButton = '<button type="button" class="scripted" data-copy="commands">Copy</button>';

export function reproduceSection(result: StudyResult): string {
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

function chart(id: string, title: string, label: string, tone?: number): string {
  const swatch = tone === undefined ? "" : `<i class="swatch tone-${tone}"></i>`;
  const caption = title === "" ? "" : `<figcaption>${swatch}<b>${escapeHtml(title)}</b></figcaption>`;
  return `<figure class="chart scripted" id="${id}">${caption}
<div class="plot" role="img" tabindex="0" aria-label="${escapeHtml(label)}"></div><ul class="readout"></ul></figure>`;
}

function toggle(name: string, label: string, options: readonly (readonly [string, string])[]): string {
  const radios = options.map(
    ([value, text], index) =>
      `<label><input type="radio" name="${name}" ` +
      `value="${value}"${index === 0 ? " checked" : ""}><span>${text}</span></label>`,
  );
  return `<fieldset class="toggle"><legend>${label}</legend>${radios.join("")}</fieldset>`;
}
