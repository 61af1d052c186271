/** Logs of a run as a stream of its events, states and alerts. */
import { parseLine, type LogEvent } from "../../files/formats/megatron-log.js";
import { RunMonitor, type Alert, type MonitorOptions, type RunState } from "../logs/monitor.js";
import { followLines, type FollowOptions } from "./follow.js";

/** What is told of a run that is watched. */
export type WatchEvent =
  | { readonly type: "event"; readonly file: string; readonly event: LogEvent }
  | { readonly type: "state"; readonly state: RunState }
  | Alert;

/** Which logs, and what counts as wrong. */
export interface WatchOptions extends FollowOptions, MonitorOptions {
  readonly names: readonly string[];
  /** Gets each alert as JSON by POST. */
  readonly webhook?: string | undefined;
  /** The time in milliseconds, for tests. */
  readonly now?: () => number;
}

/** Watches until the signal is raised, or, with `once`, to the end of what is there. Gives the last state. */
export async function* watchRun(options: WatchOptions): AsyncGenerator<WatchEvent, RunState, undefined> {
  const { names, webhook, now = Date.now } = options;
  const monitor = new RunMonitor(options);
  for await (const followed of followLines(names, options)) {
    const event = followed === null ? null : parseLine(followed.line);
    if (followed !== null && event === null) continue;
    if (followed !== null && event !== null) yield { type: "event", file: followed.file, event };
    const alerts = event === null ? monitor.tick(now()) : monitor.take(event, now());
    for (const alert of alerts) {
      yield alert;
      if (webhook !== undefined) await post(webhook, alert);
    }
    if (event?.type === "iteration" || event?.type === "validation") yield { type: "state", state: monitor.state };
  }
  return monitor.state;
}

/** An alert that cannot be delivered stops nothing; the terminal has it. */
async function post(webhook: string, alert: Alert): Promise<void> {
  const text = `${alert.level}: ${alert.kind}, step ${alert.iteration ?? "?"}: ${alert.message}`;
  await fetch(webhook, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ text, ...alert }),
    signal: AbortSignal.timeout(10_000),
  }).catch(() => undefined);
}
