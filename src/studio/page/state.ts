/** What the views share: where one is, the list of runs, what is chosen, what the server tells. */
import { computed, effect, signal } from "@preact/signals";
import { parsePlace, placeHash, type Place, type ViewName } from "../data/place.js";
import { shortNames } from "../data/names.js";
import type { RunList, RunRow, StudioAlert } from "../data/types.js";
import { ask, embedded, isConnected } from "./source.js";

/** Where one is. The address holds all of it, so that it can be kept and sent, and the back button works. */
export const place = signal<Place>(parsePlace(location.hash));
addEventListener("hashchange", () => {
  place.value = parsePlace(location.hash);
});

/** Goes to a view. */
export function goTo(view: ViewName, name = "", settings: Readonly<Record<string, string>> = {}): void {
  location.hash = placeHash({ view, name, settings });
}

/** Changes settings of the view one is in, without a step of the back button. */
export function set(settings: Readonly<Record<string, string>>): void {
  const now = place.value;
  const next = { ...now, settings: { ...now.settings, ...settings } };
  history.replaceState(null, "", placeHash(next));
  place.value = parsePlace(placeHash(next));
}

/** A setting of the view; "" where it is not given. */
export const setting = (key: string): string => place.value.settings[key] ?? "";

/** All runs by name. */
export const runs = signal<ReadonlyMap<string, RunRow>>(new Map());
/** Whether the list was there once. */
export const isListed = signal(false);
/** Runs whose logs are read for the first time. */
export const unread = signal(0);
/** Counts what happens, so that views ask again. */
export const treeVersion = signal(0);
/** Counts changes of the commands that were started. */
export const actionVersion = signal(0);
/** Counts changes of conversions. */
export const conversionVersion = signal(0);
/** Alerts since the page was opened, the newest first. */
export const alerts = signal<readonly StudioAlert[]>([]);
/** The folder that is shown, as it was named to the command. */
export const folder = document.getElementById("studio")?.dataset["folder"] ?? "runs";
/** Whether the page may start commands; the server says so. */
export const actionsAllowed = signal(false);
/** What a screen reader is told. */
export const said = signal("");

/** The rows as a list. */
export const rows = computed(() => [...runs.value.values()]);

const labels = computed(() => shortNames([...runs.value.keys()]));

/** What a run is called where its whole name is too long to be read. */
export const labelOf = (name: string): string => labels.value.get(name) ?? name;

/** Revision of one run; -1 where it is not listed. */
export const revisionOf = (name: string): number => runs.value.get(name)?.revision ?? -1;

async function fetchRuns(): Promise<void> {
  const { runs: list, unread: left } = await ask<RunList>("/api/runs");
  runs.value = new Map(list.map((row) => [row.name, row]));
  unread.value = left;
  isListed.value = true;
  if (left > 0) setTimeout(() => void fetchRuns().catch(() => undefined), 500);
}

/** Begins to listen. Returns when the list of runs is there, or cannot be had. */
export function listen(): Promise<void> {
  const listed = fetchRuns().catch(() => {
    isConnected.value = false;
  });
  if (embedded === null) listenToEvents();
  return listed;
}

function listenToEvents(): void {
  void ask<{ allowed: boolean }>("/api/actions")
    .then(({ allowed }) => {
      actionsAllowed.value = allowed;
    })
    .catch(() => undefined);
  followWhileSeen();
}

/**
 * Milliseconds after which a page that nobody sees no longer listens: the studio then looks now and then, as without a
 * page, and takes next to nothing from a training.
 */
const unseenMs = 5000;

/** Listens while the page is seen, and goes on behind the last event that it has seen. */
function followWhileSeen(): void {
  let lastSeen = "";
  let events: EventSource | null = null;
  let timer = 0;
  const begin = (): void => {
    clearTimeout(timer);
    events ??= openEvents(lastSeen, (id) => {
      lastSeen = id;
    });
  };
  const end = (): void => {
    events?.close();
    events = null;
  };
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") begin();
    else timer = window.setTimeout(end, unseenMs);
  });
  begin();
}

/** What to do with each event. */
const takers: Readonly<Record<string, (data: never) => void>> = {
  hello: () => undefined,
  rows: (change: { readonly rows: readonly RunRow[]; readonly gone: readonly string[] }) => {
    const next = new Map(runs.value);
    for (const row of change.rows) next.set(row.name, row);
    for (const name of change.gone) next.delete(name);
    runs.value = next;
  },
  alert: (alert: StudioAlert) => {
    // What goes wrong again and again stands once, and is said once.
    const others = alerts.value.filter(({ run, kind }) => run !== alert.run || kind !== alert.kind);
    if (others.length === alerts.value.length) said.value = `${alert.level}: ${alert.run ?? ""} ${alert.message}`;
    alerts.value = [alert, ...others].slice(0, 100);
  },
  // More has happened than is kept.
  reset: () => {
    void fetchRuns().catch(() => undefined);
    for (const version of [treeVersion, conversionVersion, actionVersion]) version.value++;
  },
  tree: () => {
    treeVersion.value++;
  },
  conversions: () => {
    conversionVersion.value++;
  },
  actions: () => {
    actionVersion.value++;
  },
};

function openEvents(lastSeen: string, seen: (id: string) => void): EventSource {
  const events = new EventSource(`/api/events${lastSeen === "" ? "" : `?seen=${lastSeen}`}`);
  events.onopen = () => {
    isConnected.value = true;
  };
  events.onerror = () => {
    isConnected.value = false;
  };
  for (const [name, take] of Object.entries(takers))
    events.addEventListener(name, (event) => {
      const { data, lastEventId } = event as MessageEvent<string>;
      seen(lastEventId);
      take(JSON.parse(data) as never);
    });
  return events;
}

/** The title of the window follows the view. */
effect(() => {
  const { view, name } = place.value;
  document.title = `${[name, view === "" ? "start" : view].filter((part) => part !== "").join(" · ")} · Upcycle studio`;
});
