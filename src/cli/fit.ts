/** `upcycle fit`: a scaling law fitted to losses of trained models. */
import { Command } from "commander";
import { valueAt } from "../base/at.js";
import { inputError } from "../base/errors.js";
import { largestOf, smallestOf } from "../base/extremes.js";
import { compact, duration, labelled, significant, table } from "../base/format.js";
import { toolVersion } from "../surgery/convert/version.js";
import { parseMapping, splitOutside } from "../laws/points/columns.js";
import { runFit, type FitProgress, type FitReport, type FitRequest, type PredictAt } from "../laws/points/fit.js";
import { readPoints, type Dropped, type ReadPoints } from "../laws/points/points.js";
import { writeFileAtomic } from "../files/io/atomic.js";
import { isOwnPage, requireFilePlace } from "../files/io/named-file.js";
import { inputName } from "../files/io/streams.js";
import { laws, lawById, lawOf, type LawName } from "../laws/fitting/catalogue.js";
import type { Bounds, ParameterHints } from "../laws/forms/expression-law.js";
import { defaultDelta, lossNames, type LossName } from "../laws/solvers/loss.js";
import { renderLawHtml } from "../report/laws/law-page.js";
import { chartAssets } from "../study/chart-assets.js";
import { commandLine } from "./assets.js";
import { executeIsoFlop, isoFlopName } from "./fit-isoflop.js";
import { openContext, shownPath } from "./context.js";
import { orStandardInput, reading } from "./input.js";
import {
  collect,
  defaultThreads,
  didYouMean,
  mostThreads,
  oneOf,
  realNumber,
  wholeNumber,
  withExample,
  withJson,
  type CommonFlags,
} from "./options.js";

interface FitFlags extends CommonFlags {
  readonly law: string;
  readonly loss: LossName;
  readonly delta: number;
  readonly columns?: string;
  readonly start?: string;
  readonly bounds?: string;
  readonly maxLoss?: number;
  readonly cluster?: string;
  readonly bootstrap: number;
  readonly profile?: boolean;
  readonly level: number;
  readonly draws?: boolean;
  readonly compare?: string;
  readonly predict?: readonly string[];
  readonly grid?: boolean;
  readonly seed: number;
  readonly html?: string;
}

const labelWidth = 12;
/** Milliseconds of work after which progress is shown. */
const patience = 1000;

/** The command with its options and its help. */
export function fitCommand(): Command {
  const command = new Command("fit")
    .description("fit a scaling law to losses of trained models")
    .argument("<file>", `CSV, JSON lines, Parquet, trainer_state.json, a log, or a folder of runs; ${orStandardInput}`)
    .requiredOption("--law <law>", "name below, or a formula in quotes")
    .option("--columns <list>", "where columns are: N=params,D=tokens*1e9,loss=loss")
    .option(
      "--loss <name>",
      `loss of residuals: ${lossNames.join(", ")} (-raw: of L, else of ln L)`,
      oneOf("--loss", lossNames),
      "huber",
    )
    .option("--delta <number>", "threshold of Huber's loss", realNumber("--delta", 1e-12, 1e6), defaultDelta)
    .option("--max-loss <nats>", "leave out points with a larger loss", realNumber("--max-loss", 0))
    .option("--bootstrap <n>", "fits of resampled points, for intervals", wholeNumber("--bootstrap", 0, 1e6), 0)
    .option("--cluster <column>", "names runs of several points, for intervals; none: independent")
    .option("--profile", "intervals by profile likelihood")
    .option("--level <part>", "confidence of intervals", realNumber("--level", 0.5, 0.9999), 0.95)
    .option("--predict <list>", "a place to predict, N=7e10,D=1e12 (group=moe); repeatable", collect)
    .option("--draws", "parameters of every resampled fit in the JSON, for plans")
    .option("--compare <laws>", "other laws fitted to the same points: a,b")
    .option("--start <list>", "where a formula's search begins: A=400,alpha=0.3")
    .option("--bounds <list>", "between which values a formula's parameters lie: A=0..,b=-1..1")
    .option("--grid", "all starts of the law's grid instead of projection")
    .option("--seed <n>", "of the resampling", wholeNumber("--seed", 0), 0)
    .option("--threads <n>", "worker threads (default: all cores)", wholeNumber("--threads", 1, mostThreads()))
    .option("--html <file>", "write a page with charts")
    .action(execute);
  const remarks = [
    `Laws: ${laws.map(({ id }) => id).join(", ")}; ${isoFlopName}: the best size and tokens by compute budget.`,
    "Sizes and tokens are raw counts, losses nats per token.",
  ];
  return withExample(withJson(command), "upcycle fit runs.csv --law chinchilla --bootstrap 1000 --profile", ...remarks);
}

