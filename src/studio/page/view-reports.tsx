/** Pages that other commands have written: studies, plans, laws, evaluations, experts. */
import type { JSX } from "preact";
import { bytes } from "../../base/format.js";
import { answerAddress } from "../data/addresses.js";
import type { ReportRow } from "../data/types.js";
import { useAnswer } from "./hooks.js";
import { AsCommand, Go, Table, Waiting } from "./parts.js";
import { embedded } from "./source.js";
import { folder, place, treeVersion } from "./state.js";

const kindWords: Readonly<Record<ReportRow["kind"], string>> = {
  study: "study",
  plan: "plan",
  law: "scaling law",
  evaluation: "evaluation",
  experts: "experts",
  other: "page",
};

/** The list. */
export function ReportsView(): JSX.Element {
  const { data, error } = useAnswer<{ reports: readonly ReportRow[] }>("/api/reports", treeVersion.value);
  if (data === null) return <Waiting error={error} what="reports" />;
  return (
    <>
      <h1>Reports</h1>
      {data.reports.length === 0 ? (
        <p>
          None below this folder. <code>upcycle study</code> writes one, <code>plan</code>, <code>fit</code>,{" "}
          <code>eval</code> and <code>experts</code> do with <code>--html FILE</code>.
        </p>
      ) : (
        <Table
          label="Reports"
          head={["Report", "Of a", "File", "Size", "Written"]}
          rows={data.reports.map(({ name, title, kind, bytes: size, changed }) => [
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
      <AsCommand words={["upcycle", "studio", folder, "--print", "/api/reports"]} />
    </>
  );
}

/** One report, in a frame that can load nothing and reach nothing. */
export function ReportView(): JSX.Element {
  const { name } = place.value;
  const { data } = useAnswer<{ reports: readonly ReportRow[] }>("/api/reports", treeVersion.value);
  const report = data?.reports.find((one) => one.name === name);
  const address = answerAddress("/report", [["name", name]]);
  return (
    <div class="report">
      <p class="links">
        <Go view="reports">All reports</Go>
        {embedded === null && (
          <a href={address} target="_blank" rel="noopener">
            Open it alone
          </a>
        )}
        <span class="muted">{name}</span>
      </p>
      {embedded !== null ? (
        <p>The report is a file of its own, beside the folder that this page was made of.</p>
      ) : (
        // Its time makes it load again when it was written anew.
        <iframe key={report?.changed} src={address} sandbox="allow-scripts" title={report?.title ?? name} />
      )}
    </div>
  );
}
