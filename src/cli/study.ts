/** `upcycle study` and `upcycle quickstart`. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { resultOf } from "../base/events.js";
import { shellPath } from "../base/shell.js";
import { parseStudyConfig, type StudyConfig } from "../base/schemas/index.js";
import { sizeLimits } from "../files/io/open.js";
import { readText } from "../files/io/ranges.js";
import { terminalTable } from "../report/study/terminal.js";
import { writeReport } from "../study/report.js";
import { runStudy } from "../study/run.js";
import { openContext, shownPath } from "./context.js";
import { chosenBackend, deviceWords, withPrecision, type PrecisionFlags } from "./device.js";
import { modelSource } from "./model-folder.js";
import { defaultThreads, threadsOfFile, withExample, withJson, withThreads, type CommonFlags } from "./options.js";
import { savingWords, studyView } from "./progress.js";
import { convertLine, studyLine, verifyLine } from "./reproduce.js";
import { resolvedBy } from "./settings.js";

interface StudyFlags extends CommonFlags, PrecisionFlags {
  readonly out?: string;
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
    .description("run a study: one parent, several arms on the same further tokens, a report")
    .argument("<file>", "study file (YAML; see recipes/quickstart.yaml and recipes/own-parent.yaml)")
    .option("--out <dir>", "run folder (default: runs/NAME of the study); the same folder goes on where it was stopped")
    .action((file: string, flags: StudyFlags) => execute(file, `upcycle study ${shellPath(shownPath(file))}`, flags));
  resolvedBy(command, ([file = ""], flags: StudyFlags) => settings(file, flags));
  return withExample(
    withJson(withThreads(withPrecision(command), "the file's, else all cores")),
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
      execute(quickstartRecipe(flags), `upcycle quickstart${flags.full === true ? " --full" : ""}`, flags),
    );
  resolvedBy(command, (_, flags: QuickstartFlags) => settings(quickstartRecipe(flags), flags));
  const remark = "The study it runs is recipes/quickstart.yaml: copy and change it, then run it with upcycle study.";
  return withExample(withJson(withThreads(withPrecision(command))), "upcycle quickstart", remark);
}

const readConfig = async (file: string): Promise<StudyConfig> =>
  parseStudyConfig(await readText(file, sizeLimits.yaml), shownPath(file));

interface Place {
  readonly dir: string;
  readonly threads: number;
}

/** Where a study runs, and on how many threads. */
function placeOf(file: string, flags: StudyFlags, config: Pick<StudyConfig, "name" | "threads">): Place {
  const threads = flags.threads ?? threadsOfFile(config.threads, shownPath(file)) ?? defaultThreads();
  return { dir: flags.out ?? join("runs", config.name), threads };
}

async function settings(file: string, flags: StudyFlags): Promise<Record<string, unknown>> {
  const config = await readConfig(file);
  const { dir, threads } = placeOf(file, flags, config);
  return { options: { out: dir, threads }, file: config };
}

async function execute(file: string, command: string, flags: StudyFlags): Promise<void> {
  const fileConfig = await readConfig(file);
  const { parent: name } = fileConfig;
  const parent = name === undefined ? undefined : await modelSource(name, flags.json);
  const config = parent === undefined ? fileConfig : { ...fileConfig, parent };
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: savingWords });
  const { dir, threads } = placeOf(file, flags, config);
  const study = runStudy({
    config,
    dir,
    threads,
    signal,
    backend: await chosenBackend(flags.device, terminal, flags.precision),
    command: studyLine(command, dir, threads, deviceWords(flags)),
    conversionCommands: (parent, recipe, out) => [convertLine(parent, recipe, out), verifyLine(parent, out)],
  });
  const result = await resultOf(
    study,
    studyView(terminal, threads, () => performance.now()),
  );
  const report = await writeReport(dir, result);
  terminal.settle();
  if (json) return terminal.json({ ...result, report });
  terminal.out(terminalTable(result, terminal.columns).split("\n"));
  terminal.out(`report: ${shownPath(report)}`);
}