async function execute(file: string, flags: FitFlags): Promise<void> {
  if (flags.law === isoFlopName) return executeIsoFlop(file, requireNoPage(flags));
  const { terminal, json } = openContext({ json: flags.json });
  if (flags.html !== undefined) await requireFilePlace(flags.html, "page of this command", isOwnPage);
  const mapping = flags.columns === undefined ? new Map<string, string>() : parseMapping(flags.columns);
  const columns = [...mapping.keys()];
  const hints = { start: numbers(flags.start, "--start"), bounds: boundsOf(flags.bounds) };
  const law = lawName(flags.law, columns, hints);
  requireFormula(law, hints);
  const form = lawOf(law);
  const compare = splitOutside(flags.compare ?? "")
    .filter((text) => text !== "")
    .map((text) => lawName(text, columns));
  requireDrawsPlace(flags);
  const options = { mapping, cluster: flags.cluster, maxLoss: flags.maxLoss, compare: compare.map(lawOf) };
  const pointTable = await reading(file, flags.json, () => readPoints(file, form, options));
  const name = shownPath(inputName(file));
  const start = performance.now();
  const found = await runFit(requestOf(flags, { law, compare, pointTable, name }), (state) => {
    if (performance.now() - start > patience) terminal.progress(progressLine(state));
  });
  const report = "formula" in law ? { ...found, notes: [...found.notes, ...namesakeNotes(pointTable)] } : found;
  terminal.settle();
  if (flags.html !== undefined) await writePage(flags.html, report, pointTable, name);
  if (json)
    return terminal.json({
      ...summary(report, pointTable),
      ...(flags.draws === true && { draws: drawLists(report.draws) }),
    });
  const seconds = (performance.now() - start) / 1000;
  terminal.out(describe(report, pointTable, name, seconds, terminal.columns));
  if (flags.html !== undefined) terminal.out(`report: ${shownPath(flags.html)}`);
}

/** A name of a formula that is a column of the file is a parameter unless the user says otherwise: so it is said. */
function namesakeNotes({ namesakes }: ReadPoints): string[] {
  return namesakes.map(
    (name) =>
      `${name} is a parameter of the formula here, although the file has a column of that name: to take the column, ` +
      `write --columns ${name}=${name}.`,
  );
}

/** An IsoFLOP analysis has budgets where laws have charts. */
function requireNoPage(flags: FitFlags): FitFlags {
  const useless = (["html", "profile", "compare", "draws", "grid", "start", "bounds"] as const).find(
    (name) => flags[name] !== undefined,
  );
  if (useless === undefined) return flags;
  throw inputError(`an IsoFLOP analysis has no use for it`, {
    where: `--${useless}`,
    hint: "it takes --bootstrap and --predict C=1e24",
  });
}

function requireDrawsPlace({ draws, bootstrap, json }: FitFlags): void {
  if (draws === true && (bootstrap === 0 || json !== true))
    throw inputError("needs --bootstrap and --json", {
      where: "--draws",
      hint: "for example --bootstrap 400 --draws --json",
    });
}

/** What is fitted, to which points. */
interface FitSubject {
  readonly law: LawName;
  readonly compare: readonly LawName[];
  readonly pointTable: ReadPoints;
  /** Name of the table in messages. */
  readonly name: string;
}

function requestOf(flags: FitFlags, { law, compare, pointTable, name }: FitSubject): FitRequest {
  return {
    law,
    compare,
    points: pointTable.points,
    where: name,
    stated: pointTable.stated,
    lines: pointTable.lines,
    loss: { name: flags.loss, delta: flags.loss === "huber" ? flags.delta : 0 },
    starts: flags.grid === true ? "grid" : "projection",
    bootstrap: flags.bootstrap,
    profile: flags.profile === true,
    level: flags.level,
    seed: flags.seed,
    threads: flags.threads ?? defaultThreads(),
    predict: (flags.predict ?? []).map(placeOf),
  };
}

async function writePage(path: string, report: FitReport, pointTable: ReadPoints, file: string): Promise<void> {
  const page = renderLawHtml(
    {
      ...report,
      points: pointTable.points,
      active: pointTable.active,
      rows: pointTable.rows,
      columns: pointTable.columns,
      file,
      version: toolVersion,
      leftOut: pointTable.dropped.length === 0 ? "" : reasons(pointTable.dropped),
      warnings: remarks(report),
      command: commandLine(),
    },
    await chartAssets(),
  );
  await writeFileAtomic(path, page);
}

