/** Reports: of studies while they run; of plans, laws, evaluations and experts as other commands have written them. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { bytes } from "../../base/format.js";
import type { ExpertsData } from "../../report/experts/experts-page.js";
import type { Chart as LawChart } from "../../report/laws/chart.js";
import type { Changes } from "../../report/plan/plan-command.js";
import type { Rendered } from "../../report/plan/plan-live.js";
import type { PlanData } from "../../report/plan/plan-page.js";
import type { ReportData } from "../../report/study/view.js";
import { answerAddress } from "../data/addresses.js";
import type { EvaluationRow, FramedReport, Overview, ReportAnswer, ReportRow } from "../data/types.js";
import { downloadTable } from "./download.js";
import { useAnswer, useSlowly } from "./hooks.js";
import { AsCommand, Choice, Go, Table, Waiting } from "./parts.js";
import { expertsIslands } from "./report-experts.js";
import { lawIslands } from "./report-law.js";
import { mount, unmount, type Islands } from "./report-parts.js";
import { changesOf, planIslands } from "./report-plan.js";
import { studyIslands } from "./report-study.js";
import { ask, embedded } from "./source.js";
import { place, rows, set, setting, treeVersion } from "./state.js";
import { ResumeButton } from "./view-actions.js";

const kindWords: Readonly<Record<ReportRow["kind"], string>> = {
  study: "study",
  plan: "plan",
  law: "scaling law",
  evaluation: "evaluation",
  experts: "experts",
  other: "page",
};

interface ReportList {
  readonly reports: readonly ReportRow[];
  readonly evaluations: readonly EvaluationRow[];
}

/** The list. */
export function ReportsView(): JSX.Element {
  const { data, error } = useAnswer<ReportList>("/api/reports", treeVersion.value);
  const { data: overview } = useAnswer<Overview>("/api/overview", treeVersion.value);
  if (data === null) return <Waiting error={error} what="reports" />;
  const studies = overview?.studies ?? [];
  const pages = data.reports.filter(({ kind, name }) => kind !== "study" || studyOf(name, studies) === null);
  return (
    <>
      <h1>Reports</h1>
      {studies.length === 0 && pages.length === 0 && data.evaluations.length === 0 && (
        <p>
          None below this folder. <code>upcycle study</code> writes one, <code>plan</code>, <code>fit</code>,{" "}
          <code>eval</code> and <code>experts</code> do with <code>--html FILE</code>; what <code>plan</code> and{" "}
          <code>fit</code> print with <code>--json</code> is shown too.
        </p>
      )}
      {studies.length > 0 && (
        <Table
          label="Studies"
          isStacked
          head={["Study", "Which arm leads", "Runs finished"]}
          rows={studies.map(({ name, words, finished, runs }) => [
            <Go key="go" view="study" name={name}>
              {name === "" ? "this study" : name}
            </Go>,
            words,
            `${finished} of ${runs}`,
          ])}
          isNumber={(column) => column === 2}
        />
      )}
      {data.evaluations.length > 0 && (
        <Table
          label="Evaluations"
          isStacked
          head={["Evaluation of", "Tasks", "Results", "Day"]}
          rows={data.evaluations.map(({ name, model, tasks, date }) => [
            <Go key="go" view="evaluation" name={name}>
              {model}
            </Go>,
            tasksWords(tasks),
            name,
            new Date(date).toLocaleDateString(),
          ])}
        />
      )}
      {pages.length > 0 && (
        <Table
          label="Pages"
          isStacked
          head={["Report", "Of a", "File", "Size", "Written"]}
          rows={pages.map(({ name, title, kind, bytes: size, changed }) => [
            <Go key="go" view="report" name={name}>
              {title}
            </Go>,
            kindWords[kind],
            name,
            bytes(size),
            new Date(changed).toLocaleString(),
          ])}
          isNumber={(column) => column === 3}
        />
      )}
      <AsCommand addresses={["/api/reports"]} />
    </>
  );
}

const tasksWords = (tasks: readonly string[]): string =>
  tasks.length > 4 ? `${tasks.slice(0, 3).join(", ")} and ${tasks.length - 3} more` : tasks.join(", ");

/** An evaluation, alone or beside another one on the same samples. */
export function EvaluationView(): JSX.Element {
  const { name } = place.value;
  const other = setting("with");
  const { data: list } = useAnswer<ReportList>("/api/reports", treeVersion.value);
  const address = answerAddress("/api/evaluation", [
    ["name", name],
    ...(other === "" ? [] : [["with", other] as const]),
  ]);
  const { data, error } = useAnswer<ReportAnswer>(address, `${address} ${treeVersion.value}`);
  const others = (list?.evaluations ?? []).filter((one) => one.name !== name);
  return (
    <>
      <p class="links">
        <Go view="reports">All reports</Go>
        <span class="muted">{name}</span>
        {others.length > 0 && (
          <Choice
            label="beside it"
            value={other}
            options={[["", "no other"], ...others.map((one) => [one.name, `${one.model}, ${one.name}`] as const)]}
            onChange={(value) => set({ with: value })}
          />
        )}
      </p>
      {data === null || data.name !== name ? <Waiting error={error} what={name} /> : <Report report={data} />}
      <AsCommand addresses={[address]} />
    </>
  );
}

/** The study whose report a page is; null for a page that lies elsewhere. */
function studyOf(page: string, studies: Overview["studies"]): string | null {
  const found = studies.find(({ name }) => page === (name === "" ? "report.html" : `${name}/report.html`));
  return found?.name ?? null;
}

