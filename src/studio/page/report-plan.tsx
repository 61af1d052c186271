/** The sliders of a plan and its chart: what they say is computed again, here or by the server. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { fixed } from "../../base/format.js";
import type { Changes } from "../../report/plan/plan-command.js";
import type { Control, Rendered } from "../../report/plan/plan-live.js";
import type { PlanData, PlanRender } from "../../report/plan/plan-page.js";
import type { PlanChart } from "../../report/plan/plan-view.js";
import type { ChartLine } from "./chart-draw.js";
import { Chart } from "./chart.js";
import { mount, type Islands } from "./report-parts.js";

/** Where the report of a plan stands, and how it is computed. */
export interface PlanPlace {
  readonly root: HTMLElement;
  readonly render: PlanRender;
  /** The sliders that were moved before, by the page's address. */
  readonly changes: Changes;
  /** Called with what the address is to hold. */
  readonly onChanges: (changes: Changes) => void;
}

/** The parts of a plan's report that need a script. */
export function planIslands(data: PlanData, place: PlanPlace): Islands {
  return {
    sliders: <Sliders data={data} place={place} />,
    "plan-loss": data.chart === null ? null : <LossByLaws chart={data.chart} />,
  };
}

/** Changes out of pairs of an address: keys and values that no slider has are left alone. */
export function changesOf(controls: readonly Control[], pairs: Iterable<readonly [string, string]>): Changes {
  const found = [...pairs].flatMap(([key, text]) => {
    const control = controls.find((one) => one.key === key);
    const value = Number(text);
    return control === undefined || !(value > 0) || !Number.isFinite(value) ? [] : [[control.key, value] as const];
  });
  return Object.fromEntries(found);
}

/** The loss against further tokens, by the laws. */
function LossByLaws({ chart }: { readonly chart: PlanChart }): JSX.Element {
  const lines = useMemo(
    () =>
      chart.lines.map(({ label, tone, values, low, high }): ChartLine => {
        const band = low === null || high === null ? {} : { low, high };
        return { label, colour: `var(--arm-${tone})`, x: chart.x, y: values, ...band };
      }),
    [chart],
  );
  return (
    <Chart
      title="Loss by the laws"
      xLabel="further tokens, D2"
      lines={lines}
      format={(value) => fixed(value, 4)}
      plainTicks
      xLog
      height={330}
      yRange={[chart.low, chart.high]}
      level={{ value: chart.parent, label: "the dense model as it is" }}
      names
      fitted={chart.fitted}
      verticals={chart.verticals}
      dots={chart.dots.map(({ x, y, label, tone }) => ({ x, y, label, colour: `var(--arm-${tone})` }))}
    />
  );
}

const startOf = ({ base, start }: Control): number => base ** start;
const logOf = (value: number, { base }: Control): number => Math.log(value) / Math.log(base);

function Sliders({ data, place }: { readonly data: PlanData; readonly place: PlanPlace }): JSX.Element {
  const { controls } = data;
  const [changes, setChanges] = useState<Changes>(place.changes);
  const [shown, setShown] = useState<Rendered | null>(null);
  const asked = useRef(0);
  const text = JSON.stringify(changes);
  useEffect(() => {
    if (shown === null && text === "{}") return;
    const own = ++asked.current;
    // What is typed or dragged comes faster than it is computed; a page that is not shown gets no animation frames.
    const timer = setTimeout(() => {
      void Promise.resolve(place.render(changes)).then((result) => {
        if (own === asked.current) setShown(result);
      });
    }, 16);
    return () => clearTimeout(timer);
  }, [text, data]);
  // With the command, so that nobody sees the answer of other settings beside it.
  useLayoutEffect(() => {
    if (shown !== null) fill(place.root, shown);
  }, [shown]);
  // Sliders may be moved faster than the page is drawn: what one has changed holds for the next.
  const latest = useRef(changes);
  const change = (next: Changes): void => {
    latest.current = next;
    setChanges(next);
    place.onChanges(next);
  };
  const values = shown?.values ?? data.values;
  return (
    <>
      <div class="sliders" id="sliders-panel">
        {controls.map((control) => {
          const value = changes[control.key];
          return (
            <label key={control.key}>
              {control.label} <output data-for={control.key}>{values[control.key]}</output>
              <input
                type="range"
                data-key={control.key}
                aria-label={control.label}
                aria-valuetext={values[control.key]}
                min={rounded(Math.min(control.min, control.start))}
                max={rounded(Math.max(control.max, control.start))}
                step={control.base === 2 ? control.step : "any"}
                value={rounded(logOf(value ?? startOf(control), control))}
                onInput={(event) => {
                  const found = control.base ** Number(event.currentTarget.value);
                  const next = control.base === 2 ? Math.round(found) : Number(found.toPrecision(3));
                  change({ ...latest.current, [control.key]: next });
                }}
              />
            </label>
          );
        })}
      </div>
      <p id="problem" role="status">
        {shown !== null && !shown.ok && shown.error}
      </p>
      <div class="commands" id="again">
        <button type="button" data-copy="again-command">
          Copy
        </button>
        <pre tabIndex={0} aria-label="The command for these settings">
          <code id="again-command">{shown?.command ?? data.command}</code>
        </pre>
      </div>
      <p class="note small">The command plans for what the sliders say; the address of this page keeps them too.</p>
      <button type="button" id="reset" onClick={() => change({})}>
        Back to the plan
      </button>
    </>
  );
}

const rounded = (value: number): number => Number(value.toFixed(4));

/** Puts what was computed into the report. */
function fill(root: HTMLElement, shown: Rendered): void {
  root.classList.toggle("stale", !shown.ok);
  if (!shown.ok) return;
  for (const place of root.querySelectorAll<HTMLElement>("[data-live]"))
    place.innerHTML = shown.sections[place.dataset["live"] ?? ""] ?? "";
  if (shown.chart !== null) mount(root, { "plan-loss": <LossByLaws chart={shown.chart} /> });
}
