/** What is read of a run only when it is looked at: curves, settings, checkpoints, how it was started. */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { judgePreservation, type PreservationReport } from "../../model/results/preservation.js";
import { lockOwner, MOST_LOCK_BYTES, runningHere } from "../../files/io/lock-owner.js";
import { lockName } from "../../files/io/lock.js";
import { commandFile, readCommand } from "../../files/io/command-file.js";
import { dispatchRecord, metricsFile, type StepRecord } from "../../train/records.js";
import { quasiIndependent } from "../../experts/measures/coactivation.js";
import { isOfRouting, RunColumns, type EvalMoment, type PairColumn } from "../data/columns.js";
import { decimated, shortened } from "../data/decimate.js";
import { isStepLine, withoutRouting } from "../data/log-summary.js";
import type { CoactivationHistory, ExpertHistory } from "../data/expert-types.js";
import type { PreservationRow } from "../data/model-types.js";
import type { RecordedCommand } from "../data/command-types.js";
import type { CheckpointRow, CurveAxis, Metric, RunCurve, RunDetail } from "../data/types.js";
import type { StudioIndex } from "./index.js";
import { LogTail } from "./log-tail.js";
import type { RunEntry } from "./run-entry.js";
import { readPlain, readPlainJson } from "./safe-file.js";
import { breather } from "./turns.js";

/**
 * Memory that the curves of all runs that were looked at may take; those unused for longest are forgotten. A hundred
 * runs of 10,000 steps fit: curves that are forgotten before they are asked for again would be read at every question.
 */
const mostBytes = 48e6;

interface Kept {
  readonly columns: { current: RunColumns };
  readonly tail: LogTail;
  reading: Promise<void> | null;
  /** Memory of the columns when they were last read on, and how far the list had read the log then. */
  bytes: number;
  revision: number;
}

/** Takes the steps of a log without their routing, which is most of what parsing them costs. */
function keepStep(line: string, columns: RunColumns): boolean {
  if (!isStepLine(line)) return false;
  let record: StepRecord;
  try {
    record = JSON.parse(withoutRouting(line)) as StepRecord;
  } catch {
    return false;
  }
  columns.step(record);
  return true;
}

/** Generations of columns so far: those of an earlier server, whose page may still be open, were other numbers. */
let generations = Date.now();
const nextGeneration = (): number => ++generations;

/** Columns with room for what the list knows of the log, and some more. */
const columnsFor = ({ tokensPerStep, row }: RunEntry, hasRouting: boolean): RunColumns =>
  new RunColumns(tokensPerStep, { hasRouting, steps: Math.ceil(1.02 * row.step), nextGeneration });

/** Curves of runs, read when they are asked for and read on when they have grown. */
export class CurveStore {
  readonly #kept = new Map<string, Kept>();
  #bytes = 0;

  constructor(private readonly most = mostBytes) {}

  /** What a run has measured so far; `hasRouting`: with what its steps say of routing. */
  async of(entry: RunEntry, hasRouting: boolean): Promise<RunColumns> {
    if (!entry.isKnown) await entry.refresh(Date.now());
    const before = this.#kept.get(entry.name);
    const kept = before !== undefined && (before.columns.current.hasRouting || !hasRouting) ? before : null;
    // The order of the map is that of their use.
    this.#kept.delete(entry.name);
    const current = kept ?? {
      columns: { current: columnsFor(entry, hasRouting) },
      tail: new LogTail(join(entry.path, metricsFile), entry.files),
      reading: null,
      bytes: 0,
      revision: -1,
    };
    if (before !== undefined && kept === null) this.#leave(before);
    this.#kept.set(entry.name, current);
    // The list looks at logs all the time: a hundred of them need not be looked at again for every chart.
    const { revision } = entry.row;
    if (entry.isRead && current.reading === null && current.revision === revision) return current.columns.current;
    current.reading ??= this.#readOn(current, entry).finally(() => {
      current.reading = null;
    });
    await current.reading;
    current.revision = revision;
    if (this.#kept.get(entry.name) === current) {
      const { bytes } = current.columns.current;
      this.#bytes += bytes - current.bytes;
      current.bytes = bytes;
    }
    this.#forget();
    return current.columns.current;
  }

  async #readOn({ tail, columns }: Kept, entry: RunEntry): Promise<void> {
    const { hasRouting } = columns.current;
    await tail.read({
      restart: () => {
        columns.current = columnsFor(entry, hasRouting);
      },
      take: (value) => dispatchRecord(value, columns.current),
      ...(!hasRouting && { keep: (line) => keepStep(line, columns.current) }),
      breathe: breather(),
    });
  }

  /** Bytes of all columns. */
  get bytes(): number {
    return this.#bytes;
  }

  #forget(): void {
    for (const [name, kept] of this.#kept) {
      if (this.#bytes <= this.most || this.#kept.size === 1) return;
      this.#kept.delete(name);
      this.#leave(kept);
    }
  }

  /**
   * Columns that are kept no longer. Whoever has just been given them reads them in the same turn; then other columns
   * have their memory.
   */
  #leave({ bytes, columns, reading }: Kept): void {
    this.#bytes -= bytes;
    const release = (): void => void setImmediate(() => columns.current.release());
    (reading ?? Promise.resolve()).then(release, release);
  }
}

