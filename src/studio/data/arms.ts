/** Runs as arms: those that differ in their seed alone, compared seed by seed, and in words. */
import { meanOf } from "../../base/mean.js";
import { compact } from "../../base/format.js";
import { judge, testWords } from "../../report/study/judgement.js";
import { nats, plural } from "../../report/study/wording.js";
import { firstAtLeast } from "./decimate.js";
import type { ArmRow, PairRow, RunRow } from "./types.js";

/** A run with its held-out losses by tokens, ascending. */
export interface ArmCurve {
  readonly row: RunRow;
  readonly tokens: readonly number[];
  /** Values that are not finite are of a run that has diverged. */
  readonly loss: readonly number[];
}

/** Loss at so many tokens, linear between measurements; null outside of them and beside one that is not finite. */
export function lossAtTokens({ tokens, loss }: Omit<ArmCurve, "row">, wanted: number): number | null {
  const right = firstAtLeast(tokens, wanted);
  const [x, y] = [tokens[right], loss[right]];
  if (x === undefined || y === undefined || !Number.isFinite(y)) return null;
  if (x === wanted) return y;
  const [x0, y0] = [tokens[right - 1], loss[right - 1]];
  if (x0 === undefined || y0 === undefined || !Number.isFinite(y0)) return null;
  return y0 + ((wanted - x0) / (x - x0)) * (y - y0);
}

/** The most tokens that all runs have measured; null where one has measured nothing behind its start. */
export function commonTokens(curves: readonly ArmCurve[]): number | null {
  const ends = curves.map(({ tokens }) => tokens.at(-1) ?? 0);
  const end = ends.length === 0 ? 0 : Math.min(...ends);
  return end > 0 ? end : null;
}

/** Arms of runs, the lowest mean first, those without one last. */
export function armRows(curves: readonly ArmCurve[], tokens: number | null): ArmRow[] {
  const arms = new Map<string, ArmCurve[]>();
  for (const curve of curves) {
    const key = JSON.stringify([curve.row.study, curve.row.arm]);
    arms.set(key, [...(arms.get(key) ?? []), curve]);
  }
  const rows = [...arms.values()].map((members): ArmRow => {
    const runs = members
      .map((curve) => ({
        run: curve.row.name,
        seed: curve.row.seed,
        loss: tokens === null ? null : lossAtTokens(curve, tokens),
      }))
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
  });
  return rows.sort((a, b) => (a.mean ?? Infinity) - (b.mean ?? Infinity));
}

/** The pairs of losses of two arms that have the same seed: the first less the second. */
function differences(first: ArmRow, second: ArmRow): number[] {
  return first.runs.flatMap(({ seed, loss }) => {
    const other = second.runs.find((run) => run.seed === seed)?.loss ?? null;
    return loss === null || other === null ? [] : [loss - other];
  });
}

const finite = (value: number): number | null => (Number.isFinite(value) ? value : null);

/**
 * The leading arm against every other, judged as a study's report judges it. Which arm leads is only known from the
 * losses themselves, so the correction is over all pairs of arms.
 */
export function pairRows(arms: readonly ArmRow[]): PairRow[] {
  const measured = arms.filter(({ mean }) => mean !== null);
  const pairs = measured.flatMap((first, i) => measured.slice(i + 1).map((second) => ({ first, second })));
  const judgements = judge(pairs.map(({ first, second }) => differences(first, second)));
  // Those of the leader come first.
  return pairs.slice(0, Math.max(0, measured.length - 1)).map(({ first, second }, i) => {
    const { n, mean, low, high, p, adjusted, tests, verdict } = judgements[i]!;
    return {
      first: first.name,
      second: second.name,
      n,
      difference: finite(n === 0 ? first.mean! - second.mean! : mean),
      low: finite(low),
      high: finite(high),
      p: finite(p),
      adjusted: finite(adjusted),
      tests,
      verdict,
    };
  });
}

/** Which arm leads, by how much, and whether that means anything. */
export function leadWords(arms: readonly ArmRow[], pairs: readonly PairRow[], tokens: number | null): string {
  const measured = arms.filter(({ mean }) => mean !== null);
  const gone = arms.length - measured.length;
  const left = gone === 0 ? "" : ` ${plural(gone, "arm")} without a loss there (not measured yet, or diverged).`;
  const [leader, second] = measured;
  if (tokens === null || leader === undefined)
    return `Nothing can be compared yet: no number of tokens is reached by all runs.${left}`;
  const place = `after ${compact(tokens)} tokens`;
  if (second === undefined || pairs.length === 0)
    return (
      `${leader.name} has a held-out loss of ${nats(leader.mean!)} ${place}; there is no other arm to compare.` + left
    );
  const gap = second.mean! - leader.mean!;
  const lead = `${leader.name} leads ${second.name} by ${nats(gap)} ${place}`;
  const [pair] = pairs;
  // One seed says nothing, also not that the arms are alike.
  const advice = pair!.verdict === "chance" ? cheaperOf(leader, second) : "";
  return `${lead}: ${meaning(pair!)}${advice}${left}`;
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
  const values = x.map((value) => curves.map((curve) => lossAtTokens(curve, value)));
  const over = (of: (all: readonly number[]) => number) =>
    values.map((all) => (all.includes(null) ? null : of(all as number[])));
  return {
    x,
    mean: over(meanOf),
    low: over((all) => Math.min(...all)),
    high: over((all) => Math.max(...all)),
  };
}
