/** Runs side by side: first the settings in which they differ, then who leads, then the curves. */
import type { JSX } from "preact";
import { compact, fixed, significant } from "../../base/format.js";
import { answerAddress, curvesAddress, viewMetrics } from "../data/addresses.js";
import { armColumns } from "../data/names.js";
import { listOf, listSetting } from "../data/place.js";
import type { CompareAnswer, Metric, Overview, PairRow } from "../data/types.js";
import { AxisChoice, chosenAxis, Curves } from "./curves.js";
import { useAnswer, useSlowly } from "./hooks.js";
import { AsCommand, Choice, Go, Table, Waiting } from "./parts.js";
import { place, revisionOf, set, setting, treeVersion } from "./state.js";
import { ArmBars } from "./view-start.js";

/** Links that compare all runs of a study but its parents. */
function Studies(): JSX.Element | null {
  const { data } = useAnswer<Overview>("/api/overview", treeVersion.value);
  if (data === null) return null;
  const found = data.studies.map(({ name, arms }) => ({ name, runs: arms.flatMap((arm) => arm.runs) }));
  return (
    <ul>
      {found.map(({ name, runs }) => (
        <li key={name}>
          <Go view="compare" settings={{ runs: listSetting(runs.map(({ run }) => run)) }}>
            {name === "" ? "this study" : name}
          </Go>{" "}
          <span class="muted">{runs.length} runs</span>
        </li>
      ))}
    </ul>
  );
}

/** The view. */
export function CompareView(): JSX.Element {
  const names = listOf(place.value.settings["runs"]);
  const address = answerAddress(
    "/api/compare",
    names.map((name) => ["run", name] as const),
  );
  const version = useSlowly(names.map(revisionOf).join(" "), 2000);
  const { data, error } = useAnswer<CompareAnswer>(names.length < 2 ? null : address, version);
  if (names.length < 2)
    return (
      <>
        <h1>Compare</h1>
        <p>
          Choose two runs or more in <Go view="runs">the list of runs</Go>, or take those of a study:
        </p>
        <Studies />
      </>
    );
  const axis = chosenAxis();
  const bands = setting("bands") !== "off";
  // Curves are asked for at once: they need nothing of the comparison.
  return (
    <>
      <h1>Compare {names.length} runs</h1>
      {data === null ? <Waiting error={error} what={`${names.length} runs`} /> : <Comparison answer={data} />}
      <section aria-labelledby="curves">
        <h2 id="curves">Curves</h2>
        <div class="controls">
          <AxisChoice />
          <Choice
            label="seeds"
            value={bands ? "" : "off"}
            options={[
              ["", "as bands around their mean"],
              ["off", "as lines of their own"],
            ]}
            onChange={(value) => set({ bands: value })}
          />
        </div>
        <div class="charts">
          {viewMetrics.map((metric: Metric) => (
            <Curves
              key={metric}
              names={names}
              metric={metric}
              axis={axis}
              bands={bands && metric !== "train/tokens_per_second"}
            />
          ))}
        </div>
      </section>
      <AsCommand addresses={[address, ...viewMetrics.map((metric) => curvesAddress(names, metric))]} />
    </>
  );
}

function Comparison({ answer }: { readonly answer: CompareAnswer }): JSX.Element {
  return (
    <>
      <Differences answer={answer} />
      <section aria-labelledby="lead">
        <h2 id="lead">Which leads, and does that mean anything?</h2>
        <p class="answer-line">{answer.words}</p>
        <ArmBars arms={answer.arms} />
        {answer.tokens !== null && (
          <p class="small muted">
            Held-out loss in nats per token after {compact(answer.tokens)} tokens, the most that all arms have reached.
          </p>
        )}
        {answer.pairs.length > 0 && <Pairs pairs={answer.pairs} />}
      </section>
    </>
  );
}

/** Columns that are shown. */
const mostColumns = 24;

function Differences({ answer }: { readonly answer: CompareAnswer }): JSX.Element {
  const { differences, runs } = answer;
  const columns = armColumns(runs);
  const shown = columns.slice(0, mostColumns);
  // What differs from seed to seed alike in all arms, such as the seed itself, is no difference of theirs.
  const rows = differences
    .map(({ key, values }) => ({
      key,
      cells: columns.map(({ places }) => [...new Set(places.map((i) => values[i]))].join(", ")),
    }))
    .filter(({ cells }) => new Set(cells).size > 1);
  return (
    <section aria-labelledby="differ">
      <h2 id="differ">In what they differ</h2>
      {rows.length === 0 ? (
        <p>In nothing: they are the same run several times, or differ in their seed's place alone.</p>
      ) : (
        <div class="tall">
          <Table
            label="Settings that differ"
            head={["Setting", ...shown.map(({ label }) => label)]}
            rows={rows.map(({ key, cells }) => [<code key="key">{key}</code>, ...cells.slice(0, mostColumns)])}
          />
        </div>
      )}
      {columns.length > mostColumns && (
        <p class="small muted">
          The first {mostColumns} of {columns.length} columns; the command below has all.
        </p>
      )}
    </section>
  );
}

const verdictCells: Readonly<Record<PairRow["verdict"], string>> = {
  unknown: "cannot be said with one seed",
  beyond: "yes",
  chance: "may be chance",
};

function Pairs({ pairs }: { readonly pairs: readonly PairRow[] }): JSX.Element {
  const signed = (value: number): string => `${value < 0 ? "−" : "+"}${fixed(Math.abs(value), 4)}`;
  const probability = (value: number | null): string =>
    value === null ? "–" : value < 1e-4 ? "< 0.0001" : significant(value, 2);
  return (
    <>
      <Table
        label="Paired differences"
        isStacked
        head={[
          "The leading arm less another",
          "Tokens",
          "Seeds",
          "Difference in nats",
          "95 % interval",
          "p",
          "p by Holm",
          "More than chance?",
        ]}
        rows={pairs.map(({ first, second, tokens, n, difference, low, high, p, adjusted, verdict }) => [
          `${first} less ${second}`,
          compact(tokens),
          String(n),
          signed(difference),
          low === null || high === null ? "–" : `${signed(low)} to ${signed(high)}`,
          probability(p),
          probability(adjusted),
          verdictCells[verdict],
        ])}
        isNumber={(column) => column > 0 && column < 7}
      />
      <p class="small muted">
        Losses of each two at the most tokens that all runs of both have reached; Student's t-test over the seeds that
        both arms have. An interval is of its pair alone; p by Holm is corrected for all pairs of arms, since which one
        leads is only known from the losses.
      </p>
    </>
  );
}
