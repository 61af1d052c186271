/** `upcycle fit` */
import { Command } from "commander";
import { inputError } from "../base/errors.js";
import { compact, duration, labelled, significant, table } from "../base/format.js";
import { nearest } from "../base/schemas/index.js";
import { toolVersion } from "../surgery/convert/version.js";
import { parseMapping } from "../laws/points/columns.js";
import { runFit, type FitProgress, type FitReport, type PredictAt } from "../laws/points/fit.js";
import { readPoints, type Dropped, type ReadPoints } from "../laws/points/points.js";
import { writeFileAtomic } from "../files/io/atomic.js";
import { isOwnPage, requireFilePlace } from "../files/io/named-file.js";
import { inputName } from "../files/io/streams.js";
import { laws, lawById, lawOf, type LawName } from "../laws/fitting/catalogue.js";
import { defaultDelta, lossNames, type LossName } from "../laws/solvers/loss.js";
import { renderLawHtml } from "../report/laws/law-page.js";
import { chartAssets, commandLine } from "./assets.js";
import { openContext, shownPath } from "./context.js";
import { orStandardInput, reading } from "./input.js";
import {
  collect,
  defaultThreads,
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
/** Milliseconds of work without a word. */
const patience = 1000;

export function fitCommand(): Command {
  const command = new Command("fit")
    .description("fit a scaling law to losses of trained models")
    .argument("<file>", `CSV, JSON lines, Parquet, or a folder of runs; ${orStandardInput}`)
    .requiredOption("--law <law>", "name below, or a formula in quotes")
    .option("--columns <list>", "where columns are: N=params,D=tokens*1e9,loss=loss")
    .option("--loss <name>", `loss of ln-residuals: ${lossNames.join(", ")}`, oneOf("--loss", lossNames), "huber")
    .option("--delta <number>", "threshold of Huber's loss", realNumber("--delta", 1e-12, 1e6), defaultDelta)
    .option("--max-loss <nats>", "leave out points with a larger loss", realNumber("--max-loss", 0))
    .option("--bootstrap <n>", "fits of resampled points, for intervals", wholeNumber("--bootstrap", 0, 1e6), 0)
    .option("--cluster <column>", "resample whole runs, named in this column")
    .option("--profile", "intervals by profile likelihood")
    .option("--level <part>", "confidence of intervals", realNumber("--level", 0.5, 0.9999), 0.95)
    .option("--predict <list>", "a place to predict, N=7e10,D=1e12 (group=moe); repeatable", collect)
    .option("--draws", "parameters of every resampled fit in the JSON, for plans")
    .option("--compare <laws>", "other laws fitted to the same points: a,b")
    .option("--start <list>", "where a formula's search begins: A=400,alpha=0.3")
    .option("--grid", "all starts of the law's grid instead of projection")
    .option("--seed <n>", "of the resampling", wholeNumber("--seed", 0), 0)
    .option("--threads <n>", "worker threads (default: all cores)", wholeNumber("--threads", 1, mostThreads()))
    .option("--html <file>", "write a page with charts")
    .action(execute);
  const remarks = [
    `Laws: ${laws.map(({ id }) => id).join(", ")}.`,
    "Sizes and tokens are raw counts, losses nats per token.",
  ];
  return withExample(withJson(command), "upcycle fit runs.csv --law chinchilla --bootstrap 1000 --profile", ...remarks);
}

async function execute(file: string, flags: FitFlags): Promise<void> {
  const { terminal, json } = openContext({ json: flags.json });
  if (flags.html !== undefined) await requireFilePlace(flags.html, "page of this command", isOwnPage);
  const mapping = flags.columns === undefined ? new Map<string, string>() : parseMapping(flags.columns);
  const name = lawName(flags.law, [...mapping.keys()], numbers(flags.start, "--start"));
  const law = lawOf(name);
  const compare = (flags.compare ?? "")
    .split(",")
    .filter((text) => text !== "")
    .map((text) => lawName(text, [...mapping.keys()], {}));
  if (flags.draws === true && (flags.bootstrap === 0 || flags.json !== true))
    throw inputError("needs --bootstrap and --json", {
      where: "--draws",
      hint: "for example --bootstrap 400 --draws --json",
    });
  const options = { mapping, cluster: flags.cluster, maxLoss: flags.maxLoss, compare: compare.map(lawOf) };
  const read = await reading(file, flags.json, () => readPoints(file, law, options));
  const shown = shownPath(inputName(file));
  const started = performance.now();
  const report = await runFit(
    {
      law: name,
      points: read.points,
      where: shown,
      stated: read.stated,
      lines: read.lines,
      loss: { name: flags.loss, delta: flags.loss === "huber" ? flags.delta : 0 },
      starts: flags.grid === true ? "grid" : "projection",
      bootstrap: flags.bootstrap,
      profile: flags.profile === true,
      level: flags.level,
      seed: flags.seed,
      threads: flags.threads ?? defaultThreads(),
      compare,
      predict: (flags.predict ?? []).map(placeOf),
    },
    (state) => {
      if (performance.now() - started > patience) terminal.progress(progressLine(state));
    },
  );
  terminal.settle();
  if (flags.html !== undefined) await writePage(flags.html, report, read, shown);
  if (json) {
    terminal.json({ ...asJson(report, read), ...(flags.draws === true && { draws: listed(report.draws) }) });
    return;
  }
  const seconds = (performance.now() - started) / 1000;
  terminal.out(describe(report, read, shown, seconds, terminal.columns));
  if (flags.html !== undefined) terminal.out(`report: ${shownPath(flags.html)}`);
}

async function writePage(path: string, report: FitReport, read: ReadPoints, file: string): Promise<void> {
  const page = renderLawHtml(
    {
      ...report,
      points: read.points,
      rows: read.rows,
      columns: read.columns,
      file,
      version: toolVersion,
      leftOut: read.dropped.length === 0 ? "" : reasons(read.dropped),
      warnings: remarks(report),
      command: commandLine(),
    },
    await chartAssets(),
  );
  await writeFileAtomic(path, page);
}

/** A law of the catalogue, or a formula. Throws inputError for anything else. */
function lawName(text: string, mapped: readonly string[], start: Readonly<Record<string, number>>): LawName {
  if (lawById(text) !== undefined) return { id: text };
  if (/[-+*/^=()]\s*[\w(]/.test(text) && !/^[a-z]+(-[a-z]+)*$/.test(text))
    return { formula: text, columns: mapped.filter((name) => name !== "loss"), start };
  const names = laws.map(({ id }) => id);
  const meant = nearest(text, names);
  throw inputError(`"${text}" is not a law`, {
    where: "--law",
    hint:
      meant === undefined ? `laws: ${names.join(", ")}; or a formula such as "A*N^-a + E"` : `did you mean ${meant}?`,
  });
}

/** `N=7e10,D=1e12`, of a law over groups with `group=dense`. Throws inputError naming the option. */
function placeOf(text: string): PredictAt {
  const [, group] = /(?:^|,)\s*group\s*=\s*([^,]*)/.exec(text) ?? [];
  return {
    columns: numbers(text.replace(/(^|,)\s*group\s*=[^,]*/, ""), "--predict"),
    ...(group !== undefined && { group: group.trim() }),
  };
}

/** `A=400,alpha=0.3`. Throws inputError naming the option. */
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

function asJson(report: FitReport, { points, columns: from, dropped, rows }: ReadPoints): Record<string, unknown> {
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
    n: points.n,
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

/** Most draws that are written: a plan needs no more. */
const mostDraws = 1000;

function listed(draws: FitReport["draws"]): Record<string, number[]> {
  return Object.fromEntries(Object.entries(draws).map(([name, values]) => [name, [...values.subarray(0, mostDraws)]]));
}

/** Smallest and largest value of each column. */
function ranges({ columns: values }: ReadPoints["points"]): Record<string, [number, number]> {
  return Object.fromEntries(
    Object.entries(values).map(([name, column]) => {
      const known = column.filter(Number.isFinite);
      return [
        name,
        [known.reduce((a, b) => Math.min(a, b), Infinity), known.reduce((a, b) => Math.max(a, b), -Infinity)],
      ];
    }),
  );
}

function describe(report: FitReport, read: ReadPoints, file: string, seconds: number, columns: number): string[] {
  const { fit, quality, predictions, comparison } = report;
  const { law, loss, starts } = fit;
  const row = (label: string, text: string): string[] => labelled(label, text, labelWidth, columns);
  const lines = [
    ...row("law", `${law.id}: ${law.formula}`),
    ...row("source", law.source),
    ...row(
      "points",
      `${read.points.n} of ${read.rows} in ` +
        `${file}${read.dropped.length === 0 ? "" : `; left out: ${reasons(read.dropped)}`}`,
    ),
    ...row(
      "columns",
      Object.entries(read.columns)
        .map(([name, from]) => (name === from ? name : `${name} = ${from}`))
        .join(", "),
    ),
    ...row(
      "loss",
      `${loss.name}${loss.name === "huber" ? ` with delta ${loss.delta}` : ""} of ln-residuals, summed: ` +
        `${fit.objective.toPrecision(10)}`,
    ),
    ...row(
      "fit",
      `${statusWords(fit.status)}; ${starts.atOptimum} of ${starts.tried} starts ended here; gradient ` +
        `${significant(fit.gradientNorm, 2)}; ${duration(seconds)}`,
    ),
    ...row(
      "residuals",
      `RMSE ${significant(quality.rmse)} nats, of ln L ${significant(quality.logRmse)}; R2 ${quality.r2.toFixed(5)}`,
    ),
    "",
    ...parameterTable(report, columns),
  ];
  for (const { at, group, loss: value, profile, bootstrap } of predictions) {
    const place =
      (group === null ? "" : `${group}, `) +
      Object.entries(at)
        .map(([name, size]) => `${name} = ${compact(size)}`)
        .join(", ");
    const ranges = [
      ...(bootstrap === null ? [] : [`${range(bootstrap.low, bootstrap.high)} by bootstrap`]),
      ...(profile === null ? [] : [`${range(profile.low, profile.high)} by profile`]),
    ];
    lines.push(
      "",
      ...row(
        "prediction",
        `L = ${value.toFixed(4)} nats at ${place}${ranges.length === 0 ? "" : `; ${ranges.join(", ")}`}`,
      ),
    );
  }
  if (comparison.length > 0) lines.push("", ...comparisonTable(report, columns));
  if (remarks(report).length > 0) lines.push("");
  for (const text of remarks(report)) lines.push(...row("warning", text));
  return lines;
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
  ({ converged: "converged", "at-bound": "at a bound", "iteration-limit": "NOT converged" })[status];

/** Reasons with how many rows each, and the first lines. */
function reasons(dropped: readonly Dropped[]): string {
  const lines = new Map<string, number[]>();
  for (const { line, reason } of dropped) lines.set(reason, [...(lines.get(reason) ?? []), line]);
  return [...lines]
    .map(
      ([reason, at]) =>
        `${reason} (line${at.length === 1 ? "" : "s"} ${at.slice(0, 5).join(", ")}${at.length > 5 ? ", ..." : ""})`,
    )
    .join("; ");
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
    const [drawn, found] = [bootstrap[name], profiles[name]];
    return [
      name,
      digits(fit.params[name]!),
      ...(drawn === undefined ? [] : [range(drawn.low, drawn.high), significant(drawn.standardError)]),
      ...(found === undefined
        ? []
        : [`${found.lowOpen ? "open" : digits(found.low, 4)} .. ${found.highOpen ? "open" : digits(found.high, 4)}`]),
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

/** Six significant digits: an exponent printed with two moves predictions by percents. */
const digits = (value: number, count = 6): string => significant(value, count);
const range = (low: number, high: number): string => `${digits(low, 4)} .. ${digits(high, 4)}`;
