/**
 * Evaluations in the layout of the LM Evaluation Harness (`results_DATE.json`, `samples_TASK_DATE.jsonl` beside it), as
 * `upcycle eval` and the harness itself write them: each alone, and two on the same samples.
 */
import { join, posix } from "node:path";
import { fixed } from "../../base/format.js";
import { pairedDifference, type PairedDifference, type PairedValues } from "../../evals/tasks/paired.js";
import type { SampleValue } from "../../evals/tasks/metrics.js";
import { fileName } from "../../evals/suite/evaluate.js";
import { MOST_SAMPLES, PROMPT_END, type EvaluationSource, type SampleView } from "../../report/evals/eval-page.js";
import type { EvaluationRow } from "../data/types.js";
import type { StudioIndex } from "./index.js";
import { beginningOf, readPlain, readPlainJson } from "./safe-file.js";

/** Largest file that is read. */
const mostBytes = 64e6;

type Json = Readonly<Record<string, unknown>>;

/** A results file, as far as it is shown. */
interface ResultsFile {
  readonly results: Readonly<Record<string, Json>>;
  readonly group_subtasks?: Readonly<Record<string, readonly string[]>>;
  readonly configs?: Readonly<Record<string, Json>>;
  readonly higher_is_better?: Readonly<Record<string, Readonly<Record<string, boolean>>>>;
  readonly "n-samples"?: Readonly<Record<string, { readonly effective?: number }>>;
  readonly config?: Json;
  readonly date?: number;
  readonly max_length?: number;
  readonly model_name?: string;
  readonly warnings?: Readonly<Record<string, readonly string[]>>;
  readonly total_evaluation_time_seconds?: string;
}

/** A line of a samples file. */
interface SampleLine extends Json {
  readonly doc_id: number;
  readonly filter: string;
  readonly target: unknown;
  readonly arguments: Readonly<Record<string, { readonly arg_0?: unknown; readonly arg_1?: unknown }>>;
  readonly resps: readonly (readonly unknown[])[];
}

interface Read {
  readonly changed: number;
  readonly file: ResultsFile | null;
}

/** When an evaluation was made, in milliseconds since 1970; 0 where its file says nothing that is a time. */
function timeOf({ date }: ResultsFile): number {
  const time = 1000 * Number(date ?? 0);
  return Math.abs(time) <= 8.64e15 ? time : 0;
}

/** Evaluations below a folder; their results are read again only when they have changed. */
export class EvaluationShelf {
  readonly #read = new Map<string, Read>();

  constructor(private readonly index: StudioIndex) {}

  /** All evaluations, the newest first. */
  async rows(): Promise<EvaluationRow[]> {
    const rows: EvaluationRow[] = [];
    for (const name of this.index.found.documents.filter((one) => /(^|\/)results_[^/]*\.json$/.test(one))) {
      const file = await this.#results(name);
      if (file === null) continue;
      const tasks = Object.keys(file["n-samples"] ?? file.results);
      rows.push({ name, model: String(file.model_name ?? name), date: timeOf(file), tasks });
    }
    return rows.sort((a, b) => b.date - a.date || (a.name < b.name ? -1 : 1));
  }

  /** One evaluation, or a second one against a first; null for names that are none. */
  async evaluation(first: string, second: string | null): Promise<EvaluationSource | null> {
    const names = second === null ? [first] : [first, second];
    const known = new Set((await this.rows()).map(({ name }) => name));
    const files: (ResultsFile & { readonly file: string })[] = [];
    for (const name of names) {
      const file = known.has(name) ? await this.#results(name) : null;
      if (file === null) return null;
      files.push({ ...file, file: name });
    }
    const [one, other] = files;
    if (one === undefined) return null;
    return {
      models: files.map(modelOf),
      tasks: Object.keys(one["n-samples"] ?? {}).length,
      samples: Object.values(one["n-samples"] ?? {}).reduce((sum, { effective = 0 }) => sum + effective, 0),
      scores: scoresOf(files),
      comparisons: other === undefined ? [] : [await this.#comparison(one, other)],
      command: `upcycle eval ${files.map(({ model_name: name = "MODEL" }) => name).join(" ")}`,
      date: new Date(timeOf(one)).toISOString().slice(0, 10),
    };
  }

  async #results(name: string): Promise<ResultsFile | null> {
    const path = this.index.pathOf(name);
    const seen = await beginningOf(path, 1);
    if (seen === null) return null;
    const kept = this.#read.get(name);
    if (kept?.changed === seen.changed) return kept.file;
    const found = (await readPlainJson(path, mostBytes)) as Partial<ResultsFile> | null;
    const isOne = typeof found?.results === "object" && found.results !== null;
    const file = isOne ? (found as ResultsFile) : null;
    this.#read.set(name, { changed: seen.changed, file });
    return file;
  }

