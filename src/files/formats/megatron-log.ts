/**
 * Lines of Megatron-LM's, Megatron Bridge's and NeMo's logs as events. Source: NVIDIA/Megatron-LM@d98e8a64,
 * `training/training.py` (training_log, evaluate_and_print_results), `training/checkpointing.py`. Pure.
 */

/** What a line of a log says. */
export type LogEvent =
  | IterationEvent
  | {
      readonly type: "validation";
      readonly iteration: number | null;
      /** `validation`, `test`, or the name of one of several sets. */
      readonly set: string;
      readonly losses: Readonly<Record<string, number>>;
    }
  | { readonly type: "saved"; readonly at: string | null; readonly iteration: number; readonly dir: string }
  | { readonly type: "loaded"; readonly iteration: number | null; readonly dir: string }
  | { readonly type: "started"; readonly worldSize: number; readonly degrees: Readonly<Record<string, number>> }
  | { readonly type: "argument"; readonly name: string; readonly value: string }
  | {
      readonly type: "memory";
      readonly rank: number;
      readonly when: string;
      readonly megabytes: Readonly<Record<string, number>>;
    }
  | { readonly type: "ended"; readonly why: string }
  | { readonly type: "problem"; readonly kind: ProblemKind; readonly message: string };

/** A training step's line. */
export interface IterationEvent {
  readonly type: "iteration";
  /** As printed, without a time zone. */
  readonly at: string | null;
  readonly iteration: number;
  readonly of: number;
  /** NaN where the line has no `lm loss`: Megatron prints no loss that is not a number. */
  readonly loss: number;
  /** Every loss by its printed name. */
  readonly losses: Readonly<Record<string, number>>;
  readonly milliseconds: number | null;
  readonly tflopsPerGpu: number | null;
  readonly learningRate: number | null;
  readonly globalBatch: number | null;
  readonly consumedSamples: number | null;
  readonly gradNorm: number | null;
  readonly lossScale: number | null;
  readonly skipped: number;
  readonly nan: number;
  /** All fields as printed. */
  readonly fields: Readonly<Record<string, string>>;
}

/** What stops a run, or makes its result worthless. */
export type ProblemKind = "load" | "random-weights" | "memory" | "error" | "node";

const stamp = String.raw`\[?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?)\]?`;

/** Longest part of a line that is looked at. */
const longest = 20_000;

/** What a line says; null: nothing of interest. Prefixes of launchers, such as `0: `, are passed over. */
export function parseLine(raw: string): LogEvent | null {
  const line = raw.slice(0, longest).replace(/\r$/, "");
  for (const parse of parsers) {
    const event = parse(line);
    if (event !== null) return event;
  }
  return null;
}

type LineParser = (line: string) => LogEvent | null;

const parsers: readonly LineParser[] = [
  iterationLine,
  validationLine,
  checkpointLine,
  problemLine,
  startLine,
  memoryLine,
  argumentLine,
];

function fieldsOf(text: string): Record<string, string> {
  const fields: Record<string, string> = {};
  for (const part of text.split("|")) {
    const at = part.lastIndexOf(":");
    if (at > 0) fields[part.slice(0, at).trim()] = part.slice(at + 1).trim();
  }
  return fields;
}

const toNumber = (text: string | undefined): number | null => {
  if (text === undefined || text === "") return null;
  if (/^-?inf/i.test(text)) return text.startsWith("-") ? -Infinity : Infinity;
  const value = Number(text);
  return /^[-+]?nan$/i.test(text) || Number.isNaN(value) ? NaN : value;
};

const iterationPattern = new RegExp(String.raw`(?:${stamp}\s+)?\biteration\s+(\d+)/\s*(\d+)\s*\|(.*)$`);
/** Fields that are neither losses nor read by name. */
const others =
  /^(consumed|elapsed|throughput|learning|global batch|loss scale|grad norm|num|params|samples|tokens|mem|max)/i;

function iterationLine(line: string): LogEvent | null {
  const match = iterationPattern.exec(line);
  if (match === null) return null;
  const [, at = null, iteration, of, rest = ""] = match;
  const fields = fieldsOf(rest);
  // The end of a node has cut the line off, and the next start has written on behind it: nothing is known of its loss.
  if (!Object.keys(fields).some((name) => name.startsWith("elapsed time") || name === "lm loss")) return null;
  const starting = (name: string): number | null => {
    const key = Object.keys(fields).find((one) => one.startsWith(name));
    return key === undefined ? null : toNumber(fields[key]);
  };
  const losses = Object.fromEntries(
    Object.entries(fields).flatMap(([name, value]) => {
      const own = toNumber(value);
      return own === null || others.test(name) ? [] : [[name, own]];
    }),
  );
  return {
    type: "iteration",
    at: at ?? null,
    iteration: Number(iteration),
    of: Number(of),
    loss: losses["lm loss"] ?? NaN,
    losses,
    milliseconds: starting("elapsed time per iteration"),
    tflopsPerGpu: starting("throughput per GPU"),
    learningRate: starting("learning rate"),
    globalBatch: starting("global batch size"),
    consumedSamples: starting("consumed samples"),
    gradNorm: starting("grad norm"),
    lossScale: starting("loss scale"),
    skipped: starting("number of skipped iterations") ?? 0,
    nan: starting("number of nan iterations") ?? 0,
    fields,
  };
}

