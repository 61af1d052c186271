/** What runs are called where their whole names, which are paths, are too long to be read. */
import type { RunRow } from "./types.js";

/**
 * Names without the key of their settings that `upcycle study` puts behind them, which says nothing to a reader; whole
 * where another name would become the same.
 */
export function shortNames(names: readonly string[]): ReadonlyMap<string, string> {
  const short = names.map((name) => name.replace(/-[0-9a-f]{12,}(?=\/|$)/g, ""));
  const times = new Map<string, number>();
  for (const name of short) times.set(name, (times.get(name) ?? 0) + 1);
  return new Map(names.map((name, i) => [name, times.get(short[i]!) === 1 ? short[i]! : name]));
}

type NamedRun = Pick<RunRow, "name" | "study" | "arm" | "seed">;

/**
 * What the lines of a chart are called: arm and seed, where all runs are of one study and no other has the same; else
 * their names.
 */
export function lineNames(runs: readonly NamedRun[]): ReadonlyMap<string, string> {
  const short = shortNames(runs.map(({ name }) => name));
  const isOneStudy = new Set(runs.map(({ study }) => study)).size === 1 && runs[0]!.study !== null;
  if (!isOneStudy) return short;
  const names = runs.map(({ name, arm, seed }) => [name, `${arm}, seed ${seed}`] as const);
  return new Set(names.map(([, label]) => label)).size === runs.length ? new Map(names) : short;
}

/** A column of a table of runs. */
export interface RunColumn {
  readonly label: string;
  /** Places of its runs in the list. */
  readonly places: readonly number[];
}

/** Runs as columns: those of an arm are one where their seeds differ; all stand alone where there is one arm. */
export function armColumns(runs: readonly NamedRun[]): readonly RunColumn[] {
  const names = lineNames(runs);
  const isOneStudy = new Set(runs.map(({ study }) => study)).size === 1;
  const arms = new Map<string, number[]>();
  runs.forEach(({ study, arm }, i) => {
    const key = JSON.stringify([study, arm]);
    arms.set(key, [...(arms.get(key) ?? []), i]);
  });
  return [...arms.values()].flatMap((places): RunColumn[] => {
    const { study, arm } = runs[places[0]!]!;
    const hasSeeds = places.length > 1 && new Set(places.map((i) => runs[i]!.seed)).size === places.length;
    if (hasSeeds && arms.size > 1)
      return [{ label: `${isOneStudy ? "" : `${study ?? ""}: `}${arm} (${places.length} seeds)`, places }];
    return places.map((i) => ({ label: names.get(runs[i]!.name)!, places: [i] }));
  });
}
