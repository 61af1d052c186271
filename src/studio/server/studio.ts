/**
 * What the studio can be asked: paths to plain data. The server, the page that is exported as one file and
 * `upcycle studio --print` all ask here, so that they cannot say different things.
 */
import { inputError } from "../../base/errors.js";
import { configDifferences, runIdentity } from "../../train/run-list.js";
import { toolVersion } from "../../surgery/convert/version.js";
import { armRows, commonTokens, leadWords, pairRows, type ArmCurve } from "../data/arms.js";
import {
  curveAxes,
  evalMetrics,
  stepMetrics,
  type CheckpointList,
  type CompareAnswer,
  type ConversionRow,
  type CurveAnswer,
  type CurveAxis,
  type Metric,
  type ModelRow,
  type Overview,
  type RunList,
  type FramedReport,
  type ReportAnswer,
  type StudioAlert,
  type StudyRow,
} from "../data/types.js";
import {
  coactivationHistory,
  commandOf,
  CurveStore,
  curveOf,
  expertHistory,
  flatSettings,
  runDetail,
} from "../folders/detail.js";
import { checkpointList } from "../folders/checkpoints.js";
import { ConversionShelf } from "../folders/conversions.js";
import { StudioIndex, type IndexChange } from "../folders/index.js";
import { JobShelf } from "../folders/jobs.js";
import { modelDetail, modelRows, startMeasured } from "../folders/models.js";
import { ReportShelf } from "../folders/reports.js";
import { EvaluationShelf } from "../folders/evaluations.js";
import { bodyOf, planOf } from "../folders/report-body.js";
import type { RunEntry } from "../folders/run-entry.js";
import { StudyReader } from "../folders/study.js";
import { evaluationBody } from "../../report/evals/eval-page.js";
import { studyBody } from "../../report/study/html.js";
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
        return this.#compare(this.#entries(query));
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
        return study === null ? null : answerOf(name, studyBody(study));
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
    const { config } = await runIdentity(entry.path);
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

  async #compare(entries: readonly RunEntry[]): Promise<CompareAnswer> {
    const configs = await Promise.all(
      entries.map(async ({ path, row }) => (row.state === "unreadable" ? { config: {} } : runIdentity(path))),
    );
    const curves = entries.map(armCurve);
    const tokens = commonTokens(curves);
    const arms = armRows(curves, tokens);
    const pairs = pairRows(arms);
    return {
      runs: entries.map(({ row }) => row),
      differences: differenceRows(configDifferences(configs)),
      arms,
      pairs,
      tokens,
      words: leadWords(arms, pairs, tokens),
    };
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
      studies: await this.#studies(reports),
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

  /**
   * The runs of the arms of every study that has begun, in the order of the studies' names. A folder in which several
   * studies keep their runs is none itself.
   */
  async #armsByStudy(): Promise<(readonly [name: string, arms: readonly RunEntry[]])[]> {
    const kept = new Map<string, RunEntry[]>();
    for (const { name, study, arm } of this.index.rows) {
      const entry = this.index.run(name);
      if (study === null || entry === undefined) continue;
      kept.set(study, [...(kept.get(study) ?? []), ...(arm.startsWith("parent ") ? [] : [entry])]);
    }
    for (const [study, entries] of kept) kept.set(study, latestOfSeeds(entries));
    const found: (readonly [string, readonly RunEntry[]])[] = [];
    for (const name of [...this.index.found.studies].sort()) {
      const arms = (await this.#reader.sharedRuns(name)) ?? kept.get(name);
      if (arms !== undefined) found.push([name, arms]);
    }
    return found;
  }

  async #studies(reports: Overview["reports"]): Promise<StudyRow[]> {
    const found: StudyRow[] = [];
    for (const [name, arms] of await this.#armsByStudy()) {
      const curves = arms.map(armCurve);
      const tokens = commonTokens(curves);
      const ranked = armRows(curves, tokens);
      const page = name === "" ? "report.html" : `${name}/report.html`;
      found.push({
        name,
        runs: arms.length,
        finished: arms.filter(({ row }) => row.state === "finished").length,
        running: arms.filter(({ row }) => row.state === "running").length,
        arms: ranked,
        words: leadWords(ranked, pairRows(ranked), tokens),
        tokens,
        report: reports.some((report) => report.name === page) ? page : null,
        command: await commandOf(this.index, name),
      });
    }
    return found;
  }
}

/** A report as an answer; null for none. Empty sections are left out. */
const answerOf = (name: string, body: ReportBody | null): ReportAnswer | null =>
  body && { name, ...body, sections: body.sections.filter((section) => section !== "") };

/** Runs without those of an earlier setting, which a study leaves in its folder: of each arm and seed the latest. */
function latestOfSeeds(entries: readonly RunEntry[]): RunEntry[] {
  const latest = new Map<string, RunEntry>();
  for (const entry of entries) {
    const { arm, seed, changed } = entry.row;
    const key = JSON.stringify([arm, seed]);
    const before = latest.get(key);
    if (before === undefined || changed >= before.row.changed) latest.set(key, entry);
  }
  return [...latest.values()];
}

const armCurve = (entry: RunEntry): ArmCurve => ({ row: entry.row, ...entry.curve });

/** Values of settings that say that something is not there, or not done. */
const absent = new Set(["null", "false", "0", "[]"]);

/**
 * Settings that differ. One that holds others, such as the layers of a model, stands as those of them that differ, each
 * once; where some runs have none of them, what is absent in all others is left out.
 */
function differenceRows(found: ReturnType<typeof configDifferences>): CompareAnswer["differences"] {
  const rows = found.flatMap(({ key, values }) => {
    if (!values.some((value) => typeof value === "object" && value !== null))
      return [{ key, values: values.map(valueWords) }];
    const flat = values.map((value) => new Map(value == null ? [] : flatSettings({ [key]: value })));
    const names = [...new Set(flat.flatMap((settings) => [...settings.keys()]))];
    return names.flatMap((name) => {
      const inner = flat.map((settings) => settings.get(name));
      const present = new Set(inner.filter((value) => value !== undefined));
      const isTold = present.size > 1 || (inner.includes(undefined) && !absent.has([...present][0]!));
      return isTold ? [{ key: name, values: inner.map(valueWords) }] : [];
    });
  });
  return [...new Map(rows.map((row) => [row.key, row])).values()];
}

/** A setting in one short line. */
function valueWords(value: unknown): string {
  if (value === undefined) return "–";
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length <= 200 ? text : `${text.slice(0, 199)}…`;
}

/** A word of a query. Throws inputError for one that is not among `words`. */
function wordOf(query: URLSearchParams, key: string, words: readonly string[], usual: string): string {
  const word = query.get(key) ?? usual;
  if (words.includes(word)) return word;
  throw inputError(`"${word.slice(0, 100)}" is not one of ${words.join(", ")}`, { where: key });
}

/** What a page has of a curve: `GENERATION:TOTAL`; undefined for another word. */
function hadOf(word = ""): { readonly generation: number; readonly total: number } | undefined {
  const [, generation, total] = /^(\d{1,15}):(\d{1,15})$/.exec(word) ?? [];
  return total === undefined ? undefined : { generation: Number(generation), total: Number(total) };
}

/** A number of a query; undefined without one. Throws inputError for what is no number. */
function numberOf(query: URLSearchParams, key: string): number | undefined {
  const text = query.get(key);
  if (text === null || text === "") return undefined;
  const value = Number(text);
  if (Number.isFinite(value)) return value;
  throw inputError(`"${text.slice(0, 100)}" is no number`, { where: key });
}