/** How a curve is wanted. */
export interface CurveRequest {
  readonly metric: Metric;
  readonly axis: CurveAxis;
  readonly from?: number | undefined;
  readonly to?: number | undefined;
  /** Columns of pixels. */
  readonly columns: number;
  /** Points that whoever asks has: only later ones are given, as they are, where these are still those of the run. */
  readonly have?: { readonly generation: number; readonly total: number } | undefined;
}

/** A curve of a run; without points where its log has none of it. */
export async function curveOf(store: CurveStore, entry: RunEntry, request: CurveRequest): Promise<RunCurve> {
  const measured = await store.of(entry, isOfRouting(request.metric));
  const curve = measured.curve(request.metric, request.axis);
  const head = { run: entry.name, revision: entry.row.revision, generation: measured.generation };
  if (curve === null) return { ...head, x: [], y: [], total: 0, first: 0 };
  const total = curve.x.length;
  const first = firstNew(request, measured.generation, total);
  const { x, y } = decimated(curve.x.subarray(first), curve.y.subarray(first), request);
  // Steps and tokens are whole numbers, of which every digit counts.
  const places = request.axis === "hours" ? x.map((value) => shortened(value, 6)) : x;
  const digits = curve.y instanceof Float32Array ? 6 : 7;
  const values = y.map((value) => (value === null ? null : shortened(value, digits)));
  return { ...head, x: places, y: values, total, first };
}

/** The first point that is not there yet where the question was asked; 0 where all is to be given. */
function firstNew({ have, from, to, columns }: CurveRequest, generation: number, total: number): number {
  if (have === undefined || from !== undefined || to !== undefined) return 0;
  const isGrown = have.generation === generation && have.total <= total && total - have.total <= columns;
  return isGrown ? have.total : 0;
}

/** Moments of expert loads that a page gets. */
const shownMoments = 60;

async function shownMomentsOf(store: CurveStore, entry: RunEntry): Promise<readonly EvalMoment[]> {
  const { moments } = await store.of(entry, false);
  const every = Math.max(1, Math.ceil(moments.length / shownMoments));
  return moments.filter((_, i) => i % every === 0 || i === moments.length - 1);
}

const fourDigits = (values: Float32Array): number[] => Array.from(values, (value) => Number(value.toPrecision(4)));

/**
 * Which experts of a layer of a run serve the same tokens, over time; null where its log does not say, and for a layer
 * that it does not have.
 */
export async function coactivationHistory(
  store: CurveStore,
  entry: RunEntry,
  layer: number,
): Promise<CoactivationHistory | null> {
  const shown = (await shownMomentsOf(store, entry)).filter(({ pairs }) => (pairs[layer]?.share.length ?? 0) > 0);
  const [first] = shown;
  const experts = first?.load[layer]?.length;
  if (first === undefined || experts === undefined) return null;
  const { spec } = await entry.identity();
  const topK = spec.layers.flatMap(({ ffn }) => (ffn.kind === "moe" ? [ffn.topK] : []))[layer] ?? 0;
  return {
    run: entry.name,
    layer,
    layers: first.pairs.length,
    experts,
    topK,
    steps: shown.map(({ step }) => step),
    tokens: shown.map(({ tokens }) => tokens),
    complete: first.pairs[layer]!.share.length === (experts * (experts - 1)) / 2,
    moments: shown.map(({ load, pairs }) => ratedPairs(load[layer]!, pairs[layer]!, topK)),
  };
}

/** Pairs with their ratios; `load`: of each expert, over an equal share. */
function ratedPairs(
  load: Float32Array,
  { first, second, share }: PairColumn,
  topK: number,
): CoactivationHistory["moments"][number] {
  // A token that an expert serves is shared with K - 1 others.
  const expected = quasiIndependent(Array.from(load, (value) => ((value * topK) / load.length) * (topK - 1)));
  return Array.from(share, (value, i) => {
    const [a, b] = [first[i]!, second[i]!];
    const chance = expected[a]?.[b] ?? 0;
    const ratio = chance > 0 ? Number((value / chance).toPrecision(4)) : null;
    return { a, b, share: Number(value.toPrecision(4)), ratio };
  });
}

/** The history of a run's experts; null for a dense model, and before the first measurement. */
export async function expertHistory(store: CurveStore, entry: RunEntry): Promise<ExpertHistory | null> {
  const shown = await shownMomentsOf(store, entry);
  const experts = shown[0]?.load[0]?.length;
  if (experts === undefined) return null;
  const { config } = await entry.identity();
  const recipe = config["recipe"] as { readonly granularity?: unknown } | null | undefined;
  const granularity = Number(recipe?.granularity ?? 1);
  return {
    run: entry.name,
    steps: shown.map(({ step }) => step),
    tokens: shown.map(({ tokens }) => tokens),
    load: shown.map(({ load }) => load.map(fourDigits)),
    entropy: shown.map(({ entropy }) => entropy),
    violation: shown.map(({ violation }) => violation),
    similarity: shown.map(({ similarity }) => similarity),
    expertSimilarity: shown.some(({ expertSimilarity }) => expertSimilarity.length > 0)
      ? shown.map(({ expertSimilarity }) => expertSimilarity.map(fourDigits))
      : [],
    dead: shown.map(({ dead }) => dead),
    group: granularity > 1 && experts % granularity === 0 ? granularity : experts,
  };
}

