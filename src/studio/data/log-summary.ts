/** What the list of runs shows of a log, read on with it: of a long one nearly every line is passed over unparsed. */
import type { DoneRecord, EvalRecord, RecordSink, StepRecord } from "../../train/records.js";

/** Steps whose times make the speed. */
const speedSteps = 64;
/** Records at the end of a log that are judged when it is read for the first time, and those of which routing is. */
const judgedRecords = 64;
const routedRecords = 4;
/** Records that may wait before early ones are let go. */
const mostWaiting = 8 * judgedRecords;

/** What a step of a log begins with, as the training writes it. */
const stepStart = '{"type":"step",';

/**
 * Whether a line is a step as the training writes it, whole. What was cut off or has run into the next line is not, so
 * that it is parsed and found to be none.
 */
export const isStepLine = (line: string): boolean =>
  line.startsWith(stepStart) && line.endsWith("}") && !line.includes('{"type":', stepStart.length);

/**
 * The line of a step without what it says of routing, which is most of it and holds no object: it is parsed in a fifth
 * of the time. A line without routing as it is.
 */
export function withoutRouting(line: string): string {
  const from = line.indexOf(',"routing":{');
  const to = from < 0 ? -1 : line.indexOf("}", from);
  return to < 0 ? line : line.slice(0, from) + line.slice(to + 1);
}

/**
 * A step as far as it is judged. One that says nothing bad may be without its norm, which is a number then, and without
 * what it says of routing.
 */
export type JudgedStep = Pick<StepRecord, "type" | "step" | "tokens" | "loss" | "ms"> &
  Partial<Pick<StepRecord, "gradNorm" | "routing" | "skipped">>;

/** What is judged of a run: its steps, its measurements, and where it went on. */
export type Judged = JudgedStep | EvalRecord | { readonly type: "resume"; readonly step: number };

