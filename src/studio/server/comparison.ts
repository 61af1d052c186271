/** Runs side by side, and the studies of a folder by their arms. */
import { configDifferences } from "../../train/run-list.js";
import { judgeArms, type ArmCurve } from "../data/arms.js";
import type { CompareAnswer, Overview, StudyRow } from "../data/types.js";
import { commandOf, flatSettings } from "../folders/detail.js";
import type { StudioIndex } from "../folders/index.js";
import type { RunEntry } from "../folders/run-entry.js";
import type { StudyReader } from "../folders/study.js";

/** Runs side by side: in what they differ, and which arm of them leads. */
export async function comparison(entries: readonly RunEntry[]): Promise<CompareAnswer> {
  const configs = await Promise.all(
    entries.map(async (entry) => (entry.row.state === "unreadable" ? { config: {} } : entry.identity())),
  );
  return {
    runs: entries.map(({ row }) => row),
    differences: differenceRows(configDifferences(configs)),
    ...judgeArms(entries.map(armCurve)),
  };
}

/** Values of settings that say that something is not there, or not done. */
const absent = new Set(["null", "false", "0", "[]"]);

/**
 * Settings that differ. One that holds others, such as the layers of a model, stands as those of them that differ, each
 * once; where some runs have none of them, what is absent in all others is left out.
 */
function differenceRows(found: ReturnType<typeof configDifferences>): CompareAnswer["differences"] {
  const rows = found.flatMap(({ key, values }) => {
    if (!values.some((value) => typeof value === "object" && value !== null))
      return [{ key, values: values.map(valueWords) }];
    const flat = values.map((value) => new Map(value == null ? [] : flatSettings({ [key]: value })));
    const names = [...new Set(flat.flatMap((settings) => [...settings.keys()]))];
    return names.flatMap((name) => {
      const inner = flat.map((settings) => settings.get(name));
      const present = new Set(inner.filter((value) => value !== undefined));
      const isTold = present.size > 1 || (inner.includes(undefined) && !absent.has([...present][0]!));
      return isTold ? [{ key: name, values: inner.map(valueWords) }] : [];
    });
  });
  return [...new Map(rows.map((row) => [row.key, row])).values()];
}

/** A setting in one short line. */
function valueWords(value: unknown): string {
  if (value === undefined) return "–";
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length <= 200 ? text : `${text.slice(0, 199)}…`;
}

const armCurve = (entry: RunEntry): ArmCurve => ({ row: entry.row, ...entry.curve });

/**
 * The runs of the arms of every study that has begun, in the order of the studies' names. A folder in which several
 * studies keep their runs is none itself.
 */
async function armsByStudy(
  index: StudioIndex,
  reader: StudyReader,
): Promise<(readonly [name: string, arms: readonly RunEntry[]])[]> {
  const kept = new Map<string, RunEntry[]>();
  for (const { name, study, arm } of index.rows) {
    const entry = index.run(name);
    if (study === null || entry === undefined) continue;
    kept.set(study, [...(kept.get(study) ?? []), ...(arm.startsWith("parent ") ? [] : [entry])]);
  }
  for (const [study, entries] of kept) kept.set(study, latestOfSeeds(entries));
  const found: (readonly [string, readonly RunEntry[]])[] = [];
  for (const name of [...index.found.studies].sort()) {
    const arms = (await reader.sharedRuns(name)) ?? kept.get(name);
    if (arms !== undefined) found.push([name, arms]);
  }
  return found;
}

/** The studies of a folder: which arm of each leads, and whether that means anything. */
export async function studyRows(
  index: StudioIndex,
  reader: StudyReader,
  reports: Overview["reports"],
): Promise<StudyRow[]> {
  const found: StudyRow[] = [];
  for (const [name, arms] of await armsByStudy(index, reader)) {
    const judged = judgeArms(arms.map(armCurve));
    const page = name === "" ? "report.html" : `${name}/report.html`;
    found.push({
      name,
      runs: arms.length,
      finished: arms.filter(({ row }) => row.state === "finished").length,
      running: arms.filter(({ row }) => row.state === "running").length,
      arms: judged.arms,
      words: judged.words,
      tokens: judged.tokens,
      report: reports.some((report) => report.name === page) ? page : null,
      command: await commandOf(index, name),
    });
  }
  return found;
}

/** Runs without those of an earlier setting, which a study leaves in its folder: of each arm and seed the latest. */
function latestOfSeeds(entries: readonly RunEntry[]): RunEntry[] {
  const latest = new Map<string, RunEntry>();
  for (const entry of entries) {
    const { arm, seed, changed } = entry.row;
    const key = JSON.stringify([arm, seed]);
    const before = latest.get(key);
    if (before === undefined || changed >= before.row.changed) latest.set(key, entry);
  }
  return [...latest.values()];
}
