/** A chart of one measure of several runs, asked for again as they grow and when a part of it is wanted. */
import type { JSX } from "preact";
import { useMemo, useRef } from "preact/hooks";
import { compact, significant } from "../../base/format.js";
import { seedBand } from "../data/arms.js";
import { answerAddress } from "../data/addresses.js";
import { growthAddress, grown } from "../data/growing.js";
import { lineNames } from "../data/names.js";
import { curveAxes, type CurveAnswer, type CurveAxis, type Metric, type RunRow } from "../data/types.js";
import { Chart, type ChartLine } from "./chart.js";
import { armKey, armLooks, type Look } from "./colours.js";
import { useAnswer, useIsSeen, useSlowly, useWhile } from "./hooks.js";
import { axisWords, metricWords } from "./metrics.js";
import { Choice, Waiting } from "./parts.js";
import { place, runs as allRuns, set, setting } from "./state.js";

interface CurvesProps {
  readonly names: readonly string[];
  readonly metric: Metric;
  readonly axis: CurveAxis;
  /** Runs of one arm as their mean with a band from the lowest to the highest. */
  readonly bands?: boolean;
  readonly height?: number;
}

/** The axis that the address names. */
export const chosenAxis = (): CurveAxis => curveAxes.find((one) => one === setting("axis")) ?? "tokens";

/** The choice of an axis for all curves of a view. */
export function AxisChoice(): JSX.Element {
  return (
    <Choice
      label="over"
      value={chosenAxis()}
      options={curveAxes.map((one) => [one, axisWords[one]] as const)}
      onChange={(value) => set({ axis: value, zoom: "" })}
    />
  );
}

/** The part of x that the address names; null for all of it. */
function rangeOf(axis: CurveAxis): readonly [number, number] | null {
  const [, named, from, to] = /^(\w+):([^:]+):([^:]+)$/.exec(place.value.settings["zoom"] ?? "") ?? [];
  const range = [Number(from), Number(to)] as const;
  return named === axis && Number.isFinite(range[0]) && range[1] > range[0] ? range : null;
}

/** Milliseconds between two looks at curves that grow: a training on the same machine needs the time more. */
const chartMs = 650;

/** The chart. */
export function Curves({ names, metric, axis, bands = false, height }: CurvesProps): JSX.Element {
  const range = rangeOf(axis);
  const host = useRef<HTMLDivElement>(null);
  const isSeen = useIsSeen(host);
  const list = allRuns.value;
  const version = names.map((name) => list.get(name)?.revision ?? 0).join(" ");
  // Of many curves, which lie over each other, every other pixel has its lowest and highest point.
  const columns = Math.max(200, Math.min(1200, Math.round(innerWidth / (names.length > 20 ? 5 : 1))));
  const address = answerAddress("/api/curves", [
    ...names.map((name) => ["run", name] as const),
    ["metric", metric],
    ["axis", axis],
    ["columns", String(columns)],
    ...(range === null ? [] : [["from", String(range[0])] as const, ["to", String(range[1])] as const]),
  ]);
  const { data, error } = useAnswer<CurveAnswer>(
    names.length === 0 ? null : address,
    useWhile(isSeen, useSlowly(version, chartMs)),
    {
      address: (before) => (range === null ? growthAddress(address, before, columns) : null),
      join: grown,
    },
  );
  const lines = useMemo(() => (data === null ? [] : linesOf(data, list, bands)), [data, bands]);
  const { title, format, logY = false, isCount = false } = metricWords[metric];
  return (
    <div ref={host}>
      {data === null ? (
        <Waiting error={error} what={title} />
      ) : (
        <Chart
          title={title}
          xLabel={axisWords[axis]}
          lines={lines}
          format={format}
          xFormat={axis === "hours" ? (value) => significant(value, 3) : (value) => compact(value)}
          logY={logY}
          isCount={isCount}
          range={range}
          onRange={(next) =>
            set({ zoom: next === null ? "" : `${axis}:${next[0].toPrecision(6)}:${next[1].toPrecision(6)}` })
          }
          {...(height !== undefined && { height })}
        />
      )}
    </div>
  );
}

function linesOf({ curves }: CurveAnswer, list: ReadonlyMap<string, RunRow>, bands: boolean): ChartLine[] {
  const rows = curves.flatMap(({ run }) => list.get(run) ?? []);
  const looks = armLooks(rows);
  const lookOfRun = (run: string): Look => {
    const row = list.get(run);
    return row === undefined ? { colour: "var(--muted)" } : looks(row);
  };
  const names = lineNames(rows);
  const ofRun = ({ run, x, y }: CurveAnswer["curves"][number]): ChartLine => {
    return { label: names.get(run) ?? run, name: run, ...lookOfRun(run), x, y };
  };
  if (!bands) return curves.map(ofRun);
  const arms = new Map<string, CurveAnswer["curves"][number][]>();
  for (const curve of curves) {
    const row = list.get(curve.run);
    const key = row === undefined ? curve.run : armKey(row);
    arms.set(key, [...(arms.get(key) ?? []), curve]);
  }
  return [...arms.values()].map((members): ChartLine => {
    const [first] = members;
    const label = list.get(first!.run)?.arm ?? first!.run;
    if (members.length === 1) return { label, ...lookOfRun(first!.run), x: first!.x, y: first!.y };
    const band = seedBand(members.map(({ x, y }) => ({ tokens: x, loss: y.map((value) => value ?? NaN) })));
    return {
      label: `${label} (${members.length} seeds)`,
      ...lookOfRun(first!.run),
      x: band.x,
      y: band.mean,
      low: band.low,
      high: band.high,
    };
  });
}
