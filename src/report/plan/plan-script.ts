/**
 * Script of a plan's page, as text (it runs in a browser): after `chartScript` and the bundled planner. Sliders ->
 * changes -> `upcyclePlan.render` -> markup and chart. No back-quotes and no dollar-brace in here: the text stands in a
 * template literal.
 */
export const planScript = String.raw`
const changes = {};
let chart = report.chart;
const panel = document.getElementById("sliders");
const sliders = [...panel.querySelectorAll("input")];
const again = document.getElementById("again-command");
const problem = document.getElementById("problem");
const body = document.querySelector("main");

function chartSpec() {
  return {
    x: chart.x,
    xLog: true,
    xWord: "further tokens",
    xLabel: "further tokens, D2",
    format: (value) => value.toFixed(4),
    yRange: [chart.low, chart.high],
    level: { value: chart.parent, label: "the dense model as it is" },
    names: true,
    fitted: chart.fitted,
    verticals: chart.verticals,
    dots: chart.dots.map((dot) => ({ x: dot.x, y: dot.y, label: dot.label, colour: variable("--arm-" + dot.tone) })),
    lines: chart.lines.map((line) => ({
      label: line.label,
      colour: variable("--arm-" + line.tone),
      values: line.values,
      low: line.low,
      high: line.high,
    })),
  };
}

function show(result) {
  for (const key of Object.keys(result.values)) {
    const output = panel.querySelector("output[data-for=" + key + "]");
    if (output !== null) output.textContent = result.values[key];
    const slider = panel.querySelector("input[data-key=" + key + "]");
    if (slider !== null) slider.setAttribute("aria-valuetext", result.values[key]);
  }
  again.textContent = result.command;
  problem.textContent = result.ok ? "" : result.error;
  body.classList.toggle("stale", !result.ok);
  if (!result.ok) return;
  for (const place of document.querySelectorAll("[data-live]")) place.innerHTML = result.sections[place.dataset.live];
  chart = result.chart;
  if (chart !== null) redrawAll();
}

let waiting = false;
function update() {
  if (waiting) return;
  waiting = true;
  // Not an animation frame: a page that is not shown gets none.
  setTimeout(() => {
    waiting = false;
    show(upcyclePlan.render(report.request, changes, report.words));
    const state = Object.keys(changes).map((key) => key + "=" + changes[key]).join("&");
    history.replaceState(null, "", "#" + state);
  }, 16);
}

/** What the address says the sliders are at; keys and values that no slider has are left alone. */
function restore() {
  for (const pair of location.hash.slice(1).split("&")) {
    const [key, text] = pair.split("=");
    const value = Number(text);
    const slider = sliders.find((one) => one.dataset.key === key);
    if (slider === undefined || !(value > 0) || !Number.isFinite(value)) continue;
    changes[key] = value;
    slider.value = Math.log(value) / Math.log(Number(slider.dataset.base));
  }
  if (Object.keys(changes).length > 0) update();
}

for (const slider of sliders) {
  slider.addEventListener("input", () => {
    const value = Math.pow(Number(slider.dataset.base), Number(slider.value));
    changes[slider.dataset.key] = slider.dataset.base === "2" ? Math.round(value) : Number(value.toPrecision(3));
    update();
  });
}
document.getElementById("reset").addEventListener("click", () => {
  for (const key of Object.keys(changes)) delete changes[key];
  for (const slider of sliders) slider.value = slider.defaultValue;
  update();
});
if (chart !== null) lineChart("plan-loss", chartSpec);
restore();
`;
