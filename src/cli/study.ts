/** `upcycle study` and `upcycle quickstart`. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command, Option } from "commander";
import { inputError } from "../base/errors.js";
import { resultOf } from "../base/events.js";
import { fixed } from "../base/format.js";
import { shellPath } from "../base/shell.js";
import { parseStudyConfig } from "../base/schemas/study.js";
import type { StudyConfig } from "../base/schemas/study-blocks.js";
import type { ModelSource } from "../files/checkpoint/open.js";
import { sizeLimits } from "../files/io/open.js";
import { readText } from "../files/io/ranges.js";
import { terminalTable } from "../report/study/terminal.js";
import { writeReport } from "../study/report.js";
import { recordedThreads } from "../study/folder.js";
import { outlookOf, runStudy, type StudyRequest } from "../study/run.js";
import { measuresText, type UpcycleRecipe } from "../surgery/planning/recipe.js";
import type { StudyResult } from "../model/results/result.js";
import type { LogFormat } from "../train/exported-logs.js";
import { givenCommand } from "./assets.js";
import { openContext, shownPath } from "./context.js";
import { chosenBackends, deviceWords, isOnGpu, namedBackends, withDevices, type DevicesFlags } from "./device.js";
import { modelSource } from "./model-folder.js";
import { logOption } from "./log-option.js";
import { gpuNamed, hardwareTable } from "./plan.js";
import { outlookFacts, outlookLines } from "./study-outlook.js";
import {
  defaultThreads,
  realNumber,
  threadsOfFile,
  wholeNumber,
  withExample,
  withJson,
  withThreads,
  type CommonFlags,
} from "./options.js";
import { savingWords, studyView } from "./progress.js";
import { convertLine, studyLine, verifyLine } from "./reproduce.js";
import { withTaskScores } from "./quickstart-tasks.js";
import { resolvedBy } from "./settings.js";

interface StudyFlags extends CommonFlags, DevicesFlags {
  readonly out?: string;
  readonly store?: string;
  readonly jobs?: number;
  readonly scale?: number;
  readonly log?: readonly LogFormat[];
  readonly only?: readonly string[];
  readonly report?: boolean;
  readonly dryRun?: boolean;
}

interface QuickstartFlags extends StudyFlags {
  readonly full?: boolean;
}

/** A recipe that comes with the package. */
const recipeOfPackage = (name: string): string => fileURLToPath(new URL(`../../recipes/${name}`, import.meta.url));

/** The quickstart's recipe: minutes, or with `full` the larger one. */
const quickstartRecipe = ({ full }: QuickstartFlags): string =>
  recipeOfPackage(full === true ? "quickstart-full.yaml" : "quickstart.yaml");

/** The command `study` with its options and its help. */
export function studyCommand(): Command {
  const command = new Command("study")
    .description("run a study: parents, arms and seeds on further tokens, questions, a report")
    .argument("<file>", "study file (YAML; see recipes/quickstart.yaml and recipes/studies)")
    .option("--out <dir>", "run folder (default: runs/NAME of the study); the same folder goes on where it was stopped")
    .option("--store <dir>", "folder that runs are kept in, for several studies to share (default: the run folder)")
    .option(
      "--jobs <n>",
      "trainings at once (default: as many as cores for --threads, on GPUs one on each)",
      wholeNumber("--jobs", 1, 64),
    )
    .option(
      "--scale <n>",
      "sizes and tokens of the whole study by one number (default: the file's)",
      realNumber("--scale", 0.01, 1024),
    )
    .option(...logOption)
    .option(
      "--only <names>",
      "train these pieces alone: ARM, ARM/SEED or a parent, with commas; what is finished needs no weights",
      pieceNames,
    )
    .addOption(
      new Option(
        "--report",
        "train nothing: report the runs that are there, of which record and log are enough",
      ).conflicts("only"),
    )
    .option("--dry-run", "say what would be trained, with tokens, FLOPs, time and disk; write nothing")
    .action((file: string, flags: StudyFlags) => execute(file, `upcycle study ${shellPath(shownPath(file))}`, flags));
  resolvedBy(command, ([file = ""], flags: StudyFlags) => settings(file, flags));
  return withExample(
    withJson(withThreads(withDevices(command), "the file's, else all cores")),
    "upcycle study recipes/quickstart.yaml --out runs/first",
  );
}

/** The command `quickstart` with its options and its help. */
export function quickstartCommand(): Command {
  const command = new Command("quickstart")
    .description("the main job on text that comes along: train a dense model, upcycle it, train on, report")
    .option("--out <dir>", "run folder (default: runs/quickstart); the same folder goes on where it was stopped")
    .option("--full", "the larger study: almost four times the work")
    .action((flags: QuickstartFlags) =>
      execute(
        quickstartRecipe(flags),
        `upcycle quickstart${flags.full === true ? " --full" : ""}`,
        flags,
        withTaskScores,
      ),
    );
  resolvedBy(command, (_, flags: QuickstartFlags) => settings(quickstartRecipe(flags), flags));
  const remark = "The study it runs is recipes/quickstart.yaml: copy and change it, then run it with upcycle study.";
  return withExample(withJson(withThreads(withDevices(command))), "upcycle quickstart", remark);
}

/** Names with commas between them. Throws inputError for none. */
function pieceNames(text: string): string[] {
  const names = text.split(",").map((name) => name.trim());
  if (names.every((name) => name !== "")) return names;
  throw inputError("a name is empty", { where: "--only", hint: "write names as dense,fine/1" });
}

