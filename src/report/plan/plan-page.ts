/** A plan as one HTML file that opens without a network and computes itself again when a slider moves. */
import { shellWord } from "../../base/shell.js";
import { makePlan } from "../../laws/planner/plan.js";
import { planViews } from "../../laws/planner/views.js";
import type { PlanRequest } from "../../laws/planner/plan-types.js";
import { escapeHtml } from "../page/escape.js";
import { factsAndCommand, pageSection, renderPage, type ReportAssets } from "../page/shell.js";
import { controlsOf, render, type Control } from "./plan-live.js";
import { planScript } from "./plan-script.js";
import { planChart, planSections, type PlanSections } from "./plan-view.js";
import { css } from "../page/css.js";

interface PlanAssets extends ReportAssets {
  /** The bundled planner: dist/report/plan/plan-live.bundle.js. */
  readonly liveJs: string;
}

interface PlanPage {
  readonly request: PlanRequest;
  /** The words after `upcycle` of the command that makes the same page again. */
  readonly words: readonly string[];
  readonly version: string;
}

const style = css`
  .sliders {
    display: grid;
    grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr));
    gap: 0.8rem 2rem;
    margin: 0 0 0.9rem;
    padding: 1rem 1.1rem;
    background: var(--surface);
    border: 1px solid var(--rule);
    border-radius: 10px;
  }
  .sliders label {
    display: block;
    font-size: 0.84rem;
    color: var(--muted);
  }
  .sliders output {
    float: right;
    margin-left: 0.6em;
    color: var(--ink);
    font-weight: 600;
    font-variant-numeric: tabular-nums;
  }
  .sliders input {
    display: block;
    width: 100%;
    margin: 0.3rem 0 0;
    accent-color: var(--accent);
  }
  #again {
    margin-bottom: 0.5rem;
  }
  #again pre {
    padding-right: 5rem;
    white-space: pre-wrap;
    overflow-wrap: anywhere;
  }
  .kicker span {
    text-transform: none;
  }
  .views {
    display: grid;
    grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr));
    gap: 2rem 2.5rem;
  }
  svg.view {
    display: block;
    width: 100%;
    max-width: 34rem;
    height: auto;
    font-size: 11px;
    font-variant-numeric: tabular-nums;
  }
  svg.view text {
    fill: var(--muted);
  }
  svg.view path {
    fill: none;
    stroke-width: 2;
  }
  svg.view .grid {
    stroke: var(--grid);
  }
  svg.view .mark {
    stroke: var(--muted);
    stroke-dasharray: 2 3;
  }
  svg.view .beyond {
    fill: var(--beyond);
  }
  svg.view .here {
    fill: var(--page);
    stroke: var(--ink);
    stroke-width: 2;
  }
  svg.view .here-name {
    fill: var(--ink);
    font-weight: 600;
    paint-order: stroke;
    stroke: var(--page);
    stroke-width: 3px;
  }
  .keys {
    display: flex;
    flex-wrap: wrap;
    gap: 0.2rem 1.1rem;
    margin: 0.3rem 0 0;
    padding: 0;
    list-style: none;
    font-size: 0.82rem;
  }
  .key {
    display: inline-block;
    width: 0.8em;
    height: 0.8em;
    margin-right: 0.45em;
    border: 1px solid var(--muted);
    border-radius: 2px;
  }
  details {
    margin: 0 0 1.5rem;
  }
  summary {
    cursor: pointer;
    color: var(--accent);
  }
  #problem {
    min-height: 1.5em;
    margin: 0.3rem 0 0;
    font-size: 0.9rem;
    color: var(--arm-3);
  }
  .stale [data-live],
  .stale figure {
    opacity: 0.4;
  }
  .facts-list b {
    font-weight: 600;
  }
  td {
    min-width: 6.5rem;
  }
  td.number {
    min-width: 2.6rem;
  }
  tbody th {
    min-width: 5.5rem;
    white-space: normal;
  }
  h2 + div > h3:first-child,
  h2 + [data-live] > h3 {
    margin-top: 0;
  }
  @media print {
    .sliders,
    #problem {
      display: none;
    }
  }
`;

