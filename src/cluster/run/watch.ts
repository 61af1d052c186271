/** Logs of a run as a stream of its events, states and alerts. */
import { parseLine, type LogEvent } from "../../files/formats/megatron-log.js";
import { RunMonitor, type Alert, type MonitorOptions, type RunState } from "../logs/monitor.js";
import type { KeepEvent, RunKeeper } from "./keep.js";
import { followLines, type FollowOptions } from "./follow.js";
import { postAlert } from "./webhook.js";

/** What is told of a run that is watched. */
export type WatchEvent =
  | { readonly type: "event"; readonly file: string; readonly event: LogEvent }
  | { readonly type: "state"; readonly state: RunState }
  | KeepEvent
  | Alert
  /** The webhook did not get an alert; told once. */
  | { readonly type: "undelivered"; readonly message: string };

/** Which logs, and what counts as wrong. */
export interface WatchOptions extends FollowOptions, MonitorOptions {
  readonly names: readonly string[];
  /** Gets each alert as JSON by POST. */
  readonly webhook?: string | undefined;
  /** Starts the run again where it ended too early. */
  readonly keeper?: RunKeeper | undefined;
  /** The time in milliseconds, for tests. */
  readonly now?: () => number;
}

/** Watches until the signal is raised, or, with `once`, to the end of what is there. Gives the last state. */
export async function* watchRun(options: WatchOptions): AsyncGenerator<WatchEvent, RunState, undefined> {
  const { names, webhook, keeper, now = Date.now } = options;
  const monitor = new RunMonitor(options);
  const post = poster(webhook);
  for await (const followed of followLines(names, options)) {
    const event = followed === null ? null : parseLine(followed.line);
    if (followed !== null && event === null) continue;
    if (followed !== null && event !== null) yield { type: "event", file: followed.file, event };
    const alerts = event === null ? monitor.tick(now()) : monitor.take(event, now());
    for (const alert of alerts) {
      yield alert;
      keeper?.heed(alert);
      yield* post(alert.level, alert);
    }
    if (event?.type === "iteration") keeper?.heedStep();
    if (event?.type === "iteration" || event?.type === "validation") yield { type: "state", state: monitor.state };
    if (followed !== null || keeper === undefined) continue;
    const kept = await keeper.look(now());
    if (kept !== null) {
      yield kept;
      if (kept.action === "restarted") monitor.restarted(now());
      yield* post(kept.action, kept);
    }
    if (keeper.isOver) return monitor.state;
  }
  return monitor.state;
}

/** Sends events with their lines of text, where there is a webhook; says once that one was not delivered. */
function poster(
  webhook: string | undefined,
): (level: string, event: Alert | KeepEvent) => AsyncGenerator<WatchEvent, void, undefined> {
  let isTold = false;
  return async function* post(level, event) {
    if (webhook === undefined) return;
    const where = event.type === "alert" ? `${event.kind}, step ${event.iteration ?? "?"}: ` : "";
    const problem = await postAlert(webhook, `${level}: ${where}${event.message}`, event);
    if (problem === null || isTold) return;
    isTold = true;
    yield { type: "undelivered", message: problem };
  };
}
