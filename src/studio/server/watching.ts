/** How a server looks for what is new, and tells it to pages and to a webhook. */
import type { EventHub } from "./events.js";
import type { Studio, StudioChange } from "./studio.js";
import { Webhook } from "./webhook.js";

/** Milliseconds between two looks while nobody listens, and between two signs of life. */
const idleMs = 5000;
const beatMs = 15_000;
/** Changed rows beyond which pages ask for the whole list. */
const mostRows = 100;

/** What looking takes. */
export interface WatchOptions {
  readonly studio: Studio;
  readonly webhook?: string | undefined;
  /** Called with what every look has found. */
  readonly onChange?: ((change: StudioChange) => void) | undefined;
  /** Called once with the line that says why the webhook did not get an alert. */
  readonly onUndelivered?: ((message: string) => void) | undefined;
}

/** Looks take at most one part in so many of the time, but runs under way are looked at no further apart than this. */
const lookShare = 20;
const rarestMs = 600;
/** Milliseconds between two looks at the least. */
const oftenestMs = 50;

/** Looks of a server, under way. */
export interface Watching {
  /** Looks at once, however long nobody has listened. */
  wake(): void;
  stop(): void;
  readonly ended: Promise<void>;
}

/** Looks again and again: often while pages listen, now and then for alerts; at the whole folder beside it. */
export function watch({ studio, webhook, onChange, onUndelivered }: WatchOptions, hub: EventHub): Watching {
  const wakers = new Set<() => void>();
  let isOver = false;
  const hook = webhook === undefined ? null : new Webhook(webhook, onUndelivered);
  const wait = (ms: number): Promise<void> =>
    new Promise((done) => {
      const end = (): void => {
        clearTimeout(timer);
        wakers.delete(end);
        done();
      };
      const timer = setTimeout(end, ms);
      wakers.add(end);
    });
  // What was wrong before the studio began is shown, not sent.
  let isBegun = false;
  const again = async (look: () => Promise<StudioChange>, dueInMs: () => number): Promise<void> => {
    while (!isOver) {
      const started = performance.now();
      const change = await look().catch(() => null);
      if (change !== null) {
        tell(change, hub);
        onChange?.(change);
        if (isBegun) for (const alert of change.alerts) hook?.send(alert);
      }
      isBegun ||= change?.tree === true;
      const share = Math.min(rarestMs, lookShare * (performance.now() - started));
      // Whoever wakes up to find that nothing is due takes as much from a training as whoever looks.
      if (!isOver) await wait(Math.max(hub.listeners > 0 ? dueInMs() : idleMs, share, oftenestMs));
    }
  };
  const beating = setInterval(() => hub.beat(), beatMs);
  const ended = Promise.all([
    again(
      () => studio.lookAround(),
      () => studio.index.treeInMs,
    ),
    again(
      () => studio.lookAtLive(),
      () => studio.index.liveInMs,
    ),
  ]).then(() => clearInterval(beating));
  const wake = (): void => {
    for (const one of [...wakers]) one();
  };
  return {
    ended,
    wake,
    stop: () => {
      isOver = true;
      wake();
    },
  };
}

function tell({ rows, gone, alerts, lists, conversions }: StudioChange, hub: EventHub): void {
  if (rows.length > mostRows) hub.send("reset", {});
  else if (rows.length > 0 || gone.length > 0) hub.send("rows", { rows, gone });
  for (const alert of alerts.slice(0, mostRows)) hub.send("alert", alert);
  if (lists || gone.length > 0) hub.send("tree", {});
  if (conversions) hub.send("conversions", {});
}
