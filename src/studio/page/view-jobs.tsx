/** Trainings that were launched elsewhere: where they are, by their logs. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { duration, fixed, rate } from "../../base/format.js";
import type { JobRow } from "../data/types.js";
import { useAnswer } from "./hooks.js";
import { Alerts, AsCommand, Command, Facts, Waiting } from "./parts.js";
import { embedded } from "./source.js";
import { folder } from "./state.js";

const everyMs = 3000;

/** The view. */
export function JobsView(): JSX.Element {
  const [version, setVersion] = useState(0);
  useEffect(() => {
    if (embedded !== null) return;
    // A page that nobody sees asks for nothing.
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") setVersion((old) => old + 1);
    }, everyMs);
    return () => clearInterval(timer);
  }, []);
  const { data, error } = useAnswer<{ jobs: readonly JobRow[] }>("/api/jobs", version);
  if (data === null) return <Waiting error={error} what="jobs" />;
  return (
    <>
      <h1>Jobs</h1>
      {data.jobs.length === 0 && (
        <p>
          None below this folder. <code>upcycle launch</code> starts trainings with Megatron-LM here, on Slurm and on
          Kubernetes.
        </p>
      )}
      {data.jobs.map((job) => (
        <Job key={job.name} job={job} />
      ))}
      <AsCommand addresses={["/api/jobs"]} />
    </>
  );
}

const places: Readonly<Record<JobRow["where"], string>> = {
  local: "torchrun on this machine",
  slurm: "Slurm",
  kubernetes: "Kubernetes",
  unknown: "unknown",
};

function Job({ job }: { readonly job: JobRow }): JSX.Element {
  const { name, where, ids, iteration, of, loss, tokensPerSecond, secondsLeft, restarts, ended, alerts } = job;
  return (
    <article class="card">
      <h2>{name === "" ? "This folder" : name}</h2>
      <Facts
        list={[
          ["Where", `${places[where]}${ids.length === 0 ? "" : `: ${ids.join(", ")}`}`],
          ["Step", `${iteration}${of === null ? "" : ` of ${of}`}`],
          ["Loss", loss === null ? "–" : fixed(loss, 4)],
          ["Speed", tokensPerSecond === null ? "–" : rate(tokensPerSecond)],
          ["Time left", secondsLeft === null || ended !== null ? "–" : duration(secondsLeft)],
          ["Restarts", String(restarts)],
          ["Ended", ended ?? "no"],
        ]}
      />
      {alerts.length > 0 && <Alerts list={alerts} withRun={false} />}
      <Command words={["upcycle", "watch", `${folder}/${name === "" ? "" : `${name}/`}logs`]} />
    </article>
  );
}