  /** The samples of a task; empty where there are none. A task's name becomes no path but one beside the results. */
  async #samples(results: string, task: string): Promise<SampleLine[]> {
    const part = fileName(task);
    const [, id] = /results_([^/]*)\.json$/.exec(results) ?? [];
    if (id === undefined || !/^[\w.-]+$/.test(part)) return [];
    const path = join(this.index.pathOf(results), "..", `samples_${part}_${id}.jsonl`);
    const text = (await readPlain(path, mostBytes))?.toString("utf8") ?? "";
    return text.split("\n").flatMap((line): SampleLine[] => {
      if (line === "") return [];
      try {
        const sample = JSON.parse(line) as Partial<SampleLine>;
        return typeof sample.doc_id === "number" && Array.isArray(sample.resps) ? [sample as SampleLine] : [];
      } catch {
        return [];
      }
    });
  }

  async #comparison(
    one: ResultsFile & { readonly file: string },
    other: ResultsFile & { readonly file: string },
  ): Promise<EvaluationSource["comparisons"][number]> {
    const tasks = Object.keys(one["n-samples"] ?? {}).filter((task) => other["n-samples"]?.[task] !== undefined);
    const differences: { task: string; differences: PairedDifference[] }[] = [];
    const samples: EvaluationSource["comparisons"][number]["samples"][number][] = [];
    for (const task of tasks) {
      const pairs = paired(await this.#samples(one.file, task), await this.#samples(other.file, task));
      const found = metricsOf(one, task).flatMap(({ metric, filter, higherIsBetter, aggregation }) => {
        const own = pairs.filter(([line]) => line.filter === filter);
        const values = own.map((pair) => pair.map((line) => line[metric] as SampleValue));
        const [before, after] = [values.map(([value]) => value!), values.map(([, value]) => value!)];
        const isWhole = [...before, ...after].every((value) => value !== undefined && value !== null);
        if (!isWhole) return [];
        const numbers = { metric, filter, aggregation, higherIsBetter, first: before, second: after };
        return pairedDifference(numbers as PairedValues) ?? [];
      });
      if (found.length > 0) differences.push({ task, differences: found });
      const [metric] = metricsOf(one, task);
      const differing = pairs.filter(([line, second]) => {
        const [a, b] = [line[metric?.metric ?? ""], second[metric?.metric ?? ""]];
        return line.filter === metric?.filter && typeof a === "number" && typeof b === "number" && a !== b;
      });
      const shown = differing
        .slice(0, MOST_SAMPLES)
        .map(([line, second]) => sampleOf(line, second, metric?.metric ?? ""));
      if (shown.length > 0) samples.push({ task, shown, more: differing.length - shown.length });
    }
    return { name: modelOf(other).name, differences, samples };
  }
}

function modelOf(file: ResultsFile & { readonly file: string }): EvaluationSource["models"][number] {
  const { model_name: name, max_length: maxLength, config, warnings = {}, total_evaluation_time_seconds } = file;
  const device = config?.["device"];
  return {
    // A model that was evaluated twice is told apart by its file.
    name: `${name ?? "model"} (${posix.dirname(file.file) === "." ? file.file : posix.dirname(file.file)})`,
    maxLength: maxLength ?? NaN,
    device: typeof device === "string" ? device : "device not noted",
    seconds: Number(total_evaluation_time_seconds),
    warnings: Object.entries(warnings).flatMap(([task, texts]) => texts.map((text) => ({ task, text }))),
  };
}

interface MetricKey {
  readonly metric: string;
  readonly filter: string;
  readonly higherIsBetter: boolean;
  readonly aggregation: string;
}

/** The metrics of a task by the keys of its results, in their order. */
function metricsOf({ results, higher_is_better: better, configs }: ResultsFile, task: string): MetricKey[] {
  const list = configs?.[task]?.["metric_list"];
  const own = Array.isArray(list) ? (list as readonly Json[]) : [];
  return Object.keys(results[task] ?? {}).flatMap((key): MetricKey[] => {
    const [, metric, filter] = /^(.+),([^,]+)$/.exec(key) ?? [];
    if (metric === undefined || filter === undefined || metric.endsWith("_stderr")) return [];
    const aggregation = own.find((one) => one["metric"] === metric)?.["aggregation"];
    return [
      {
        metric,
        filter,
        higherIsBetter: better?.[task]?.[metric] ?? true,
        aggregation: typeof aggregation === "string" ? aggregation : "mean",
      },
    ];
  });
}

