/**
 * `upcycle fit FILE --law isoflop`: the best size and token count at each compute budget, and how they grow with it.
 */
import { at } from "../base/at.js";
import { inputError } from "../base/errors.js";
import { compact, labelled, significant, table } from "../base/format.js";
import { inputName } from "../files/io/streams.js";
import { fewestBudgets, isoFlop, type IsoFlop, type PowerOfCompute } from "../laws/fitting/isoflop.js";
import { columnD, columnN } from "../laws/forms/parts.js";
import type { Law } from "../laws/forms/types.js";
import { parseMapping } from "../laws/points/columns.js";
import { readPoints, type ReadPoints } from "../laws/points/points.js";
import { openContext, shownPath } from "./context.js";
import { reading } from "./input.js";
import { realNumber, type CommonFlags } from "./options.js";

/** The name of the analysis where laws have theirs. */
export const isoFlopName = "isoflop";

/** The options of `fit` that an IsoFLOP analysis has a use for. */
export interface IsoFlopFlags extends CommonFlags {
  readonly columns?: string;
  readonly maxLoss?: number;
  readonly bootstrap: number;
  readonly level: number;
  readonly seed: number;
  readonly predict?: readonly string[];
}

/** What is read for it, as the columns of a law. */
const reads: Law = {
  id: isoFlopName,
  title: "IsoFLOP",
  formula: "N* = a C^alpha, D* = b C^beta",
  source: "Approach 2 of Hoffmann et al. 2022 (arXiv 2203.15556, section 3.2)",
  columns: [columnN, columnD, { name: "C", meaning: "training compute; 6 N D where there is none", unit: "FLOP" }],
  parameters: [],
  bind() {
    throw new Error("an IsoFLOP analysis is no law");
  },
};

const labelWidth = 12;

/** Reads the points, analyses them and prints the result. Throws inputError where they hold too few budgets. */
export async function executeIsoFlop(file: string, flags: IsoFlopFlags): Promise<void> {
  const { terminal, json } = openContext({ json: flags.json });
  const mapping = flags.columns === undefined ? new Map<string, string>() : parseMapping(flags.columns);
  const options = { mapping, maxLoss: flags.maxLoss, cluster: "none", optional: ["C"] };
  const read = await reading(file, flags.json, () => readPoints(file, reads, options));
  const { N = new Float64Array(), D = new Float64Array(), C } = read.points.columns;
  const compute = C ?? N.map((size, i) => 6 * size * at(D, i));
  const result = isoFlop({ N, D, C: compute, loss: read.points.loss }, flags);
  const name = shownPath(inputName(file));
  if (result === null)
    throw inputError(`fewer than ${fewestBudgets} compute budgets with at least four sizes each`, {
      where: name,
      hint:
        "points of one budget have the same compute within 5 %; map the column of the budget " +
        "(--columns C=COLUMN), or " +
        "fit a law of N and D, which needs no budgets",
    });
  const places = (flags.predict ?? []).map((text) => allocationAt(result, budgetAsked(text)));
  if (json)
    return terminal.json({ law: isoFlopName, source: reads.source, n: read.points.n, ...result, predictions: places });
  terminal.out(describe(result, read, name, places, terminal.columns));
}

/** A best allocation of a budget by both powers. */
interface Allocation {
  readonly compute: number;
  readonly size: number;
  readonly tokens: number;
  readonly tokensPerParameter: number;
}

function allocationAt({ size, tokens }: IsoFlop, compute: number): Allocation {
  const value = ({ factor, exponent }: PowerOfCompute): number => factor * compute ** exponent;
  const [best, data] = [value(size), value(tokens)];
  return { compute, size: best, tokens: data, tokensPerParameter: data / best };
}

/** `C=1e24`. */
function budgetAsked(text: string): number {
  const [, value] = /^\s*C\s*=\s*(.+)$/.exec(text) ?? [];
  if (value === undefined)
    throw inputError(`"${text}" names no compute`, {
      where: "--predict",
      hint: "an IsoFLOP analysis predicts for C=1e24",
    });
  return realNumber("--predict", 1)(value);
}

function describe(
  result: IsoFlop,
  { points, rows, columns }: ReadPoints,
  file: string,
  places: readonly Allocation[],
  width: number,
): string[] {
  const row = (label: string, text: string): string[] => labelled(label, text, labelWidth, width);
  const power = (name: string, { exponent, factor, interval, bootstrap }: PowerOfCompute): string[] =>
    row(
      name,
      `${significant(factor)} C^${significant(exponent, 4)}; exponent ${range(interval)} by the ` +
        `line through the best points` +
        (bootstrap === null ? "" : `, ${range(bootstrap)} by bootstrap`) +
        ` (${significant(100 * result.level, 2)} %)`,
    );
  const heading = ["budget, FLOP", "points", "best N", "best D", "D per N", "loss", ""];
  const budgets = result.budgets.map(
    ({ compute, n, size, tokens, tokensPerParameter, loss, leftOut, extrapolated }) => [
      compute.toExponential(2).replace("e+", "e"),
      String(n),
      size === null ? "" : compact(size),
      tokens === null ? "" : compact(tokens),
      tokensPerParameter === null ? "" : significant(tokensPerParameter),
      loss === null ? "" : loss.toFixed(4),
      leftOut ?? (extrapolated ? "outside the sizes trained" : ""),
    ],
  );
  const used = Object.entries(columns).map(([name, from]) => (name === from ? name : `${name} = ${from}`));
  return [
    ...row("analysis", `${reads.title}: ${reads.formula}`),
    ...row("source", reads.source),
    ...row("points", `${points.n} of ${rows} in ${file}`),
    ...row("columns", `${used.join(", ")}${columns.C === undefined ? "; C = 6 N D" : ""}`),
    ...power("N*", result.size),
    ...power("D*", result.tokens),
    "",
    ...table(
      [heading, ...budgets],
      heading.map((_, i) => (i === heading.length - 1 ? "left" : "right")),
      width,
    ),
    ...places.flatMap(({ compute, size, tokens, tokensPerParameter }) => [
      "",
      ...row(
        "prediction",
        `at ${compute.toExponential(2).replace("e+", "e")} FLOP: N* = ${compact(size)}, D* = ${compact(tokens)}, ` +
          `${significant(tokensPerParameter)} tokens per parameter`,
      ),
    ]),
    "",
    ...row(
      "note",
      "Parabolas are biased where loss falls faster with size than with tokens, or the other " +
        "way round, and where sizes " +
        "lie to one side of the best; compare with --law chinchilla on the same points.",
    ),
  ];
}

const range = ([low, high]: readonly [number, number]): string => `${significant(low, 4)} .. ${significant(high, 4)}`;
