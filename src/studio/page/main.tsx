/** The page: its frame, its keys, and the view that the address names. */
import { render, type JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { ViewName } from "../data/place.js";
import { Alerts, Go } from "./parts.js";
import { loadPlots } from "./plot-library.js";
import { embedded, isConnected } from "./source.js";
import { alerts, goTo, listen, place, said } from "./state.js";
import { ActionsView } from "./view-actions.js";
import { CompareView } from "./view-compare.js";
import { ExpertsView } from "./view-experts.js";
import { JobsView } from "./view-jobs.js";
import { ModelsView, ModelView } from "./view-models.js";
import { PlaygroundView } from "./view-playground.js";
import { listenForCopying } from "./report-parts.js";
import { EvaluationView, ReportsView, ReportView, StudyView } from "./view-reports.js";
import { RunView } from "./view-run.js";
import { RunsView } from "./view-runs.js";
import { StartView } from "./view-start.js";

const views: Readonly<Record<ViewName, () => JSX.Element>> = {
  "": StartView,
  runs: RunsView,
  run: RunView,
  compare: CompareView,
  experts: ExpertsView,
  models: ModelsView,
  model: ModelView,
  reports: ReportsView,
  report: ReportView,
  study: StudyView,
  evaluation: EvaluationView,
  jobs: JobsView,
  playground: PlaygroundView,
  actions: ActionsView,
};

/** What the bar names, with the key behind `g` that goes there. */
const bar: readonly (readonly [view: ViewName, label: string, key: string, alsoOf: readonly ViewName[]])[] = [
  ["", "Start", "s", []],
  ["runs", "Runs", "r", ["run"]],
  ["compare", "Compare", "c", []],
  ["experts", "Experts", "e", []],
  ["models", "Models", "m", ["model"]],
  ["reports", "Reports", "p", ["report", "study", "evaluation"]],
  ["jobs", "Jobs", "j", []],
  ["playground", "Playground", "y", []],
  ["actions", "Start and stop", "a", []],
];

function Studio(): JSX.Element {
  const { view } = place.value;
  const View = views[view];
  useEffect(() => {
    let isGoing = false;
    const onKey = (event: KeyboardEvent): void => {
      const { target, key } = event;
      const isTyping =
        target instanceof HTMLInputElement ||
        target instanceof HTMLSelectElement ||
        target instanceof HTMLTextAreaElement;
      if (key === "Escape" && isTyping) target.blur();
      if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
      const found = isGoing ? bar.find(([, , letter]) => letter === key) : undefined;
      isGoing = key === "g";
      if (found !== undefined) goTo(found[0]);
      else if (key === "/") {
        document.querySelector<HTMLInputElement>("main input[type=search]")?.focus();
        event.preventDefault();
      } else if (key === "?") document.querySelector<HTMLDetailsElement>("#keys")?.toggleAttribute("open");
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  // A new view begins at its top, and the keyboard with it where what had the focus is gone.
  const isFirst = useRef(true);
  useEffect(() => {
    scrollTo(0, 0);
    if (!isFirst.current && document.activeElement === document.body)
      document.getElementById("content")?.focus({ preventScroll: true });
    isFirst.current = false;
  }, [view, place.value.name]);
  return (
    <>
      <a
        class="skip"
        href="#content"
        onClick={(event) => {
          event.preventDefault();
          document.getElementById("content")?.focus();
        }}
      >
        To the content
      </a>
      <header class="bar">
        <span class="brand">Upcycle studio</span>
        <nav aria-label="Views">
          {bar
            .filter(([name]) => embedded === null || !["actions", "playground"].includes(name))
            .map(([name, label, , also]) => (
              <Go key={name} view={name} current={view === name || also.includes(view)}>
                {label}
              </Go>
            ))}
        </nav>
        <Live />
      </header>
      <main id="content" tabIndex={-1}>
        {alerts.value.length > 0 && view !== "" && (
          <details class="toast" open>
            <summary>{alerts.value.length === 1 ? "1 new alert" : `${alerts.value.length} new alerts`}</summary>
            <Alerts list={alerts.value.slice(0, 5)} />
            <button
              type="button"
              onClick={() => {
                alerts.value = [];
              }}
            >
              Dismiss
            </button>
          </details>
        )}
        <View />
      </main>
      <footer>
        <details id="keys">
          <summary>Keys</summary>
          <p>
            {bar.map(([name, label, key]) => (
              <span key={name}>
                <kbd>g</kbd> <kbd>{key}</kbd> {label}.{" "}
              </span>
            ))}
            <kbd>/</kbd> to the filter. <kbd>?</kbd> these keys. In charts and maps arrow keys read; in charts{" "}
            <kbd>+</kbd> and <kbd>-</kbd> zoom.
          </p>
        </details>
        <p>Nothing on this page leaves this machine.</p>
      </footer>
      <p class="hidden" role="status" aria-live="polite">
        {said.value}
      </p>
    </>
  );
}

function Live(): JSX.Element {
  if (embedded !== null) return <span class="live">as of {embedded.made}</span>;
  return (
    <span class={`live ${isConnected.value ? "on" : "off"}`}>
      {isConnected.value ? "live" : "the studio has ended or cannot be reached"}
    </span>
  );
}

/** Views that show nothing without the list of runs, and for how many milliseconds they are held back for it. */
const listViews: readonly ViewName[] = ["", "runs"];
const heldMs = 250;
/** Milliseconds after which the library of charts is made ready, whatever is shown. */
const plotsMs = 1000;

/** Draws the page: of a view that needs the list once, when that is there, so that it is laid out and painted once. */
function openPage(root: HTMLElement): void {
  const listed = listen();
  let isShown = false;
  const show = (): void => {
    if (isShown) return;
    isShown = true;
    root.replaceChildren();
    render(<Studio />, root);
    // The first chart then waits for nothing.
    setTimeout(() => void loadPlots(), plotsMs);
  };
  if (!listViews.includes(place.value.view)) return show();
  void listed.finally(show);
  setTimeout(show, heldMs);
}

const root = document.getElementById("studio");
if (root !== null) {
  document.documentElement.classList.add("with-script");
  listenForCopying((text) => {
    said.value = text;
  });
  openPage(root);
}
