/**
 * What the studio can be asked: paths to plain data. The server, the page that is exported as one file and
 * `upcycle studio --print` all ask here, so that they cannot say different things.
 */
import { inputError } from "../../base/errors.js";
import { toolVersion } from "../../surgery/convert/version.js";
import type { CheckpointList, ConversionRow, ModelRow } from "../data/model-types.js";
import {
  curveAxes,
  evalMetrics,
  stepMetrics,
  type CurveAnswer,
  type CurveAxis,
  type Metric,
  type Overview,
  type RunList,
  type FramedReport,
  type ReportAnswer,
  type StudioAlert,
} from "../data/types.js";
import { coactivationHistory, CurveStore, curveOf, expertHistory, runDetail } from "../folders/detail.js";
import { checkpointList } from "../folders/checkpoints.js";
import { ConversionShelf } from "../folders/conversions.js";
import { comparison, studyRows } from "./comparison.js";
import { hadOf, numberOf, wordOf } from "./query.js";
import { StudioIndex, type IndexChange } from "../folders/index.js";
import { JobShelf } from "../folders/jobs.js";
import { modelDetail, modelRows, startMeasured } from "../folders/models.js";
import { ReportShelf } from "../folders/reports.js";
import { EvaluationShelf } from "../folders/evaluations.js";
import { bodyOf, planOf } from "../folders/report-body.js";
import type { RunEntry } from "../folders/run-entry.js";
import { StudyReader, studySections } from "../folders/study.js";
import { evaluationBody } from "../../report/evals/eval-page.js";
import type { ReportBody } from "../../report/page/shell.js";

/** Most runs that one request may be about. */
const mostRuns = 200;
/** Columns of pixels that a curve is decimated for: the usual number, and the most. */
const usualColumns = 400;
const mostColumns = 4000;
/** Alerts, and runs with dead experts, that the start page names. */
const mostNamed = 20;

/** What the paths of answers begin with, and what each is about. */
export const answerPaths = {
  "/api/overview": "the start page: studies and which arm leads, dead experts, models, alerts",
  "/api/runs": "the list of runs",
  "/api/run": "one run: settings, checkpoints, messages (name=RUN)",
  "/api/curves": "curves (metric=, run= once or more, axis=step|tokens|hours, from=, to=, columns=, have=)",
  "/api/compare": "runs side by side (run= twice or more)",
  "/api/experts": "load, entropy and similarity of a run's experts over time (name=RUN)",
  "/api/coactivation": "which experts of a run's layer serve the same tokens, over time (name=RUN, layer=0)",
  "/api/expert-file": "a file of upcycle experts --json (name=FILE)",
  "/api/conversions": "conversions at work, and unfinished ones",
  "/api/checkpoints": "models that can generate text, dense and MoE, with the memory that they take",
  "/api/models": "models that were upcycled",
  "/api/model": "one model: what every tensor is made of, what was measured (name=MODEL)",
  "/api/reports": "pages that other commands have written",
  "/api/report": "one of those pages as its sections (name=FILE)",
  "/api/study": "the report of a study, finished or under way, as its sections (name=FOLDER)",
  "/api/evaluation": "an evaluation by its results file (name=FILE), another one against it (with=FILE)",
  "/api/plan": "a plan's page with other settings (name=FILE, size=, seen=, tokens=, expansion=, ...)",
  "/api/jobs": "trainings that upcycle launch has started",
  "/api/alerts": "everything that went wrong",
} as const;
type AnswerPath = keyof typeof answerPaths;

/** What one look has found to be new. */
export interface StudioChange extends IndexChange {
  /** Whether the lists of models, reports and jobs are others than before. */
  readonly lists: boolean;
  /** Whether a conversion is further than before, or has begun or ended. */
  readonly conversions: boolean;
}

/** A folder that is being shown. */
export class Studio {
  readonly #store = new CurveStore();
  readonly #jobs: JobShelf;
  readonly #conversions: ConversionShelf;
  /** Models as the last look at the tree has found them: their records are too large to be read at every question. */
  #models: { readonly tree: number; readonly rows: Promise<readonly ModelRow[]> } | null = null;
  /** The lists that the last look at the tree has found. */
  #tree: string | null = null;
  #checkpoints: { readonly tree: number; readonly list: Promise<CheckpointList> } | null = null;
  readonly shelf: ReportShelf;
  readonly #reader: StudyReader;
  readonly #evaluations: EvaluationShelf;

