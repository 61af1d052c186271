/** `upcycle launch` */
import { mkdir, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { Command } from "commander";
import { inputError, interruptedError, stopError, type UpcycleError } from "../base/errors.js";
import { bytes, compact, duration, folded, significant, table } from "../base/format.js";
import { shellWord } from "../base/shell.js";
import { parseLaunchConfig, type LaunchConfig } from "../base/schemas/launch.js";
import { parseLine } from "../files/formats/megatron-log.js";
import { addedRows } from "../cluster/plan/arguments.js";
import { checkPlan, checkSize } from "../cluster/plan/check.js";
import { estimateRuns, type RunEstimate } from "../cluster/plan/estimate.js";
import { launchPlanOf } from "../cluster/plan/launch-plan.js";
import { lintArguments, type LintContext, type LintFinding } from "../cluster/plan/lint.js";
import { argumentLines, type LaunchPlan } from "../cluster/plan/scripts.js";
import { makingCommand, plannedModel } from "../cluster/plan/source-model.js";
import { launchFiles, startRun } from "../cluster/run/launch.js";
import { onnxruntimeBackend } from "../engine/onnxruntime/backend.js";
import { windowLoss } from "../evals/window-loss.js";
import { dcpFiles, megatronFolder } from "../files/checkpoint/open-megatron.js";
import { openCheckpoint } from "../files/checkpoint/open.js";
import { exists } from "../files/io/atomic.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { sizeLimits } from "../files/io/open.js";
import { readJson, readText } from "../files/io/ranges.js";
import { presets, shapeSpec } from "../laws/planner/shape.js";
import { specFromConfig } from "../model/decoder/config.js";
import { isMoe, routerOrder, type DecoderSpec } from "../model/decoder/types.js";
import { readFirstTokens } from "../text/documents/indexed.js";
import { writeOneDocument } from "../text/prepare/one-document.js";
import type { ParallelLayout } from "../laws/planner/layout-types.js";
import { openContext, shownPath, type CommandContext } from "./context.js";
import { defaultThreads, realNumber, withExample, withJson, type CommonFlags } from "./options.js";
import { gpuNamed, hardwareTable } from "./plan.js";

interface LaunchFlags extends CommonFlags {
  readonly dryRun?: boolean;
  readonly check?: boolean;
  readonly expect?: number;
  readonly within: number;
  readonly lint?: string;
  readonly checkpoint?: string;
  readonly core?: string;
  readonly hardware?: string;
}

/** The command `launch` with its options and its help. */
export function launchCommand(): Command {
  const command = new Command("launch")
    .description("start a training with Megatron-LM: here, on Slurm or on Kubernetes")
    .argument("[file]", "launch file (YAML; see recipes/launch.yaml)")
    .option("--dry-run", "print arguments with their reasons, and scripts; start nothing")
    .option("--check", "evaluate once instead of training, and compare the loss with what is computed here")
    .option("--expect <loss>", "loss to compare with, instead of computing it", realNumber("--expect", 0))
    .option("--within <difference>", "from that loss", realNumber("--within", 0), 0.01)
    .option("--lint <script>", "check the arguments in a script of your own; needs no file")
    .option("--checkpoint <dir>", "with --lint: the folder that the script loads")
    .option("--core <version>", "with --lint: version of Megatron-Core that runs, such as 0.18")
    .option("--hardware <file>", "YAML laid over the built-in table of GPUs")
    .action(execute);
  return withExample(withJson(command), "upcycle launch recipes/launch.yaml --dry-run");
}

async function execute(file: string | undefined, flags: LaunchFlags, command: Command): Promise<void> {
  const context = openContext({ json: flags.json, stopping: "waiting for the run to save and end" });
  if (flags.lint !== undefined) return lint(flags.lint, flags, context);
  if (file === undefined) return command.error("error: missing required argument 'file'");
  const plan = await launchPlan(file, flags.hardware);
  for (const { message, hint } of findingsOf(plan)) context.terminal.note(`warning: ${message}; ${hint}`);
  if (flags.dryRun === true) return show(plan, context, flags.hardware);
  if (!plan.isThere) throw noCheckpoint(plan.config);
  await requireInputs(plan, file, (line) => context.terminal.note(line));
  if (flags.check === true) return check(plan, flags, context);
  const started = await startRun(plan, { signal: context.signal, onLine: (line) => context.terminal.note(line) });
  if (context.json) context.terminal.json({ ...started });
  else if (started.where === "slurm")
    context.terminal.out([
      `jobs: ${started.jobs.join(", ")}`,
      `watch with: upcycle watch ${shownPath(plan.config.out)}/logs`,
    ]);
  else if (started.where === "kubernetes") context.terminal.out([`created ${started.name}`]);
  if (started.where !== "local") return;
  requireUnasked(context, "the run", started.log);
  if (started.exitCode !== 0) throw stopError(`the run ended with code ${started.exitCode}`, { where: started.log });
}

/** Throws interruptedError where what has ended here was asked to, whatever its exit code. */
function requireUnasked({ signal }: Pick<CommandContext, "signal">, what: string, where: string): void {
  if (signal.aborted) throw interruptedError(`${what} was stopped`, { where, hint: "the same command goes on" });
}

interface AskedPlan extends LaunchPlan {
  readonly spec: DecoderSpec;
  /** Whether the checkpoint is there; else it was planned from what it is made of. */
  readonly isThere: boolean;
}

/** What a launch file asks for. Throws inputError. */
export async function launchPlan(file: string, hardware: string | undefined): Promise<AskedPlan> {
  const config = absolutePaths(parseLaunchConfig(await readText(file, sizeLimits.yaml), shownPath(file)));
  const isThere = config.from === undefined || (await exists(config.checkpoint));
  if (isThere) await requireSaves(config, file);
  const spec = isThere ? await specOfCheckpoint(config.checkpoint) : await specToCome(config, file);
  const gpu = gpuNamed(await hardwareTable(hardware), config.hardware.gpu, `${shownPath(file)} (hardware.gpu)`);
  return {
    ...launchPlanOf(config, spec, gpu, shownPath(file)),
    spec,
    isThere,
  };
}

async function specOfCheckpoint(dir: string): Promise<DecoderSpec> {
  const checkpoint = await openCheckpoint(dir);
  await checkpoint.close();
  return checkpoint.spec;
}

/** What the checkpoint will hold. Throws inputError for a model that is none. */
async function specToCome(config: LaunchConfig, file: string): Promise<DecoderSpec> {
  const { model } = config.from!;
  const preset = presets.find(({ id }) => id === model);
  if (preset !== undefined) return plannedModel(shapeSpec(preset.shape), config.from!);
  for (const path of [resolve(dirname(file), model), resolve(model)]) {
    if (!(await exists(path))) continue;
    const isFolder = (await withFsErrors(path, "look at", () => stat(path))).isDirectory();
    const settings = isFolder ? join(path, "config.json") : path;
    return plannedModel(
      specFromConfig(await readJson(settings, sizeLimits.settings), shownPath(settings)),
      config.from!,
    );
  }
  throw inputError(`"${model}" is no config.json, no model folder and no preset`, {
    where: `${shownPath(file)} (from.model)`,
    hint: `presets: ${presets.map(({ id }) => id).join(", ")}`,
  });
}

/** Throws inputError for a checkpoint that Megatron-LM would not find: it loads a folder of saves with its tracker. */
async function requireSaves({ checkpoint }: LaunchConfig, file: string): Promise<void> {
  const where = `${shownPath(file)} (checkpoint)`;
  const save = await megatronFolder(checkpoint);
  if (save === null) {
    if (!(await exists(checkpoint)))
      throw inputError(`${shownPath(checkpoint)}: no such folder`, {
        where,
        hint: "make it with upcycle convert or export --format megatron, or say what it will be made of (from)",
      });
    throw inputError(`${shownPath(checkpoint)} is no checkpoint of Megatron-Core`, {
      where,
      hint: `make one of it: upcycle export ${shellWord(shownPath(checkpoint))} --format megatron --out DIR`,
    });
  }
  if (resolve(save) === resolve(checkpoint))
    throw inputError(`${shownPath(checkpoint)} is a single save, Megatron-LM loads the folder that it lies in`, {
      where,
      hint: `write ${shownPath(dirname(resolve(checkpoint)))}`,
    });
}

/** Throws inputError for data and programs that a run would miss hours later, in the queue. */
async function requireInputs({ config }: LaunchPlan, file: string, note: (line: string) => void): Promise<void> {
  if (config.kubernetes !== undefined) return;
  const where = (name: string): string => `${shownPath(file)} (${name})`;
  for (const prefix of config.data.filter((word) => !isWeight(word)))
    for (const ending of [".bin", ".idx"])
      if (!(await exists(prefix + ending)))
        throw inputError(`${shownPath(prefix)}${ending}: no such file`, {
          where: where("data"),
          hint: "upcycle data prepare writes it; the prefix ends in _text_document",
        });
  if (!(await exists(config.tokenizer)))
    throw inputError(`${shownPath(config.tokenizer)}: no such folder`, { where: where("tokenizer") });
  if (await exists(join(config.megatron, "pretrain_gpt.py"))) return;
  const missing = `${config.megatron} has no pretrain_gpt.py`;
  if (config.slurm === undefined)
    throw inputError(missing, { where: where("megatron"), hint: "name a checkout of Megatron-LM" });
  note(`warning: ${missing} on this machine; the nodes need it`);
}

/** Weights stand between the prefixes of data. */
const isWeight = (word: string): boolean => /^\d+(\.\d+)?$/.test(word);

function noCheckpoint(config: LaunchConfig): UpcycleError {
  return inputError("the checkpoint is not there", {
    where: shownPath(config.checkpoint),
    hint: `make it: ${makingCommand(config)}`,
  });
}

/** What the arguments that are chosen, or that the file adds, leave to be said. */
function findingsOf({ arguments: all, gpusPerNode }: LaunchPlan): LintFinding[] {
  const words = all.flatMap(({ flag, values }) => [flag, ...values.map(shellWord)]);
  return lintArguments(words.join(" "), { gpusPerNode });
}

/** The script changes into Megatron's folder. In a container paths are those of the container, and stay. */
function absolutePaths(config: LaunchConfig): LaunchConfig {
  if (config.kubernetes !== undefined) return config;
  const { checkpoint, tokenizer, out, megatron, data } = config;
  return {
    ...config,
    checkpoint: resolve(checkpoint),
    tokenizer: resolve(tokenizer),
    out: resolve(out),
    megatron: resolve(megatron),
    // Weights stand between the prefixes.
    data: data.map((word) => (isWeight(word) ? word : resolve(word))),
  };
}

/** Numbers of GPUs that a dry run estimates for beside the file's own. */
const usualCounts = [8, 64, 512];
const usualGpus = ["h100-sxm", "h200-sxm"];

async function show(plan: AskedPlan, { terminal, json }: CommandContext, hardware: string | undefined): Promise<void> {
  const files = launchFiles(plan);
  const { config, spec, isThere } = plan;
  const known = await hardwareTable(hardware);
  const gpus = [...new Set([config.hardware.gpu, ...usualGpus])].map((name) => gpuNamed(known, name));
  const counts = [...new Set([config.hardware.gpus, ...usualCounts])].sort((a, b) => a - b);
  const estimates = estimateRuns(config, spec, gpus, counts);
  const make = isThere ? null : makingCommand(config);
  if (json) {
    const { arguments: given, environment } = plan;
    return terminal.json({ dryRun: true, make, arguments: given, environment, files, estimates: rowsOf(estimates) });
  }
  terminal.out([
    ...(make === null ? [] : ["The checkpoint is not there yet. It is made by:", make, ...sourceLines(config), ""]),
    "pretrain_gpt.py",
    ...argumentLines(plan),
    ...Object.entries(files).flatMap(([name, text]) => [
      "",
      `--- ${shownPath(config.out)}/${name}`,
      ...text.trimEnd().split("\n"),
    ]),
    "",
    ...estimateLines(estimates, known.currency),
    "",
    "dry run: nothing was started",
  ]);
}

/** Where what the checkpoint is made of is from. */
const sourceLines = ({ sources }: LaunchConfig): string[] =>
  Object.entries(sources).flatMap(([name, source]) => (name.startsWith("from.") ? [`  # ${name}: ${source}`] : []));

function rowsOf(estimates: readonly RunEstimate[]): object[] {
  return estimates.map(({ gpu, gpus, run, leastBytes }) => ({
    gpu: gpu.name,
    gpus,
    fits: run !== null,
    ...run,
    leastBytes,
  }));
}

function estimateLines(estimates: readonly RunEstimate[], currency: string): string[] {
  const rows = estimates.map(({ gpu, gpus, run, leastBytes }) => [
    `${gpus} ${gpu.name}`,
    ...(run === null
      ? [`needs ${bytes(leastBytes)}`, "", "", ""]
      : [bytes(run.bytes), layoutWords(run.layout), duration(run.seconds), `${compact(run.cost, 2)} ${currency}`]),
  ]);
  return [
    ...folded("The whole run by upcycle plan's model (docs/planning.md), which was not measured for it:", 80),
    ...table([["GPUs", "memory each", "layout", "time", "cost"], ...rows], ["left", "right", "left", "right", "right"]),
  ];
}

/** Degrees above one. */
function layoutWords(layout: ParallelLayout): string {
  const degrees = (["tp", "pp", "cp", "ep", "dp"] as const).flatMap((name) =>
    layout[name] > 1 ? [`${name} ${layout[name]}`] : [],
  );
  return degrees.join(", ") || "one GPU";
}

/** Evaluates once, on the first tokens of the run's data, and compares with our own loss on them. */
async function check(
  plan: LaunchPlan,
  { expect, within }: LaunchFlags,
  { terminal, json, signal }: CommandContext,
): Promise<void> {
  const { config, vocab, layout } = plan;
  if (config.slurm !== undefined || config.kubernetes !== undefined)
    throw inputError("a check runs on this machine", {
      where: "--check",
      hint: "remove the block slurm or kubernetes for it",
    });
  const size = checkSize(plan);
  const out = join(config.out, "check");
  const prefix = join(out, "check_document");
  const tokens = await readFirstTokens(firstPrefix(config.data), size.windows * size.sequence + 1);
  await withFsErrors(out, "create folder", () => mkdir(out, { recursive: true }));
  await writeOneDocument(prefix, tokens, vocab);
  if (expect === undefined) terminal.note(`computing the loss of ${tokens.length - 1} tokens here`);
  const expected =
    expect ??
    (await windowLoss({
      model: config.checkpoint,
      tokens,
      sequence: size.sequence,
      addedRows: addedRows(vocab, layout.tp),
      backend: onnxruntimeBackend,
      threads: defaultThreads(),
      signal,
    }));
  const loss = await evaluated(checkPlan(plan, out, prefix, size), signal);
  const difference = Math.abs(loss - expected);
  if (!(difference <= within))
    throw stopError(`Megatron-LM's loss is ${loss}, expected ${significant(expected, 7)} within ${within}`, {
      where: join(out, "logs"),
      hint: "the checkpoint was not loaded as it is; see upcycle launch --lint",
    });
  if (json) return terminal.json({ loss, expected, difference, tokens: tokens.length - 1 });
  terminal.out([`loss of Megatron-LM: ${loss}, as expected (${significant(expected, 7)})`]);
}

/** Weights stand before prefixes. */
const firstPrefix = (data: readonly string[]): string => data.find((word) => !isWeight(word)) ?? data[0]!;

/** The validation loss that Megatron-LM prints. Throws stopError where it prints none, or a problem. */
async function evaluated(plan: LaunchPlan, signal: AbortSignal): Promise<number> {
  let loss: number | null = null;
  const problems: string[] = [];
  const started = await startRun(plan, {
    signal,
    onLine: (line) => {
      const event = parseLine(line);
      if (event?.type === "validation") loss ??= event.losses["lm loss"] ?? null;
      if (event?.type === "problem") problems.push(event.message);
    },
  });
  if (started.where === "local") requireUnasked({ signal }, "the check", started.log);
  if (started.where === "local" && started.exitCode !== 0)
    throw stopError(`the check ended with code ${started.exitCode}: ${problems[0] ?? "see the log"}`, {
      where: started.log,
    });
  if (problems.length > 0) throw stopError(problems[0]!, { where: "check" });
  if (loss === null) throw stopError("the log holds no validation loss", { where: `${plan.config.out}/logs` });
  return loss;
}

async function lint(
  script: string,
  { checkpoint, core }: LaunchFlags,
  { terminal, json }: CommandContext,
): Promise<void> {
  const findings = lintArguments(await readText(script, sizeLimits.settings), await contextOf(checkpoint, core));
  if (json) terminal.json({ findings });
  else
    terminal.out(
      findings.length === 0
        ? ["no problems found"]
        : findings.map(({ level, rule, message, hint }) => `${level} (${rule}): ${message}; ${hint}`),
    );
  if (findings.some(({ level }) => level === "error")) process.exitCode = 1;
}

async function contextOf(dir: string | undefined, core: string | undefined): Promise<LintContext> {
  if (dir === undefined) return { core: core ?? null };
  const opened = await openCheckpoint(dir);
  await opened.close();
  const { spec, tensors } = opened;
  const save = await megatronFolder(dir);
  const moe = spec.layers.map(({ ffn }) => ffn).find((ffn) => ffn.kind === "moe");
  const router = isMoe(spec) && moe?.kind === "moe" ? moe.router : null;
  return {
    core: core ?? null,
    vocab: spec.vocab,
    perLayer: [...tensors.keys()].some((key) => /^decoder\.layers\.\d+\./.test(key)),
    preSoftmax: router === null ? null : routerOrder(router) === "softmax-topk",
    renormalisedOne: router === null ? null : moe!.kind === "moe" && moe!.topK === 1 && router.renormalise !== null,
    commonFile: save === null ? null : await exists(join(save, dcpFiles.common)),
  };
}
