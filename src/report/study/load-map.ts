/**
 * Heat maps of expert load: for each arm a grid of layers by experts. The markup holds the last measurement; the page's
 * script shows the others.
 */
import { at } from "../../base/at.js";
import { fixed, significant } from "../../base/format.js";
import { escapeHtml } from "../page/escape.js";
import type { ArmView, ReportData } from "./view.js";
import { loadSteps } from "./view.js";

/** Class of a cell: how many of `loadSteps` its share (1 = equal) reaches. The page's script computes the same. */
export function loadClass(share: number): number {
  return loadSteps.filter((step) => share >= step).length;
}

/** The maps of all MoE arms with their legend; empty for a study without them. */
export function loadSection(data: ReportData): string {
  const maps = data.arms.map((arm, index) => loadMap(arm, index)).join("");
  return maps === "" ? "" : `${loadLegend()}<div class="maps">${maps}</div>`;
}

const equalShare = "times an equal share";

/** The colour scale of multiples; `what` says of what. */
export function loadLegend(what = equalShare): string {
  const names = loadSteps.map((step, index) =>
    index === 0 ? `${what === equalShare ? "dead " : ""}(< ${step})` : `${loadSteps[index - 1]}–${step}`,
  );
  const items = [...names, `≥ ${loadSteps.at(-1)}`].map(
    (name, index) => `<li><i class="cell l${index}"></i>${name}</li>`,
  );
  return (
    `<ul class="scale" aria-label="Colour scale: load as a multiple of an equal ` +
    `share">${items.join("")}<li>${what}</li></ul>`
  );
}

function loadMap(arm: ArmView, index: number): string {
  const run = arm.load?.runs[0];
  const shares = run?.shares.at(-1);
  const [firstLayer] = shares ?? [];
  if (arm.load === null || run === undefined || shares === undefined || firstLayer === undefined) return "";
  const { group, runs } = arm.load;
  const experts = firstLayer.length;
  const last = run.steps.length - 1;
  const step = at(run.steps, last);
  const seeds = runs.map((one, i) => `<option value="${i}">seed ${escapeHtml(String(one.seed))}</option>`).join("");
  const caption =
    `<i class="swatch tone-${arm.tone}"></i><b>${escapeHtml(arm.label)}</b> ` +
    `<span class="muted">${experts} experts in each of ${shares.length} MoE layers</span>`;
  const slider =
    `<input type="range" min="0" max="${last}" value="${last}" step="1" aria-label="Training step" ` +
    `aria-valuetext="step ${step}">`;
  return `
<figure class="map" data-load="${index}">
  <figcaption>${caption}</figcaption>
  <div class="map-controls scripted">
    <select aria-label="Seed">${seeds}</select>
    ${slider}
    <output>step ${step}</output>
  </div>
  <div class="grid${experts > 16 ? " many" : ""}" role="img" aria-label="${summary(shares)}">
    ${numbers(experts, group)}
    ${shares.map((layer, i) => row(layer, i, group)).join("\n    ")}
  </div>
  <p class="map-readout muted" aria-live="polite">At step ${step}, seed ${escapeHtml(String(run.seed))}.</p>
</figure>`;
}

/** Expert numbers above the columns: every one where there is room, otherwise the first of each group. */
function numbers(experts: number, group: number): string {
  const groups: string[] = [];
  const every = experts <= 16 ? 1 : Math.max(group === experts ? 8 : group, Math.ceil(experts / 16));
  for (let start = 0; start < experts; start += group) {
    const names = Array.from({ length: Math.min(group, experts - start) }, (_, i) => {
      const expert = start + i;
      return `<span>${expert % every === 0 ? expert : ""}</span>`;
    });
    groups.push(`<span class="group" style="--n:${names.length}">${names.join("")}</span>`);
  }
  return (
    `<div class="row numbers"><span class="layer"></span><span class="cells">${groups.join("")}</span><span ` +
    `class="busiest">busiest</span></div>`
  );
}

function summary(shares: readonly (readonly number[])[]): string {
  const layers = shares.map((layer, i) => `layer ${i}: ${fixed(Math.max(...layer) / 100, 2)}`);
  return `Busiest expert as a multiple of an equal share, by MoE layer. ${layers.join("; ")}`;
}

/** Cells of one layer in groups, so that the copies of a fine-grained FFN stand apart. */
function row(layer: readonly number[], index: number, group: number): string {
  const groups: string[] = [];
  for (let start = 0; start < layer.length; start += group) {
    const cells = layer.slice(start, start + group).map((share) => `<i class="cell l${loadClass(share / 100)}"></i>`);
    groups.push(`<span class="group" style="--n:${cells.length}">${cells.join("")}</span>`);
  }
  const busiest = significant(Math.max(...layer) / 100, 2);
  return (
    `<div class="row"><span class="layer">${index}</span><span class="cells">${groups.join("")}</span><span ` +
    `class="busiest">${busiest}×</span></div>`
  );
}
