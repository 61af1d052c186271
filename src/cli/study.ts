/** `upcycle study` and `upcycle quickstart`. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { shellPath } from "../base/shell.js";
import { parseStudyConfig } from "../base/schemas/index.js";
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

interface StudyFlags extends CommonFlags, PrecisionFlags {
  readonly out?: string;
}

/** The recipe that comes with the package. */
export const quickstartRecipe = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "recipes", "quickstart.yaml");

export function studyCommand(): Command {
  const command = new Command("study")
    .description("run a study: one parent, several arms on the same further tokens, a report")
    .argument("<file>", "study file (YAML; see recipes/quickstart.yaml and recipes/own-parent.yaml)")
    .option("--out <dir>", "run folder (default: runs/NAME of the study); the same folder goes on where it was stopped")
    .action((file: string, flags: StudyFlags) => execute(file, `upcycle study ${shellPath(shownPath(file))}`, flags));
  return withExample(
    withJson(withThreads(withPrecision(command), "the file's, else all cores")),
    "upcycle study recipes/quickstart.yaml --out runs/first",
  );
}

export function quickstartCommand(): Command {
  const command = new Command("quickstart")
    .description("the main job on text that comes along: train a dense model, upcycle it, train on, report")
    .option("--out <dir>", "run folder; the same folder goes on where it was stopped", "runs/quickstart")
    .action((flags: StudyFlags) => execute(quickstartRecipe, "upcycle quickstart", flags));
  const remark = "The study it runs is recipes/quickstart.yaml: copy and change it, then run it with upcycle study.";
  return withExample(withJson(withThreads(withPrecision(command))), "upcycle quickstart", remark);
}

async function execute(file: string, command: string, flags: StudyFlags): Promise<void> {
  const said = parseStudyConfig(await readText(file, sizeLimits.yaml), shownPath(file));
  const config = said.parent === undefined ? said : { ...said, parent: await modelSource(said.parent, flags.json) };
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: savingWords });
  const threads = flags.threads ?? threadsOfFile(config.threads, shownPath(file)) ?? defaultThreads();
  const dir = flags.out ?? join("runs", config.name);
  const events = runStudy({
    config,
    dir,
    threads,
    signal,
    backend: await chosenBackend(flags.device, terminal, flags.precision),
    command: studyLine(command, dir, threads, deviceWords(flags)),
    conversionCommands: (parent, recipe, out) => [convertLine(parent, recipe, out), verifyLine(parent, out)],
  });
  const view = studyView(terminal, () => performance.now());
  for (;;) {
    const next = await events.next();
    if (next.done !== true) {
      view(next.value);
      continue;
    }
    const report = await writeReport(dir, next.value);
    terminal.settle();
    if (json) {
      terminal.json({ ...next.value, report });
    } else {
      terminal.out(terminalTable(next.value, terminal.columns).split("\n"));
      terminal.out(`report: ${shownPath(report)}`);
    }
    return;
  }
}
