/** `upcycle runs`: what was trained, listed, compared, exported and pruned. */
import { join } from "node:path";
import { createInterface } from "node:readline/promises";
import { Command } from "commander";
import { inputError } from "../base/errors.js";
import { bytes, compact, fixed, folded, rate, table } from "../base/format.js";
import { makeFolders } from "../files/io/folders.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { lockName } from "../files/io/lock.js";
import { exportedFiles, exportMetrics, type LogFormat } from "../train/exported-logs.js";
import { readMetrics } from "../train/records.js";
import {
  configDifferences,
  fittingRuns,
  listedRun,
  listRuns,
  parseFilter,
  pruneRun,
  type ListedRun,
  type RunFilter,
} from "../train/run-list.js";
import { openContext, shownPath } from "./context.js";
import { logFormatsOf } from "./log-option.js";
import { oneOf, withExample, withJson } from "./options.js";

interface ListFlags {
  readonly json?: boolean;
  readonly filter?: readonly RunFilter[];
  readonly sort?: SortKey;
}

const sortKeys = ["name", "loss", "tokens", "params"] as const;
type SortKey = (typeof sortKeys)[number];

const filterOption = [
  "--filter <condition>",
  "KEY=VALUE, KEY!=VALUE, KEY<NUMBER, KEY>NUMBER or KEY~PART; repeatable",
  (text: string, before: readonly RunFilter[] | undefined): readonly RunFilter[] => [
    ...(before ?? []),
    parseFilter(text),
  ],
] as const;

const keysRemark =
  "Keys of conditions: name, kind, params, step, steps, state, tokens, loss, bestLoss, and those of run.json with " +
  "dots, such as seed or training.lr.peak.";

/** The command `runs` and its commands. */
export function runsCommand(): Command {
  const list = new Command("list")
    .description("list the runs below a folder: state, tokens, losses, size")
    .argument("[dir]", "folder that is searched", "runs")
    .option(...filterOption)
    .option("--sort <key>", `${sortKeys.join(", ")} (default: name)`, oneOf("--sort", sortKeys))
    .action(executeList);
  const compare = new Command("compare")
    .description("compare runs: first the settings in which they differ, then what they measured")
    .argument("<run...>", "folders of runs")
    .action(executeCompare);
  const exported = new Command("export")
    .description("write the metrics of runs as CSV or as event files of TensorBoard")
    .argument("<dir...>", "folders of runs, or folders above them")
    .requiredOption("--format <list>", "csv, tensorboard, or both", logFormatsOf("--format"))
    .option("--out <dir>", "folder to write to (default: the folder of each run)")
    .option(...filterOption)
    .action(executeExport);
  const prune = new Command("prune")
    .description("remove checkpoints of runs, or whole runs, after asking")
    .argument("<dir...>", "folders of runs, or folders above them")
    .option(...filterOption)
    .option("--all", "the records and logs too, not only the checkpoints")
    .option("--yes", "do not ask")
    .action(executePrune);
  withExample(withJson(list), "upcycle runs list runs --filter kind=moe --sort loss", keysRemark);
  withExample(withJson(compare), "upcycle runs compare runs/a runs/b");
  withExample(withJson(exported), "upcycle runs export runs --format csv,tensorboard --out exported");
  withExample(
    withJson(prune),
    "upcycle runs prune runs/first --filter state=finished",
    "Only files by the names that a run writes are removed; whatever else lies there stays. A study trains again " +
      "what it misses.",
  );
  return new Command("runs")
    .description("list, compare, export and prune what was trained")
    .addCommand(list, { isDefault: true })
    .addCommand(compare)
    .addCommand(exported)
    .addCommand(prune);
}

/** The runs below all of the folders that fit the conditions. */
async function chosenRuns(dirs: readonly string[], filters: readonly RunFilter[] = []): Promise<ListedRun[]> {
  const runs: ListedRun[] = [];
  for (const dir of dirs) runs.push(...(await listRuns(dir)));
  return fittingRuns(runs, filters);
}

async function executeList(dir: string, { filter, sort = "name", json }: ListFlags): Promise<void> {
  const { terminal } = openContext({ json });
  const runs = (await chosenRuns([dir], filter)).sort((a, b) => compared(a[sort], b[sort]));
  if (json === true) return terminal.json({ runs });
  terminal.out(listLines(runs, terminal.columns));
}

/** The order of two values; what is not measured yet comes last. */
function compared(a: string | number | null, b: string | number | null): number {
  if (a === b) return 0;
  if (a === null || b === null) return a === null ? 1 : -1;
  return a < b ? -1 : 1;
}

function listLines(runs: readonly ListedRun[], columns: number): string[] {
  if (runs.length === 0) return ["no run fits these conditions"];
  const heading = ["run", "state", "kind", "params", "tokens", "loss", "best", "models"];
  const rows = runs.map((run) => [
    run.name,
    run.state === "finished" ? run.state : `${run.state} ${run.step}/${run.steps}`,
    run.kind,
    compact(run.params),
    compact(run.tokens),
    run.loss === null ? "-" : fixed(run.loss, 4),
    run.bestLoss === null ? "-" : fixed(run.bestLoss, 4),
    bytes(run.bytes),
  ]);
  const alignment = heading.map((_, column) => (column < 3 ? "left" : "right"));
  return [...table([heading, ...rows], alignment, columns)];
}

