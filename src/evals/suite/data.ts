/** The documents of tasks: local files that a task names, a folder of data sets, or data sets of the Hub. */
import { readdir } from "node:fs/promises";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { inputError } from "../../base/errors.js";
import { exists } from "../../files/io/atomic.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { readRecords, recordExtensions } from "../../text/documents/records.js";
import type { TaskConfig } from "../tasks/config.js";
import type { Splits } from "../tasks/prompt.js";
import type { Doc, Value } from "../tasks/python-text.js";

/** A split of a data set of the Hub. */
export interface HubSplit {
  /** `org/name` */
  readonly path: string;
  /** Configuration; null: the data set's default. */
  readonly name: string | null;
  readonly split: string;
  /** Files that the task names itself; empty: those of the split. */
  readonly files: readonly string[];
}

/** Where documents come from. */
export interface DataSettings {
  /** Folder of data sets, `ORG--NAME/CONFIG/SPLIT.jsonl` (or .json, .parquet), looked into before the Hub. */
  readonly dataFolder?: string | undefined;
  /** Downloads a split and returns its files. */
  readonly fetchSplit: (split: HubSplit) => Promise<readonly string[]>;
}

/** Reads documents, each split once for all tasks of a command. */
export class DataReader {
  private readonly read = new Map<string, Promise<readonly Doc[]>>();

  constructor(private readonly settings: DataSettings) {}

  /** The documents of splits. Throws inputError for files that are missing or unreadable, and like `fetchSplit`. */
  async splits(config: TaskConfig, names: readonly string[]): Promise<Splits> {
    const all: Record<string, readonly Doc[]> = {};
    for (const name of names) all[name] = await this.split(config, name);
    return all;
  }

  private async split(config: TaskConfig, split: string): Promise<readonly Doc[]> {
    const files = await this.files(config, split);
    const key = files.join("\n");
    const known = this.read.get(key) ?? readDocuments(files);
    this.read.set(key, known);
    return known;
  }

  private async files(config: TaskConfig, split: string): Promise<readonly string[]> {
    const { path, name, kwargs } = config.dataset;
    const where = `${config.file}: task ${config.name}`;
    if (path === null) throw inputError('"dataset_path" is missing', { where });
    const named = filesOf(kwargs["data_files"], split);
    if (path === "json" || path === "parquet") {
      if (named === null || named.length === 0)
        throw inputError(`dataset_kwargs.data_files names no file for the split "${split}"`, { where });
      return Promise.all(named.map((file) => localFile(file, config.file, where)));
    }
    const folder = this.settings.dataFolder;
    const local = folder === undefined ? [] : await filesInFolder(folder, path, name, split);
    return local.length > 0 ? local : this.settings.fetchSplit({ path, name, split, files: named ?? [] });
  }
}

/** The files of `data_files`: one, a list, or by split; a list without splits is the split `train`. */
function filesOf(value: Value | undefined, split: string): readonly string[] | null {
  if (value === undefined || value === null) return null;
  const isBySplit = typeof value === "object" && !Array.isArray(value);
  const own = isBySplit ? (value as Readonly<Record<string, Value>>)[split] : split === "train" ? value : undefined;
  if (own === undefined || own === null) return [];
  return (Array.isArray(own) ? (own as readonly Value[]) : [own]).map(String);
}

/** A file named relative to the task's file, or to the working folder. */
async function localFile(name: string, taskFile: string, where: string): Promise<string> {
  const candidates = isAbsolute(name) ? [name] : [join(dirname(taskFile), name), resolve(name)];
  for (const candidate of candidates) if (await exists(candidate)) return candidate;
  throw inputError(`no such data file: ${name}`, { where, hint: `looked for ${candidates.join(" and ")}` });
}

/** Files of a split in a folder of data sets: `SPLIT.jsonl`, or several as `SPLIT-*.parquet` or `SPLIT/*.parquet`. */
async function filesInFolder(
  root: string,
  path: string,
  name: string | null,
  split: string,
): Promise<readonly string[]> {
  if (!(await exists(root))) throw inputError("no such folder", { where: root });
  const folder = join(root, path.replaceAll("/", "--"), name ?? "default");
  for (const extension of recordExtensions) {
    const file = join(folder, split + extension);
    if (await exists(file)) return [file];
  }
  const namesIn = async (inside: string): Promise<string[]> =>
    (await exists(inside)) ? (await withFsErrors(inside, "read folder", () => readdir(inside))).sort() : [];
  const isRecords = (file: string): boolean => recordExtensions.some((extension) => file.endsWith(extension));
  const parts = (await namesIn(folder)).filter((file) => file.startsWith(`${split}-`) && isRecords(file));
  if (parts.length > 0) return parts.map((file) => join(folder, file));
  return (await namesIn(join(folder, split))).filter(isRecords).map((file) => join(folder, split, file));
}

/** The documents of files; a field that a document lacks is null, as in a table. */
async function readDocuments(files: readonly string[]): Promise<readonly Doc[]> {
  const docs: Doc[] = [];
  const fields = new Set<string>();
  for (const file of files)
    for await (const record of readRecords(file)) {
      for (const field of Object.keys(record)) fields.add(field);
      docs.push(record);
    }
  return docs.map((doc) =>
    Object.keys(doc).length === fields.size
      ? doc
      : Object.fromEntries([...fields].map((field) => [field, doc[field] ?? null])),
  );
}