/** Settings as dotted names with values in JSON; lists of layers that are alike stand once. */
export function flatSettings(config: Readonly<Record<string, unknown>>): (readonly [string, string])[] {
  const lines: (readonly [string, string])[] = [];
  const visit = (key: string, value: unknown): void => {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      for (const [name, inner] of Object.entries(value)) visit(key === "" ? name : `${key}.${name}`, inner);
      return;
    }
    if (Array.isArray(value) && value.length > 0 && typeof value[0] === "object") {
      const kinds = new Set(value.map((item) => JSON.stringify(item)));
      if (kinds.size === 1) return visit(`${key}[0 to ${value.length - 1}]`, value[0]);
      value.forEach((item, i) => visit(`${key}[${i}]`, item));
      return;
    }
    lines.push([key, typeof value === "string" ? value : JSON.stringify(value ?? null)]);
  };
  visit("", config);
  return lines;
}

/** All of a run but its curves. Throws inputError for a record that is damaged. */
export async function runDetail(index: StudioIndex, store: CurveStore, entry: RunEntry): Promise<RunDetail> {
  const columns = await store.of(entry, true);
  const { config } = entry.row.state === "unreadable" ? { config: {} } : await entry.identity();
  const checkpoints: readonly CheckpointRow[] = await entry.checkpoints();
  return {
    row: entry.row,
    metrics: columns.metrics,
    settings: flatSettings(config),
    checkpoints,
    messages: entry.alerts,
    command: await commandOf(index, entry.name),
    path: entry.path,
    memory: await memoryOf(entry),
    preservation: await preservationOf(index, entry.name),
    parts: Object.entries(columns.parts),
  };
}

/** The command that was noted in the folder of a run, or in one above it that is shown. */
export async function commandOf(index: StudioIndex, name: string): Promise<RecordedCommand | null> {
  const found = await commandFor(index, name);
  return found && { words: found.words, folder: found.folder };
}

/** The same, with the folder in which it was noted. */
export async function commandFor(
  index: StudioIndex,
  name: string,
): Promise<(RecordedCommand & { readonly holder: string }) | null> {
  for (let at = name; ; at = dirname(at)) {
    const folder = at === "." ? "" : at;
    const found = readCommand(await readPlainJson(join(index.root, folder, commandFile), 1e6, index.files));
    if (found !== null) return { ...found, holder: join(index.root, folder) };
    if (folder === "") return null;
  }
}

async function memoryOf(entry: RunEntry): Promise<RunDetail["memory"]> {
  const peak = entry.ended?.peakRssBytes ?? 0;
  if (peak > 0) return { bytes: peak, when: "peak" };
  if (entry.row.state !== "running" || process.platform !== "linux") return null;
  const lock = await readPlain(join(entry.path, lockName), MOST_LOCK_BYTES, entry.files);
  const owner = lockOwner(lock?.toString("utf8") ?? "");
  const pid = owner ? runningHere(owner) : null;
  if (pid === null) return null;
  try {
    const kilobytes = /^VmRSS:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1];
    return kilobytes === undefined ? null : { bytes: 1024 * Number(kilobytes), when: "now" };
  } catch {
    // It has just ended.
    return null;
  }
}

/**
 * What was measured of the model that a run starts from, or of a model itself: `preservation.json` in the folder, or
 * the file that a study keeps beside the model. Null where nothing was measured, or the file is none of ours.
 */
export async function preservationOf(index: StudioIndex, name: string): Promise<PreservationRow | null> {
  const file = await readPlainJson(join(index.pathOf(name), "preservation.json"), 16e6, index.files);
  return file === null ? null : preservationRow(file);
}

/** The measurement of a file, as pages show it; null for another file. */
export function preservationRow(file: unknown): PreservationRow | null {
  const found = file as Partial<PreservationReport> | null;
  const number = (value: unknown): value is number => typeof value === "number";
  if (found === null || typeof found !== "object") return null;
  const { maxAbsLogitDiff, maxAbsLogit, parentLoss, childLoss, tokens } = found;
  if (!number(maxAbsLogitDiff) || !number(maxAbsLogit) || !number(parentLoss) || !number(childLoss) || !number(tokens))
    return null;
  const relative = found.relative ?? maxAbsLogitDiff / maxAbsLogit;
  // A study measures models in float32.
  const { kind, words } = found.verdict ?? judgePreservation(relative, { parent: "F32", child: "F32" });
  return {
    verdict: kind,
    words,
    tokens,
    parentLoss,
    childLoss,
    relative,
    klDivergence: found.klDivergence ?? null,
    topAgreement: found.topAgreement ?? null,
    layers: found.layers ?? [],
  };
}
