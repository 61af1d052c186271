/** `upcycle study` and `upcycle quickstart`. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { parseStudyConfig } from "../config/index.js";
import { readText } from "../io/ranges.js";
import { onnxruntimeBackend } from "../ort/backend.js";
import { terminalTable } from "../report/terminal.js";
import { writeReport } from "../study/report.js";
import { runStudy } from "../study/run.js";
import { defaultThreads, openContext, shownPath, wholeNumber } from "./context.js";
import { studyView } from "./progress.js";

interface StudyFlags {
  readonly out?: string;
  readonly threads?: number;
  readonly json?: boolean;
}

/** The recipe that comes with the package. */
export const quickstartRecipe = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "recipes", "quickstart.yaml");

export function studyCommand(): Command {
  return new Command("study")
    .description("run a study: one parent, several arms on the same further tokens, a report")
    .argument("<file>", "study file (YAML; see recipes/quickstart.yaml and recipes/own-parent.yaml)")
    .option("--out <dir>", "run folder (default: runs/NAME of the study); the same folder goes on where it was stopped")
    .option("--threads <n>", "threads of the engine (default: the file's, else all cores)", wholeNumber("--threads", 1, 1024))
    .option("--json", "print the result as JSON on stdout, nothing else")
    .addHelpText("after", "\nExample:\n  $ upcycle study recipes/quickstart.yaml --out runs/first\n")
    .action((file: string, flags: StudyFlags) => execute(file, `upcycle study ${shownPath(file)}`, flags));
}

export function quickstartCommand(): Command {
  return new Command("quickstart")
    .description("the main job on text that comes along: train a dense model, upcycle it, train on, report")
    .option("--out <dir>", "run folder; the same folder goes on where it was stopped", "runs/quickstart")
    .option("--threads <n>", "threads of the engine (default: all cores)", wholeNumber("--threads", 1, 1024))
    .option("--json", "print the result as JSON on stdout, nothing else")
    .addHelpText("after", "\nExample:\n  $ upcycle quickstart\n\nThe study it runs is recipes/quickstart.yaml: copy and change it, then run it with upcycle study.\n")
    .action((flags: StudyFlags) => execute(quickstartRecipe, "upcycle quickstart", flags));
}

async function execute(file: string, command: string, flags: StudyFlags): Promise<void> {
  const { terminal, json, signal } = openContext(flags.json === true);
  const config = parseStudyConfig(await readText(file), shownPath(file));
  const threads = flags.threads ?? config.threads ?? defaultThreads();
  const dir = flags.out ?? join("runs", config.name);
  const events = runStudy({
    config, dir, threads, signal,
    backend: onnxruntimeBackend,
    command: `${command} --out ${shownPath(dir)} --threads ${threads}`,
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
      terminal.out(JSON.stringify({ ...next.value, report }));
    } else {
      terminal.out(terminalTable(next.value));
      terminal.out(`report: ${shownPath(report)}`);
    }
    return;
  }
}