const stepNumbers = /^\{"type":"step","step":(\d+),"tokens":(\d+),"loss":(-?\d[^,]*),/;
const msName = '"ms":';

/**
 * A step that is not notable, by the numbers of its line that are judged: most of a line is other numbers, and parsing
 * them is most of what a list of many runs costs. Null for a line that is written in another way.
 */
export function briefStep(line: string): JudgedStep | null {
  const found = stepNumbers.exec(line);
  const at = line.lastIndexOf(msName);
  if (found === null || at < 0) return null;
  const [step, tokens, loss] = [Number(found[1]), Number(found[2]), Number(found[3])];
  const ms = parseFloat(line.slice(at + msName.length));
  return Number.isFinite(loss) && Number.isFinite(ms) ? { type: "step", step, tokens, loss, ms } : null;
}

/** What the list shows of the last step: its losses are void where the run went back to an earlier one. */
interface LastStep {
  readonly step: number;
  readonly tokens: number;
  readonly loss: number | null;
}

/** A measurement as far as the list shows it. */
interface Measured {
  readonly step: number;
  readonly tokens: number;
  /** NaN where it is not finite. */
  readonly loss: number;
}

/**
 * Whether a text has a step that says by itself that something went wrong. One expression goes over it once, which
 * takes an eighth of the time of a search for each word.
 */
const notable = /"(?:loss|gradNorm)":null|"skipped":/;
const hasNotable = (text: string): boolean => notable.test(text);

/** Whether a record says by itself that something went wrong, or that the run went on from an earlier step. */
const isNotable = (record: Judged): boolean =>
  record.type === "resume" ||
  !Number.isFinite(record.loss ?? NaN) ||
  (record.type === "eval" && record.unseenCollapse !== undefined) ||
  (record.type === "step" && (record.skipped !== undefined || record.gradNorm === null));

/** Median of the last steps' milliseconds; the first two include the start. */
function usualMs(times: readonly number[]): number | null {
  const sorted = times.slice(times.length > 4 ? 2 : 0).sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? null;
}

/** Numbers of a log that the list shows. Steps count once they are settled. */
export class LogSummary implements RecordSink {
  lastStep: LastStep | null = null;
  ended: DoneRecord | null = null;
  /** Dead experts by MoE layer at the last measurement, and all experts of all layers; null before there is one. */
  last: {
    readonly step: number;
    readonly dead: readonly (readonly number[])[] | null;
    readonly experts: number;
  } | null = null;
  /** The run went on since its record was read, which may be another one by now. */
  hasResumed = false;
  /** Held-out losses by step. */
  readonly losses: Measured[] = [];
  /** Lines that look like steps and are none. */
  badLines = 0;
  readonly #times: number[] = [];
  /** What is neither settled nor judged yet, in the order of the log; steps that are not notable as their lines. */
  #waiting: (string | Judged)[] = [];
  /** Whether no step of the piece that is being read is notable. */
  #isCalm = false;

  /**
   * Called with many lines before they are given: where none of them is notable, none has to be looked at, and a long
   * text is searched many times as fast as its lines.
   */
  piece(text: string): void {
    this.#isCalm = !hasNotable(text);
  }

  /** Takes the line of a step without parsing it. Returns false for any other line. */
  keep(line: string): boolean {
    if (!isStepLine(line)) return false;
    const waits = this.#isCalm || !hasNotable(line) ? line : this.#parsed(line, true);
    if (waits !== null) this.#wait(waits);
    return true;
  }

  step(record: StepRecord): void {
    this.#wait(record);
  }

  eval(record: EvalRecord): void {
    if (this.losses.at(-1)?.step === record.step) this.losses.pop();
    this.losses.push({ step: record.step, tokens: record.tokens, loss: record.loss ?? NaN });
    const experts = record.load.reduce((sum, { length }) => sum + length, 0);
    this.last = { step: record.step, dead: record.routing?.dead ?? null, experts };
    this.#wait(record);
  }

  resume(step: number): void {
    while ((this.losses.at(-1)?.step ?? -1) > step) this.losses.pop();
    if ((this.last?.step ?? -1) > step) this.last = null;
    this.ended = null;
    this.hasResumed = true;
    this.#wait({ type: "resume", step });
  }

  done(record: DoneRecord): void {
    this.ended = record;
  }

  /** The median time of a step, in milliseconds; null before there is one. */
  get msPerStep(): number | null {
    return usualMs(this.#times);
  }

  /** Reads the steps that wait. Returns what is to be judged, in the order of the log. */
  settle(): Judged[] {
    const judged: Judged[] = [];
    const waiting = this.#waiting;
    this.#waiting = [];
    for (let i = 0; i < waiting.length; i++) {
      const record = this.#parsed(waiting[i]!, waiting.length - i <= routedRecords);
      if (record === null) continue;
      if (record.type === "step") {
        this.lastStep = { step: record.step, tokens: record.tokens, loss: record.loss };
        this.#times.push(record.ms);
        if (this.#times.length > speedSteps) this.#times.shift();
      } else if (record.type === "resume") this.lastStep = stepBackAt(record.step, this.lastStep, judged);
      judged.push(record);
    }
    return judged;
  }

  #parsed(record: string | Judged, hasRouting: boolean): Judged | null {
    if (typeof record !== "string") return record;
    const brief = hasRouting ? null : briefStep(record);
    if (brief !== null) return brief;
    try {
      return JSON.parse(hasRouting ? record : withoutRouting(record)) as StepRecord;
    } catch {
      this.badLines++;
      return null;
    }
  }

  /** Of a long log that is read for the first time the last records are judged, and those that are notable. */
  #wait(record: string | Judged): void {
    this.#waiting.push(record);
    if (this.#waiting.length <= mostWaiting) return;
    const early = this.#waiting
      .slice(0, -judgedRecords)
      .filter((one) => typeof one !== "string" && isNotable(one))
      .slice(-judgedRecords);
    this.#waiting = [...early, ...this.#waiting.slice(-judgedRecords)];
  }
}

/** The last step of a run that went back to `step`: as the log has it, or by the tokens of a step. */
function stepBackAt(step: number, last: LastStep | null, judged: readonly Judged[]): LastStep | null {
  if (last === null || last.step <= step) return last;
  if (step === 0) return null;
  const found = judged.findLast((record) => record.type === "step" && record.step === step);
  if (found?.type === "step") return { step, tokens: found.tokens, loss: found.loss };
  return { step, tokens: Math.round((last.tokens / last.step) * step), loss: null };
}
