/** Heat maps of expert load for readers without scripts: the last measurement of each arm, layers by experts. */
import { significant } from "../../base/format.js";
import { escapeHtml } from "../page/escape.js";
import { heatSvg, loadScale, scaleMarkup } from "../page/heat-map.js";
import type { ArmView, ReportData } from "./view.js";

/** The maps of all MoE arms with their legend; empty for a study without them. */
export function loadMaps(data: ReportData): string {
  const maps = data.arms.map(loadMap).join("");
  return maps === "" ? "" : `${scaleMarkup(loadScale)}<div class="maps">${maps}</div>`;
}

function loadMap({ load, label, tone }: ArmView): string {
  const run = load?.runs[0];
  const shares = run?.shares.at(-1)?.map((layer) => layer.map((share) => share / 100));
  if (load === null || run === undefined || shares === undefined) return "";
  const experts = shares[0]?.length ?? 0;
  const title = `Load of ${label} at step ${run.steps.at(-1)}, seed ${run.seed}`;
  const map = heatSvg({
    title,
    values: shares,
    rowName: (row) => `layer ${row}`,
    rowEnd: (row) => `${significant(Math.max(...(shares[row] ?? [0])), 2)}×`,
    scale: loadScale,
    ...(load.group < experts && { group: load.group }),
  });
  const caption = `<figcaption><i class="swatch tone-${tone}"></i><b>${escapeHtml(title)}</b></figcaption>`;
  return `<figure class="map">${caption}${map}</figure>`;
}