  private constructor(
    readonly index: StudioIndex,
    readonly options: { readonly dir: string; readonly actions: boolean },
  ) {
    this.#jobs = new JobShelf(index);
    this.#conversions = new ConversionShelf(index);
    this.shelf = new ReportShelf(index);
    this.#reader = new StudyReader(index);
    this.#evaluations = new EvaluationShelf(index);
  }

  /** Opens a folder. Throws inputError for what is none. `dir` is shown as the user wrote it. */
  static async open(options: { readonly dir: string; readonly actions: boolean }, now?: () => number): Promise<Studio> {
    return new Studio(await StudioIndex.open(options.dir, now), options);
  }

  /** Looks for what is new in the whole folder, in runs under way, in the logs of jobs and in what conversions note. */
  async look(now = Date.now()): Promise<StudioChange> {
    return this.#withOthers(this.#withLists(await this.index.look()), now);
  }

  /** Looks for what is new in runs under way, jobs and conversions: soon, however long the whole folder takes. */
  async lookAtLive(now = Date.now()): Promise<StudioChange> {
    return this.#withOthers({ ...(await this.index.lookAtLive()), lists: false }, now);
  }

  /** Looks for what is new in the whole folder, where that is due. */
  async lookAround(): Promise<StudioChange> {
    return { ...this.#withLists(await this.index.lookAround()), conversions: false };
  }

  /** Conversions at work, and unfinished ones, as they are at this moment. */
  conversions(): Promise<readonly ConversionRow[]> {
    return this.#conversions.rows(Date.now());
  }

  async #withOthers(change: Omit<StudioChange, "conversions">, now: number): Promise<StudioChange> {
    const alerts = [...change.alerts, ...(await this.#jobs.look(now))];
    return { ...change, alerts, conversions: await this.#conversions.look(now) };
  }

  /** Whether a look at the tree has found other lists than the one before. */
  #withLists(change: IndexChange): Omit<StudioChange, "conversions"> {
    if (!change.tree) return { ...change, lists: false };
    const { models, pages, documents, jobs, checkpoints } = this.index.found;
    const before = this.#tree;
    this.#tree = JSON.stringify([models, pages, documents, jobs, checkpoints]);
    return { ...change, lists: before !== null && before !== this.#tree };
  }

  /** Memory of the curves that are kept. */
  get bytes(): number {
    return this.#store.bytes;
  }

  /**
   * The answer to a path with its settings; null for a path or a name that is not known. Throws inputError for settings
   * that make no sense.
   */
  async answer(path: string, query: URLSearchParams): Promise<unknown> {
    if (!Object.hasOwn(answerPaths, path)) return null;
    await this.index.known();
    const name = query.get("name") ?? "";
    switch (path as AnswerPath) {
      case "/api/overview":
        return this.#overview();
      case "/api/runs":
        return { runs: this.index.rows, unread: this.index.unread } satisfies RunList;
      case "/api/run":
        return this.#run(name);
      case "/api/curves":
        return this.#curves(query);
      case "/api/compare":
        return comparison(this.#entries(query));
      case "/api/experts": {
        const entry = this.index.run(name);
        return entry === undefined ? null : expertHistory(this.#store, entry);
      }
      case "/api/coactivation": {
        const entry = this.index.run(name);
        return entry === undefined ? null : coactivationHistory(this.#store, entry, numberOf(query, "layer") ?? 0);
      }
      case "/api/expert-file":
        return this.shelf.experts(name);
      case "/api/conversions":
        return { conversions: await this.conversions() };
      case "/api/checkpoints":
        return this.#checkpointList();
      case "/api/models":
        return { models: await this.#modelRows() };
      case "/api/model":
        return modelDetail(this.index, name);
      case "/api/reports":
        return {
          reports: [...(await this.shelf.pages()), ...(await this.shelf.documents())],
          expertFiles: await this.shelf.expertFiles(),
          evaluations: await this.#evaluations.rows(),
        };
      case "/api/report": {
        const source = await this.shelf.source(name);
        const drawn = source === null ? null : answerOf(name, bodyOf(source));
        return drawn ?? ((await this.shelf.hasPage(name)) ? ({ name, sections: null } satisfies FramedReport) : null);
      }
      case "/api/study": {
        const study = await this.#reader.study(name);
        return study === null ? null : answerOf(name, studySections(name, study));
      }
      case "/api/evaluation": {
        const source = await this.#evaluations.evaluation(name, query.get("with"));
        return source === null ? null : answerOf(name, evaluationBody(source));
      }
      case "/api/plan": {
        const source = await this.shelf.source(name);
        return source === null ? null : planOf(source, query);
      }
      case "/api/jobs":
        return { jobs: await this.#jobs.rows() };
      case "/api/alerts":
        return { alerts: await this.#alerts() };
    }
  }

  #checkpointList(): Promise<CheckpointList> {
    const tree = this.index.trees;
    if (this.#checkpoints?.tree !== tree) this.#checkpoints = { tree, list: checkpointList(this.index) };
    return this.#checkpoints.list;
  }

  #modelRows(): Promise<readonly ModelRow[]> {
    const tree = this.index.trees;
    if (this.#models?.tree !== tree) this.#models = { tree, rows: modelRows(this.index) };
    return this.#models.rows;
  }

  async #alerts(): Promise<readonly StudioAlert[]> {
    const ofJobs = (await this.#jobs.rows()).flatMap(({ alerts }) => alerts);
    return [...this.index.alerts, ...ofJobs];
  }

  /** What still matters: errors, and whatever is wrong with a run that is under way. */
  #pressing(alerts: readonly StudioAlert[]): readonly StudioAlert[] {
    const isRunning = (name: string | null): boolean =>
      name === null || (this.index.run(name)?.row.state ?? "running") === "running";
    return alerts.filter(({ level, run }) => level === "error" || isRunning(run));
  }

  async #run(name: string): Promise<unknown> {
    const entry = this.index.run(name);
    if (entry === undefined) return null;
    this.index.ask(name);
    const detail = await runDetail(this.index, this.#store, entry);
    if (detail.preservation !== null || detail.row.kind === "dense" || entry.row.study === null) return detail;
    const { config } = await entry.identity();
    return { ...detail, preservation: await startMeasured(this.index, entry.row.study, config["recipe"]) };
  }

  /** The runs that a request names. Throws inputError where there are too many of them. */
  #entries(query: URLSearchParams): RunEntry[] {
    const names = [...new Set(query.getAll("run"))];
    if (names.length > mostRuns)
      throw inputError(`${names.length} runs are asked for, ${mostRuns} are the most`, { where: "run" });
    return names.flatMap((name) => this.index.run(name) ?? []);
  }

  async #curves(query: URLSearchParams): Promise<CurveAnswer> {
    const metric = wordOf(query, "metric", [...stepMetrics, ...evalMetrics], "eval/loss") as Metric;
    const axis = wordOf(query, "axis", curveAxes, "tokens") as CurveAxis;
    const columns = Math.min(mostColumns, Math.max(1, Math.round(numberOf(query, "columns") ?? usualColumns)));
    const request = { metric, axis, columns, from: numberOf(query, "from"), to: numberOf(query, "to") };
    const names = query.getAll("run");
    const had = query.getAll("have");
    const curves = [];
    for (const entry of this.#entries(query)) {
      const have = hadOf(had[names.indexOf(entry.name)]);
      curves.push(await curveOf(this.#store, entry, { ...request, have }));
    }
    return { metric, axis, curves };
  }

  async #overview(): Promise<Overview> {
    const { rows } = this.index;
    const reports = [...(await this.shelf.pages()), ...(await this.shelf.documents())];
    const moes = rows.filter(({ dead }) => dead !== null);
    const ailing = moes.filter(({ dead }) => dead! > 0).sort((a, b) => b.dead! - a.dead! || (a.name < b.name ? -1 : 1));
    return {
      folder: this.options.dir,
      version: toolVersion,
      actions: this.options.actions,
      runs: rows.length,
      running: rows.filter(({ state }) => state === "running").length,
      unread: this.index.unread,
      studies: await studyRows(this.index, this.#reader, reports),
      dead: ailing.slice(0, mostNamed).map(({ name, dead, experts }) => ({
        run: name,
        dead: dead!,
        experts: experts!,
        where: (this.index.run(name)?.dead ?? []).flatMap((some, layer) =>
          some.length === 0 ? [] : [{ layer, experts: some }],
        ),
      })),
      alive: moes.length - ailing.length,
      models: await this.#modelRows(),
      conversions: await this.conversions(),
      alerts: this.#pressing(await this.#alerts()).slice(0, mostNamed),
      reports,
      expertFiles: await this.shelf.expertFiles(),
      jobs: (await this.#jobs.rows()).length,
      disk: this.index.disk,
    };
  }
}

/** A report as an answer; null for none. Empty sections are left out. */
const answerOf = (name: string, body: ReportBody | null): ReportAnswer | null =>
  body && { name, ...body, sections: body.sections.filter((section) => section !== "") };
