/** A plan as a report: its sections, and one HTML file that computes itself again when a slider moves. */
import { shellWord } from "../../base/shell.js";
import { makePlan } from "../../laws/planner/plan.js";
import { planViews } from "../../laws/planner/views.js";
import type { PlanRequest } from "../../laws/planner/plan-types.js";
import { factsAndCommand, pageSection, renderPage, type ReportAssets, type ReportBody } from "../page/shell.js";
import { controlsOf, render, type Control, type Rendered } from "./plan-live.js";
import type { Changes, ControlKey } from "./plan-command.js";
import { planChart, planSections, type PlanChart, type PlanSections } from "./plan-view.js";

interface PlanAssets extends ReportAssets {
  /** The bundled planner: dist/report/plan/plan-live.bundle.js. */
  readonly liveJs: string;
}

/** What a plan is made of, from which all of its report is computed. */
export interface PlanSource {
  readonly request: PlanRequest;
  /** The words after `upcycle` of the command that makes the same page again. */
  readonly words: readonly string[];
}

/** What the sliders and the chart of a plan's report need. */
export interface PlanData extends PlanSource {
  readonly controls: readonly Control[];
  /** What the sliders' labels say before they are moved. */
  readonly values: Readonly<Record<ControlKey, string>>;
  readonly command: string;
  readonly chart: PlanChart | null;
}

/** Computes a plan for what sliders say. */
export type PlanRender = (changes: Changes) => Rendered | Promise<Rendered>;

/** The page of a plan as the text of an HTML file; `assets` are the scripts and the style sheet that stand in it. */
export function renderPlanHtml(
  { request, words, version }: PlanSource & { readonly version: string },
  assets: PlanAssets,
): string {
  const body = planBody({ request, words });
  return renderPage({ body, version, source: null, libraries: [assets.liveJs] }, assets);
}

/** The report of a plan. Throws like `makePlan`. */
export function planBody({ request, words }: PlanSource): ReportBody {
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
  const advice = `<dl class="facts-list" data-live="advice">${live.advice ?? ""}</dl>`;
  const rendered = render(request, {}, words);
  const data: PlanData = {
    request,
    words,
    controls: controlsOf(request),
    values: rendered.values,
    command: rendered.command,
    chart,
  };
  return {
    kind: "plan",
    title: `${request.name} · upcycling plan`,
    sections: [
      header(live),
      pageSection("sliders", "What if", '<div data-island="sliders"></div>', "scripted"),
      pageSection("buys", "What the budget buys", `${place("arms")}\n${chart === null ? "" : lossFigure}`),
      ...(plan.moeParent ? [] : laws),
      pageSection("hangs", "How sure", `${place("sensitivity")}${careful}`),
      pageSection(
        "cluster",
        "On the cluster",
        `${place("layout")}${place("memory")}${place("sums")}${place("time")}${place("calibration")}`,
      ),
      pageSection("size", "Sizes and FLOPs", `${place("models")}${place("flops")}`),
      ...(plan.moeParent ? [] : [pageSection("training", "How to train it", advice)]),
      pageSection("sources", "Where the numbers are from", sources(request, command)),
    ],
    data,
  };
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

const lossCaption =
  "Bands: the interval; grey: beyond the fitted tokens; dots: the " +
  "arms of the table above. At few tokens the upcycled law lies above the parent, whose loss stands there. The " +
  "beginning of a mixture from scratch may lie above the picture.";
const lossFigure = `<div class="scripted" data-island="plan-loss"></div><p class="note scripted">${lossCaption}</p>`;

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
