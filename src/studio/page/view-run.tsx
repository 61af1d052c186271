/** One run: where it is, its curves, what it said, its settings, its checkpoints, the command that goes on with it. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { bytes, compact, duration, fixed, rate } from "../../base/format.js";
import { answerAddress, curvesAddress } from "../data/addresses.js";
import { listSetting } from "../data/place.js";
import { csvOf } from "../../report/page/csv.js";
import type { Metric, RunDetail } from "../data/types.js";
import { ResumeButton } from "./view-actions.js";
import { AxisChoice, chosenAxis, Curves } from "./curves.js";
import { download } from "./download.js";
import { useAnswer, useSlowly } from "./hooks.js";
import { metricWords } from "./metrics.js";
import { Alerts, AsCommand, Command, Facts, Go, Noted, State, Table, Waiting } from "./parts.js";
import { labelOf, place, revisionOf, rows, runs } from "./state.js";
import { Verdict } from "./view-start.js";

/** The view. */
export function RunView(): JSX.Element {
  const { name } = place.value;
  const { data, error } = useAnswer<RunDetail>(
    answerAddress("/api/run", [["name", name]]),
    useSlowly(revisionOf(name), 5000),
  );
  if (data === null || data.row.name !== name) return <Waiting error={error} what={name} />;
  // The row is pushed, so it is newer than the answer.
  const row = runs.value.get(name) ?? data.row;
  const axis = chosenAxis();
  const siblings = rows.value.filter(
    (other) => other.study !== null && other.study === row.study && !other.arm.startsWith("parent "),
  );
  return (
    <>
      <h1 title={name}>{labelOf(name)}</h1>
      <p class="links">
        <State state={row.state} />
        {row.kind === "moe" && (
          <Go view="experts" name={name}>
            Its experts
          </Go>
        )}
        {siblings.length > 1 && (
          <Go view="compare" settings={{ runs: listSetting(siblings.map((other) => other.name)) }}>
            Compare with the other {siblings.length - 1} runs of its study
          </Go>
        )}
      </p>
      {row.problem !== null && <p role="alert">{row.problem}</p>}
      <Facts
        list={[
          ["Step", `${row.step} of ${row.steps}`],
          ["Held-out loss", row.loss === null ? "–" : fixed(row.loss, 4)],
          ["Lowest held-out loss", row.bestLoss === null ? "–" : fixed(row.bestLoss, 4)],
          ["Tokens", compact(row.tokens)],
          ["Speed", row.tokensPerSecond === null ? "–" : rate(row.tokensPerSecond)],
          ["Time left", row.secondsLeft === null ? "–" : duration(row.secondsLeft)],
          [
            data.memory?.when === "now" ? "Memory now" : "Peak memory",
            data.memory === null ? "–" : bytes(data.memory.bytes),
          ],
          ["Parameters", `${compact(row.params)}${row.kind === "moe" ? `, ${compact(row.activeParams)} active` : ""}`],
          ["Seed", String(row.seed)],
        ]}
      />
      {data.messages.length > 0 && (
        <section aria-labelledby="messages">
          <h2 id="messages">Messages</h2>
          <Alerts list={data.messages} withRun={false} />
        </section>
      )}
      <section aria-labelledby="curves">
        <h2 id="curves">Curves</h2>
        <div class="controls">
          <AxisChoice />
        </div>
        <div class="charts">
          {(Object.keys(metricWords) as Metric[])
            .filter((metric) => data.metrics.includes(metric))
            .map((metric) => (
              <Curves key={metric} names={[name]} metric={metric} axis={axis} height={210} />
            ))}
        </div>
        {data.parts.length > 0 && (
          <Table
            label="Held-out loss by part of the data mix"
            head={["Part", "Held-out loss"]}
            rows={data.parts.map(([part, loss]) => [part, fixed(loss, 4)])}
            isNumber={(column) => column === 1}
          />
        )}
      </section>
      {data.preservation !== null && (
        <section aria-labelledby="start">
          <h2 id="start">Did it start as its parent?</h2>
          <p>
            <Verdict model={data} /> {data.preservation.words} Measured on {compact(data.preservation.tokens)} tokens:
            losses {fixed(data.preservation.parentLoss, 4)} and {fixed(data.preservation.childLoss, 4)} nats.
          </p>
        </section>
      )}
      <section aria-labelledby="again">
        <h2 id="again">The command that repeats it{row.state === "stopped" && ", and goes on where it stopped"}</h2>
        {data.command === null ? (
          <p class="muted">
            Not noted: the run was made by an earlier version, or by a program. Its settings below are all that decides
            its numbers.
          </p>
        ) : (
          <Noted command={data.command} />
        )}
        {row.state === "stopped" && data.command !== null && <ResumeButton run={name} isNamed />}
      </section>
      <section aria-labelledby="checkpoints">
        <h2 id="checkpoints">Checkpoints</h2>
        {data.checkpoints.length === 0 ? (
          <p class="muted">None is written yet.</p>
        ) : (
          <Table
            label="Checkpoints"
            isStacked
            head={["Checkpoint", "Size", "Written", "Let it write"]}
            rows={data.checkpoints.map((one) => [
              one.name,
              bytes(one.bytes),
              new Date(one.written).toLocaleString(),
              <Command key="command" words={["upcycle", "generate", `${data.path}/${one.name}`, "--prompt", "The"]} />,
            ])}
            isNumber={(column) => column === 1}
          />
        )}
      </section>
      <Settings settings={data.settings} name={name} />
      <AsCommand
        addresses={[
          answerAddress("/api/run", [["name", name]]),
          ...data.metrics.map((metric) => curvesAddress([name], metric)),
        ]}
      />
    </>
  );
}

function Settings({
  settings,
  name,
}: {
  readonly settings: RunDetail["settings"];
  readonly name: string;
}): JSX.Element {
  const [wanted, setWanted] = useState("");
  const shown = settings.filter(([key, value]) => `${key} ${value}`.toLowerCase().includes(wanted.toLowerCase()));
  return (
    <section aria-labelledby="settings">
      <h2 id="settings">Settings</h2>
      <div class="controls">
        <label class="filter">
          <span>Find a setting</span>
          <input type="search" value={wanted} onInput={(event) => setWanted(event.currentTarget.value)} />
        </label>
        <button
          type="button"
          onClick={() => download(`${name}-settings.csv`, csvOf(["key", "value"], settings), "text/csv")}
        >
          CSV
        </button>
      </div>
      <div class="tall">
        <Table label="Settings" isSaved head={["Key", "Value"]} rows={shown} />
      </div>
    </section>
  );
}
