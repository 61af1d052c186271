/** `upcycle train` */
import { join } from "node:path";
import { Command } from "commander";
import { bytes, duration, rate } from "../base/format.js";
import { parseTrainConfig } from "../base/schemas/index.js";
import { trainedFiles } from "../surgery/convert/trained-card.js";
import { sizeLimits } from "../files/io/open.js";
import { readText } from "../files/io/ranges.js";
import type { EvalRecord } from "../train/records.js";
import { trainFromConfig } from "../train/from-config.js";
import type { RunResult } from "../train/run.js";
import { openContext, shownPath } from "./context.js";
import { chosenBackend, withPrecision, type PrecisionFlags } from "./device.js";
import { modelSource } from "./model-folder.js";
import { defaultThreads, threadsOfFile, withExample, withJson, withThreads, type CommonFlags } from "./options.js";
import { savingWords, trainingView } from "./progress.js";

interface TrainFlags extends CommonFlags, PrecisionFlags {
  readonly out?: string;
}

export function trainCommand(): Command {
  const command = new Command("train")
    .description("train a new model, or an existing one further, on text")
    .argument("<file>", "train file (YAML; see recipes/train.yaml)")
    .option("--out <dir>", "run folder (default: the file's); the same folder goes on where it was stopped")
    .action(execute);
  return withExample(
    withJson(withThreads(withPrecision(command), "the file's, else all cores")),
    "upcycle train recipes/train.yaml --out runs/small",
  );
}

async function execute(file: string, flags: TrainFlags): Promise<void> {
  const said = parseTrainConfig(await readText(file, sizeLimits.yaml), shownPath(file));
  const config = typeof said.model === "string" ? { ...said, model: await modelSource(said.model, flags.json) } : said;
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: savingWords });
  const dir = flags.out ?? config.out;
  const threads = flags.threads ?? threadsOfFile(config.threads, shownPath(file)) ?? defaultThreads();
  const view = trainingView(terminal, "train");
  const backend = await chosenBackend(flags.device, terminal, flags.precision);
  const events = trainFromConfig({ config, dir, threads, signal, backend, describe: trainedFiles });
  for (;;) {
    const next = await events.next();
    if (next.done === true) {
      if (json) terminal.json(summary(next.value, dir));
      else terminal.out(show(next.value, dir));
      return;
    }
    const event = next.value;
    if (event.type === "phase") terminal.note(event.label);
    else if (event.type === "note") terminal.note(`  ${event.text}`);
    else view(event);
  }
}

const lowest = ({ metrics }: RunResult): EvalRecord => metrics.evals.reduce((a, b) => (b.loss < a.loss ? b : a));

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
    peakRssBytes: result.peakRssBytes,
  };
}

function show(result: RunResult, dir: string): string[] {
  const { steps, evals } = result.metrics;
  const best = lowest(result);
  const seconds = steps.reduce((sum, { ms }) => sum + ms / 1000, 0);
  const memory = result.peakRssBytes === 0 ? "" : `, peak memory ${bytes(result.peakRssBytes)}`;
  const speed = `${rate(result.tokensPerSecond)}${memory}`;
  const ended = result.metrics.done?.reason === "time" ? " (its time budget)" : "";
  return [
    ...(result.found ? ["already finished, nothing was trained"] : []),
    `held-out loss ${evals[0]!.loss.toFixed(4)} -> ${result.finalLoss.toFixed(4)}`,
    `${steps.length} steps ${result.found ? "took" : "in"} ${duration(seconds)}${ended}, ${speed}`,
    // The weights that went in are not kept a second time.
    ...(best.step === 0
      ? []
      : [`best: ${shownPath(join(dir, "best"))} (held-out loss ${best.loss.toFixed(4)} after step ${best.step})`]),
    `model: ${shownPath(result.last)}`,
  ];
}
