/** The charts and maps of a study: in its report, and in the studio while it runs. */
import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { fixed } from "../../base/format.js";
import { loadScale } from "../../report/page/heat-map.js";
import type { ArmView, ReportData } from "../../report/study/view.js";
import type { ChartLine } from "./chart-draw.js";
import { Chart } from "./chart.js";
import { mixed } from "./download.js";
import { HeatLegend, LoadMap } from "./heat.js";
import { Controls, Toggle, type Islands } from "./report-parts.js";

/** The parts of a study's report that need a script. */
export function studyIslands(data: ReportData): Islands {
  return {
    loss: <Losses data={data} />,
    load: <LoadMaps data={data} />,
    imbalance: <Imbalance data={data} />,
    similarity: <Similarities data={data} />,
  };
}

const dashes: readonly (readonly number[] | undefined)[] = [undefined, [8, 5], [2, 4], [10, 4, 2, 4]];
const loss = (value: number): string => fixed(value, 4);
const colourOf = ({ tone }: ArmView): string => `var(--arm-${tone})`;

/** A second arm of the same colour is dashed, so that colour is never the only difference. */
function dashOf(arm: ArmView, arms: readonly ArmView[]): readonly number[] | undefined {
  const before = arms.slice(0, arms.indexOf(arm)).filter(({ tone }) => tone === arm.tone).length;
  return dashes[before % dashes.length];
}

function padded(low: number, high: number): readonly [number, number] {
  const pad = Math.max((high - low) * 0.07, 1e-3);
  return [low - pad, high + pad];
}

/**
 * Close up: the arms that began at the parent. An arm from scratch joins only where it ends near enough not to flatten
 * them.
 */
function closeUp({ arms, parent }: ReportData): readonly [number, number] | undefined {
  const near = arms.filter(({ kind, curve }) => kind !== "scratch" && curve.mean.length > 0);
  if (near.length === 0) return undefined;
  const known = parent.loss === null ? [] : [parent.loss];
  let low = Math.min(...known, ...near.flatMap(({ curve }) => curve.low));
  let high = Math.max(...known, ...near.flatMap(({ curve }) => curve.high));
  const reach = high - low;
  for (const { curve } of arms) {
    const end = curve.mean.at(-1);
    if (end === undefined || end < low - reach || end > high + reach) continue;
    low = Math.min(low, curve.low.at(-1)!);
    high = Math.max(high, curve.high.at(-1)! + 0.1 * reach);
  }
  return padded(low, high);
}

type Axis = "tokens" | "flops";
const axisWords: Readonly<Record<Axis, string>> = { tokens: "training tokens", flops: "training FLOP" };

/** The lines of all arms; with the parent's training in front of what began as the parent, where that is asked for. */
function lossLines({ arms, parent }: ReportData, axis: Axis, isWithParent: boolean): ChartLine[] {
  const before = isWithParent ? (parent[axis].at(-1) ?? 0) : 0;
  const lines = arms.flatMap((arm): ChartLine[] => {
    const { label, kind, curve } = arm;
    if (curve.mean.length === 0) return [];
    const x = curve[axis].map((value) => value + (kind === "scratch" ? 0 : before));
    return [
      { label, colour: colourOf(arm), dash: dashOf(arm, arms), x, y: curve.mean, low: curve.low, high: curve.high },
    ];
  });
  const underWay = arms.flatMap((arm) =>
    (arm.underWay ?? []).map(({ seed, tokens, flops, losses }): ChartLine => {
      const x = (axis === "tokens" ? tokens : flops).map((value) => value + (arm.kind === "scratch" ? 0 : before));
      return { label: `${arm.label}, seed ${seed}, under way`, colour: colourOf(arm), dash: [1, 3], x, y: losses };
    }),
  );
  const own: ChartLine = { label: "Parent", colour: "var(--muted)", dash: [3, 3], x: parent[axis], y: parent.losses };
  return [...(isWithParent ? [own] : []), ...lines, ...underWay];
}

function Losses({ data }: { readonly data: ReportData }): JSX.Element {
  const [scale, setScale] = useState<"linear" | "log">("linear");
  const [reach, setReach] = useState<"close" | "all">("close");
  const [isWithParent, setWithParent] = useState(false);
  const hasParent = data.parent.tokens.length > 0;
  const range = reach === "all" ? undefined : closeUp(data);
  const above = data.arms.filter(
    ({ curve: { mean } }) => range !== undefined && mean.length > 0 && Math.min(...mean) > range[1],
  );
  const level = data.parent.loss === null ? undefined : { value: data.parent.loss, label: "parent" };
  return (
    <>
      <Controls>
        <Toggle
          name="x-scale"
          label="Horizontal axis"
          value={scale}
          options={[
            ["linear", "linear"],
            ["log", "log"],
          ]}
          onChange={setScale}
        />
        <Toggle
          name="y-range"
          label="Vertical axis"
          value={reach}
          options={[
            ["close", "close up"],
            ["all", "everything"],
          ]}
          onChange={setReach}
        />
        {hasParent && (
          <label>
            <input
              type="checkbox"
              checked={isWithParent}
              onChange={(event) => setWithParent(event.currentTarget.checked)}
            />{" "}
            count the parent's training
          </label>
        )}
      </Controls>
      <div class="charts">
        {(["tokens", "flops"] as const).map((axis) => (
          <LossChart
            key={axis}
            {...{ data, axis, isWithParent, level }}
            isLog={scale === "log"}
            {...(range !== undefined && { range })}
          />
        ))}
      </div>
      {above.length > 0 && (
        <p class="note">
          {above
            .map(({ label, curve }) => `${label} ends at ${loss(curve.mean.at(-1)!)}, above this close-up.`)
            .join(" ")}
        </p>
      )}
    </>
  );
}

