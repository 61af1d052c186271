/** Experts of a run over time. */
import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { compact, fixed, significant } from "../../base/format.js";
import { answerAddress } from "../data/addresses.js";
import type { CoactivationHistory, ExpertHistory } from "../data/expert-types.js";
import { Chart, type ChartLine } from "./chart.js";
import { lookOf } from "./colours.js";
import { cosineScale, loadScale } from "../../report/page/heat-map.js";
import { deadCount, deadWords, togetherScale } from "./expert-words.js";
import { HeatLegend, HeatMap, LoadMap } from "./heat.js";
import { useAnswer, useSlowly } from "./hooks.js";
import { AsCommand, Choice, Go, Table, Waiting } from "./parts.js";
import { embedded } from "./source.js";
import { labelOf, place, revisionOf, rows, set, setting, treeVersion } from "./state.js";
import { FileView } from "./view-expert-file.js";

/** The view. */
export function ExpertsView(): JSX.Element {
  const { name } = place.value;
  const file = setting("file");
  if (file !== "") return <FileView name={file} />;
  if (name === "") return <Choose />;
  return <History name={name} />;
}

function Choose(): JSX.Element {
  const moes = rows.value
    .filter(({ kind }) => kind === "moe")
    .sort((a, b) => (b.dead ?? 0) - (a.dead ?? 0) || (a.name < b.name ? -1 : 1));
  const { data } = useAnswer<{ expertFiles: readonly { name: string; model: string }[] }>(
    "/api/reports",
    treeVersion.value,
  );
  return (
    <>
      <h1>Experts</h1>
      {moes.length === 0 && <p>No run below this folder has experts.</p>}
      {moes.length > 0 && (
        <Table
          label="Runs with experts"
          isStacked
          head={["Run", "Dead experts", "Experts", "Held-out loss"]}
          rows={moes.map((row) => [
            <Go key="go" view="experts" name={row.name}>
              {labelOf(row.name)}
            </Go>,
            row.dead === null ? "not measured" : String(row.dead),
            row.experts === null ? "–" : String(row.experts),
            row.loss === null ? "–" : fixed(row.loss, 4),
          ])}
          isNumber={(column) => column > 0}
        />
      )}
      {(data?.expertFiles.length ?? 0) > 0 && (
        <>
          <h2>Measured by upcycle experts</h2>
          <ul>
            {data?.expertFiles.map(({ name, model }) => (
              <li key={name}>
                <Go view="experts" settings={{ file: name }}>
                  {name}
                </Go>{" "}
                <span class="muted">of {model}</span>
              </li>
            ))}
          </ul>
        </>
      )}
    </>
  );
}

function History({ name }: { readonly name: string }): JSX.Element {
  const { data, error } = useAnswer<ExpertHistory>(
    answerAddress("/api/experts", [["name", name]]),
    `${name} ${revisionOf(name)}`,
  );
  if (data === null || data.run !== name)
    return (
      <>
        <h1>Experts of {name}</h1>
        <Waiting error={error === null ? null : `${error}: a dense model has no experts`} what="its experts" />
      </>
    );
  return <HistoryOf history={data} />;
}

