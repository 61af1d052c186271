/** `upcycle launch` */
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Command } from "commander";
import { inputError, stopError } from "../base/errors.js";
import { significant } from "../base/format.js";
import { shellWord } from "../base/shell.js";
import { parseLaunchConfig, type LaunchConfig } from "../base/schemas/index.js";
import { parseLine } from "../files/formats/megatron-log.js";
import { addedRows, environmentOf, launchArguments } from "../cluster/plan/arguments.js";
import { checkPlan, checkSize } from "../cluster/plan/check.js";
import { launchLayout } from "../cluster/plan/layout.js";
import { lintArguments, type LintContext, type LintFinding } from "../cluster/plan/lint.js";
import { argumentLines, type LaunchPlan } from "../cluster/plan/scripts.js";
import { launchFiles, startRun } from "../cluster/run/launch.js";
import { onnxruntimeBackend } from "../engine/onnxruntime/backend.js";
import { windowLoss } from "../evals/window-loss.js";
import { openCheckpoint } from "../files/checkpoint/open.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { sizeLimits } from "../files/io/open.js";
import { readText } from "../files/io/ranges.js";
import { isMoe, routerOrder } from "../model/decoder/types.js";
import { readFirstTokens } from "../text/documents/indexed.js";
import { writeOneDocument } from "../text/prepare/one-document.js";
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
  if (flags.dryRun === true) return show(plan, context);
  if (flags.check === true) return check(plan, flags, context);
  const started = await startRun(plan, { signal: context.signal, onLine: (line) => context.terminal.note(line) });
  if (context.json) context.terminal.json({ ...started });
  else if (started.where === "slurm")
    context.terminal.out([
      `jobs: ${started.jobs.join(", ")}`,
      `watch with: upcycle watch ${shownPath(plan.config.out)}/logs`,
    ]);
  else if (started.where === "kubernetes") context.terminal.out([`created ${started.name}`]);
  if (started.where === "local" && started.exitCode !== 0)
    throw stopError(`the run ended with code ${started.exitCode}`, { where: started.log });
}

/** What a launch file asks for. Throws inputError. */
export async function launchPlan(file: string, hardware: string | undefined): Promise<LaunchPlan> {
  const config = absolutePaths(parseLaunchConfig(await readText(file, sizeLimits.yaml), shownPath(file)));
  const checkpoint = await openCheckpoint(config.checkpoint);
  await checkpoint.close();
  const { spec } = checkpoint;
  if (config.training.sequence > spec.maxPositions && spec.learnedPositions)
    throw inputError(`a sequence of ${config.training.sequence} is longer than ${spec.maxPositions} learnt positions`, {
      where: `${shownPath(file)} (training.sequence)`,
    });
  const gpu = gpuNamed(await hardwareTable(hardware), config.hardware.gpu);
  const layout = launchLayout(config, spec, gpu);
  return {
    config,
    layout,
    vocab: spec.vocab,
    arguments: launchArguments({ config, spec, layout }),
    environment: environmentOf(layout, config.environment),
    gpusPerNode: gpu.perNode,
  };
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
    data: data.map((word) => (/^\d+(\.\d+)?$/.test(word) ? word : resolve(word))),
  };
}

function show(plan: LaunchPlan, { terminal, json }: CommandContext): void {
  const files = launchFiles(plan);
  if (json) return terminal.json({ dryRun: true, arguments: plan.arguments, environment: plan.environment, files });
  terminal.out([
    "pretrain_gpt.py",
    ...argumentLines(plan),
    ...Object.entries(files).flatMap(([name, text]) => [
      "",
      `--- ${shownPath(plan.config.out)}/${name}`,
      ...text.trimEnd().split("\n"),
    ]),
    "",
    "dry run: nothing was started",
  ]);
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
const firstPrefix = (data: readonly string[]): string => data.find((word) => !/^\d+(\.\d+)?$/.test(word)) ?? data[0]!;

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
  const moe = spec.layers.map(({ ffn }) => ffn).find((ffn) => ffn.kind === "moe");
  return {
    core: core ?? null,
    vocab: spec.vocab,
    perLayer: [...tensors.keys()].some((key) => /^decoder\.layers\.\d+\./.test(key)),
    preSoftmax: isMoe(spec) && moe?.kind === "moe" ? routerOrder(moe.router) === "softmax-topk" : null,
  };
}
