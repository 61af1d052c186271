/** A run's log as columns of numbers: a hundredth of the memory that its records take. */
import { meanOf } from "../../base/mean.js";
import type { DoneRecord, EvalRecord, RecordSink, RoutingRecord, StepRecord } from "../../train/records.js";
import { firstAtLeast } from "./decimate.js";
import { deadShare } from "../../model/results/result.js";
import { evalMetrics, stepMetrics, type CurveAxis, type Metric } from "./types.js";

/** Numbers that grow at their end. */
export class Series {
  #values = new Float64Array(64);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** The values as they are now; a view that later values may leave behind. */
  get values(): Float64Array {
    return this.#values.subarray(0, this.#length);
  }

  push(value: number): void {
    if (this.#length === this.#values.length) {
      const larger = new Float64Array(2 * this.#length);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.#length++] = value;
  }

  /** Takes back all but the first `length` values. */
  truncate(length: number): void {
    this.#length = Math.min(this.#length, length);
  }

  get bytes(): number {
    return this.#values.byteLength;
  }
}

/** What is kept of a measurement on held-out text beside its numbers. */
export interface EvalMoment {
  readonly step: number;
  readonly tokens: number;
  /** Multiples of an equal share [layers][experts]. */
  readonly load: readonly Float32Array[];
  readonly entropy: readonly number[];
  readonly violation: readonly number[];
  readonly dead: readonly (readonly number[])[];
  readonly similarity: readonly number[];
  /** Mean cosine of each expert and its part of the parent's FFN [layers][experts]; empty where the log has none. */
  readonly expertSimilarity: readonly Float32Array[];
  /** Pairs of experts that serve the same tokens [layers]; empty where the log has none. */
  readonly pairs: readonly PairColumn[];
}

/** Pairs of experts of one layer: place i of each is one pair. */
export interface PairColumn {
  readonly first: Uint16Array;
  readonly second: Uint16Array;
  /** Share of the tokens that were given to both. */
  readonly share: Float32Array;
}

/** Moments of expert loads that are kept at most: every second is dropped when there are twice as many. */
const mostMoments = 128;

const numberOr = (value: number | null | undefined): number => value ?? NaN;
const worst = (values: readonly number[]): number => (values.length === 0 ? NaN : Math.max(...values));
const mean = (values: readonly number[] | undefined): number =>
  values === undefined || values.length === 0 ? NaN : meanOf(values);
const deadOf = (routing: RoutingRecord | undefined): number =>
  routing === undefined ? NaN : routing.dead.reduce((sum, { length }) => sum + length, 0);

/** Values of a step by measure. */
function stepValues(record: StepRecord, tokensPerStep: number): Readonly<Record<(typeof stepMetrics)[number], number>> {
  const { routing } = record;
  return {
    "train/loss": numberOr(record.loss),
    "train/tokens_per_second": record.ms > 0 ? (1000 * tokensPerStep) / record.ms : NaN,
    "train/learning_rate": numberOr(record.learningRate),
    "train/grad_norm": numberOr(record.gradNorm),
    "train/balance_loss": numberOr(record.balanceLoss),
    "train/z_loss": numberOr(record.zLoss),
    "train/router_entropy": mean(routing?.entropy),
    "train/max_violation": worst(routing?.maxViolation ?? []),
    "train/dead_experts": deadOf(routing),
    "train/dropped": mean(routing?.dropped),
  };
}

/** Values of a measurement by measure. */
function evalValues(record: EvalRecord): Readonly<Record<(typeof evalMetrics)[number], number>> {
  const { routing } = record;
  return {
    "eval/loss": numberOr(record.loss),
    "eval/router_entropy": mean(routing?.entropy),
    "eval/max_violation": worst(routing?.maxViolation ?? []),
    "eval/dead_experts": deadOf(routing),
    "eval/similarity": mean(record.similarity),
  };
}

class Table<Name extends string> {
  readonly step = new Series();
  readonly tokens = new Series();
  readonly hours = new Series();
  readonly #columns = new Map<Name, Series>();

  constructor(private readonly names: readonly Name[]) {}

  add(
    at: { readonly step: number; readonly tokens: number; readonly hours: number },
    values: Readonly<Record<Name, number>>,
  ): void {
    const { length } = this.step;
    this.step.push(at.step);
    this.tokens.push(at.tokens);
    this.hours.push(at.hours);
    for (const name of this.names) {
      const value = values[name];
      let column = this.#columns.get(name);
      // A measure that no record has takes no room.
      if (column === undefined) {
        if (Number.isNaN(value)) continue;
        column = new Series();
        for (let i = 0; i < length; i++) column.push(NaN);
        this.#columns.set(name, column);
      }
      column.push(value);
    }
  }

  column(name: Name): Float64Array | null {
    return this.#columns.get(name)?.values ?? null;
  }

  /** The measures that some record has. */
  get present(): readonly Name[] {
    return this.names.filter((name) => this.#columns.has(name));
  }

  truncate(length: number): void {
    for (const series of this.#all()) series.truncate(length);
  }

  get bytes(): number {
    return this.#all().reduce((sum, series) => sum + series.bytes, 0);
  }

  #all(): Series[] {
    return [this.step, this.tokens, this.hours, ...this.#columns.values()];
  }
}

/** What a run has measured. */
export class RunColumns implements RecordSink {
  readonly #steps = new Table<(typeof stepMetrics)[number]>(stepMetrics);
  readonly #evals = new Table<(typeof evalMetrics)[number]>(evalMetrics);
  #moments: EvalMoment[] = [];
  #every = 1;
  #sinceKept = 0;
  #parts: Readonly<Record<string, number>> = {};
  ended: DoneRecord | null = null;

  constructor(private readonly tokensPerStep: number) {}

  step(record: StepRecord): void {
    const hours = this.#hours() + record.ms / 3_600_000;
    this.#steps.add({ step: record.step, tokens: record.tokens, hours }, stepValues(record, this.tokensPerStep));
  }

  eval(record: EvalRecord): void {
    // A run that resumed from nothing measures its start again.
    if (this.#evals.step.values.at(-1) === record.step) this.#evals.truncate(this.#evals.step.length - 1);
    if (this.#moments.at(-1)?.step === record.step) this.#moments.pop();
    this.#evals.add({ step: record.step, tokens: record.tokens, hours: this.#hours() }, evalValues(record));
    this.#parts = record.parts ?? {};
    if (record.load.length === 0) return;
    this.#moments.push(momentOf(record));
    this.#thin();
  }

  resume(step: number): void {
    this.#steps.truncate(firstAtLeast(this.#steps.step.values, step + 1));
    this.#evals.truncate(firstAtLeast(this.#evals.step.values, step + 1));
    this.#moments = this.#moments.filter((moment) => moment.step <= step);
    this.ended = null;
  }

  done(record: DoneRecord): void {
    this.ended = record;
  }

  /** Measures that the log holds. */
  get metrics(): readonly Metric[] {
    return [...this.#steps.present, ...this.#evals.present];
  }

  /** A measure by x; null where the log has none of it. Views that later records may leave behind. */
  curve(metric: Metric, axis: CurveAxis): { readonly x: Float64Array; readonly y: Float64Array } | null {
    const isStep = (stepMetrics as readonly string[]).includes(metric);
    const table = isStep ? this.#steps : this.#evals;
    const y = isStep
      ? this.#steps.column(metric as (typeof stepMetrics)[number])
      : this.#evals.column(metric as (typeof evalMetrics)[number]);
    return y === null ? null : { x: table[axis].values, y };
  }

  /** Measurements with expert loads: the first, the last, and some between. */
  get moments(): readonly EvalMoment[] {
    return this.#moments;
  }

  /** Held-out losses of the parts of a data mix, of the last measurement. */
  get parts(): Readonly<Record<string, number>> {
    return this.#parts;
  }

  /** Memory that all of it takes. */
  get bytes(): number {
    const moments = this.#moments.reduce(
      (sum, { load, expertSimilarity, pairs }) =>
        sum +
        [...load, ...expertSimilarity].reduce((n, layer) => n + layer.byteLength + 160, 0) +
        pairs.reduce((n, { share }) => n + 8 * share.length + 480, 0),
      0,
    );
    return this.#steps.bytes + this.#evals.bytes + moments;
  }

  #hours(): number {
    return this.#steps.hours.values.at(-1) ?? 0;
  }

  /** The newest moment is always kept; the one before it only if its turn has come. */
  #thin(): void {
    const before = this.#moments.length - 2;
    if (before > 0) {
      this.#sinceKept++;
      if (this.#sinceKept < this.#every) this.#moments.splice(before, 1);
      else this.#sinceKept = 0;
    }
    if (this.#moments.length < 2 * mostMoments) return;
    this.#moments = this.#moments.filter((_, i) => i % 2 === 0 || i === this.#moments.length - 1);
    this.#every *= 2;
    this.#sinceKept = 0;
  }
}

function momentOf(record: EvalRecord): EvalMoment {
  const { step, tokens, load, routing, similarity, expertSimilarity = [], coactivation = [] } = record;
  return {
    step,
    tokens,
    load: load.map((layer) => Float32Array.from(layer, (share) => share * layer.length)),
    entropy: routing?.entropy ?? [],
    violation: routing?.maxViolation ?? [],
    dead: routing?.dead ?? load.map((layer) => deadIn(layer)),
    similarity,
    expertSimilarity: expertSimilarity.map((layer) => Float32Array.from(layer)),
    pairs: coactivation.map((layer) => ({
      first: Uint16Array.from(layer, ([a]) => a),
      second: Uint16Array.from(layer, ([, b]) => b),
      share: Float32Array.from(layer, ([, , share]) => share),
    })),
  };
}

/** Logs of earlier versions do not name their dead experts. */
function deadIn(layer: readonly number[]): number[] {
  return layer.flatMap((share, expert) => (share * layer.length < deadShare ? [expert] : []));
}
