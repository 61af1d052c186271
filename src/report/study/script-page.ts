/**
 * Script of the page, second part, as text: what each chart shows, the load maps. Same rules as the
 * first.
 */
export const pageScript = String.raw`
const toneOf = (arm) => variable("--arm-" + arm.tone);
const fixed3 = (value) => value.toFixed(3);
const chosen = (name) => document.querySelector("input[name=" + name + "]:checked").value;
const last = (values) => values[values.length - 1];

/** A second arm of the same colour is dashed, so that colour is never the only difference. */
function dashOf(arm) {
  const before = report.arms.slice(0, report.arms.indexOf(arm)).filter((other) => other.tone === arm.tone).length;
  return [undefined, [8, 5], [2, 4], [10, 4, 2, 4]][before % 4];
}

function padded(low, high) {
  const pad = Math.max((high - low) * 0.07, 1e-3);
  return [low - pad, high + pad];
}

/**
 * Close up: the arms that began at the parent. An arm from scratch joins only where it ends near enough not to flatten
 * them.
 */
function lossRange(lines) {
  const all = lines.flatMap((line) => line.low);
  const tops = lines.flatMap((line) => line.high);
  const near = report.arms.filter((arm) => arm.kind !== "scratch" && arm.curve.mean.length > 0);
  if (chosen("y-range") === "all" || near.length === 0)
    return padded(Math.min(...all, report.parent.loss), Math.max(...tops, report.parent.loss));
  let low = Math.min(report.parent.loss, ...near.flatMap((arm) => arm.curve.low));
  let high = Math.max(report.parent.loss, ...near.flatMap((arm) => arm.curve.high));
  const reach = high - low;
  for (const arm of report.arms) {
    const end = last(arm.curve.mean);
    if (end !== undefined && end >= low - reach && end <= high + reach) {
      low = Math.min(low, last(arm.curve.low));
      high = Math.max(high, last(arm.curve.high) + 0.1 * reach);
    }
  }
  return padded(low, high);
}

function lossSpec(axis) {
  const box = document.getElementById("with-parent");
  const withParent = box !== null && box.checked;
  const xLog = chosen("x-scale") === "log";
  const parentEnd = withParent ? last(report.parent[axis]) : 0;
  const raw = report.arms
    .filter((arm) => arm.curve.mean.length > 0)
    .map((arm) => ({
      label: arm.label,
      colour: toneOf(arm),
      dash: dashOf(arm),
      // What began as the parent has the parent's training behind it; what began from scratch has not.
      xs: arm.curve[axis].map((x) => x + (arm.kind === "scratch" ? 0 : parentEnd)),
      mean: arm.curve.mean,
      low: arm.curve.low,
      high: arm.curve.high,
    }));
  if (withParent) {
    const losses = report.parent.losses;
    raw.unshift({
      label: "Parent",
      colour: variable("--muted"),
      dash: [3, 3],
      xs: report.parent[axis],
      mean: losses,
      low: losses,
      high: losses,
    });
  }
  const grid = [...new Set(raw.flatMap((line) => line.xs))].filter((x) => !xLog || x > 0).sort((a, b) => a - b);
  const yRange = lossRange(raw);
  const outside = raw
    .filter((line) => Math.min(...line.mean) > yRange[1])
    .map((line) => line.label + " ends at " + fixed3(last(line.mean)) + ", above this close-up.");
  document.getElementById("loss-outside").textContent = outside.join(" ");
  const words = axis === "tokens" ? "tokens" : "FLOP";
  return {
    x: grid,
    xLog: xLog,
    yRange: yRange,
    format: fixed3,
    xWord: words,
    xLabel:
      (axis === "tokens" ? "training tokens" : "training FLOP") +
      (withParent ? ", the parent's counted" : " after the parent"),
    level: { value: report.parent.loss, label: "parent" },
    lines: raw.map((line) => ({
      label: line.label,
      colour: line.colour,
      dash: line.dash,
      values: resampled(line.xs, line.mean, grid),
      low: resampled(line.xs, line.low, grid),
      high: resampled(line.xs, line.high, grid),
    })),
  };
}

function imbalanceSpec() {
  const arms = report.arms.filter((arm) => arm.imbalance !== null);
  const grid = [...new Set(arms.flatMap((arm) => arm.imbalance.steps))].sort((a, b) => a - b);
  const top = Math.max(1.1, ...arms.flatMap((arm) => arm.imbalance.high));
  return {
    x: grid,
    xLog: false,
    xWord: "steps",
    xLabel: "training step",
    format: (value) => value.toFixed(2) + "×",
    yRange: [1 - 0.14 * (top - 1), top + 0.05 * (top - 1)],
    level: { value: 1, label: "perfect balance", below: true },
    lines: arms.map((arm) => ({
      label: arm.label,
      colour: toneOf(arm),
      dash: dashOf(arm),
      values: resampled(arm.imbalance.steps, arm.imbalance.mean, grid),
      low: resampled(arm.imbalance.steps, arm.imbalance.low, grid),
      high: resampled(arm.imbalance.steps, arm.imbalance.high, grid),
    })),
  };
}

function similaritySpec(arm) {
  const lowest = Math.min(
    ...report.arms.flatMap((one) => (one.similarity === null ? [] : one.similarity.layers.flat())),
  );
  const layers = arm.similarity.layers;
  const tone = toneOf(arm);
  // First layers lean towards the page, last ones towards the ink: an order that the eye can follow.
  const colour = (layer) => {
    const part = layers.length < 2 ? 0.5 : layer / (layers.length - 1);
    return part < 0.5 ? mixed(tone, variable("--page"), 0.5 - part) : mixed(tone, variable("--ink"), part - 0.5);
  };
  return {
    x: arm.similarity.steps,
    xLog: false,
    xWord: "steps",
    xLabel: "training step",
    format: fixed3,
    yRange: padded(Math.min(lowest, 0.99), 1),
    lines: layers.map((values, layer) => ({
      label: "layer " + layer,
      colour: colour(layer),
      values: values,
      width: 1.75,
    })),
  };
}

/** Slider, seed and pointer of one heat map; the cells are in the markup, only their classes change. */
function loadMap(figure) {
  const load = report.arms[Number(figure.dataset.load)].load;
  const grid = figure.querySelector(".grid");
  const cells = [...grid.querySelectorAll(".cell")];
  const busiest = [...grid.querySelectorAll(".row:not(.numbers) .busiest")];
  const select = figure.querySelector("select");
  const slider = figure.querySelector("input");
  const output = figure.querySelector("output");
  const readout = figure.querySelector(".map-readout");
  select.hidden = load.runs.length < 2;
  let shares = [];
  let rest = "";
  function update() {
    const run = load.runs[Number(select.value)];
    slider.max = run.steps.length - 1;
    const at = Math.min(Number(slider.value), run.steps.length - 1);
    shares = run.shares[at];
    shares.flat().forEach((share, i) => {
      cells[i].className = "cell l" + report.loadSteps.filter((step) => share / 100 >= step).length;
    });
    shares.forEach((layer, i) => {
      busiest[i].textContent = (Math.max(...layer) / 100).toPrecision(2) + "×";
    });
    output.textContent = "step " + run.steps[at];
    slider.setAttribute("aria-valuetext", "step " + run.steps[at]);
    rest = "At step " + run.steps[at] + ", seed " + run.seed + ".";
    readout.textContent = rest;
  }
  grid.addEventListener("pointerover", (event) => {
    const index = cells.indexOf(event.target);
    if (index < 0) return;
    const width = shares[0].length;
    const share = shares[Math.floor(index / width)][index % width];
    readout.textContent =
      "Layer " +
      Math.floor(index / width) +
      ", expert " +
      (index % width) +
      ": " +
      (share / 100).toFixed(2) +
      " times an equal share, " +
      (share / width).toFixed(2) +
      " % of all assignments.";
  });
  grid.addEventListener("pointerleave", () => {
    readout.textContent = rest;
  });
  select.addEventListener("change", update);
  slider.addEventListener("input", update);
  update();
}

lineChart("loss-tokens", () => lossSpec("tokens"));
lineChart("loss-flops", () => lossSpec("flops"));
for (const input of document.querySelectorAll(".controls input")) input.addEventListener("change", redrawAll);
lineChart("imbalance", imbalanceSpec);
report.arms.forEach((arm, i) => {
  if (arm.similarity !== null) lineChart("similarity-" + i, () => similaritySpec(arm));
});
for (const figure of document.querySelectorAll("[data-load]")) loadMap(figure);
`;