/** The study of a file, at the scale that was asked for; its grid is checked at that scale. */
async function readConfig(file: string, { scale }: StudyFlags): Promise<StudyConfig> {
  const config = parseStudyConfig(await readText(file, sizeLimits.yaml), shownPath(file));
  return scale === undefined ? config : { ...config, scale };
}

interface Place {
  readonly dir: string;
  readonly threads: number;
  readonly jobs: number;
}

/**
 * Where a study runs, on how many threads each training, and how many at once: one on each of `gpus`, else as many as
 * the cores hold. Threads are part of a run, so a study that goes on keeps those that it was begun with.
 */
async function placeOf(
  file: string,
  flags: StudyFlags,
  config: Pick<StudyConfig, "name" | "threads">,
  gpus: number,
): Promise<Place> {
  const dir = flags.out ?? join("runs", config.name);
  const asked = flags.threads ?? threadsOfFile(config.threads, shownPath(file)) ?? (await recordedThreads(dir));
  const cores = defaultThreads();
  const threads = asked ?? Math.max(1, Math.floor(cores / (flags.jobs ?? 1)));
  return { dir, threads, jobs: flags.jobs ?? (gpus > 0 ? gpus : Math.max(1, Math.floor(cores / threads))) };
}

async function settings(file: string, flags: StudyFlags): Promise<Record<string, unknown>> {
  const config = await readConfig(file, flags);
  const { dir, threads, jobs } = await placeOf(file, flags, config, namedGpus(flags));
  return { options: { out: dir, threads, jobs, store: flags.store ?? dir, log: flags.log ?? [] }, file: config };
}

/** How many GPUs the flags name. */
const namedGpus = ({ device }: StudyFlags): number => (device ?? []).filter(({ kind }) => kind === "cuda").length;

/** The study with every parent's name as folders; models of the Hub are fetched. */
async function withSources(config: StudyConfig, flags: StudyFlags): Promise<StudyRequest> {
  const { parent, parents, ...rest } = config;
  const entries: [string, NonNullable<StudyRequest["parents"]>[string]][] = [];
  for (const [id, { path, ...entry }] of Object.entries(parents ?? {}))
    entries.push([id, path === undefined ? entry : { path: await modelSource(path, flags.json) }]);
  return {
    ...rest,
    ...(parent === undefined ? {} : { parent: await modelSource(parent, flags.json) }),
    ...(parents === undefined ? {} : { parents: Object.fromEntries(entries) }),
  };
}

/** `score` asks the models of the finished study more than its file does. */
async function execute(file: string, command: string, flags: StudyFlags, score?: typeof withTaskScores): Promise<void> {
  const config = await withSources(await readConfig(file, flags), flags);
  const { terminal, json, signal } = openContext(
    flags.dryRun === true ? { json: flags.json } : { json: flags.json, stopping: savingWords },
  );
  const backends = await (flags.report === true ? namedBackends(flags) : chosenBackends(flags, terminal));
  const { dir, threads, jobs } = await placeOf(file, flags, config, backends.filter(isOnGpu).length);
  const options = {
    config,
    dir,
    store: flags.store,
    threads,
    jobs,
    only: flags.report === true ? [] : flags.only,
    log: flags.log,
    signal,
    backends,
    gpuOf: async (name: string) => gpuNamed(await hardwareTable(undefined), name, "megatron.hardware.gpu"),
    given: givenCommand(),
    command: studyLine(command, dir, threads, `${scaleWords(flags)}${storeWords(flags)}${deviceWords(flags)}`),
    // Rows of a router that are not drawn are said by a recipe file, and what is measured is on the study's own text.
    conversionCommands: (parent: ModelSource, recipe: UpcycleRecipe, out: string) =>
      recipe.routerInit === null && !measuresText(recipe)
        ? [convertLine(parent, recipe, out), verifyLine(parent, out)]
        : [],
  };
  if (flags.dryRun === true) {
    const outlook = await outlookOf(options);
    if (json) return terminal.json(outlookFacts(outlook, config));
    return terminal.out(outlookLines(outlook, { config, threads, jobs }, terminal.columns));
  }
  const studied = await resultOf(
    runStudy(options),
    studyView(terminal, { threads, jobs }, () => performance.now()),
  );
  if (flags.only !== undefined) {
    terminal.settle();
    if (json) return terminal.json({ ...studied });
    return terminal.out(pieceLines(studied, options.command));
  }
  const [backend] = backends;
  const scoring = { dir, backend, threads, terminal, signal };
  const result = score === undefined ? studied : await score(studied, scoring);
  const report = await writeReport(dir, result);
  terminal.settle();
  if (json) return terminal.json({ ...result, report });
  terminal.out(terminalTable(result, terminal.columns).split("\n"));
  terminal.out(`report: ${shownPath(report)}`);
}

/** What is there once pieces are trained, and the command that compares the runs. */
function pieceLines({ arms, parents }: StudyResult, command: string): string[] {
  const runs = arms.reduce((sum, arm) => sum + arm.runs.length, 0);
  return [
    ...parents.map(({ id, loss }) => `${id}: ${fixed(loss)}`),
    ...arms.map(
      ({ id, runs: own }) => `${id}: ${own.map((run) => `seed ${run.seed} ${fixed(run.finalLoss)}`).join(", ")}`,
    ),
    `${runs} ${runs === 1 ? "run of an arm is" : "runs of arms are"} there; this compares them: ${command} --report`,
  ];
}

const scaleWords = ({ scale }: StudyFlags): string => (scale === undefined ? "" : ` --scale ${scale}`);
const storeWords = ({ store }: StudyFlags): string =>
  store === undefined ? "" : ` --store ${shellPath(shownPath(store))}`;