/** The page of a plan as the text of an HTML file; `assets` are the scripts and the style sheet that stand in it. */
export function renderPlanHtml({ request, words, version }: PlanPage, assets: PlanAssets): string {
  const plan = makePlan(request);
  const views = planViews(request, plan);
  const live = planSections(plan, views);
  const chart = planChart(request, plan);
  const command = ["upcycle", ...words].map(shellWord).join(" ");
  const place = (id: string): string => `<div data-live="${id}">${live[id] ?? ""}</div>`;
  const laws = [
    pageSection("ahead", "How long upcycling stays ahead", place("crossings") + place("split")),
    pageSection("backtest", "What others have measured", backtest(place, live)),
    pageSection("views", "The laws from four sides", place("views")),
  ];
  const careful = `<h3>To be careful about</h3><ul class="findings" data-live="notes">${live.notes ?? ""}</ul>`;
  const sections = [
    whatIf(request, words),
    pageSection("buys", "What the budget buys", `${place("arms")}\n${chart === null ? "" : lossFigure}`),
    ...(plan.moeParent ? [] : laws),
    pageSection("hangs", "How sure", `${place("sensitivity")}${careful}`),
    pageSection(
      "cluster",
      "On the cluster",
      `${place("layout")}${place("memory")}${place("sums")}${place("time")}${place("calibration")}`,
    ),
    pageSection("size", "Sizes and FLOPs", `${place("models")}${place("flops")}`),
    ...(plan.moeParent
      ? []
      : [
          pageSection(
            "training",
            "How to train it",
            `<dl class="facts-list" data-live="advice">${live.advice ?? ""}</dl>`,
          ),
        ]),
    pageSection("sources", "Where the numbers are from", sources(request, command)),
  ];
  const page = {
    title: `${request.name} · upcycling plan`,
    version,
    style,
    footer: ". Nothing on this page is loaded from a network; the planner runs in it.",
    body: [header(live), ...sections],
    data: { request, words, chart },
    libraries: [assets.liveJs],
    script: planScript,
  };
  return renderPage(page, assets);
}

function backtest(place: (id: string) => string, live: PlanSections): string {
  return (
    `${place("backtest")}${place("backtest-laws")}<details><summary>Where each was read</summary>` +
    `<dl class="facts-list" data-live="comparisons">${live.comparisons ?? ""}</dl></details>`
  );
}

function header(live: PlanSections): string {
  return `<header>
  <p class="kicker">Upcycling plan for <span data-live="name">${live.name ?? ""}</span></p>
  <h1 data-live="headline">${live.headline ?? ""}</h1>
  <p class="answer" data-live="answer">${live.answer ?? ""}</p>
  <ul class="because" data-live="because">${live.because ?? ""}</ul>
  <p class="facts" data-live="facts">${live.facts ?? ""}</p>
</header>
<section aria-label="Key numbers"><dl class="tiles" data-live="tiles">${live.tiles ?? ""}</dl></section>`;
}

function whatIf(request: PlanRequest, words: readonly string[]): string {
  const { values, command } = render(request, {}, words);
  const sliders = controlsOf(request).map((control) => slider(control, values[control.key]));
  return `<section aria-labelledby="sliders-title" class="scripted"><h2 id="sliders-title">What if</h2>
<div class="sliders" id="sliders">${sliders.join("")}</div>
<p id="problem" role="status"></p>
<div class="commands" id="again"><button type="button" data-copy="again-command">Copy</button>
<pre tabindex="0" aria-label="The command for these settings"
><code id="again-command">${escapeHtml(command)}</code></pre>
</div>
<p class="note small">The command plans for what the sliders say; the address of this page keeps them too.</p>
<button type="button" id="reset">Back to the plan</button></section>`;
}

const lossCaption =
  "<b>Loss against further tokens, by the laws.</b> Bands: the interval; grey: beyond the fitted tokens; dots: the " +
  "arms of the table above. At few tokens the upcycled law lies above the parent, whose loss stands there. The " +
  "beginning of a mixture from scratch may lie above the picture.";
const lossFigure =
  `<figure id="plan-loss" class="scripted"><figcaption>${lossCaption}</figcaption>` +
  '<div class="plot" tabindex="0" role="img" aria-label="Loss against further tokens"></div>' +
  '<ul class="readout"></ul></figure>';

function slider({ key, label, base, min, max, step, start }: Control, value: string): string {
  const [low, high] = [Math.min(min, start), Math.max(max, start)].map((value) => Number(value.toFixed(4)));
  return (
    `<label>${escapeHtml(label)} <output data-for="${key}">${escapeHtml(value)}</output><input type="range" ` +
    `data-key="${key}" data-base="${base}" aria-label="${escapeHtml(label)}" aria-valuetext="${escapeHtml(value)}" ` +
    `min="${low}" max="${high}" step="${base === 2 ? step : "any"}" ` +
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
  return factsAndCommand(facts, command);
}