function validationLine(line: string): LogEvent | null {
  const match = /\b(validation|test)\s*(\S*)\s+loss at iteration\s+(\d+)(?: on (.+?))?\s*\|(.*)$/.exec(line);
  if (match === null) return null;
  const [, kind, suffix = "", iteration, where, rest = ""] = match;
  const losses = Object.fromEntries(
    Object.entries(fieldsOf(rest)).flatMap(([name, value]) => {
      const own = toNumber(value);
      return own === null ? [] : [[name.replace(/ value$/, ""), own]];
    }),
  );
  const set = (where ?? "").replace(/ set$/, "") || suffix || kind!;
  return { type: "validation", iteration: Number(iteration), set, losses };
}

function checkpointLine(line: string): LogEvent | null {
  const saved = new RegExp(
    String.raw`(?:${stamp}\s+)?successfully saved checkpoint from iteration\s+(\d+) to (\S+)`,
  ).exec(line);
  if (saved !== null) return { type: "saved", at: saved[1] ?? null, iteration: Number(saved[2]), dir: saved[3]! };
  const loaded = /successfully loaded checkpoint from (\S+)(?:.*\bat iteration (\d+))?/.exec(line);
  if (loaded !== null)
    return { type: "loaded", iteration: loaded[2] === undefined ? null : Number(loaded[2]), dir: loaded[1]! };
  const ended =
    /\[after training is done\]|\bexiting program (?:at|after) .*/.exec(line) ??
    // A time limit, a preemption, scancel; a node that failed is a problem.
    /\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT (?!.*NODE FAILURE).*\*\*\*/.exec(line);
  return ended === null ? null : { type: "ended", why: ended[0].replace(/^\[|\]$/g, "") };
}

const problems: readonly (readonly [RegExp, ProblemKind])[] = [
  [/^\s*(?:\d+:\s*)?load_return: /, "load"],
  [/will start from random/, "random-weights"],
  [/(?:torch\.)?(?:cuda\.)?OutOfMemoryError|CUDA out of memory/, "memory"],
  [/NCCL (?:watchdog|error)|ProcessGroupNCCL.*timeout|NODE FAILURE|slurmstepd\S*: error: .*FAILED/i, "node"],
  [/^\s*(?:\d+:\s*)?(?:\[rank\d+\]:\s*)?(?:\w+\.)*\w*(?:Error|Exception): \S/, "error"],
];

function problemLine(line: string): LogEvent | null {
  const found = problems.find(([pattern]) => pattern.test(line));
  return found === undefined ? null : { type: "problem", kind: found[1], message: line.trim().slice(0, 500) };
}

function startLine(line: string): LogEvent | null {
  const world = /using world size: (\d+), (.*)$/.exec(line);
  if (world === null) return null;
  const degrees = Object.fromEntries(
    [...world[2]!.matchAll(/([\w-]+)(?:[- ]size)?: (\d+)/g)].map(([, name, size]) => [
      name!.replace(/-size$/, ""),
      Number(size),
    ]),
  );
  return { type: "started", worldSize: Number(world[1]), degrees };
}

function memoryLine(line: string): LogEvent | null {
  const match = /\[Rank (\d+)\] \(([^)]*)\) memory \(MB\) \|(.*)$/.exec(line);
  if (match === null) return null;
  const megabytes = Object.fromEntries(
    Object.entries(fieldsOf(match[3]!)).flatMap(([name, value]) => {
      const own = toNumber(value);
      return own === null ? [] : [[name, own]];
    }),
  );
  return { type: "memory", rank: Number(match[1]), when: match[2]!, megabytes };
}

function argumentLine(line: string): LogEvent | null {
  const match = /^\s{2}([a-z_]\w*) \.{2,}\s(.*)$/.exec(line) ?? /^\s{2}([a-z_]\w{45,}) {2}(\S.*)$/.exec(line);
  return match === null ? null : { type: "argument", name: match[1]!, value: match[2]!.trim() };
}
