/** The start page: what a reader wants to know first, each with its evidence and where to see more. */
import type { JSX } from "preact";
import { bytes, compact, duration, fixed, significant } from "../../base/format.js";
import type { ModelRow } from "../data/model-types.js";
import type { ArmRow, Overview, StudyRow } from "../data/types.js";
import { listSetting } from "../data/place.js";
import { shortNames } from "../data/names.js";
import { modelGroups } from "../data/model-groups.js";
import { expertWords } from "./expert-words.js";
import { useAnswer, useSlowly } from "./hooks.js";
import { Alerts, AsCommand, Go, Noted, State, Waiting } from "./parts.js";
import { isListed, labelOf, rows, treeVersion } from "./state.js";
import { ResumeButton } from "./view-actions.js";
import { Conversions } from "./view-conversions.js";

/** The view. The list is on its way already; what is asked for before it is there would be asked for again. */
export function StartView(): JSX.Element {
  return isListed.value ? <Answers /> : <Waiting error={null} what="the folder" />;
}

function Answers(): JSX.Element {
  // Every change of a run may change what leads.
  const version = `${treeVersion.value} ${rows.value.reduce((sum, { revision }) => sum + revision + 1, 0)}`;
  const { data, error } = useAnswer<Overview>("/api/overview", useSlowly(version, 2000));
  if (data === null) return <Waiting error={error} what="the folder" />;
  const { folder, runs, running, disk, unread } = data;
  return (
    <>
      <h1>What is in {folder}</h1>
      <p class="muted">
        {runs === 0 ? "No run yet" : `${runs} runs, ${running} running`}
        {unread > 0 && `, ${unread} logs being read`}
        {disk !== null && `; ${bytes(disk.free)} free of ${bytes(disk.total)}`}
      </p>
      {runs === 0 &&
        data.models.length === 0 &&
        data.jobs === 0 &&
        data.reports.length === 0 &&
        data.conversions.length === 0 && <Empty />}
      {data.alerts.length > 0 && (
        <section aria-labelledby="wrong">
          <h2 id="wrong">What went wrong</h2>
          <Alerts list={data.alerts} />
        </section>
      )}
      <Conversions />
      {data.studies.length > 0 && (
        <section aria-labelledby="leads">
          <h2 id="leads">Which arm leads, and does that mean anything?</h2>
          {data.studies.map((study) => (
            <Study key={study.name} study={study} />
          ))}
        </section>
      )}
      {data.models.length > 0 && <Models models={data.models} />}
      <Experts overview={data} />
      {runs > 0 && <Recent />}
      <AsCommand addresses={["/api/overview"]} />
    </>
  );
}

function Empty(): JSX.Element {
  return (
    <section>
      <p>
        It shows what <code>upcycle train</code>, <code>upcycle study</code>, <code>upcycle convert</code> and{" "}
        <code>upcycle launch</code> write below this folder, while they write it. Start one, for example{" "}
        <code>upcycle quickstart</code>, and it appears here.
      </p>
    </section>
  );
}

function Study({ study }: { readonly study: StudyRow }): JSX.Element {
  const { name, arms, words, tokens, report, command, running, finished, runs } = study;
  const [lead, ...rest] = words.split(/(?<=:) /);
  const names = arms.flatMap((arm) => arm.runs.map(({ run }) => run));
  return (
    <article class="card">
      <h3>{name === "" ? "This study" : name}</h3>
      <p class="answer-line">
        <b>{lead}</b> {rest.join(" ")}
      </p>
      <ArmBars arms={arms} />
      <p class="small muted">
        Held-out loss in nats per token{tokens !== null && ` after ${compact(tokens)} tokens`}, lower is better: the
        mark is the mean of the seeds, the bar goes from the lowest to the highest seed. {finished} of {runs} runs
        finished{running > 0 && `, ${running} running`}.
      </p>
      <p class="links">
        <Go view="compare" settings={{ runs: listSetting(names) }}>
          Compare the curves and settings
        </Go>
        <Go view="study" name={name}>
          {report === null ? "Read what it has found so far" : "Read its report"}
        </Go>
      </p>
      {command !== null && (
        <>
          <h4>The command that repeats it, and goes on where it was stopped</h4>
          <Noted command={command} />
          {running === 0 && finished < runs && <ResumeButton run={name} isNamed />}
        </>
      )}
    </article>
  );
}

/** Losses of arms as bars on one scale. */
export function ArmBars({ arms }: { readonly arms: readonly ArmRow[] }): JSX.Element {
  const ends = arms.flatMap(({ low, high }) => (low === null || high === null ? [] : [low, high]));
  // Close up around the leading arms: one from scratch that is far behind stands at the edge, marked.
  const lowest = Math.min(...ends);
  const sorted = arms.flatMap(({ high }) => (high === null ? [] : [high])).sort((a, b) => a - b);
  const middle = sorted[Math.floor(sorted.length / 2)] ?? lowest;
  const reach = Math.max(3 * (middle - lowest), 0.02 * Math.abs(lowest), 1e-9);
  const place = (loss: number): number => Math.min(100, Math.max(0, (100 * (loss - lowest)) / reach));
  return (
    <ul class="bars">
      {arms.map(({ name, mean, low, high, runs }) => (
        <li key={name}>
          <span class="bar-name">{name}</span>
          <span class="bar" aria-hidden="true">
            {mean !== null && low !== null && high !== null && (
              <>
                <i
                  class="range"
                  style={{ left: `${place(low)}%`, width: `${Math.max(0.6, place(high) - place(low))}%` }}
                />
                <i class="dot" style={{ left: `${place(mean)}%` }} />
              </>
            )}
          </span>
          <span class="bar-value">
            {mean === null ? "not yet" : fixed(mean, 4)}
            <span class="muted">
              {" "}
              {runs.length === 1 ? "1 seed" : `${runs.length} seeds`}
              {mean !== null && mean - lowest > reach ? ", off the scale" : ""}
            </span>
          </span>
        </li>
      ))}
    </ul>
  );
}

