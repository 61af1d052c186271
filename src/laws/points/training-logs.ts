/**
 * Tables from what trainers and trackers write: `trainer_state.json` of Hugging Face's Trainer, logs of Megatron-LM,
 * and
 * charts exported from Weights & Biases, which have a column per run.
 */
import { parseLine, type LogEvent } from "../../files/formats/megatron-log.js";
import type { Table } from "./cells.js";

type Entry = Readonly<Record<string, unknown>>;

/** Whether a JSON value is the state of Hugging Face's Trainer. */
export function isTrainerState(value: unknown): value is Entry & { readonly log_history: readonly Entry[] } {
  return typeof value === "object" && value !== null && Array.isArray((value as Entry).log_history);
}

const trainerHeaders = ["step", "epoch", "tokens", "total_flos", "learning_rate", "loss"] as const;

/**
 * A row for each evaluation, or for each logged step where nothing was evaluated. `tokens` is there where the Trainer
 * counted them (`include_num_input_tokens_seen`); `total_flos` is 6 times the parameters without embeddings times the
 * tokens.
 */
export function trainerTable(state: Entry & { readonly log_history: readonly Entry[] }): Table {
  const evaluations = state.log_history.filter((entry) => typeof entry.eval_loss === "number");
  const entries =
    evaluations.length > 0 ? evaluations : state.log_history.filter((entry) => typeof entry.loss === "number");
  const last = entries.at(-1);
  const rows = entries.map((entry) => {
    const own: Entry = {
      ...entry,
      loss: entry.eval_loss ?? entry.loss,
      tokens: entry.num_input_tokens_seen ?? (entry === last ? state.num_input_tokens_seen : undefined),
      total_flos: entry.total_flos ?? (entry === last ? state.total_flos : undefined),
    };
    return trainerHeaders.map((name) => textOf(own[name]));
  });
  return withoutEmptyColumns({ headers: [...trainerHeaders], rows, lines: rows.map((_, i) => i + 1) });
}

/** A count of zero tokens or FLOPs was not counted. */
function textOf(value: unknown): string {
  return typeof value === "number" && value !== 0 ? String(value) : "";
}

function withoutEmptyColumns({ headers, rows, lines }: Table): Table {
  const kept = headers.flatMap((_, j) => (rows.some((cells) => cells[j] !== "") ? [j] : []));
  const pick = (cells: readonly string[]): string[] => kept.map((j) => cells[j] ?? "");
  return { headers: pick(headers), rows: rows.map(pick), lines };
}

/** Whether a text is a log of Megatron-LM or of a framework that prints its lines. */
export const isMegatronLog = (text: string): boolean => /\biteration\s+\d+\s*\/\s*\d+\s*\|/.test(text);

const megatronHeaders = ["iteration", "samples", "tokens", "params", "learning_rate", "loss"] as const;
const parameterLine = /number of parameters on \(tensor, pipeline\) model parallel rank \((\d+), (\d+)\): (\d+)/;

/**
 * A row for each validation, or for each printed iteration where there is none. `tokens` are samples times the sequence
 * length and `params` the sum over model-parallel ranks, where the log says both.
 */
export function megatronTable(text: string): Table {
  const lines = text.split("\n");
  const events = lines.flatMap((line, i): { readonly line: number; readonly event: LogEvent }[] => {
    const event = parseLine(line);
    return event === null ? [] : [{ line: i + 1, event }];
  });
  const argument = (name: string): number =>
    Number(
      events.map(({ event }) => event).find((event) => event.type === "argument" && event.name === name)?.[
        "value" as never
      ],
    );
  const sequence = argument("seq_length");
  const params = parametersOf(lines);
  const samplesAt = new Map<number, number>();
  const rates = new Map<number, number>();
  const trained: (readonly [line: number, iteration: number, loss: number])[] = [];
  const validated: (readonly [line: number, iteration: number, loss: number])[] = [];
  for (const { line, event } of events) {
    if (event.type === "iteration") {
      if (event.consumedSamples !== null) samplesAt.set(event.iteration, event.consumedSamples);
      if (event.learningRate !== null) rates.set(event.iteration, event.learningRate);
      trained.push([line, event.iteration, event.loss]);
    } else if (event.type === "validation" && event.set === "validation" && event.iteration !== null) {
      validated.push([line, event.iteration, event.losses["lm loss"] ?? NaN]);
    }
  }
  const chosen = validated.length > 0 ? validated : trained;
  const rows = chosen.map(([, iteration, loss]) => {
    const samples = samplesAt.get(iteration);
    const values: Readonly<Record<(typeof megatronHeaders)[number], number | undefined>> = {
      iteration,
      samples,
      tokens: samples === undefined || !(sequence > 0) ? undefined : samples * sequence,
      params,
      learning_rate: rates.get(iteration),
      loss: Number.isNaN(loss) ? undefined : loss,
    };
    return megatronHeaders.map((name) => (values[name] === undefined ? "" : String(values[name])));
  });
  return withoutEmptyColumns({ headers: [...megatronHeaders], rows, lines: chosen.map(([line]) => line) });
}

/** The sum over ranks, each of which prints its own part once. */
function parametersOf(lines: readonly string[]): number | undefined {
  const byRank = new Map<string, number>();
  for (const line of lines) {
    const [, tensor, pipeline, count] = parameterLine.exec(line) ?? [];
    if (count !== undefined) byRank.set(`${tensor} ${pipeline}`, Number(count));
  }
  return byRank.size === 0 ? undefined : [...byRank.values()].reduce((sum, value) => sum + value, 0);
}

const chartColumn = /^(.+) - (.+)$/;

/**
 * A chart exported from Weights & Biases has a column `RUN - METRIC` for each run, with its smallest and largest values
 * beside it; here the run is a column, and each of its values a row. Any other table is returned as it is.
 */
export function withRunsInRows(table: Table): Table {
  const columns = table.headers.flatMap((header, j) => {
    const [, run, metric] = chartColumn.exec(header) ?? [];
    return run === undefined || metric === undefined || /__(?:MIN|MAX)$/.test(metric) ? [] : [{ j, run, metric }];
  });
  const metrics = new Set(columns.map(({ metric }) => metric));
  const [metric] = metrics;
  const others = table.headers.flatMap((header, j) => (chartColumn.test(header) ? [] : [j]));
  if (metric === undefined || metrics.size > 1 || !table.headers.some((header) => /__(?:MIN|MAX)$/.test(header)))
    return table;
  const cells = columns.flatMap(({ j, run }) =>
    table.rows.flatMap((row, i) =>
      (row[j] ?? "") === ""
        ? []
        : [{ line: table.lines[i] ?? 0, row: [run, ...others.map((k) => row[k] ?? ""), row[j] ?? ""] }],
    ),
  );
  return {
    headers: ["run", ...others.map((k) => table.headers[k] ?? ""), metric],
    rows: cells.map(({ row }) => row),
    lines: cells.map(({ line }) => line),
  };
}
