/** What lies below a folder: runs, models, reports, measurements of experts, launched trainings. Links are left out. */
import type { Dirent } from "node:fs";
import { join } from "node:path";
import { lockName } from "../../files/io/lock.js";
import { runFile } from "../../train/claim.js";
import { metricsFile } from "../../train/records.js";
import { progressOf } from "../../surgery/convert/progress-record.js";
import { recordFile } from "../../surgery/convert/record.js";
import type { RunFolder } from "./run-entry.js";
import type { FolderFiles } from "./safe-file.js";

/** Folders inside each other that are looked at; `upcycle runs` looks as deep. */
const deepest = 6;
/** Folders that are looked at, so that a studio of a whole disk ends. */
const mostFolders = 100_000;

/** Names below the folder, with `/` between the parts; "" is the folder itself. */
export interface Found {
  readonly runs: ReadonlyMap<string, RunFolder>;
  readonly studies: readonly string[];
  readonly models: readonly string[];
  /** Folders of models in the form of Hugging Face, those of `models` too. */
  readonly checkpoints: readonly string[];
  /** HTML files. */
  readonly pages: readonly string[];
  /** JSON files that no other command has a name for. */
  readonly documents: readonly string[];
  /** Folders of `upcycle launch`. */
  readonly jobs: readonly string[];
  /** Folders that a conversion makes, or was to make: what it keeps beside them says so. */
  readonly conversions: readonly string[];
}

/** JSON files whose names say what they are. */
const knownDocuments = new Set([
  "run.json",
  "study.json",
  "result.json",
  "config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "training.json",
  "generation_config.json",
  "special_tokens_map.json",
  "preservation.json",
  "upcycle.json",
  "launch.json",
  "job.json",
  "command.json",
  "model.safetensors.index.json",
]);

interface Lists extends Record<Exclude<keyof Found, "runs">, string[]> {
  readonly runs: Map<string, RunFolder>;
}

const nothing = (): Lists => ({
  runs: new Map(),
  studies: [],
  models: [],
  checkpoints: [],
  pages: [],
  documents: [],
  jobs: [],
  conversions: [],
});

/** What was found before anything was looked for. */
export const nothingFound: Found = nothing();

/** Folders that are read at once: on a network file system each is waited for. */
const atOnce = 16;

/** Looks below `root`. `breathe` is called between folders, so that a large tree holds nothing up. */
export async function scan(root: string, files: FolderFiles, breathe: () => Promise<void>): Promise<Found> {
  const found = nothing();
  let folders: readonly string[] = [""];
  let looked = 0;
  for (let depth = 0; depth <= deepest && folders.length > 0; depth++) {
    const next: string[] = [];
    for (let i = 0; i < folders.length && looked < mostFolders; i += atOnce) {
      const names = folders.slice(i, i + atOnce);
      const listed = await Promise.all(names.map(async (name) => files.entries(join(root, name))));
      names.forEach((name, at) => next.push(...sort(name, listed[at]!, found)));
      looked += names.length;
      await breathe();
    }
    folders = next;
  }
  return found;
}

/** Names of folders that a conversion makes beside what it keeps in a folder. */
function conversionsIn(entries: readonly Dirent[]): string[] {
  const names = entries.flatMap((entry) => {
    if (!entry.name.startsWith(".")) return [];
    const made = entry.isFile()
      ? progressOf(entry.name)
      : entry.isDirectory()
        ? (/^\.(.+)\.unfinished$/.exec(entry.name)?.[1] ?? null)
        : null;
    return made ?? [];
  });
  return [...new Set(names)].sort();
}

/** Notes what a folder holds. Returns the folders below it that are looked at, in the order of their names. */
function sort(name: string, entries: readonly Dirent[], found: Lists): string[] {
  const below = (entry: string): string => (name === "" ? entry : `${name}/${entry}`);
  const files = new Set(entries.flatMap((entry) => (entry.isFile() ? [entry.name] : [])));
  const isRun = files.has(runFile) && files.has(metricsFile);
  if (isRun) {
    // A lock that is a link or a pipe is none, but says that somebody was here.
    const hasLock = entries.some((entry) => entry.name === lockName);
    found.runs.set(name, { hasLock, hasFolders: entries.some((entry) => entry.isDirectory()) });
  }
  found.conversions.push(...conversionsIn(entries).map(below));
  if (files.has("study.json")) found.studies.push(name);
  if (files.has(recordFile)) found.models.push(name);
  if (files.has("config.json")) found.checkpoints.push(name);
  if (files.has("run.sh") || files.has("job.sbatch") || files.has("job.json")) found.jobs.push(name);
  for (const file of files) {
    if (file.startsWith(".")) continue;
    if (file.endsWith(".html")) found.pages.push(below(file));
    else if (file.endsWith(".json") && !knownDocuments.has(file) && !isRun) found.documents.push(below(file));
  }
  return entries
    .filter((entry) => entry.isDirectory() && !entry.name.startsWith(".") && entry.name !== "node_modules")
    .map((entry) => entry.name)
    .sort((a, b) => (a < b ? -1 : 1))
    .map(below);
}
