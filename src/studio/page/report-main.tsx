/** The script of a report's file: the studio's charts, maps and sliders, put into the places that the report has. */
import type { Chart as LawChart } from "../../report/laws/chart.js";
import type { Changes } from "../../report/plan/plan-command.js";
import type { Rendered } from "../../report/plan/plan-live.js";
import type { PlanData } from "../../report/plan/plan-page.js";
import type { ReportData } from "../../report/study/view.js";
import type { ExpertsData } from "../../report/experts/experts-page.js";
import { expertsIslands } from "./report-experts.js";
import { lawIslands } from "./report-law.js";
import { listenForCopying, mount } from "./report-parts.js";
import { changesOf, planIslands } from "./report-plan.js";
import { studyIslands } from "./report-study.js";

/** What stands in a file, by the kind of its report. */
type Embedded =
  | { readonly kind: "study"; readonly data: ReportData }
  | { readonly kind: "law"; readonly data: { readonly charts: readonly LawChart[] } }
  | { readonly kind: "plan"; readonly data: PlanData }
  | { readonly kind: "experts"; readonly data: ExpertsData };

/** The planner, which the file of a plan brings with it. */
declare const upcyclePlan: {
  readonly render: (request: PlanData["request"], changes: Changes, words: readonly string[]) => Rendered;
};

function start(root: HTMLElement, { kind, data }: Embedded): void {
  switch (kind) {
    case "study":
      return mount(root, studyIslands(data));
    case "law":
      return mount(root, lawIslands(data));
    case "experts":
      return mount(root, expertsIslands(data));
    case "plan":
      return mount(
        root,
        planIslands(data, {
          root,
          render: (changes) => upcyclePlan.render(data.request, changes, data.words),
          changes: changesOf(data.controls, new URLSearchParams(location.hash.slice(1))),
          onChanges: (changes) => {
            const pairs = Object.entries(changes).map(([key, value]) => `${key}=${value}`);
            history.replaceState(null, "", `#${pairs.join("&")}`);
          },
        }),
      );
  }
}

const root = document.querySelector("main");
const embedded = document.getElementById("report-data")?.textContent;
if (root !== null && embedded != null) start(root, JSON.parse(embedded) as Embedded);
listenForCopying();
