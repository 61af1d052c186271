/**
 * Script of a fit's page, as text (it runs in a browser): after `chartScript`, whose helpers it uses. Draws every chart
 * of the embedded data into the figure with its id. No back-quotes and no dollar-brace in here: the text stands in a
 * template literal.
 */
export const lawScript = String.raw`
/** Dots and lines over one x: every series has its own rows of the joined table, nulls elsewhere. */
function lawChart(chart) {
  const figure = document.getElementById(chart.id);
  if (figure === null) return;
  const host = figure.querySelector(".plot");
  let plot = null;
  let drawnWidth = 0;

  const rows = [];
  chart.series.forEach((series, s) => series.x.forEach((x, i) => rows.push([x, s, series.y[i]])));
  rows.sort((a, b) => a[0] - b[0]);
  const columns = [rows.map((row) => row[0])].concat(
    chart.series.map((series, s) => rows.map((row) => (row[1] === s ? row[2] : null))),
  );

  function ends(values, log) {
    let low = Math.min.apply(null, values);
    let high = Math.max.apply(null, values);
    if (log) {
      const pad = Math.pow(high / low, 0.04) || 1.1;
      return [low / pad, high * pad];
    }
    const pad = (high - low) * 0.05 || Math.abs(high) * 0.05 || 1;
    return [low - pad, high + pad];
  }
  const ys = rows.map((row) => row[2]).concat(chart.level === null ? [] : [chart.level]);
  const xRange = ends(columns[0], chart.xLog);
  const yRange = ends(ys, chart.yLog);

  function drawLevel(u) {
    if (chart.level === null) return;
    const y = u.valToPos(chart.level, "y", true);
    const context = u.ctx;
    context.save();
    context.strokeStyle = variable("--muted");
    context.lineWidth = uPlot.pxRatio;
    context.setLineDash([5 * uPlot.pxRatio, 4 * uPlot.pxRatio]);
    context.beginPath();
    context.moveTo(u.bbox.left, y);
    context.lineTo(u.bbox.left + u.bbox.width, y);
    context.stroke();
    context.restore();
  }

  function axis(extra) {
    const font = "12px " + getComputedStyle(document.body).fontFamily;
    return Object.assign(
      {
        stroke: variable("--muted"),
        font: font,
        labelFont: font,
        grid: { stroke: variable("--grid"), width: 1 },
        ticks: { show: false },
        gap: 6,
        labelSize: 20,
      },
      extra,
    );
  }

  /** As many decimals as a step of the axis has: two for 0.25. */
  function plain(step) {
    let decimals = 0;
    while (decimals < 8 && Math.abs(Number(step.toFixed(decimals)) / step - 1) > 1e-6) decimals += 1;
    return (value) =>
      value === null
        ? ""
        : Math.abs(value) >= 1e5
          ? short(value, true)
          : decimals > 6
            ? value.toPrecision(3)
            : value.toFixed(decimals);
  }

  function draw() {
    drawnWidth = root.dataset.print ? paperWidth : host.clientWidth;
    if (drawnWidth === 0) return;
    if (plot !== null) plot.destroy();
    const series = [{}].concat(
      chart.series.map((entry) => {
        const colour =
          entry.ramp === undefined
            ? variable("--arm-" + (entry.tone % 6))
            : mixed(variable("--ramp-low"), variable("--ramp-high"), entry.ramp);
        if (entry.kind === "line") return { stroke: colour, width: 2, spanGaps: true, points: { show: false } };
        const size = entry.kind === "cloud" ? 3 : entry.kind === "mark" ? 10 : 5;
        const fill = entry.kind === "cloud" ? faded(colour, 0.45) : colour;
        return {
          stroke: colour,
          paths: () => null,
          points: { show: true, size: size, width: 0, fill: fill, stroke: fill },
        };
      }),
    );
    const xAxis = {
      label: chart.xLabel,
      size: 30,
      space: 60,
      values: (u, splits, i, space, step) =>
        splits.map(chart.xLog ? (v) => (v === null ? "" : short(v, true)) : plain(step)),
    };
    if (chart.xLog) {
      xAxis.splits = (u, i, min, max) => logTicks(min, max, drawnWidth - 80);
      xAxis.filter = (u, splits) => splits;
    }
    const yAxis = {
      label: chart.yLabel,
      size: 54,
      space: 36,
      values: (u, splits, i, space, step) =>
        splits.map(chart.yLog ? (v) => (v === null ? "" : short(v, true)) : plain(step)),
    };
    if (chart.yLog) {
      yAxis.splits = (u, i, min, max) => logTicks(min, max, 220);
      yAxis.filter = (u, splits) => splits;
    }
    plot = new uPlot(
      {
        width: drawnWidth,
        height: Math.round(Math.min(360, Math.max(260, drawnWidth * 0.62))),
        legend: { show: false },
        padding: [8, 14, 0, 0],
        scales: {
          x: { time: false, distr: chart.xLog ? 3 : 1, range: () => xRange },
          y: { distr: chart.yLog ? 3 : 1, range: () => yRange },
        },
        series: series,
        axes: [axis(xAxis), axis(yAxis)],
        cursor: { show: false },
        hooks: { draw: [drawLevel] },
      },
      columns,
      host,
    );
  }
  new ResizeObserver(() => {
    if (host.clientWidth !== drawnWidth && !root.dataset.print) draw();
  }).observe(host);
  redraws.push(draw);
  draw();
}
for (const chart of report.charts) lawChart(chart);
`;
