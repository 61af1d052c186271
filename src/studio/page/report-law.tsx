/** The charts of a fitted law: points, fit, residuals, contours, profiles, draws. */
import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { compact, significant } from "../../base/format.js";
import { armTones } from "../../report/page/palette.js";
import type { Chart as LawChart, ChartSeries } from "../../report/laws/chart.js";
import type { ChartLine } from "./chart-draw.js";
import { Chart } from "./chart.js";
import { mixed } from "./download.js";
import type { Islands } from "./report-parts.js";

/** The parts of a law's report that need a script. */
export function lawIslands({ charts }: { readonly charts: readonly LawChart[] }): Islands {
  const isOf = (...prefixes: readonly string[]): readonly LawChart[] =>
    prefixes.flatMap((prefix) => charts.filter(({ id }) => id.startsWith(prefix)));
  return {
    fit: <LawCharts charts={isOf("loss-", "residuals", "contours", "isoflop")} />,
    profiles: <LawCharts charts={isOf("profile-")} />,
    clouds: <LawCharts charts={isOf("cloud-")} />,
  };
}

function LawCharts({ charts }: { readonly charts: readonly LawChart[] }): JSX.Element {
  return (
    <div class="charts">
      {charts.map((chart) => (
        <Drawn key={chart.id} chart={chart} />
      ))}
    </div>
  );
}

/** A series with its points by ascending x, as a chart reads them. */
function lineOf({ label, tone, ramp, kind, x, y }: ChartSeries, all: readonly ChartSeries[]): ChartLine {
  const order = x.map((_, i) => i).sort((a, b) => x[a]! - x[b]!);
  const colour =
    ramp === undefined ? `var(--arm-${tone % armTones.length})` : mixed("var(--ramp-high)", "var(--ramp-low)", ramp);
  // A fit has the name of its points, so that both are named once.
  const points = all.find((other) => other.kind === "dots" && label === `${other.label}, fit`);
  return { label: points?.label ?? label, colour, kind, x: order.map((i) => x[i]!), y: order.map((i) => y[i]!) };
}

const number = (value: number): string => (Math.abs(value) >= 1e4 ? compact(value) : significant(value, 4));

function Drawn({ chart }: { readonly chart: LawChart }): JSX.Element {
  const { title, note, xLabel, yLabel, xLog, yLog, series, level } = chart;
  const lines = useMemo(() => series.map((one) => lineOf(one, series)), [series]);
  return (
    <Chart
      title={`${title}: ${yLabel}`}
      caption={`${title}.`}
      note={note}
      xLabel={xLabel}
      lines={lines}
      format={number}
      xFormat={number}
      plainTicks
      xLog={xLog}
      logY={yLog}
      height={280}
      {...(level !== null && { level: { value: level, label: "" } })}
    />
  );
}
