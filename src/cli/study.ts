/** `upcycle study` and `upcycle quickstart`. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { resultOf } from "../base/events.js";
import { shellPath } from "../base/shell.js";
import { parseStudyConfig } from "../base/schemas/index.js";
import { sizeLimits } from "../files/io/open.js";
import { readText } from "../files/io/ranges.js";
import { onnxruntimeBackend } from "../engine/onnxruntime/backend.js";
import { terminalTable } from "../report/study/terminal.js";
import { writeReport } from "../study/report.js";
import { runStudy } from "../study/run.js";
import { openContext, shownPath } from "./context.js";
import { modelSource } from "./model-folder.js";
import { defaultThreads, threadsOfFile, withExample, withJson, withThreads, type CommonFlags } from "./options.js";
import { savingWords, studyView } from "./progress.js";
import { convertLine, studyLine, verifyLine } from "./reproduce.js";

interface StudyFlags extends CommonFlags {
  readonly out?: string;
}

/** The study file that `upcycle quickstart` runs, which comes with the package. */
export const quickstartRecipe = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "recipes", "quickstart.yaml");

/** The command `study` with its options and its help. */
export function studyCommand(): Command {
  const command = new Command("study")
    .description("run a study: one parent, several arms on the same further tokens, a report")
    .argument("<file>", "study file (YAML; see recipes/quickstart.yaml and recipes/own-parent.yaml)")
    .option("--out <dir>", "run folder (default: runs/NAME of the study); the same folder goes on where it was stopped")
    .action((file: string, flags: StudyFlags) => execute(file, `upcycle study ${shellPath(shownPath(file))}`, flags));
  return withExample(
    withJson(withThreads(command, "the file's, else all cores")),
    "upcycle study recipes/quickstart.yaml --out runs/first",
  );
}

/** The command `quickstart` with its options and its help. */
export function quickstartCommand(): Command {
  const command = new Command("quickstart")
    .description("the main job on text that comes along: train a dense model, upcycle it, train on, report")
    .option("--out <dir>", "run folder; the same folder goes on where it was stopped", "runs/quickstart")
    .action((flags: StudyFlags) => execute(quickstartRecipe, "upcycle quickstart", flags));
  const remark = "The study it runs is recipes/quickstart.yaml: copy and change it, then run it with upcycle study.";
  return withExample(withJson(withThreads(command)), "upcycle quickstart", remark);
}

async function execute(file: string, command: string, flags: StudyFlags): Promise<void> {
  const fileConfig = parseStudyConfig(await readText(file, sizeLimits.yaml), shownPath(file));
  const { parent: name } = fileConfig;
  const parent = name === undefined ? undefined : await modelSource(name, flags.json);
  const config = parent === undefined ? fileConfig : { ...fileConfig, parent };
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: savingWords });
  const threads = flags.threads ?? threadsOfFile(config.threads, shownPath(file)) ?? defaultThreads();
  const dir = flags.out ?? join("runs", config.name);
  const study = runStudy({
    config,
    dir,
    threads,
    signal,
    backend: onnxruntimeBackend,
    command: studyLine(command, dir, threads),
    conversionCommands: (parent, recipe, out) => [convertLine(parent, recipe, out), verifyLine(parent, out)],
  });
  const result = await resultOf(
    study,
    studyView(terminal, () => performance.now()),
  );
  const report = await writeReport(dir, result);
  terminal.settle();
  if (json) return terminal.json({ ...result, report });
  terminal.out(terminalTable(result, terminal.columns).split("\n"));
  terminal.out(`report: ${shownPath(report)}`);
}