function HistoryOf({ history }: { readonly history: ExpertHistory }): JSX.Element {
  const { run, steps, tokens, load, dead, group, entropy, similarity, expertSimilarity, violation } = history;
  const last = steps.length - 1;
  const asked = setting("step");
  const moment =
    asked === ""
      ? last
      : Math.max(
          0,
          steps.findLastIndex((step) => step <= Number(asked)),
        );
  const [playing, setPlaying] = useState(false);
  const show = (at: number): void => set({ step: at >= last ? "" : String(steps[at]) });
  useEffect(() => {
    if (!playing) return;
    const timer = setTimeout(() => {
      if (moment >= last) setPlaying(false);
      else show(moment + 1);
    }, 250);
    return () => clearTimeout(timer);
  }, [playing, moment]);
  const shares = load[moment] ?? [];
  const alike = expertSimilarity[moment];
  const deadNow = dead[moment] ?? [];
  const count = deadNow.reduce((sum, some) => sum + some.length, 0);
  const all = shares.reduce((sum, layer) => sum + layer.length, 0);
  const timeLayer = Math.min(Number(setting("layer") || 0), Math.max(0, shares.length - 1));
  const overTime = useMemo(() => transposed(load.map((layers) => layers[timeLayer] ?? [])), [load, timeLayer]);
  return (
    <>
      <h1>Experts of {labelOf(run)}</h1>
      <p class="answer-line">
        <b>{deadCount(count, all)}</b> at step {steps[moment]} ({compact(tokens[moment] ?? 0)} tokens)
        {count > 0 && `: ${deadWords(deadNow.map((experts, layer) => ({ layer, experts })))}`}.
      </p>
      <p class="links">
        <Go view="run" name={run}>
          The run
        </Go>
      </p>
      <div class="controls slider">
        <label>
          <span>Training step</span>
          <input
            type="range"
            min={0}
            max={last}
            value={moment}
            aria-valuetext={`step ${steps[moment]}, ${count} dead experts`}
            onInput={(event) => show(Number(event.currentTarget.value))}
          />
        </label>
        <output>step {steps[moment]}</output>
        <button
          type="button"
          disabled={last === 0}
          onClick={() => {
            if (!playing && moment >= last) show(0);
            setPlaying(!playing);
          }}
        >
          {playing ? "Pause" : "Play"}
        </button>
      </div>
      <HeatLegend scale={loadScale} />
      <LoadMap title={`Load by MoE layer and expert at step ${steps[moment]}`} shares={shares} group={group} />
      {alike !== undefined && (
        <>
          <HeatLegend scale={cosineScale} />
          <HeatMap
            title={`Similarity of each expert to its part of the parent at step ${steps[moment]}`}
            values={alike}
            rowName={(row) => `layer ${row}`}
            columnName={(column) => `expert ${column}`}
            scale={cosineScale}
            format={(value) => fixed(value, 4)}
            {...(group < (shares[0]?.length ?? 0) && { group })}
          />
        </>
      )}
      <Together run={run} step={steps[moment] ?? 0} layer={timeLayer} layers={shares.length} />
      <h2>Over time</h2>
      {shares.length > 1 && <LayerChoice layer={timeLayer} layers={shares.length} />}
      <HeatMap
        title={`Load of MoE layer ${timeLayer} over time`}
        values={overTime}
        rowName={(row) => `expert ${row}`}
        columnName={(column) => `step ${steps[column]}`}
        columnTick={(column) => String(steps[column])}
        scale={loadScale}
        format={(value) => significant(value, 3)}
      />
      <div class="charts">
        <LayerChart title="Router entropy (nats)" steps={steps} values={entropy} format={(value) => fixed(value, 3)} />
        <LayerChart
          title="Busiest expert's load over the mean"
          steps={steps}
          values={violation.map((layers) => layers.map((value) => value + 1))}
          format={(value) => `${fixed(value, 2)}×`}
        />
        <LayerChart
          title="Dead experts"
          steps={steps}
          values={dead.map((layers) => layers.map((some) => some.length))}
          format={(value) => fixed(value, 0)}
          isCount
        />
        <LayerChart
          title="Similarity to the parent (mean cosine)"
          steps={steps}
          values={similarity}
          format={(value) => fixed(value, 4)}
        />
      </div>
      <AsCommand addresses={[answerAddress("/api/experts", [["name", run]])]} />
    </>
  );
}