/** Groups with their tasks behind them, then tasks of no group. */
function placesOf({ results, group_subtasks: groups = {} }: ResultsFile): { name: string; level: number }[] {
  const inside = new Set(Object.values(groups).flat());
  const placed = (name: string, level: number): { name: string; level: number }[] =>
    // A file may say that a group holds itself.
    level > 4 ? [] : [{ name, level }, ...(groups[name] ?? []).flatMap((child) => placed(child, level + 1))];
  const names = [...new Set([...Object.keys(groups), ...Object.keys(results)])];
  return names.filter((name) => !inside.has(name)).flatMap((name) => placed(name, 0));
}

function scoresOf(files: readonly ResultsFile[]): EvaluationSource["scores"] {
  const [first] = files;
  if (first === undefined) return [];
  return placesOf(first).flatMap(({ name, level }): EvaluationSource["scores"][number][] => {
    const result = first.results[name];
    const alias = result?.["alias"];
    const task = typeof alias === "string" ? alias.replace(/^[\s-]+/, "") : name;
    const metrics = metricsOf(first, name);
    if (metrics.length === 0) return [{ task, level, metric: null, values: [] }];
    const samples = first["n-samples"]?.[name]?.effective ?? Number(result?.["sample_len"] ?? NaN);
    return metrics.map(({ metric, filter, higherIsBetter }) => ({
      task,
      level,
      metric: { name: filter === "none" ? metric : `${metric}, ${filter}`, higherIsBetter, samples },
      values: files.map(({ results }) => {
        const [value, stderr] = [`${metric},${filter}`, `${metric}_stderr,${filter}`].map(
          (key) => results[name]?.[key],
        );
        return {
          value: typeof value === "number" ? value : NaN,
          stderr: typeof stderr === "number" ? stderr : null,
        };
      }),
    }));
  });
}

/** Lines of two files that are of one document and filter. */
function paired(first: readonly SampleLine[], second: readonly SampleLine[]): (readonly [SampleLine, SampleLine])[] {
  const keyOf = ({ doc_id: id, filter }: SampleLine): string => `${id} ${filter}`;
  const others = new Map(second.map((line) => [keyOf(line), line]));
  return first.flatMap((line) => {
    const other = others.get(keyOf(line));
    return other === undefined ? [] : [[line, other] as const];
  });
}

/** The log-likelihood of a response, or its text. */
function responseOf(response: readonly unknown[] | undefined): number | string {
  const [one] = response ?? [];
  if (Array.isArray(one)) return Number(one[0]);
  return typeof one === "string" ? one : Number(one);
}

function sampleOf(line: SampleLine, other: SampleLine, metric: string): SampleView {
  const requests = Object.values(line.arguments);
  const responses = [line, other].map(({ resps }) => requests.map((_, i) => responseOf(resps[i])));
  const chosen = responses.map((all) =>
    all.length > 1 && all.every((one) => typeof one === "number") ? all.indexOf(Math.max(...all)) : -1,
  );
  const target = String(line.target);
  const texts = requests.map(({ arg_1: text }) => (typeof text === "string" ? text : "answer"));
  const right = texts.map((text, i) => requests.length > 1 && (String(i) === target || text.trim() === target.trim()));
  const [{ arg_0: first } = {}] = requests;
  const prompt = typeof first === "string" ? first : "";
  const words = (value: number | string | undefined): string =>
    typeof value === "string" ? value : fixed(value ?? NaN, 3);
  return {
    id: line.doc_id,
    isLearnt: Number(other[metric]) > Number(line[metric]),
    prompt: prompt.length > PROMPT_END ? `…${prompt.slice(-PROMPT_END)}` : prompt,
    target: right.includes(true) ? null : JSON.stringify(line.target),
    answers: texts.map((text, i) => ({
      text,
      isRight: right[i] ?? false,
      first: { words: words(responses[0]?.[i]), isChosen: chosen[0] === i },
      second: { words: words(responses[1]?.[i]), isChosen: chosen[1] === i },
    })),
  };
}
