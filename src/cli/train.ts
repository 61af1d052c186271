/** `upcycle train`: the training that a train file describes. */
import { join } from "node:path";
import { Command } from "commander";
import { at } from "../base/at.js";
import { resultOf } from "../base/events.js";
import { bytes, duration } from "../base/format.js";
import type { TrainConfig } from "../base/schemas/train.js";
import { trainedFiles } from "../surgery/convert/trained-card.js";
import { sizeLimits } from "../files/io/open.js";
import { readText } from "../files/io/ranges.js";
import type { LogFormat } from "../train/exported-logs.js";
import type { EvalRecord } from "../train/records.js";
import { trainFromConfig } from "../train/from-config.js";
import type { RunResult } from "../train/run.js";
import { givenCommand } from "./assets.js";
import { openContext, shownPath } from "./context.js";
import { chosenBackend, withPrecision, type PrecisionFlags } from "./device.js";
import { logOption } from "./log-option.js";
import { modelSource } from "./model-folder.js";
import { defaultThreads, threadsOfFile, withExample, withJson, withThreads, type CommonFlags } from "./options.js";
import { peakWords, savingWords, trainingView } from "./progress.js";
import { resolvedBy } from "./settings.js";

interface TrainFlags extends CommonFlags, PrecisionFlags {
  readonly out?: string;
  readonly log?: readonly LogFormat[];
}

/** The command with its options and its help. */
export function trainCommand(): Command {
  const command = new Command("train")
    .description("train a new model, or an existing one further, on text")
    .argument("<file>", "train file (YAML; see recipes/train.yaml)")
    .option("--out <dir>", "run folder (default: the file's); the same folder goes on where it was stopped")
    .option(...logOption)
    .action(execute);
  resolvedBy(command, async ([file = ""], flags: TrainFlags) => {
    const config = await readConfig(file);
    return { options: { out: flags.out ?? config.out, threads: threadsFor(file, flags, config) }, file: config };
  });
  return withExample(
    withJson(withThreads(withPrecision(command), "the file's, else all cores")),
    "upcycle train recipes/train.yaml --out runs/small",
  );
}

/** The help needs no schemas, which take their time to build. */
async function readConfig(file: string): Promise<TrainConfig> {
  const { parseTrainConfig } = await import("../base/schemas/train.js");
  return parseTrainConfig(await readText(file, sizeLimits.yaml), shownPath(file));
}

const threadsFor = (file: string, flags: TrainFlags, config: Pick<TrainConfig, "threads">): number =>
  flags.threads ?? threadsOfFile(config.threads, shownPath(file)) ?? defaultThreads();

async function execute(file: string, flags: TrainFlags): Promise<void> {
  const fileConfig = await readConfig(file);
  const { model } = fileConfig;
  const config =
    typeof model === "string" ? { ...fileConfig, model: await modelSource(model, flags.json) } : fileConfig;
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: savingWords });
  const dir = flags.out ?? config.out;
  const threads = threadsFor(file, flags, config);
  const view = trainingView(terminal, "train");
  const backend = await chosenBackend(flags.device, terminal, flags.precision);
  const training = trainFromConfig({
    config,
    dir,
    threads,
    signal,
    backend,
    log: flags.log,
    describe: trainedFiles,
    command: givenCommand(),
  });
  const result = await resultOf(training, (event) => {
    if (event.type === "phase") terminal.note(event.label);
    else if (event.type === "note") terminal.note(`  ${event.text}`);
    else view(event);
  });
  if (json) terminal.json(summary(result, dir));
  else terminal.out(resultLines(result, dir));
}

/** The measurement with the lowest held-out loss. */
const lowest = ({ metrics }: RunResult): EvalRecord => metrics.evals.reduce((a, b) => (b.loss < a.loss ? b : a));

/** The keys of `--json`. */
function summary(result: RunResult, dir: string): Record<string, unknown> {
  const { steps, evals } = result.metrics;
  const best = lowest(result);
  return {
    alreadyFinished: result.found,
    model: result.last,
    best: best.step === 0 ? null : join(dir, "best"),
    steps: steps.at(-1)?.step ?? 0,
    ended: result.metrics.done?.reason ?? "steps",
    tokens: steps.at(-1)?.tokens ?? 0,
    finalLoss: result.finalLoss,
    bestLoss: best.loss,
    evals: evals.map(({ step, tokens, loss, parts }) => ({ step, tokens, loss, parts })),
    tokensPerSecond: result.tokensPerSecond,
    mfu: result.mfu,
    peakRssBytes: result.peakRssBytes,
  };
}

function resultLines(result: RunResult, dir: string): string[] {
  const { steps, evals } = result.metrics;
  const best = lowest(result);
  const seconds = steps.reduce((sum, { ms }) => sum + ms / 1000, 0);
  const memory = result.peakRssBytes === 0 ? "" : `, peak memory ${bytes(result.peakRssBytes)}`;
  const speed = `${peakWords(result)}${memory}`;
  const reason = result.metrics.done?.reason === "time" ? " (its time budget)" : "";
  return [
    ...(result.found ? ["already finished, nothing was trained"] : []),
    `held-out loss ${at(evals, 0).loss.toFixed(4)} -> ${result.finalLoss.toFixed(4)}`,
    `${steps.length} steps ${result.found ? "took" : "in"} ${duration(seconds)}${reason}, ${speed}`,
    // Where no step made the model better, there is no best checkpoint: the weights of the beginning are not copied.
    ...(best.step === 0
      ? []
      : [`best: ${shownPath(join(dir, "best"))} (held-out loss ${best.loss.toFixed(4)} after step ${best.step})`]),
    `model: ${shownPath(result.last)}`,
  ];
}
