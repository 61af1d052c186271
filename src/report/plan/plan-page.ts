/** A plan as one HTML file that opens without a network and computes itself again when a slider moves. */
import { makePlan } from "../../laws/planner/plan.js";
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
  /** A shell command that makes the same page again. */
  readonly command: string;
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
export function renderPlanHtml({ request, command, version }: PlanPage, assets: PlanAssets): string {
  const plan = makePlan(request);
  const live = planSections(plan);
  const place = (id: string): string => `<div data-live="${id}">${live[id] ?? ""}</div>`;
  const sections = [
    whatIf(request),
    pageSection("buys", "What the budget buys", `${place("arms")}\n${lossFigure}`),
    pageSection("ahead", "How long upcycling stays ahead", place("crossings") + place("split")),
    pageSection(
      "hangs",
      "How sure",
      `${place("sensitivity")}<h3>To be careful about</h3><ul class="findings" ` +
        `data-live="notes">${live.notes ?? ""}</ul>`,
    ),
    pageSection("cluster", "On the cluster", `${place("layout")}${place("memory")}${place("sums")}${place("time")}`),
    pageSection("size", "Sizes and FLOPs", `${place("models")}${place("flops")}`),
    pageSection("training", "How to train it", `<dl class="facts-list" data-live="advice">${live.advice ?? ""}</dl>`),
    pageSection("sources", "Where the numbers are from", sources(request, command)),
  ];
  const page = {
    title: `${request.name} · upcycling plan`,
    version,
    style,
    footer: ". Nothing on this page is loaded from a network; the planner runs in it.",
    body: [header(live), ...sections],
    data: { request, chart: planChart(request, plan) },
    libraries: [assets.liveJs],
    script: planScript,
  };
  return renderPage(page, assets);
}

function header(live: PlanSections): string {
  return `<header>
  <p class="kicker">Upcycling plan</p>
  <h1 data-live="name">${live.name ?? ""}</h1>
  <p class="answer" data-live="answer">${live.answer ?? ""}</p>
  <p class="facts" data-live="facts">${live.facts ?? ""}</p>
</header>
<section aria-label="Key numbers"><dl class="tiles" data-live="tiles">${live.tiles ?? ""}</dl></section>`;
}

function whatIf(request: PlanRequest): string {
  const { values } = render(request, {});
  const sliders = controlsOf(request).map((control) => slider(control, values[control.key]));
  return `<section aria-labelledby="sliders-title" class="scripted"><h2 id="sliders-title">What if</h2>
<div class="sliders" id="sliders">${sliders.join("")}</div>
<button type="button" id="reset">Back to the plan</button><p id="problem" role="status"></p></section>`;
}

const lossCaption =
  "<b>Loss against further tokens.</b> Shaded: the interval. At few tokens the upcycled law lies above the parent, " +
  "whose loss stands there. The beginning of a mixture from scratch may lie above the picture.";
const lossFigure =
  `<figure id="plan-loss" class="scripted"><figcaption>${lossCaption}</figcaption>` +
  '<div class="plot" tabindex="0" role="img" aria-label="Loss against further tokens"></div>' +
  '<ul class="readout"></ul></figure>';

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
  return factsAndCommand(facts, command);
}