function LossChart(props: {
  readonly data: ReportData;
  readonly axis: Axis;
  readonly isWithParent: boolean;
  readonly isLog: boolean;
  readonly range?: readonly [number, number];
  readonly level: { readonly value: number; readonly label: string } | undefined;
}): JSX.Element {
  const { data, axis, isWithParent, isLog, range, level } = props;
  const lines = useMemo(() => lossLines(data, axis, isWithParent), [data, axis, isWithParent]);
  return (
    <Chart
      title={`Held-out loss against ${axis === "tokens" ? "tokens" : "FLOPs"}`}
      xLabel={`${axisWords[axis]}${isWithParent ? ", the parent's counted" : " after the parent"}`}
      lines={lines}
      format={loss}
      plainTicks
      xLog={isLog}
      level={level}
      height={300}
      {...(range !== undefined && { yRange: range })}
    />
  );
}

function Imbalance({ data: { arms } }: { readonly data: ReportData }): JSX.Element | null {
  const shown = arms.filter(({ imbalance }) => imbalance !== null);
  const top = Math.max(1.1, ...shown.flatMap(({ imbalance }) => imbalance!.high));
  const lines = useMemo(
    () =>
      shown.map((arm): ChartLine => {
        const { steps, mean, low, high } = arm.imbalance!;
        return { label: arm.label, colour: colourOf(arm), dash: dashOf(arm, arms), x: steps, y: mean, low, high };
      }),
    [arms],
  );
  if (shown.length === 0) return null;
  return (
    <div class="charts">
      <Chart
        title="Busiest expert as a multiple of an equal share"
        xLabel="training step"
        lines={lines}
        format={(value) => `${fixed(value, 2)}×`}
        yRange={[1 - 0.14 * (top - 1), top + 0.05 * (top - 1)]}
        level={{ value: 1, label: "perfect balance", below: true }}
      />
    </div>
  );
}

function Similarities({ data: { arms } }: { readonly data: ReportData }): JSX.Element {
  const lowest = Math.min(0.99, ...arms.flatMap(({ similarity }) => similarity?.layers.flat() ?? []));
  return (
    <div class="charts">
      {arms.map((arm) => arm.similarity !== null && <Similarity key={arm.id} arm={arm} lowest={lowest} />)}
    </div>
  );
}

/** First layers lean towards the page, last ones towards the ink: an order that the eye can follow. */
function Similarity({ arm, lowest }: { readonly arm: ArmView; readonly lowest: number }): JSX.Element {
  const { steps, layers } = arm.similarity!;
  const lines = useMemo(
    () =>
      layers.map((y, layer): ChartLine => {
        const part = layers.length < 2 ? 0.5 : layer / (layers.length - 1);
        const other = part < 0.5 ? "var(--page)" : "var(--ink)";
        const colour = mixed(colourOf(arm), other, 1 - Math.abs(part - 0.5));
        return { label: `layer ${layer}`, colour, x: steps, y };
      }),
    [arm],
  );
  return (
    <Chart
      title={`${arm.label}: cosine of experts and the parent's FFN`}
      xLabel="training step"
      lines={lines}
      format={loss}
      yRange={padded(lowest, 1)}
      height={220}
    />
  );
}

function LoadMaps({ data: { arms } }: { readonly data: ReportData }): JSX.Element {
  return (
    <>
      <HeatLegend scale={loadScale} />
      <div class="maps">{arms.map((arm) => arm.load !== null && <ArmLoad key={arm.id} arm={arm} />)}</div>
    </>
  );
}

/** The load of one arm's experts, at every measurement of every seed. */
function ArmLoad({ arm }: { readonly arm: ArmView }): JSX.Element | null {
  const { group, runs } = arm.load!;
  const [seed, setSeed] = useState(0);
  const [asked, setAsked] = useState<number | null>(null);
  const run = runs[Math.min(seed, runs.length - 1)]!;
  const last = run.steps.length - 1;
  const at = Math.min(asked ?? last, last);
  const shares = useMemo(() => run.shares[at]!.map((layer) => layer.map((share) => share / 100)), [run, at]);
  const experts = shares[0]?.length ?? 0;
  const step = run.steps[at];
  return (
    <div class="map">
      <p class="map-title">
        <i class={`swatch tone-${arm.tone}`} />
        <b>{arm.label}</b>{" "}
        <span class="muted">
          {experts} experts in each of {shares.length} MoE layers
        </span>
      </p>
      <div class="controls slider">
        {runs.length > 1 && (
          <select aria-label="Seed" value={seed} onChange={(event) => setSeed(Number(event.currentTarget.value))}>
            {runs.map((one, i) => (
              <option key={one.seed} value={i}>
                seed {one.seed}
              </option>
            ))}
          </select>
        )}
        <label>
          <span class="hidden">Training step</span>
          <input
            type="range"
            min={0}
            max={last}
            value={at}
            aria-valuetext={`step ${step}`}
            onInput={(event) => {
              const wanted = Number(event.currentTarget.value);
              setAsked(wanted === last ? null : wanted);
            }}
          />
        </label>
        <output>step {step}</output>
      </div>
      <LoadMap title={`Load of ${arm.label}, seed ${run.seed}, step ${step}`} shares={shares} group={group} />
    </div>
  );
}
