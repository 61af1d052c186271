/** What lies below a folder: runs, models, reports, measurements of experts, launched trainings. Links are left out. */
import type { Dirent } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { runFile } from "../../train/claim.js";
import { metricsFile } from "../../train/records.js";
import { progressOf } from "../../surgery/convert/progress-record.js";
import { recordFile } from "../../surgery/convert/record.js";

/** Folders inside each other that are looked at; `upcycle runs` looks as deep. */
const deepest = 6;
/** Folders that are looked at, so that a studio of a whole disk ends. */
const mostFolders = 100_000;

/** Names below the folder, with `/` between the parts; "" is the folder itself. */
export interface Found {
  readonly runs: readonly string[];
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

type Lists = { -readonly [Key in keyof Found]: string[] };

/** Looks below `root`. `breathe` is called between folders, so that a large tree holds nothing up. */
export async function scan(root: string, breathe: () => Promise<void>): Promise<Found> {
  const found: Lists = {
    runs: [],
    studies: [],
    models: [],
    checkpoints: [],
    pages: [],
    documents: [],
    jobs: [],
    conversions: [],
  };
  let folders: { readonly name: string; readonly depth: number }[] = [{ name: "", depth: 0 }];
  let looked = 0;
  while (folders.length > 0 && looked < mostFolders) {
    const next: typeof folders = [];
    for (const { name, depth } of folders) {
      if (looked++ % 64 === 63) await breathe();
      const entries = await readdir(join(root, name), { withFileTypes: true }).catch(() => []);
      const below = (entry: string): string => (name === "" ? entry : `${name}/${entry}`);
      const files = new Set(entries.flatMap((entry) => (entry.isFile() ? [entry.name] : [])));
      const isRun = files.has(runFile) && files.has(metricsFile);
      sort(name, files, isRun, found, below);
      found.conversions.push(...conversionsIn(entries).map(below));
      if (depth === deepest) continue;
      for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1)))
        if (entry.isDirectory() && !entry.name.startsWith(".") && entry.name !== "node_modules")
          next.push({ name: below(entry.name), depth: depth + 1 });
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

function sort(
  name: string,
  files: ReadonlySet<string>,
  isRun: boolean,
  found: Lists,
  below: (entry: string) => string,
): void {
  if (isRun) found.runs.push(name);
  if (files.has("study.json")) found.studies.push(name);
  if (files.has(recordFile)) found.models.push(name);
  if (files.has("config.json")) found.checkpoints.push(name);
  if (files.has("run.sh") || files.has("job.sbatch") || files.has("job.json")) found.jobs.push(name);
  for (const file of files) {
    if (file.startsWith(".")) continue;
    if (file.endsWith(".html")) found.pages.push(below(file));
    else if (file.endsWith(".json") && !knownDocuments.has(file) && !isRun) found.documents.push(below(file));
  }
}