/** A law of the catalogue, or a formula over these columns. Throws inputError for anything else. */
function lawName(text: string, columns: readonly string[], hints: ParameterHints = {}): LawName {
  if (lawById(text) !== undefined) return { id: text };
  const isFormula = /[-+*/^=()]\s*[\w(]/.test(text) && !/^[a-z]+(-[a-z]+)*$/.test(text);
  if (isFormula) return { formula: text, columns: columns.filter((name) => name !== "loss"), ...hints };
  const names = [...laws.map(({ id }) => id), isoFlopName];
  throw inputError(`"${text}" is not a law`, {
    where: "--law",
    hint: didYouMean(text, names) ?? `laws: ${names.join(", ")}; or a formula such as "A*N^-a + E"`,
  });
}

/** Starts and bounds are about the parameters of a formula: laws with a name have their own. */
function requireFormula(law: LawName, { start, bounds }: Required<ParameterHints>): void {
  if ("formula" in law) return;
  const where = Object.keys(bounds).length > 0 ? "--bounds" : Object.keys(start).length > 0 ? "--start" : null;
  if (where === null) return;
  throw inputError(`the law ${law.id} has its own starts and bounds`, {
    where,
    hint: 'write a formula instead, such as --law "A*N^-a + B*D^-b + E"',
  });
}

/** Bounds by name as `A=0..,b=-1..1`; a side that is left out has no bound. Throws inputError naming the option. */
function boundsOf(text: string | undefined): Readonly<Record<string, Bounds>> {
  const where = "--bounds";
  const parts = (text ?? "").split(",").filter((part) => part.trim() !== "");
  return Object.fromEntries(
    parts.map((part): [string, Bounds] => {
      const [, name, low, high] = /^\s*([A-Za-z_]\w*)\s*=\s*(.*?)\s*\.\.\s*(.*?)\s*$/.exec(part) ?? [];
      if (name === undefined || low === undefined || high === undefined)
        throw inputError(`"${part.trim()}" is not NAME=LOW..HIGH`, { where, hint: "for example A=0..,b=-1..1" });
      const end = (value: string, open: number): number => (value === "" ? open : realNumber(where, -Infinity)(value));
      return [name, [end(low, -Infinity), end(high, Infinity)]];
    }),
  );
}

/** A place as `N=7e10,D=1e12`, and with `group=dense` for a law over groups. Throws inputError naming the option. */
function placeOf(text: string): PredictAt {
  const [, group] = /(?:^|,)\s*group\s*=\s*([^,]*)/.exec(text) ?? [];
  return {
    columns: numbers(text.replace(/(^|,)\s*group\s*=[^,]*/, ""), "--predict"),
    ...(group !== undefined && { group: group.trim() }),
  };
}

/** Numbers by name as `A=400,alpha=0.3`. Throws inputError naming the option. */
function numbers(text: string | undefined, option: string): Readonly<Record<string, number>> {
  const pairs = (text ?? "").split(",").filter((part) => part.trim() !== "");
  return Object.fromEntries(
    pairs.map((part) => {
      const [name = "", value = ""] = part.split("=").map((side) => side.trim());
      if (name === "") throw inputError(`"${part.trim()}" is not NAME=NUMBER`, { where: option });
      return [name, realNumber(option, -Infinity)(value)];
    }),
  );
}

function progressLine({ what, done, total }: FitProgress): string {
  return `${what}  ${done}/${total}`;
}

/** The keys of `--json`, apart from draws. */
function summary(
  report: FitReport,
  { points, columns: from, dropped, rows, runs }: ReadPoints,
): Record<string, unknown> {
  const { fit, profiles, bootstrap, quality, predictions, notes, warnings, comparison } = report;
  const names = fit.law.parameters.map(({ name }) => name);
  const intervals = Object.fromEntries(
    names
      .filter((name) => profiles[name] !== undefined || bootstrap[name] !== undefined)
      .map((name) => [name, { bootstrap: bootstrap[name] ?? null, profile: profiles[name] ?? null }]),
  );
  return {
    law: fit.law.id,
    formula: fit.law.formula,
    source: fit.law.source,
    params: fit.params,
    intervals,
    objective: fit.objective,
    status: fit.status,
    atBound: fit.atBound,
    gradientNorm: fit.gradientNorm,
    starts: fit.starts,
    loss: fit.loss.name === "huber" ? fit.loss : { name: fit.loss.name },
    quality,
    noise: report.noise,
    misfit: report.misfit,
    outliers: report.outliers,
    rivals: report.rivals,
    n: points.n,
    runs,
    ranges: ranges(points),
    rows,
    columns: from,
    dropped,
    predictions,
    comparison,
    notes,
    warnings,
  };
}

/** The most draws that are written: a plan needs no more. */
const mostDraws = 1000;

function drawLists(draws: FitReport["draws"]): Record<string, number[]> {
  return Object.fromEntries(Object.entries(draws).map(([name, values]) => [name, [...values.subarray(0, mostDraws)]]));
}

/** Smallest and largest value of each column. */
function ranges({ columns: values }: ReadPoints["points"]): Record<string, [number, number]> {
  return Object.fromEntries(
    Object.entries(values).map(([name, column]) => {
      const finite = column.filter(Number.isFinite);
      return [name, [smallestOf(finite), largestOf(finite)]];
    }),
  );
}

/** The report for people. */
function describe(report: FitReport, pointTable: ReadPoints, file: string, seconds: number, columns: number): string[] {
  const row = (label: string, text: string): string[] => labelled(label, text, labelWidth, columns);
  const warnings = remarks(report);
  return [
    ...fitFacts(report, pointTable, file, seconds).flatMap(([label, text]) => row(label, text)),
    "",
    ...parameterTable(report, columns),
    ...report.predictions.flatMap((prediction) => ["", ...row("prediction", predictionWords(prediction))]),
    ...(report.comparison.length === 0 ? [] : ["", ...comparisonTable(report, columns)]),
    ...(warnings.length === 0 ? [] : [""]),
    ...warnings.flatMap((text) => row("warning", text)),
  ];
}

/** What was fitted to what, and how well, as labels and texts. */
function fitFacts(
  { fit, quality, noise }: FitReport,
  pointTable: ReadPoints,
  file: string,
  seconds: number,
): readonly (readonly [label: string, text: string])[] {
  const { law, loss, starts } = fit;
  const leftOut = pointTable.dropped.length === 0 ? "" : `; left out: ${reasons(pointTable.dropped)}`;
  const columns = Object.entries(pointTable.columns).map(([name, from]) =>
    name === from ? name : `${name} = ${from}`,
  );
  const lossWords = `${loss.name}${loss.name === "huber" ? ` with delta ${loss.delta}` : ""}`;
  return [
    ["law", `${law.id}: ${law.formula}`],
    ["source", law.source],
    ["points", `${pointTable.points.n} of ${pointTable.rows} in ${file}${leftOut}`],
    ["columns", columns.join(", ")],
    ...(noise.runs === null ? [] : [["runs", runWords(noise, pointTable)] as const]),
    [
      "loss",
      `${lossWords} of ${loss.name === "mse-raw" ? "raw" : "ln"} residuals, summed: ${fit.objective.toPrecision(10)}`,
    ],
    [
      "fit",
      `${statusWords(fit.status)}; ${starts.atOptimum} of ${starts.tried} starts ended here; gradient ` +
        `${significant(fit.gradientNorm, 2)}; ${duration(seconds)}`,
    ],
    [
      "residuals",
      `RMSE ${significant(quality.rmse)} nats, of ln L ${significant(quality.logRmse)}; R2 ${quality.r2.toFixed(5)}`,
    ],
  ];
}

/** From which column runs come, and how alike the points of one are. */
function runWords({ runs, correlation }: FitReport["noise"], { runs: column }: ReadPoints): string {
  return `${runs} of several points, by ${column}; correlation within a run ${significant(correlation ?? NaN, 2)}`;
}

function predictionWords(prediction: FitReport["predictions"][number]): string {
  const { at, group, loss, profile, bootstrap, newRun, rivals } = prediction;
  const sizes = Object.entries(at).map(([name, size]) => `${name} = ${compact(size)}`);
  const place = `${group === null ? "" : `${group}, `}${sizes.join(", ")}`;
  const intervals = [
    ...(bootstrap === null ? [] : [`${range(bootstrap.low, bootstrap.high)} by bootstrap`]),
    ...(profile === null ? [] : [`${range(profile.low, profile.high)} by profile`]),
  ];
  const others = Object.entries(rivals).map(([law, value]) => `${value.toFixed(4)} by ${law}`);
  return [
    `L = ${loss.toFixed(4)} nats at ${place}`,
    ...(intervals.length === 0 ? [] : [`the law: ${intervals.join(", ")}`]),
    `a new run: ${newRunRange(newRun)} (${significant(100 * newRun.level, 2)} %)`,
    ...(others.length === 0 ? [] : [`as likely: ${others.join(", ")}`]),
  ].join("; ");
}

/** Everything a reader should be careful about, a sentence each. */
function remarks({ notes, warnings, predictions }: FitReport): string[] {
  return [
    ...notes,
    ...warnings.map(({ text }) => text),
    ...predictions.flatMap((prediction) => prediction.warnings.map(({ text }) => text)),
  ];
}

const statusWords = (status: FitReport["fit"]["status"]): string =>
  ({
    converged: "converged",
    "at-bound": "at a bound",
    "iteration-limit": "NOT converged",
    "no-better-than-constant": "NO FIT, no better than a constant",
  })[status];

/** The most lines of a reason that are named. */
const mostLines = 5;

/** Why rows were left out: each reason with the first lines that it is about. */
function reasons(dropped: readonly Dropped[]): string {
  const linesOf = new Map<string, number[]>();
  for (const { line, reason } of dropped) {
    const lines = linesOf.get(reason);
    if (lines === undefined) linesOf.set(reason, [line]);
    else lines.push(line);
  }
  const words = [...linesOf].map(([reason, lines]) => {
    const more = lines.length > mostLines ? ", ..." : "";
    return `${reason} (line${lines.length === 1 ? "" : "s"} ${lines.slice(0, mostLines).join(", ")}${more})`;
  });
  return words.join("; ");
}

function parameterTable({ fit, profiles, bootstrap }: FitReport, columns: number): readonly string[] {
  const level = Object.values(profiles)[0]?.level ?? Object.values(bootstrap)[0]?.level;
  const percent = level === undefined ? "" : `${significant(100 * level, 2)} %`;
  const [withBootstrap, withProfile] = [Object.keys(bootstrap).length > 0, Object.keys(profiles).length > 0];
  const heading = [
    "",
    "value",
    ...(withBootstrap ? [`${percent} bootstrap`, "std. error"] : []),
    ...(withProfile ? [`${percent} profile`] : []),
    ...(withBootstrap || withProfile ? [] : ["meaning"]),
  ];
  const rows = fit.law.parameters.map(({ name, meaning }) => {
    const [byBootstrap, byProfile] = [bootstrap[name], profiles[name]];
    return [
      name,
      digits(valueAt(fit.params, name)),
      ...(byBootstrap === undefined
        ? []
        : [range(byBootstrap.low, byBootstrap.high), significant(byBootstrap.standardError)]),
      ...(byProfile === undefined ? [] : [profileRange(byProfile)]),
      ...(withBootstrap || withProfile ? [] : [meaning]),
    ];
  });
  const alignment = heading.map((name, i) => (i === 0 || name === "meaning" ? ("left" as const) : ("right" as const)));
  return table([heading, ...rows], alignment, columns);
}

function comparisonTable({ comparison }: FitReport, columns: number): readonly string[] {
  const [aic, bic] = [
    Math.min(...comparison.map((entry) => entry.aic)),
    Math.min(...comparison.map((entry) => entry.bic)),
  ];
  const rows = comparison.map(({ law, k, heldOut, ...entry }) => [
    law,
    String(k - 1),
    (entry.aic - aic).toFixed(1),
    (entry.bic - bic).toFixed(1),
    significant(heldOut?.rmse ?? NaN),
    significant(heldOut?.bias ?? NaN, 2),
  ]);
  return table(
    [["law", "params", "AIC - best", "BIC - best", "held-out", "bias"], ...rows],
    ["left", "right", "right", "right", "right", "right"],
    columns,
  );
}

/** A number with six significant digits: an exponent that is printed with two changes predictions by percents. */
const digits = (value: number, count = 6): string => significant(value, count);
const range = (low: number, high: number): string => `${digits(low, 4)} .. ${digits(high, 4)}`;
const newRunRange = ({ low, high, lowOpen, highOpen }: FitReport["predictions"][number]["newRun"]): string =>
  `${lowOpen ? "open" : digits(low, 4)} .. ${highOpen ? "open" : digits(high, 4)}`;
const profileRange = ({ low, high, lowOpen, highOpen }: FitReport["profiles"][string]): string =>
  `${lowOpen ? "open" : digits(low, 4)} .. ${highOpen ? "open" : digits(high, 4)}`;
