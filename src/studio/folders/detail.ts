/** What is read of a run only when it is looked at: curves, settings, checkpoints, how it was started. */
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { judgePreservation, type PreservationReport } from "../../model/results/preservation.js";
import { lockName } from "../../files/io/lock.js";
import { checkpointsOf, runIdentity } from "../../train/run-list.js";
import { commandFile, readCommand } from "../../files/io/command-file.js";
import { dispatchRecord, metricsFile } from "../../train/records.js";
import { quasiIndependent } from "../../experts/measures/coactivation.js";
import { RunColumns, type EvalMoment, type PairColumn } from "../data/columns.js";
import { decimated } from "../data/decimate.js";
import type {
  CheckpointRow,
  CoactivationHistory,
  CurveAxis,
  ExpertHistory,
  Metric,
  PreservationRow,
  RecordedCommand,
  RunCurve,
  RunDetail,
} from "../data/types.js";
import type { StudioIndex } from "./index.js";
import { LogTail } from "./log-tail.js";
import type { RunEntry } from "./run-entry.js";
import { readPlain, readPlainJson } from "./safe-file.js";

/** Memory that the curves of all runs that were looked at may take; those unused for longest are forgotten. */
const mostBytes = 48e6;

interface Kept {
  readonly columns: { current: RunColumns };
  readonly tail: LogTail;
  reading: Promise<void> | null;
}

/** Curves of runs, read when they are asked for and read on when they have grown. */
export class CurveStore {
  readonly #kept = new Map<string, Kept>();

  constructor(private readonly most = mostBytes) {}

  /** What a run has measured so far. */
  async of(entry: RunEntry): Promise<RunColumns> {
    if (!entry.isRead) await entry.refresh(Date.now());
    let kept = this.#kept.get(entry.name);
    // The order of the map is that of their use.
    this.#kept.delete(entry.name);
    kept ??= {
      columns: { current: new RunColumns(entry.tokensPerStep) },
      tail: new LogTail(join(entry.path, metricsFile)),
      reading: null,
    };
    this.#kept.set(entry.name, kept);
    const { columns, tail } = kept;
    kept.reading ??= tail
      .read((value) => {
        if (value === undefined) columns.current = new RunColumns(entry.tokensPerStep);
        else dispatchRecord(value, columns.current);
      })
      .then(() => undefined)
      .finally(() => {
        kept.reading = null;
      });
    await kept.reading;
    this.#forget();
    return columns.current;
  }

  /** Bytes of all columns. */
  get bytes(): number {
    return [...this.#kept.values()].reduce((sum, { columns }) => sum + columns.current.bytes, 0);
  }

  #forget(): void {
    let bytes = this.bytes;
    for (const [name, { columns }] of this.#kept) {
      if (bytes <= this.most || this.#kept.size === 1) return;
      bytes -= columns.current.bytes;
      this.#kept.delete(name);
    }
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
}

/** Digits of a value that a curve carries: finer than any pixel. */
const shortened = (value: number | null): number | null => (value === null ? null : Number(value.toPrecision(7)));

/** A curve of a run; without points where its log has none of it. */
export async function curveOf(store: CurveStore, entry: RunEntry, request: CurveRequest): Promise<RunCurve> {
  const curve = (await store.of(entry)).curve(request.metric, request.axis);
  const { revision } = entry.row;
  if (curve === null) return { run: entry.name, x: [], y: [], total: 0, revision };
  const { x, y } = decimated(curve.x, curve.y, request);
  return { run: entry.name, x, y: y.map(shortened), total: curve.x.length, revision };
}

/** Moments of expert loads that a page gets. */
const shownMoments = 60;

async function shownMomentsOf(store: CurveStore, entry: RunEntry): Promise<readonly EvalMoment[]> {
  const { moments } = await store.of(entry);
  const every = Math.max(1, Math.ceil(moments.length / shownMoments));
  return moments.filter((_, i) => i % every === 0 || i === moments.length - 1);
}

const digits = (values: Float32Array): number[] => Array.from(values, (value) => Number(value.toPrecision(4)));

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
  const { spec } = await runIdentity(entry.path);
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
  const { config } = await runIdentity(entry.path);
  const recipe = config["recipe"] as { readonly granularity?: unknown } | null | undefined;
  const granularity = Number(recipe?.granularity ?? 1);
  return {
    run: entry.name,
    steps: shown.map(({ step }) => step),
    tokens: shown.map(({ tokens }) => tokens),
    load: shown.map(({ load }) => load.map(digits)),
    entropy: shown.map(({ entropy }) => entropy),
    violation: shown.map(({ violation }) => violation),
    similarity: shown.map(({ similarity }) => similarity),
    expertSimilarity: shown.some(({ expertSimilarity }) => expertSimilarity.length > 0)
      ? shown.map(({ expertSimilarity }) => expertSimilarity.map(digits))
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
  const columns = await store.of(entry);
  const { config } = entry.row.state === "unreadable" ? { config: {} } : await runIdentity(entry.path);
  const checkpoints: readonly CheckpointRow[] = await checkpointsOf(entry.path).catch(() => []);
  return {
    row: entry.row,
    metrics: columns.metrics,
    settings: flatSettings(config),
    checkpoints,
    messages: entry.alerts,
    command: await commandOf(index, entry.name),
    path: entry.path,
    memory: await memoryOf(entry),
    preservation: await preservationOf(index.root, entry.name),
    parts: Object.entries(columns.parts),
  };
}

/** The command that was noted in the folder of a run, or in one above it that is shown. */
export async function commandOf(index: StudioIndex, name: string): Promise<RecordedCommand | null> {
  for (let at = name; ; at = dirname(at)) {
    const folder = at === "." ? "" : at;
    const found = readCommand(await readPlainJson(join(index.root, folder, commandFile), 1e6));
    if (found !== null) return found;
    if (folder === "") return null;
  }
}

async function memoryOf(entry: RunEntry): Promise<RunDetail["memory"]> {
  const peak = entry.ended?.peakRssBytes ?? 0;
  if (peak > 0) return { bytes: peak, when: "peak" };
  if (entry.row.state !== "running" || process.platform !== "linux") return null;
  const pid = Number((await readPlain(join(entry.path, lockName), 64))?.toString("utf8").trim());
  if (!Number.isInteger(pid) || pid <= 0) return null;
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  const kilobytes = /^VmRSS:\s*(\d+) kB$/m.exec(status)?.[1];
  return kilobytes === undefined ? null : { bytes: 1024 * Number(kilobytes), when: "now" };
}

/**
 * What was measured of the model that a run starts from, or of a model itself: `preservation.json` in the folder, or
 * the file that a study keeps beside the model. Null where nothing was measured, or the file is none of ours.
 */
export async function preservationOf(root: string, name: string): Promise<PreservationRow | null> {
  const file = await readPlainJson(join(root, name, "preservation.json"), 16e6);
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
