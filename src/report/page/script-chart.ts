/**
 * Script of the page, first part, as text (it runs in a browser, which this package's types do not know): one line
 * chart with bands, a reading under the pointer or the arrow keys, a redraw when the width, the theme or the medium
 * changes, and the copy buttons. No back-quotes and no dollar-brace in here: the text stands in a template literal.
 */
export const chartScript = String.raw`
"use strict";
const report = JSON.parse(document.getElementById("report-data").textContent);
const root = document.documentElement;
const redraws = [];
/** Half of the narrowest common page (A4, Letter) between its margins, in CSS pixels. */
const paperWidth = 325;

function variable(name) {
  return getComputedStyle(root).getPropertyValue(name).trim();
}

function channels(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function faded(hex, alpha) {
  return "rgba(" + channels(hex).join(",") + "," + alpha + ")";
}

/** Colour between two hex colours: part 0 is the first, 1 the second. */
function mixed(from, to, part) {
  const other = channels(to);
  return (
    "#" +
    channels(from)
      .map((value, i) =>
        Math.round(value + (other[i] - value) * part)
          .toString(16)
          .padStart(2, "0"),
      )
      .join("")
  );
}

/** 1.23M; with tick, without trailing zeros. */
function short(value, tick) {
  const units = ["", "K", "M", "B", "T", "P", "E", "Z"];
  let unit = 0;
  while (Math.abs(value) >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return (
    (tick ? String(Number(value.toPrecision(3))) : Number(value.toPrecision(3)) === 0 ? "0" : value.toPrecision(3)) +
    units[unit]
  );
}

/** Values of a line on another grid of x, linear between its points, null outside of them. */
function resampled(xs, ys, grid) {
  let right = 0;
  return grid.map((x) => {
    if (xs.length === 0 || x < xs[0] || x > xs[xs.length - 1]) return null;
    while (xs[right] < x) right += 1;
    if (xs[right] === x) return ys[right];
    const part = (x - xs[right - 1]) / (xs[right] - xs[right - 1]);
    return ys[right - 1] + part * (ys[right] - ys[right - 1]);
  });
}

/**
 * Logarithmic ticks: 1, 2 and 5 of every decade, only 1 where there are many decades or few of the pixels that the axis
 * is long. (uPlot's own start at the first point.)
 */
function logTicks(min, max, length) {
  const decade = length / Math.log10(max / min);
  // Between 1 and 2 a name needs 40 pixels; an axis shorter than a decade would have hardly any tick.
  const isSparse = max / min > 500 || (decade < 133 && max / min > 20);
  const leads = isSparse ? [1] : [1, 2, 5];
  const ticks = [];
  for (let decade = Math.floor(Math.log10(min)); decade <= Math.log10(max); decade++) {
    for (const lead of leads) {
      const tick = lead * Math.pow(10, decade);
      if (tick >= min && tick <= max) ticks.push(tick);
    }
  }
  return ticks;
}

/**
 * Draws describe() into the figure with this id. describe returns { x, lines, xLog, xLabel, xWord, yRange, level,
 * format, verticals, fitted, dots, names }; a line is { label, colour, values, low, high, dash, width }, level a dashed
 * horizontal { value, label, below }, a vertical { value, label }, fitted the range of x outside of which the picture
 * is shaded, a dot { x, y, label, colour }; with names the lines carry theirs at their ends.
 */
function lineChart(id, describe) {
  const figure = document.getElementById(id);
  if (figure === null) return;
  const host = figure.querySelector(".plot");
  const readout = figure.querySelector(".readout");
  let plot = null;
  let spec = null;
  let drawnWidth = 0;

  function show(index) {
    const at = index === null || index === undefined ? null : index;
    const items = spec.lines.map((line) => {
      const values = line.values;
      let value = at === null ? null : values[at];
      if (at === null) for (let i = values.length - 1; i >= 0 && value === null; i--) value = values[i];
      return { line: line, text: value === null ? "–" : spec.format(value) };
    });
    readout.replaceChildren();
    const head = document.createElement("li");
    head.textContent = at === null ? "at the end" : "at " + short(spec.x[at]) + " " + spec.xWord;
    readout.append(head);
    for (const item of items) {
      const entry = document.createElement("li");
      const swatch = document.createElement("i");
      swatch.className = "swatch";
      swatch.style.background = item.line.colour;
      const value = document.createElement("b");
      value.textContent = item.text;
      entry.append(swatch, item.line.label, value);
      readout.append(entry);
    }
  }

  function drawLevel(u) {
    if (!spec.level) return;
    const y = u.valToPos(spec.level.value, "y", true);
    const box = u.bbox;
    if (y < box.top || y > box.top + box.height) return;
    const ratio = uPlot.pxRatio;
    const context = u.ctx;
    context.save();
    context.strokeStyle = context.fillStyle = variable("--muted");
    context.lineWidth = ratio;
    context.setLineDash([5 * ratio, 4 * ratio]);
    context.beginPath();
    context.moveTo(box.left, y);
    context.lineTo(box.left + box.width, y);
    context.stroke();
    context.font = 11.5 * ratio + "px " + getComputedStyle(document.body).fontFamily;
    context.textAlign = "right";
    const above = !spec.level.below;
    context.textBaseline = above ? "bottom" : "top";
    context.fillText(spec.level.label, box.left + box.width - 2 * ratio, y + (above ? -3 : 4) * ratio);
    context.restore();
  }

  function pen(u) {
    const ratio = uPlot.pxRatio;
    const context = u.ctx;
    context.save();
    context.font = 11.5 * ratio + "px " + getComputedStyle(document.body).fontFamily;
    context.beginPath();
    return {
      context: context,
      ratio: ratio,
      box: u.bbox,
      x: (value) => u.valToPos(value, "x", true),
      y: (value) => u.valToPos(value, "y", true),
    };
  }

  /** What is beyond the fitted range lies on grey. */
  function drawFitted(u) {
    if (!spec.fitted) return;
    const p = pen(u);
    const right = p.box.left + p.box.width;
    const inside = (v) => Math.min(right, Math.max(p.box.left, v));
    const [from, to] = [inside(p.x(spec.fitted[0])), inside(p.x(spec.fitted[1]))];
    p.context.fillStyle = variable("--beyond");
    p.context.fillRect(p.box.left, p.box.top, from - p.box.left, p.box.height);
    p.context.fillRect(to, p.box.top, right - to, p.box.height);
    p.context.fillStyle = variable("--muted");
    p.context.textBaseline = "bottom";
    const word = "beyond the fit";
    const room = p.context.measureText(word).width + 8 * p.ratio;
    const bottom = p.box.top + p.box.height - 4 * p.ratio;
    if (from - p.box.left > room) p.context.fillText(word, p.box.left + 4 * p.ratio, bottom);
    if (right - to > room) {
      p.context.textAlign = "right";
      p.context.fillText(word, right - 4 * p.ratio, bottom);
    }
    p.context.restore();
  }

  function drawVerticals(u) {
    (spec.verticals || []).forEach((vertical, i) => {
      const p = pen(u);
      const x = p.x(vertical.value);
      if (x >= p.box.left && x <= p.box.left + p.box.width) {
        p.context.strokeStyle = p.context.fillStyle = variable("--muted");
        p.context.lineWidth = p.ratio;
        p.context.setLineDash([2 * p.ratio, 3 * p.ratio]);
        p.context.moveTo(x, p.box.top);
        p.context.lineTo(x, p.box.top + p.box.height);
        p.context.stroke();
        const isRight = x > p.box.left + 0.7 * p.box.width;
        p.context.textAlign = isRight ? "right" : "left";
        p.context.textBaseline = "top";
        p.context.fillText(vertical.label, x + (isRight ? -4 : 4) * p.ratio, p.box.top + (2 + 14 * i) * p.ratio);
      }
      p.context.restore();
    });
  }

  /** Dots with their names, and the names of lines at their ends, moved apart where they would lie on each other. */
  function drawNames(u) {
    const dots = spec.dots || [];
    const p = pen(u);
    const names = [];
    const marked = [];
    for (const dot of dots) {
      const [x, y] = [p.x(dot.x), p.y(dot.y)];
      if (x < p.box.left || x > p.box.left + p.box.width || y < p.box.top || y > p.box.top + p.box.height) continue;
      p.context.beginPath();
      p.context.fillStyle = dot.colour;
      p.context.arc(x, y, 4.5 * p.ratio, 0, 2 * Math.PI);
      p.context.fill();
      p.context.lineWidth = 1.5 * p.ratio;
      p.context.strokeStyle = variable("--page");
      p.context.stroke();
      if (dot.label !== "") marked.push({ label: dot.label, colour: dot.colour, x: x, y: y });
    }
    // The names of dots, right of them or left where the right has no room, none on another.
    marked.sort((a, b) => a.y - b.y);
    p.context.textBaseline = "middle";
    p.context.lineJoin = "round";
    let above = -Infinity;
    for (const mark of marked) {
      const room = p.context.measureText(mark.label).width + 10 * p.ratio;
      const isLeft = mark.x + room > p.box.left + p.box.width;
      if (isLeft && mark.x - room < p.box.left) continue;
      const y = Math.max(mark.y - 11 * p.ratio, above + 13 * p.ratio);
      above = y;
      p.context.textAlign = isLeft ? "right" : "left";
      const x = mark.x + (isLeft ? -8 : 8) * p.ratio;
      p.context.lineWidth = 3 * p.ratio;
      p.context.strokeStyle = variable("--page");
      p.context.strokeText(mark.label, x, y);
      p.context.fillStyle = mark.colour;
      p.context.fillText(mark.label, x, y);
    }
    if (spec.names) {
      for (const line of spec.lines) {
        let last = line.values.length - 1;
        while (last >= 0 && line.values[last] === null) last -= 1;
        if (last < 0) continue;
        names.push({ label: line.label, colour: line.colour, x: p.x(spec.x[last]), y: p.y(line.values[last]) });
      }
      names.sort((a, b) => a.y - b.y);
      const apart = 13 * p.ratio;
      p.context.textAlign = "left";
      p.context.textBaseline = "middle";
      names.forEach((name, i) => {
        if (i > 0 && name.y < names[i - 1].y + apart) name.y = names[i - 1].y + apart;
        p.context.fillStyle = name.colour;
        p.context.fillText(name.label, name.x + 5 * p.ratio, name.y);
      });
    }
    p.context.restore();
  }

  /** Pixels that the names at the ends of lines need. */
  function nameRoom() {
    if (!spec.names) return 14;
    const context = document.createElement("canvas").getContext("2d");
    context.font = "11.5px " + getComputedStyle(document.body).fontFamily;
    return 10 + Math.max(...spec.lines.map((line) => Math.ceil(context.measureText(line.label).width)));
  }

  function axis(extra) {
    const font = "12px " + getComputedStyle(document.body).fontFamily;
    const grid = { stroke: variable("--grid"), width: 1 };
    return Object.assign(
      { stroke: variable("--muted"), font: font, labelFont: font, grid: grid, ticks: { show: false }, gap: 6 },
      extra,
    );
  }

  function draw() {
    drawnWidth = root.dataset.print ? paperWidth : host.clientWidth;
    if (drawnWidth === 0) return;
    if (plot !== null) plot.destroy();
    spec = describe();
    const columns = [spec.x];
    const series = [{}];
    const bands = [];
    const bare = { stroke: "transparent", width: 0, points: { show: false } };
    for (const line of spec.lines) {
      if (line.low) {
        bands.push({ series: [columns.length + 1, columns.length], fill: faded(line.colour, 0.16) });
        columns.push(line.low, line.high);
        series.push(Object.assign({ band: true }, bare), Object.assign({ band: true }, bare));
      }
      columns.push(line.values);
      series.push({ stroke: line.colour, width: line.width || 2, dash: line.dash, points: { show: false } });
    }
    // As many decimals as the step has: two for 0.25.
    const decimals = (step) => {
      let count = 0;
      while (count < 8 && Math.abs(Number(step.toFixed(count)) / step - 1) > 1e-6) count += 1;
      return count;
    };
    const xAxis = {
      label: spec.xLabel,
      labelSize: 20,
      size: 30,
      space: 64,
      values: (u, splits) => splits.map((v) => (v === null ? "" : short(v, true))),
    };
    if (spec.xLog) {
      xAxis.splits = (u, i, min, max) => logTicks(min, max, drawnWidth - 60 - nameRoom());
      xAxis.filter = (u, splits) => splits;
    }
    plot = new uPlot(
      {
        width: drawnWidth,
        height: Math.round(Math.min(360, Math.max(270, drawnWidth * 0.62))),
        legend: { show: false },
        padding: [8, nameRoom(), 0, 0],
        scales: {
          x: { time: false, distr: spec.xLog ? 3 : 1, range: (u, min, max) => [min, max] },
          y: { range: () => spec.yRange },
        },
        series: series,
        bands: bands,
        axes: [
          axis(xAxis),
          axis({
            size: 46,
            space: 38,
            values: (u, splits, i, space, step) => splits.map((v) => v.toFixed(decimals(step))),
          }),
        ],
        cursor: {
          y: false,
          points: { size: (u, i) => (series[i].band ? 0 : 8), width: 0, fill: (u, i) => series[i].stroke },
          drag: { x: true, y: false },
        },
        hooks: {
          drawClear: [drawFitted],
          draw: [drawLevel, drawVerticals, drawNames],
          setCursor: [(u) => show(u.cursor.left < 0 ? null : u.cursor.idx)],
        },
      },
      columns,
      host,
    );
    show(null);
  }

  host.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined || plot === null) return;
    event.preventDefault();
    const from = plot.cursor.left < 0 || plot.cursor.idx === null ? spec.x.length : plot.cursor.idx;
    const index = Math.min(spec.x.length - 1, Math.max(0, from + step));
    plot.setCursor({ left: plot.valToPos(spec.x[index], "x"), top: 1 });
  });
  host.addEventListener("blur", () => {
    if (plot !== null) plot.setCursor({ left: -10, top: -10 });
  });
  new ResizeObserver(() => {
    if (host.clientWidth !== drawnWidth && !root.dataset.print) draw();
  }).observe(host);
  redraws.push(draw);
  draw();
}

function redrawAll() {
  for (const redraw of redraws) redraw();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
addEventListener("beforeprint", () => {
  root.dataset.print = "yes";
  redrawAll();
});
addEventListener("afterprint", () => {
  delete root.dataset.print;
  redrawAll();
});

/** Buttons that copy the text of an element; where the clipboard is closed, they select it. */
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => {
      button.textContent = "Copy";
    }, 1600);
  });
}
`;
