/** The page's tables: arms, preservation, final losses, and the losses for readers without scripts. */
import { at } from "../../base/at.js";
import { compact, fixed, flops, meanWithSpread, rate, significant } from "../../base/format.js";
import { escapeHtml } from "../page/escape.js";
import { toneIndices } from "../page/palette.js";
import { framedTable } from "../page/table.js";
import type { ArmResult } from "../../model/results/result.js";
import { meanOf } from "../../base/mean.js";
import { lossAt, reached } from "./statistics.js";
import { lossName, type ShownStudy } from "./shown.js";
import { peakMemory, signedNats } from "./wording.js";

interface Column {
  readonly heading: string;
  readonly number?: boolean;
}

/** A table with its caption; headings and cells are markup. */
const htmlTable = (caption: string, columns: readonly Column[], rows: readonly (readonly string[])[]): string =>
  framedTable(
    columns.map(({ heading }) => heading),
    rows,
    (column) => columns[column]?.number === true,
    caption,
    true,
  );

function armHeading(arm: ArmResult, tone: number): string {
  const recipe = arm.recipe === null ? "" : ` <code>${escapeHtml(arm.recipe)}</code>`;
  return `<i class="swatch tone-${tone}"></i>${escapeHtml(arm.label)}${recipe}`;
}

/** Size, price and final loss of every arm. */
export function armsTable(result: ShownStudy): string {
  const tones = toneIndices(result.arms);
  const columns: Column[] = [
    { heading: "Arm" },
    { heading: "Parameters", number: true },
    { heading: "Active", number: true },
    { heading: "FLOP / token", number: true },
    { heading: "FLOP / run", number: true },
    { heading: "Speed", number: true },
    { heading: "Peak memory", number: true },
    { heading: result.progress === undefined ? "Final loss" : "Loss so far", number: true },
  ];
  const rows = result.arms.map((arm, index) => [
    armHeading(arm, at(tones, index)),
    compact(arm.params.total),
    compact(arm.params.active),
    flops(arm.flopsPerToken),
    flops(Math.max(...arm.runs.map((run) => run.points.at(-1)?.flops ?? Number.NaN))),
    rate(meanOf(arm.runs.map((run) => run.tokensPerSecond))),
    peakMemory(arm),
    meanWithSpread(arm.runs.map((run) => run.finalLoss)),
  ]);
  const where = result.progress === undefined ? "where it ended" : "where it is";
  return htmlTable(`Every arm: size, price and ${where}`, columns, rows);
}

/** The final losses with a column for each seed, so that arms can be compared seed by seed. */
export function seedsTable(result: ShownStudy): string {
  const tones = toneIndices(result.arms);
  const seeds = [...new Set(result.arms.flatMap((arm) => arm.runs.map((run) => run.seed)))];
  const columns: Column[] = [{ heading: "Arm" }, ...seeds.map((seed) => ({ heading: `Seed ${seed}`, number: true }))];
  const rows = result.arms.map((arm, index) => [
    armHeading(arm, at(tones, index)),
    ...seeds.map((seed) => {
      const run = arm.runs.find((one) => one.seed === seed);
      return run === undefined ? "–" : fixed(run.finalLoss, 4);
    }),
  ]);
  return htmlTable(`${lossName(result)}, seed by seed`, columns, rows);
}

/** How much of the parent's function each upcycled arm has kept, for each seed. */
export function preservationTable(result: ShownStudy): string {
  const tones = toneIndices(result.arms);
  const columns: Column[] = [
    { heading: "Arm" },
    { heading: "Seed", number: true },
    { heading: "Parent's loss", number: true },
    { heading: "Child's loss", number: true },
    { heading: "Difference", number: true },
    { heading: "Largest logit difference", number: true },
    { heading: "Relative to largest logit", number: true },
  ];
  const rows = result.arms.flatMap((arm, index) =>
    arm.runs.flatMap((run) => {
      const preservation = run.preservation;
      if (preservation === null) return [];
      return [
        [
          armHeading(arm, at(tones, index)),
          String(run.seed),
          fixed(preservation.parentLoss, 4),
          fixed(preservation.childLoss, 4),
          preservation.childLoss === preservation.parentLoss
            ? "0"
            : signedNats(preservation.childLoss - preservation.parentLoss),
          significant(preservation.maxAbsLogitDiff, 2),
          significant(preservation.maxAbsLogitDiff / preservation.maxAbsLogit, 2),
        ],
      ];
    }),
  );
  if (rows.length === 0) return `<p>No arm of this study has a parent's function to keep.</p>`;
  return htmlTable("Child against parent, before the first training step", columns, rows);
}

const momentsWithoutScript = 6;

/** Mean loss per arm at a few token counts that all arms reached: stands in for the charts where scripts do not run. */
export function lossTable(result: ShownStudy): string {
  const ends = result.arms.flatMap((arm) => reached(arm, "tokens") ?? []);
  if (ends.length === 0) return "";
  const end = Math.min(...ends);
  const tokens = Array.from({ length: momentsWithoutScript }, (_, i) => (end * i) / (momentsWithoutScript - 1));
  const columns: Column[] = [
    { heading: "Arm" },
    ...tokens.map((count) => ({ heading: `${compact(count)} tokens`, number: true })),
  ];
  const rows = result.arms.map((arm) => [
    escapeHtml(arm.label),
    ...tokens.map((count) => fixed(meanOf(arm.runs.map((run) => lossAt(run.points, "tokens", count) ?? Number.NaN)))),
  ]);
  return htmlTable("Held-out loss by training tokens, mean over the seeds", columns, rows);
}