const verdicts: Readonly<Record<string, string>> = {
  identical: "equal to the last bit",
  same: "equal up to rounding",
  rounded: "equal up to 16-bit weights",
  different: "different",
  damaged: "damaged",
};

/** The verdict on a model, as a word with a mark. */
export function Verdict({ model }: { readonly model: Pick<ModelRow, "preservation"> }): JSX.Element {
  const { preservation } = model;
  if (preservation === null) return <span class="verdict none">not measured</span>;
  return (
    <span class={`verdict ${preservation.verdict}`}>{verdicts[preservation.verdict] ?? preservation.verdict}</span>
  );
}

/** Groups of models that are shown. */
const mostGroups = 6;

function Models({ models }: { readonly models: readonly ModelRow[] }): JSX.Element {
  const labels = shortNames(models.map(({ name }) => name));
  const groups = modelGroups(models);
  return (
    <section aria-labelledby="equal">
      <h2 id="equal">Does the upcycled model equal its parent, and why is that believed?</h2>
      {groups.slice(0, mostGroups).map(([model, ...others]) => (
        <article class="card" key={model.name}>
          <h3>
            <Go view="model" name={model.name}>
              {labels.get(model.name)}
            </Go>{" "}
            <Verdict model={model} />
          </h3>
          <p>{beliefOf(model)}</p>
          {others.length > 0 && (
            <p class="small muted">
              The same holds for{" "}
              {others.map(({ name }, i) => (
                <span key={name}>
                  {i > 0 && ", "}
                  <Go view="model" name={name}>
                    {labels.get(name)}
                  </Go>
                </span>
              ))}
              ; the numbers are of the one that differs most.
            </p>
          )}
        </article>
      ))}
      {groups.length > mostGroups && (
        <p>
          <Go view="models">All {models.length} models</Go>
        </p>
      )}
    </section>
  );
}

/** Why a model is believed to equal its parent, in a sentence or two. */
export function beliefOf({ recipe, parent, preservation, expected }: ModelRow): string {
  const promise =
    expected === "exact"
      ? "the recipe keeps the function exactly"
      : expected === "constant-router"
        ? "the recipe keeps the function for a constant router"
        : "the recipe keeps the function approximately";
  const made = `${recipe} of ${parent}: ${promise}`;
  if (preservation === null) return `${made}; nothing was measured (upcycle verify measures it).`;
  const { tokens, parentLoss, childLoss, relative, klDivergence, words } = preservation;
  const divergence = klDivergence === null ? "" : `, KL divergence ${significant(klDivergence)} nats`;
  return (
    `${words} ${made}, and it was measured: on ${compact(tokens)} tokens both were run, and their losses are ` +
    `${fixed(parentLoss, 4)} and ${fixed(childLoss, 4)} nats; no logit differs by more than ` +
    `${significant(relative)} of the largest${divergence}.`
  );
}

function Experts({ overview }: { readonly overview: Overview }): JSX.Element | null {
  const { dead, alive, expertFiles } = overview;
  if (dead.length === 0 && alive === 0 && expertFiles.length === 0) return null;
  return (
    <section aria-labelledby="dead">
      <h2 id="dead">Which experts are dead?</h2>
      <p class="muted">
        Dead means less than a hundredth of an equal share of the tokens, at the last measurement on held-out text.
      </p>
      {dead.length === 0 && alive > 0 && <p>None: in {alive} runs with experts every expert gets tokens.</p>}
      <ul class="dead">
        {dead.map(({ run, dead: count, experts, where }) => (
          <li key={run}>
            <Go view="experts" name={run}>
              {labelOf(run)}
            </Go>
            : {count} of {experts} dead{" "}
            <span class="muted">
              (
              {where
                .map(
                  ({ layer, experts: some }) =>
                    `MoE layer ${layer}: ${expertWords(some.slice(0, 12))}${some.length > 12 ? " …" : ""}`,
                )
                .join("; ")}
              )
            </span>
          </li>
        ))}
      </ul>
      {dead.length > 0 && alive > 0 && <p>In {alive} other runs with experts none is dead.</p>}
      {expertFiles.length > 0 && (
        <p>
          Measured by upcycle experts:{" "}
          {expertFiles.map(({ name }, i) => (
            <span key={name}>
              {i > 0 && ", "}
              <Go view="experts" settings={{ file: name }}>
                {name}
              </Go>
            </span>
          ))}
        </p>
      )}
    </section>
  );
}

function Recent(): JSX.Element {
  const recent = [...rows.value]
    .sort((a, b) => Number(b.state === "running") - Number(a.state === "running") || b.changed - a.changed)
    .slice(0, 8);
  return (
    <section aria-labelledby="recent">
      <h2 id="recent">Newest runs</h2>
      <p class="muted">Each has its curves, settings, checkpoints, and the command that repeats it.</p>
      <ul class="recent">
        {recent.map((row) => (
          <li key={row.name}>
            <Go view="run" name={row.name}>
              {labelOf(row.name)}
            </Go>{" "}
            <State state={row.state} />{" "}
            <span class="muted">
              step {row.step} of {row.steps}
              {row.loss !== null && `, held-out loss ${fixed(row.loss, 4)}`}
              {row.secondsLeft !== null && `, ${duration(row.secondsLeft)} left`}
            </span>
          </li>
        ))}
      </ul>
      <p>
        <Go view="runs">All runs</Go>
      </p>
    </section>
  );
}
