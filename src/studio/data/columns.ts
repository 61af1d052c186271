/** A run's log as columns of numbers: a hundredth of the memory that its records take. */
import { meanOf } from "../../base/mean.js";
import { firstAtLeast } from "../../base/search.js";
import { deadExperts } from "../../model/results/collapse.js";
import type { DoneRecord, EvalRecord, RecordSink, RoutingRecord, StepRecord } from "../../train/records.js";
import type { Numbers } from "./series.js";
import { Table } from "./table.js";
import { evalMetrics, stepMetrics, type CurveAxis, type Metric } from "./types.js";

/** Measures that are computed from what a step says of its routing. */
const routingMetrics: ReadonlySet<string> = new Set<(typeof stepMetrics)[number]>([
  "train/router_entropy",
  "train/max_violation",
  "train/dead_experts",
  "train/dropped",
]);

/** Whether a measure needs what steps say of their routing, which is most of a log. */
export const isOfRouting = (metric: Metric): boolean => routingMetrics.has(metric);

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

/** Values of a step, in the order of the measures. */
function stepValues(record: StepRecord, tokensPerStep: number): number[] {
  const { routing, ms } = record;
  return [
    numberOr(record.loss),
    ms > 0 ? (1000 * tokensPerStep) / ms : NaN,
    numberOr(record.learningRate),
    numberOr(record.gradNorm),
    numberOr(record.balanceLoss),
    numberOr(record.zLoss),
    ...(routing === undefined
      ? []
      : [mean(routing.entropy), worst(routing.maxViolation), deadOf(routing), mean(routing.dropped)]),
  ];
}

/** Values of a measurement, in the order of the measures. */
function evalValues(record: EvalRecord): number[] {
  const { routing } = record;
  return [
    numberOr(record.loss),
    mean(routing?.entropy),
    worst(routing?.maxViolation ?? []),
    deadOf(routing),
    mean(record.similarity),
  ];
}

interface ColumnsOptions {
  readonly hasRouting?: boolean;
  readonly steps?: number;
  readonly nextGeneration?: () => number;
  /** Steps that are kept at most. */
  readonly mostSteps?: number;
}

const counter = (): (() => number) => {
  let count = 0;
  return () => ++count;
};

/** What a run has measured. */
export class RunColumns implements RecordSink {
  readonly #steps: Table<(typeof stepMetrics)[number]>;
  readonly #evals = new Table<(typeof evalMetrics)[number]>(evalMetrics);
  #moments: EvalMoment[] = [];
  #every = 1;
  #sinceKept = 0;
  #parts: Readonly<Record<string, number>> = {};
  ended: DoneRecord | null = null;

  /** Hours of all steps: the column has fewer digits than a sum needs. */
  #hours = 0;

  /** Another number where points were taken back: until then, columns only grow. */
  generation: number;
  /** Whether steps are given with what they say of routing. */
  readonly hasRouting: boolean;

  readonly #nextGeneration: () => number;

  /**
   * `steps`: how many there will be, about, so that no memory is left behind as columns grow. `nextGeneration` gives
   * another number at every call.
   */
  constructor(
    private readonly tokensPerStep: number,
    options: ColumnsOptions = {},
  ) {
    const { hasRouting = true, steps = 0, nextGeneration = counter(), mostSteps } = options;
    this.hasRouting = hasRouting;
    this.#nextGeneration = nextGeneration;
    this.generation = nextGeneration();
    const singles = new Set(stepMetrics.filter((name) => name !== "train/loss"));
    this.#steps = new Table(stepMetrics, { singles, room: steps, most: mostSteps });
  }

  step(record: StepRecord): void {
    this.#hours += record.ms / 3_600_000;
    const { step, tokens } = record;
    const isThinned = this.#steps.add({ step, tokens, hours: this.#hours }, stepValues(record, this.tokensPerStep));
    if (isThinned) this.generation = this.#nextGeneration();
  }

  eval(record: EvalRecord): void {
    // A run that resumed from nothing measures its start again.
    if (this.#evals.step.last === record.step) {
      this.#evals.truncate(this.#evals.step.length - 1);
      this.generation = this.#nextGeneration();
    }
    if (this.#moments.at(-1)?.step === record.step) this.#moments.pop();
    const at = { step: record.step, tokens: record.tokens, hours: this.#hours };
    if (this.#evals.add(at, evalValues(record))) this.generation = this.#nextGeneration();
    this.#parts = record.parts ?? {};
    if (record.load.length === 0) return;
    this.#moments.push(momentOf(record));
    this.#thin();
  }

  resume(step: number): void {
    this.generation = this.#nextGeneration();
    this.#steps.truncate(firstAtLeast(this.#steps.step.values, step + 1));
    this.#evals.truncate(firstAtLeast(this.#evals.step.values, step + 1));
    this.#hours = this.#steps.hours.last ?? 0;
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
  curve(metric: Metric, axis: CurveAxis): { readonly x: Numbers; readonly y: Numbers } | null {
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

  /** Lets other runs have the memory of its curves: nothing that was read of them may be used any more. */
  release(): void {
    this.#steps.release();
    this.#evals.release();
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
    dead: routing?.dead ?? load.map((layer) => deadExperts(layer)),
    similarity,
    expertSimilarity: expertSimilarity.map((layer) => Float32Array.from(layer)),
    pairs: coactivation.map((layer) => ({
      first: Uint16Array.from(layer, ([a]) => a),
      second: Uint16Array.from(layer, ([, b]) => b),
      share: Float32Array.from(layer, ([, , share]) => share),
    })),
  };
}