/** The report of a study, anew while it runs. */
export function StudyView(): JSX.Element {
  const { name } = place.value;
  const own = rows.value.filter(({ study }) => study === name);
  const version = own.reduce((sum, { revision }) => sum + revision + 1, 0);
  const { data, error } = useAnswer<ReportAnswer>(
    answerAddress("/api/study", [["name", name]]),
    `${name} ${useSlowly(version, 3000)}`,
  );
  const isRunning = own.some(({ state }) => state === "running");
  return (
    <>
      <p class="links">
        <Go view="reports">All reports</Go>
        <span class="muted">{isRunning ? "under way: drawn anew as its runs go on" : name}</span>
      </p>
      {!isRunning && own.some(({ state }) => state === "stopped") && <ResumeButton run={name} />}
      {data === null || data.name !== name ? <Waiting error={error} what={name} /> : <Report report={data} />}
      <AsCommand addresses={[answerAddress("/api/study", [["name", name]])]} />
    </>
  );
}

/** A page that another command has written: from its data, or in a frame where it has none. */
export function ReportView(): JSX.Element {
  const { name } = place.value;
  const { data: list } = useAnswer<{ reports: readonly ReportRow[] }>("/api/reports", treeVersion.value);
  const row = list?.reports.find((one) => one.name === name);
  const { data, error } = useAnswer<ReportAnswer | FramedReport>(
    row === undefined ? null : answerAddress("/api/report", [["name", name]]),
    `${name} ${row?.changed}`,
  );
  const address = answerAddress("/report", [["name", name]]);
  return (
    <div class="report-view">
      <p class="links">
        <Go view="reports">All reports</Go>
        {embedded === null && name.endsWith(".html") && (
          <a href={address} target="_blank" rel="noopener">
            Open its file alone
          </a>
        )}
        <span class="muted">{name}</span>
      </p>
      {data?.name !== name ? (
        <Waiting error={error} what={name} />
      ) : data.sections !== null ? (
        <Report report={data} />
      ) : embedded === null ? (
        // Its time makes it load again when it was written anew.
        <iframe key={row?.changed} src={address} sandbox="allow-scripts" title={row?.title ?? name} />
      ) : (
        <p>The report is a file of its own, beside the folder that this page shows.</p>
      )}
      <AsCommand addresses={[answerAddress("/api/report", [["name", name]])]} />
    </div>
  );
}

/** The planner, which a file with plans brings with it. */
declare const upcyclePlan:
  { readonly render: (request: unknown, changes: Changes, words: readonly string[]) => Rendered } | undefined;

/** A report's sections, with the parts that need a script put into them. Sections that stay alike keep their parts. */
function Report({ report }: { readonly report: ReportAnswer }): JSX.Element {
  const root = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    if (root.current === null) return;
    mount(root.current, islandsOf(report, root.current));
    addTableButtons(root.current);
  }, [report]);
  useEffect(() => {
    const element = root.current;
    if (element === null) return;
    // Sliders draw tables anew.
    const watching = new MutationObserver(() => addTableButtons(element));
    watching.observe(element, { childList: true, subtree: true });
    return () => {
      watching.disconnect();
      unmount(element);
    };
  }, []);
  return (
    <div ref={root} class={`report report-${report.kind}`}>
      {report.sections.map((markup, i) => (
        // The markup is made by the server's own sections, which escape all that is not theirs.
        <div key={/ id="([\w-]+)"/.exec(markup)?.[1] ?? i} dangerouslySetInnerHTML={{ __html: markup }} />
      ))}
    </div>
  );
}

/** Gives every table of a report that has none yet a button that saves it. */
function addTableButtons(root: HTMLElement): void {
  for (const table of root.querySelectorAll("table")) addTableButton(table);
}

function addTableButton(table: HTMLTableElement): void {
  const frame = table.closest(".frame");
  if (table.nextElementSibling?.classList.contains("files") === true) return;
  const heading = table.caption ?? table.closest("section")?.querySelector("h1, h2, h3");
  const name = frame?.getAttribute("aria-label") ?? heading?.textContent ?? "table";
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: "CSV" });
  button.setAttribute("aria-label", `${name} as CSV`);
  button.addEventListener("click", () => downloadTable(name, table));
  const line = Object.assign(document.createElement("p"), { className: "files" });
  line.append(button);
  // In the frame of the table: what is around it may stand in columns.
  table.after(line);
}

function islandsOf({ kind, data, name }: ReportAnswer, root: HTMLElement): Islands {
  switch (kind) {
    case "study":
      return studyIslands(data as ReportData);
    case "law":
      return lawIslands(data as { readonly charts: readonly LawChart[] });
    case "experts":
      return expertsIslands(data as ExpertsData);
    case "plan":
      return planParts(data as PlanData, name, root);
    default:
      return {};
  }
}

function planParts(data: PlanData, name: string, root: HTMLElement): Islands {
  const { request, words, controls } = data;
  const render = (changes: Changes): Rendered | Promise<Rendered> => {
    if (typeof upcyclePlan === "object") return upcyclePlan.render(request, changes, words);
    const settings = Object.entries(changes).map(([key, value]) => [key, String(value)] as const);
    return ask<Rendered>(answerAddress("/api/plan", [["name", name], ...settings]));
  };
  const onChanges = (changes: Changes): void =>
    set(Object.fromEntries(controls.map(({ key }) => [key, String(changes[key] ?? "")])));
  const changes = changesOf(controls, Object.entries(place.value.settings));
  return planIslands(data, { root, render, changes, onChanges });
}