async function executeCompare(paths: readonly string[], { json }: { readonly json?: boolean }): Promise<void> {
  const { terminal } = openContext({ json });
  if (paths.length < 2) throw inputError("name at least two runs to compare", { where: "runs compare" });
  const runs: ListedRun[] = [];
  for (const path of paths) runs.push(await listedRun(process.cwd(), path));
  const differences = configDifferences(runs);
  if (json === true) return terminal.json({ runs: runs.map((run) => ({ ...run, config: undefined })), differences });
  terminal.out(compareLines(runs, differences, terminal.columns));
}

/** Most characters of a setting in a table. */
const longestValue = 24;

function shownValue(value: unknown): string {
  const text = value === undefined ? "-" : typeof value === "string" ? value : JSON.stringify(value);
  return text.length > longestValue ? `${text.slice(0, longestValue - 1)}…` : text;
}

function compareLines(
  runs: readonly ListedRun[],
  differences: ReturnType<typeof configDifferences>,
  columns: number,
): string[] {
  const names = runs.map((_, index) => String.fromCharCode(97 + (index % 26)));
  const alignment = ["left" as const, ...runs.map(() => "right" as const)];
  const settings =
    differences.length === 0
      ? ["the same settings"]
      : table(
          [["setting", ...names], ...differences.map(({ key, values }) => [key, ...values.map(shownValue)])],
          alignment,
          columns,
        );
  const numbers: readonly (readonly [string, (run: ListedRun) => string])[] = [
    ["state", (run) => run.state],
    ["tokens", (run) => compact(run.tokens)],
    ["parameters", (run) => compact(run.params)],
    ["active", (run) => compact(run.activeParams)],
    ["loss", (run) => (run.loss === null ? "-" : fixed(run.loss, 4))],
    ["best loss", (run) => (run.bestLoss === null ? "-" : fixed(run.bestLoss, 4))],
    ["speed", (run) => rate(run.tokensPerSecond)],
  ];
  return [
    ...runs.flatMap(({ path }, index) => folded(`${names[index]}: ${shownPath(path)}`, columns)),
    "",
    ...settings,
    "",
    ...table([["measured", ...names], ...numbers.map(([name, of]) => [name, ...runs.map(of)])], alignment, columns),
  ];
}

interface ExportFlags {
  readonly json?: boolean;
  readonly format: readonly LogFormat[];
  readonly out?: string;
  readonly filter?: readonly RunFilter[];
}

async function executeExport(dirs: readonly string[], { format, out, filter, json }: ExportFlags): Promise<void> {
  const { terminal } = openContext({ json });
  const written: string[] = [];
  for (const { path, name } of await chosenRuns(dirs, filter)) {
    const metrics = await readMetrics(path);
    const folder = out === undefined ? path : join(out, name === path ? "." : name);
    await withFsErrors(folder, "create folder", () => makeFolders(folder));
    for (const one of format) {
      const file = join(folder, exportedFiles[one]);
      await exportMetrics({ dir: path, metrics, format: one }, file);
      written.push(file);
    }
  }
  if (json === true) return terminal.json({ written });
  terminal.out(written.length === 0 ? "no run fits these conditions" : written.map(shownPath));
}

interface PruneFlags {
  readonly json?: boolean;
  readonly filter?: readonly RunFilter[];
  readonly all?: boolean;
  readonly yes?: boolean;
}

async function executePrune(dirs: readonly string[], { filter, all, yes, json }: PruneFlags): Promise<void> {
  const { terminal } = openContext({ json });
  const runs = await chosenRuns(dirs, filter);
  const busy = runs.find(({ state }) => state === "running");
  if (busy !== undefined)
    throw inputError("a command is working on this run", {
      where: busy.path,
      hint: `wait for it, or leave it out; ${lockName} there says which process of which machine it is`,
    });
  const total = runs.reduce((sum, run) => sum + run.bytes, 0);
  const what = all === true ? "with their logs" : "their checkpoints, the logs stay";
  const question = `${runs.length} ${runs.length === 1 ? "run" : "runs"} (${what}), ${bytes(total)}`;
  if (runs.length > 0 && yes !== true) {
    if (process.stdin.isTTY !== true)
      throw inputError(`to be removed: ${question}`, { where: "runs prune", hint: "add --yes to remove them" });
    for (const { path } of runs) terminal.note(`  ${shownPath(path)}`);
    if (!(await isConfirmed(`remove ${question}? Type yes: `))) return terminal.note("nothing was removed");
  }
  const kept: string[] = [];
  for (const { path } of runs) if (!(await pruneRun(path, all === true ? "all" : "checkpoints"))) kept.push(path);
  if (json === true) return terminal.json({ removed: runs.map(({ path }) => path), bytes: total, kept });
  terminal.out(`removed: ${question}`);
  for (const path of kept)
    terminal.note(`${shownPath(path)}: something that no run writes lies there, so the folder stays`);
}

async function isConfirmed(question: string): Promise<boolean> {
  const asked = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return (await asked.question(question)).trim().toLowerCase() === "yes";
  } finally {
    asked.close();
  }
}
