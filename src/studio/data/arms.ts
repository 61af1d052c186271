/** Runs as arms: those that differ in their seed alone, compared seed by seed, and in words. */
import { meanOf } from "../../base/mean.js";
import { compact } from "../../base/format.js";
import {
  comparedArm,
  comparePairs,
  endOf,
  type ComparedArm,
  type PairComparison,
} from "../../report/study/comparisons.js";
import { testWords } from "../../report/study/judgement.js";
import { readAt } from "../../report/study/statistics.js";
import { nats, plural } from "../../report/study/wording.js";
import type { ArmRow, PairRow, RunRow } from "./types.js";

/** A run with its held-out losses by tokens, ascending. */
export interface ArmCurve {
  readonly row: RunRow;
  readonly tokens: readonly number[];
  /** Values that are not finite are of a run that has diverged. */
  readonly loss: readonly number[];
}

/** What runs side by side come to. */
export interface ArmsJudged {
  /** Those ahead of the most others first; those that cannot be compared last. */
  readonly arms: readonly ArmRow[];
  /** The first arm against every other. */
  readonly pairs: readonly PairRow[];
  /** Tokens after which the arms' losses are given, the most that all have reached; null where there are none. */
  readonly tokens: number | null;
  readonly words: string;
}

/**
 * Runs as arms, judged as a study's report judges them: each two at the most tokens that both have reached. Which arm
 * leads is only known from the losses themselves, so the correction is over all pairs.
 */
export function judgeArms(curves: readonly ArmCurve[]): ArmsJudged {
  const members = new Map<string, ArmCurve[]>();
  for (const curve of curves) {
    const id = JSON.stringify([curve.row.study, curve.row.arm]);
    members.set(id, [...(members.get(id) ?? []), curve]);
  }
  const compared = [...members].map(([id, own]) =>
    comparedArm(
      id,
      own.map(({ row, tokens, loss }) => ({ seed: row.seed, x: tokens, loss })),
    ),
  );
  const ends = new Map(
    compared.flatMap((arm) => {
      const end = endOf(arm);
      return end === null ? [] : [[arm.id, end] as const];
    }),
  );
  const tokens = ends.size === 0 ? null : Math.min(...ends.values());
  const compare = comparePairs(compared);
  const found = compared.map((arm) => ({
    id: arm.id,
    row: armRow(members.get(arm.id)!, arm, ends.has(arm.id) ? tokens : null),
    ahead: [...ends.keys()].filter((other) => (compare(arm.id, other)?.difference ?? 0) < 0).length,
  }));
  found.sort((a, b) => b.ahead - a.ahead || (a.row.mean ?? Infinity) - (b.row.mean ?? Infinity));
  const arms = found.map(({ row }) => row);
  const [first, ...others] = found;
  const against = others.flatMap((other) => {
    const comparison = compare(first!.id, other.id);
    return comparison === null ? [] : [{ other: other.row, pair: pairRow(first!.row, other.row, comparison) }];
  });
  return { arms, pairs: against.map(({ pair }) => pair), tokens, words: leadWords(arms, against, tokens) };
}

/** An arm with the losses of its runs after so many tokens. */
function armRow(members: readonly ArmCurve[], compared: ComparedArm, at: number | null): ArmRow {
  const runs = members
    .map(({ row: { name, seed } }, i) => {
      const { x, loss } = compared.runs[i]!;
      return { run: name, seed, loss: at === null ? null : readAt(x, loss, at) };
    })
    .sort((a, b) => a.seed - b.seed);
  const losses = runs.flatMap(({ loss }) => (loss === null ? [] : [loss]));
  const isWhole = losses.length === runs.length && losses.length > 0;
  const { arm, study, kind, params, activeParams } = members[0]!.row;
  return {
    name: arm,
    study,
    kind,
    params,
    activeParams,
    runs,
    mean: isWhole ? meanOf(losses) : null,
    low: isWhole ? Math.min(...losses) : null,
    high: isWhole ? Math.max(...losses) : null,
  };
}

const finite = (value: number): number | null => (Number.isFinite(value) ? value : null);