/** Which experts of a layer serve the same tokens, at the step of the slider. */
function Together(props: {
  readonly run: string;
  readonly step: number;
  readonly layer: number;
  readonly layers: number;
}): JSX.Element | null {
  const { run, step, layer } = props;
  const address = answerAddress("/api/coactivation", [
    ["name", run],
    ["layer", String(layer)],
  ]);
  // What one layer's answer says stays until that of another comes.
  const { data, error } = useAnswer<CoactivationHistory>(address, `${run} ${useSlowly(revisionOf(run), 2000)}`);
  const at =
    data === null
      ? -1
      : Math.max(
          0,
          data.steps.findLastIndex((one) => one <= step),
        );
  const pairs = data?.moments[at];
  const values = useMemo(() => {
    const table = Array.from({ length: data?.experts ?? 0 }, () =>
      new Array<number | null>(data?.experts ?? 0).fill(null),
    );
    for (const { a, b, ratio } of pairs ?? []) table[a]![b] = table[b]![a] = ratio;
    return table;
  }, [data, pairs]);
  // A run whose log has no pairs, such as one with one expert per token, has null in the file.
  if (embedded !== null && error !== null && !Object.hasOwn(embedded.answers, address))
    return (
      <section>
        <p class="muted">
          Experts chosen together in layer {layer} are not in this file, which would be too large with all layers of all
          runs: open the folder with upcycle studio.
        </p>
        <LayerChoice layer={layer} layers={props.layers} />
      </section>
    );
  if (data === null || data.run !== run || pairs === undefined) return null;
  const [top] = [...pairs].sort((a, b) => (b.ratio ?? 0) - (a.ratio ?? 0));
  return (
    <section aria-labelledby="together">
      <h2 id="together">Experts chosen together</h2>
      <p>
        Of two experts: the share of tokens that both are given, over what independent choices of {data.topK} experts of
        these loads would give.
        {top !== undefined &&
          top.ratio !== null &&
          ` Strongest in layer ${data.layer} at step ${data.steps[at]}: ${top.a} and ${top.b}, ` +
            `${significant(top.ratio, 3)} times as often, ${significant(100 * top.share, 3)} % of the tokens.`}
        {!data.complete && ` Only the ${pairs.length} pairs that are taken most often are recorded.`}
      </p>
      {props.layers > 1 && <LayerChoice layer={layer} layers={props.layers} />}
      <HeatLegend scale={togetherScale} />
      <HeatMap
        title={`Experts chosen together, layer ${data.layer}, at step ${data.steps[at]}`}
        values={values}
        rowName={(row) => String(row)}
        columnName={(column) => `expert ${column}`}
        scale={togetherScale}
        format={(value) => significant(value, 3)}
        square
      />
      <AsCommand addresses={[address]} />
    </section>
  );
}

function LayerChoice({ layer, layers }: { readonly layer: number; readonly layers: number }): JSX.Element {
  return (
    <div class="controls">
      <Choice
        label="MoE layer"
        value={String(layer)}
        options={Array.from({ length: layers }, (_, i) => [String(i), `layer ${i}`] as const)}
        onChange={(value) => set({ layer: value })}
      />
    </div>
  );
}

/** Columns as rows. */
function transposed(table: readonly (readonly number[])[]): number[][] {
  return (table[0] ?? []).map((_, i) => table.map((row) => row[i] ?? 0));
}

function LayerChart(props: {
  readonly title: string;
  readonly steps: readonly number[];
  readonly values: readonly (readonly number[])[];
  readonly format: (value: number) => string;
  readonly isCount?: boolean;
}): JSX.Element | null {
  const { steps, values, title, format, isCount = false } = props;
  const layers = values.at(-1)?.length ?? 0;
  const lines = useMemo(
    () =>
      Array.from({ length: layers }, (_, layer): ChartLine => ({
        label: `layer ${layer}`,
        ...lookOf(layer + 2),
        x: steps,
        y: values.map((row) => row[layer] ?? null),
      })),
    [steps, values, layers],
  );
  return layers === 0 ? null : (
    <Chart title={title} xLabel="training step" lines={lines} format={format} isCount={isCount} height={200} />
  );
}
