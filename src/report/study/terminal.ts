/** The study as text of at most `columns` columns: one row per arm, then the findings. */
import {
  compact,
  duration,
  fixed,
  flops,
  grouped,
  meanWithSpread,
  significant,
  table,
  wrap,
} from "../../base/format.js";
import { relativeLogitError } from "./health-findings.js";
import type { ArmResult, StudyResult } from "../../model/results/result.js";
import { meanOf } from "../../base/mean.js";
import { resultTables } from "./result-tables.js";
import { mainParent, spread } from "./statistics.js";
import { peakMemory } from "./wording.js";

/** The study's arms as a table, what its columns mean, and the findings, separated by line ends. */
export function terminalTable(result: StudyResult, columns = 80): string {
  const heading = [
    "arm",
    "params\ntotal",
    "\nactive",
    "logit\nerror",
    "start\nloss",
    "final\nloss",
    "\ntok/s",
    "peak\nmemory",
    "train\nFLOP",
  ];
  const rows = result.arms.map(armRow);
  const alignment = heading.map((_, column) => (column === 0 ? "left" : "right"));
  const title = `${result.name} (${duration(result.seconds)}; parent's loss ${fixed(mainParent(result).loss)})`;
  return [
    ...wrap(title, columns),
    "",
    ...table([heading, ...rows], alignment, columns),
    "",
    ...wrap(legend(result), columns),
    "",
    ...taskLines(result, columns),
    ...result.findings.flatMap((finding) =>
      wrap(finding, columns - 2).map((line, index) => (index === 0 ? `- ${line}` : `  ${line}`)),
    ),
  ].join("\n");
}

/** Right answers on tasks before and after, with an empty line behind them; nothing for a study without tasks. */
function taskLines(result: StudyResult, columns: number): readonly string[] {
  const found = resultTables(result).find(({ id }) => id === "tasks");
  if (found === undefined) return [];
  const { rows, texts, caption } = found;
  const headings = ["task", "chance", "parent", ...(result.tasks?.[0]?.arms ?? []).map(({ id }) => id), "samples"];
  const alignment = headings.map((_, column) => (column < texts ? "left" : "right"));
  return [...table([headings, ...rows], alignment, columns), "", ...wrap(caption, columns), ""];
}

function armRow(arm: ArmResult): readonly string[] {
  const error = relativeLogitError(arm);
  const start = spread(arm.runs.map((run) => run.points[0]?.loss ?? Number.NaN));
  const tokens = Math.max(...arm.runs.map((run) => run.points.at(-1)?.flops ?? Number.NaN));
  return [
    arm.id,
    compact(arm.params.total),
    compact(arm.params.active),
    error === null ? "-" : significant(error, 2),
    fixed(start?.mean ?? Number.NaN),
    meanWithSpread(arm.runs.map((run) => run.finalLoss)).replace(" ± ", " ±"),
    grouped(meanOf(arm.runs.map((run) => run.tokensPerSecond))),
    peakMemory(arm),
    flops(tokens).replace("FLOP", ""),
  ];
}

function legend(result: StudyResult): string {
  const seeds = Math.max(0, ...result.arms.map((arm) => arm.runs.length));
  const spreadWords = seeds > 1 ? `mean over ${seeds} seeds ± the seed furthest from it` : "one seed, spread unknown";
  return (
    "logit error: largest difference from the parent's logits before training, relative to the largest logit; " +
    "losses are held-out, " +
    (`in nats per token; final loss: ${spreadWords}; train FLOP: forward and backward, per run (G 10^9, T ` +
      "10^12, P 10^15).")
  );
}