function pairRow(first: ArmRow, second: ArmRow, { at, difference, judgement }: PairComparison): PairRow {
  const { n, low, high, p, adjusted, tests, verdict } = judgement;
  return {
    first: first.name,
    second: second.name,
    tokens: at,
    n,
    difference,
    low: finite(low),
    high: finite(high),
    p: finite(p),
    adjusted: finite(adjusted),
    tests,
    verdict,
  };
}

/** Which arm leads, by how much, and whether that means anything; `against` has the first arm against others. */
function leadWords(
  arms: readonly ArmRow[],
  against: readonly { readonly other: ArmRow; readonly pair: PairRow }[],
  tokens: number | null,
): string {
  const [leader] = arms;
  const gone = arms.filter(({ mean }) => mean === null).length;
  const left = gone === 0 ? "" : ` ${plural(gone, "arm")} without a loss there (not measured yet, or diverged).`;
  const [closest] = against;
  if (tokens === null || leader === undefined || (closest === undefined && leader.mean === null))
    return `Nothing can be compared yet: no run has a held-out loss behind its start.${left}`;
  if (closest === undefined)
    return (
      `${leader.name} has a held-out loss of ${nats(leader.mean!)} after ${compact(tokens)} tokens; there is no ` +
      `other arm to compare.${left}`
    );
  const behind = against.find(({ pair }) => pair.difference > 0)?.pair;
  if (behind !== undefined)
    return (
      `No arm is ahead of all others: even ${leader.name} is ${nats(behind.difference)} behind ${behind.second} ` +
      `after ${compact(behind.tokens)} tokens.${left}`
    );
  const { other, pair } = closest;
  const lead = `${leader.name} leads ${other.name} by ${nats(pair.difference)} after ${compact(pair.tokens)} tokens`;
  // One seed says nothing, also not that the arms are alike.
  const advice = pair.verdict === "chance" ? cheaperOf(leader, other) : "";
  return `${lead}: ${meaning(pair)}${advice}${left}`;
}

/** Which of two arms to take that cannot be told apart: the cheaper one to run; empty where both cost the same. */
function cheaperOf(...arms: readonly [ArmRow, ArmRow]): string {
  const [take, other] = [...arms].sort((a, b) => a.activeParams - b.activeParams || a.params - b.params);
  if (take === undefined || other === undefined) return "";
  const [key, what] = take.activeParams === other.activeParams ? (["params", "parameters"] as const) : activeKey;
  if (take[key] === other[key]) return "";
  return (
    ` Until more seeds tell them apart, take ${take.name}: it has ${compact(take[key])} ${what}, ${other.name} ` +
    `${compact(other[key])}.`
  );
}

const activeKey = ["activeParams", "parameters that a token uses"] as const;

function meaning({ n, adjusted, difference, tests, verdict }: PairRow): string {
  if (verdict === "unknown") {
    const seeds = n === 0 ? "the arms have no seed in common" : "there is one seed of each";
    return `${seeds}, so nothing says whether this is more than chance.`;
  }
  if (difference === 0) return "no difference.";
  const test = testWords({ n, adjusted: adjusted ?? NaN, tests });
  return verdict === "beyond" ? `more than chance explains (${test}).` : `it may be chance (${test}).`;
}

/** Mean, lowest and highest of several curves at every x that all of them cover. */
export function seedBand(curves: readonly Omit<ArmCurve, "row">[]): {
  readonly x: number[];
  readonly mean: (number | null)[];
  readonly low: (number | null)[];
  readonly high: (number | null)[];
} {
  const start = Math.max(...curves.map(({ tokens }) => tokens[0] ?? Infinity));
  const end = Math.min(...curves.map(({ tokens }) => tokens.at(-1) ?? -Infinity));
  const x = [...new Set(curves.flatMap(({ tokens }) => tokens))]
    .filter((value) => value >= start && value <= end)
    .sort((a, b) => a - b);
  const values = x.map((value) => curves.map(({ tokens, loss }) => readAt(tokens, loss, value)));
  const over = (of: (all: readonly number[]) => number) =>
    values.map((all) => (all.includes(null) ? null : of(all as number[])));
  return {
    x,
    mean: over(meanOf),
    low: over((all) => Math.min(...all)),
    high: over((all) => Math.max(...all)),
  };
}
