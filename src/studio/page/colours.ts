/** Colours of lines: arms of runs have those of the reports, a second round of them is dashed. */
import { armTones } from "../../report/page/palette.js";
import type { RunRow } from "../data/types.js";

const dashes: readonly (readonly number[] | undefined)[] = [undefined, [7, 4], [2, 3], [9, 3, 2, 3]];

/** How a line looks. */
export interface Look {
  readonly colour: string;
  readonly dash?: readonly number[] | undefined;
}

/** The look of the n-th line. */
export const lookOf = (index: number): Look => ({
  colour: `var(--arm-${index % armTones.length})`,
  dash: dashes[Math.floor(index / armTones.length) % dashes.length],
});

/** A look for every arm: dense ones first, so that they are neutral; runs of one arm share it. */
export function armLooks(
  rows: readonly Pick<RunRow, "study" | "arm" | "kind">[],
): (row: Pick<RunRow, "study" | "arm">) => Look {
  const keys = [...rows].sort((a, b) => Number(a.kind === "moe") - Number(b.kind === "moe")).map((row) => armKey(row));
  const order = [...new Set(keys)];
  const hasDense = rows.some(({ kind }) => kind === "dense");
  return (row) => lookOf(Math.max(0, order.indexOf(armKey(row))) + (hasDense ? 0 : 1));
}

/** What runs of one arm have in common. */
export const armKey = ({ study, arm }: Pick<RunRow, "study" | "arm">): string => JSON.stringify([study, arm]);
