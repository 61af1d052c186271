/** A plan as one HTML file that opens without a network and computes itself again when a slider moves. */
import { makePlan } from "../../laws/planner/plan.js";
import type { PlanRequest } from "../../laws/planner/plan-types.js";
import { embedAsset, embedJson, escapeHtml } from "../page/escape.js";
import type { ReportAssets } from "../study/html.js";
import { controlsOf, render, type Control } from "./plan-live.js";
import { planScript } from "./plan-script.js";
import { planChart, planSections } from "./plan-view.js";
import { chartScript } from "../page/script-chart.js";
import { pageStyle } from "../page/style.js";

export interface PlanAssets extends ReportAssets {
  /** The bundled planner: dist/report/plan-live.bundle.js. */
  readonly liveJs: string;
}

export interface PlanPage {
  readonly request: PlanRequest;
  /** A shell command that makes the same page again. */
  readonly command: string;
  readonly version: string;
}

const contentPolicy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

const style = `
.sliders { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: .8rem 2rem; margin: 0 0 .9rem; padding: 1rem 1.1rem; background: var(--surface);
  border: 1px solid var(--rule); border-radius: 10px; }
.sliders label { display: block; font-size: .84rem; color: var(--muted); }
.sliders output { float: right; margin-left: .6em; color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.sliders input { display: block; width: 100%; margin: .3rem 0 0; accent-color: var(--accent); }
#problem { min-height: 1.5em; margin: .3rem 0 0; font-size: .9rem; color: var(--arm-3); }
.stale [data-live], .stale figure { opacity: .4; }
.facts-list b { font-weight: 600; }
td { min-width: 2.6rem; }
tbody th { min-width: 5.5rem; white-space: normal; }
h2 + div > h3:first-child, h2 + [data-live] > h3 { margin-top: 0; }
@media print { .sliders, #problem { display: none; } }`;

export function renderPlanHtml({ request, command, version }: PlanPage, assets: PlanAssets): string {
  const plan = makePlan(request);
  const live = planSections(plan);
  const { values } = render(request, {});
  const place = (id: string): string => `<div data-live="${id}">${live[id] ?? ""}</div>`;
  const sections = [
    `<section aria-labelledby="sliders-title" class="scripted"><h2 id="sliders-title">What if</h2>
<div class="sliders" id="sliders">${controlsOf(request)
      .map((control) => slider(control, values[control.key]))
      .join("")}</div>
<button type="button" id="reset">Back to the plan</button><p id="problem" role="status"></p></section>`,
    section(
      "buys",
      "What the budget buys",
      `${place("arms")}
<figure id="plan-loss" class="scripted"><figcaption><b>Loss against further tokens.</b> Shaded: the interval. At few tokens the upcycled law lies above the parent, whose loss stands there. The beginning of a mixture from scratch may lie above the picture.</figcaption><div class="plot" tabindex="0" role="img" aria-label="Loss against further tokens"></div><ul class="readout"></ul></figure>`,
    ),
    section("ahead", "How long upcycling stays ahead", place("crossings") + place("split")),
    section(
      "hangs",
      "How sure",
      `${place("sensitivity")}<h3>To be careful about</h3><ul class="findings" ` +
        `data-live="notes">${live.notes ?? ""}</ul>`,
    ),
    section("cluster", "On the cluster", `${place("layout")}${place("memory")}${place("sums")}${place("time")}`),
    section("size", "Sizes and FLOPs", `${place("models")}${place("flops")}`),
    section("training", "How to train it", `<dl class="facts-list" data-live="advice">${live.advice ?? ""}</dl>`),
    section("sources", "Where the numbers are from", sources(request, command)),
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${contentPolicy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="upcycle ${escapeHtml(version)}">
<title>${escapeHtml(request.name)} · upcycling plan</title>
<link rel="icon" href="data:,">
<style>${embedAsset(assets.uplotCss)}</style>
<style>${pageStyle()}${style}</style>
<script>document.documentElement.classList.add("with-script");</script>
</head>
<body>
<main>
<header>
  <p class="kicker">Upcycling plan</p>
  <h1 data-live="name">${live.name ?? ""}</h1>
  <p class="answer" data-live="answer">${live.answer ?? ""}</p>
  <p class="facts" data-live="facts">${live.facts ?? ""}</p>
</header>
<section aria-label="Key numbers"><dl class="tiles" data-live="tiles">${live.tiles ?? ""}</dl></section>
${sections.join("\n")}
</main>
<footer><p>Written by upcycle ${escapeHtml(version)}. Nothing on this page is loaded from a network; the planner runs in it.</p></footer>
<script type="application/json" id="report-data">${embedJson({ request, chart: planChart(request, plan) })}</script>
<script>${embedAsset(assets.uplotJs)}</script>
<script>${embedAsset(assets.liveJs)}</script>
<script>${chartScript}${planScript}</script>
</body>
</html>
`;
}

function slider({ key, label, base, min, max, step, start }: Control, value: string): string {
  const [low, high] = [Math.min(min, start), Math.max(max, start)].map((value) => Number(value.toFixed(4)));
  return (
    `<label>${escapeHtml(label)} <output data-for="${key}">${escapeHtml(value)}</output><input type="range" ` +
    `data-key="${key}" data-base="${base}" min="${low}" max="${high}" step="${base === 2 ? step : "any"}" ` +
    `value="${Number(start.toFixed(4))}"></label>`
  );
}

function sources({ coefficients, gpu }: PlanRequest, command: string): string {
  const law = Object.entries(coefficients.arms).map(([kind, { law: id, params }]): [string, string] => [
    `${kind}, law ${id}`,
    Object.entries(params)
      .map(([name, value]) => `${name} = ${value}`)
      .join(", "),
  ]);
  const facts: [string, string][] = [
    ["coefficients", coefficients.source],
    ...law,
    ...Object.entries(gpu.sources).map(([name, text]): [string, string] => [`${gpu.title}, ${name}`, text]),
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
