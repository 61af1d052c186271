/** The four views of a plan as markup. */
import { at } from "../../base/at.js";
import { compact, significant } from "../../base/format.js";
import type { Plan } from "../../laws/planner/plan.js";
import type { PlanViews, Winner, WinnerView } from "../../laws/planner/views.js";
import { escapeHtml } from "../page/escape.js";
import { framedTable } from "../page/table.js";
import { svgChart, svgMap, type SvgAxis } from "../page/svg-chart.js";

/** What a cell of the map says, and in which colour. */
const winnerWords: Readonly<Record<Winner, readonly [colour: string, words: string]>> = {
  upcycled: ["var(--arm-2)", "upcycled"],
  scratch: ["var(--arm-1)", "from scratch"],
  dense: ["var(--arm-0)", "continued dense"],
  moe: ["var(--tie)", "upcycled = from scratch, both below dense"],
  tie: ["var(--tie-all)", "too close to call"],
  open: ["var(--rule)", "no law answers"],
};

const tones = ["var(--arm-5)", "var(--arm-3)", "var(--arm-2)", "var(--arm-4)", "var(--arm-1)"] as const;

const axisOver = (values: readonly number[], label: string): SvgAxis => ({
  low: at(values, 0),
  high: at(values, values.length - 1),
  log: true,
  label,
});

/** Markup of all views; empty where there are none. */
export function viewSection(views: PlanViews | null, plan: Plan): string {
  if (views === null) return "";
  const figures = [
    ...views.winners.map((view) => winnerFigure(view, views, plan)),
    starFigure(views, plan),
    frontierFigure(views),
    exponentFigure(views, plan),
  ];
  return `<div class="views">${figures.join("")}</div>`;
}

const figure = (title: string, caption: string, body: string): string =>
  `<figure><figcaption><b>${escapeHtml(title)}</b> ${escapeHtml(caption)}</figcaption>${body}</figure>`;

function winnerFigure(view: WinnerView, { ranges }: PlanViews, plan: Plan): string {
  const { equal, seen, tokens, compute, cells } = view;
  const isFlops = equal === "flops";
  const here = plan.arms.find(({ id, recipe }) => id === "upcycled" && recipe === plan.main)?.tokens ?? at(tokens, 0);
  const across = isFlops ? compute : tokens;
  const factor = at(compute, 0) / at(tokens, 0);
  const names = [...new Set(cells.flat())] as Winner[];
  const key = (Object.keys(winnerWords) as Winner[])
    .filter((name) => names.includes(name))
    .map((name) => {
      const [colour, words] = winnerWords[name];
      const square = `<rect width="10" height="10" fill="${colour}"/>`;
      return `<li><svg class="key" viewBox="0 0 10 10" aria-hidden="true">${square}</svg>${words}</li>`;
    });
  const scaled = (range: readonly [number, number] | null): readonly [number, number] | null =>
    range === null || !isFlops ? range : [factor * range[0], factor * range[1]];
  const map = svgMap({
    description:
      `Which use of the budget is ahead at N = ${compact(plan.size)}, by D1 and ${isFlops ? "compute" : "D2"}: ` +
      names.map((name) => winnerWords[name][1]).join(", "),
    x: isFlops
      ? { ...axisOver(across, "compute C = 6 r N D2, FLOP"), format: power }
      : axisOver(across, "further tokens, D2"),
    y: axisOver(seen, "D1"),
    cells,
    colours: Object.fromEntries(Object.entries(winnerWords).map(([name, [colour]]) => [name, colour])),
    here: { x: isFlops ? factor * here : here, y: plan.seen, label: "this plan" },
    fittedX: scaled(ranges.tokens),
    fittedY: ranges.tokens,
  });
  return figure(
    isFlops ? "Who is ahead at equal FLOPs." : "Who is ahead at equal tokens.",
    `N = ${compact(plan.size)}; dashed: the fitted range.`,
    `${map}<ul class="keys">${key.join("")}</ul>`,
  );
}

function starFigure({ stars, ranges }: PlanViews, plan: Plan): string {
  const found = stars.lines.flatMap(({ tokens }) => tokens.filter((value) => value !== null));
  if (found.length === 0) return "";
  const low = Math.min(...found) / 1.5;
  const high = Math.min(1e14, Math.max(...found) * 1.5);
  return figure(
    "How long upcycling stays ahead of an MoE from scratch.",
    "D* against D1, parent sunk; a line that ends has no D*.",
    svgChart({
      description: "D* against D1 for several sizes of the dense parent",
      x: axisOver(stars.seen, "tokens of the parent, D1"),
      y: { low, high, log: true, label: "D*" },
      fitted: ranges.tokens,
      marks: [{ x: plan.seen, label: "this plan" }],
      lines: stars.lines.map(({ size, tokens }, i) => ({
        label: `N ${compact(size, 2)}`,
        colour: at(tones, i % tones.length),
        x: stars.seen,
        y: tokens,
      })),
    }),
  );
}

function frontierFigure({ frontier }: PlanViews): string {
  if (frontier === null) return "";
  const { points, seen, ratio } = frontier;
  const losses = points.map(({ loss }) => loss);
  const inside = points.filter((point) => point.inside).map(({ compute }) => compute);
  const shown = [0, 6, 12, 18, 24].map((i) => at(points, i));
  const rows = shown.map(({ compute, size, tokens, loss }) => [
    significant(compute, 2),
    compact(size),
    compact(tokens),
    loss.toFixed(3),
  ]);
  return figure(
    "Loss of the best spent compute.",
    `Parents of any size with D1 = ${compact(seen)} for nothing, r = ${significant(ratio)}.`,
    svgChart({
      description: "Loss of the best split of a compute between the parent's size and further tokens",
      x: {
        ...axisOver(
          points.map(({ compute }) => compute),
          "compute C = 6 r N D2, FLOP",
        ),
        format: power,
      },
      y: { low: Math.min(...losses) - 0.02, high: Math.max(...losses) + 0.02, log: false, label: "loss" },
      fitted: inside.length === 0 ? [0, 0] : [Math.min(...inside), Math.max(...inside)],
      lines: [{ label: "upcycled", colour: "var(--arm-2)", x: points.map(({ compute }) => compute), y: losses }],
    }) + framedTable(["C", "N*", "D2*", "loss"], rows, (column) => column > 0, "Best split of compute"),
  );
}

const power = (value: number): string => `1e${Math.round(Math.log10(value))}`;

function exponentFigure({ exponents, ranges }: PlanViews, plan: Plan): string {
  if (exponents === null) return "";
  const { seen, exponent } = exponents;
  const spread = Math.max(0.002, Math.max(...exponent) - Math.min(...exponent));
  return figure(
    "How fast further tokens help.",
    "Exponent of D2 in the data term of the upcycled law, which falls with ln D1.",
    svgChart({
      description: "Exponent of the further tokens against the tokens of the parent",
      x: axisOver(seen, "tokens of the parent, D1"),
      y: {
        low: Math.min(...exponent) - 0.1 * spread,
        high: Math.max(...exponent) + 0.1 * spread,
        log: false,
        label: "exponent of D2",
      },
      fitted: ranges.tokens,
      marks: [{ x: plan.seen, label: "this plan" }],
      lines: [{ label: "upcycled", colour: "var(--arm-2)", x: seen, y: exponent }],
    }),
  );
}
