/** Files of tasks on disk: those that come along, and the user's own, with their includes. */
import { readdir, stat } from "node:fs/promises";
import { dirname, extname, isAbsolute, join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { inputError, UpcycleError } from "../../base/errors.js";
import { parseTaskFile, type TaskFile } from "../../base/schemas/task.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { sizeLimits, readWhole, utf8Text } from "../../files/io/open.js";
import { selectTasks, type Selection, type TaskEntry } from "../tasks/select.js";

/** The tasks that come along; the same folder from src/ and from dist/. */
export const shippedTasks = fileURLToPath(new URL("../../../tasks", import.meta.url));

const isYaml = (name: string): boolean => [".yaml", ".yml"].includes(extname(name));

/** What a user asks for. */
export interface TaskRequest {
  /** Names of tasks, groups and tags, and YAML files. */
  readonly tasks: readonly string[];
  /** Folders with more tasks, which replace those of the same name that come along. */
  readonly includePaths?: readonly string[] | undefined;
}

/**
 * The tasks that are asked for. Throws inputError, with file and line, for what is wrong in a file that is asked for or
 * given, and for a name that no file has.
 */
export async function readTasks({ tasks, includePaths = [] }: TaskRequest): Promise<Selection> {
  if (tasks.length === 0) throw inputError("no task is named", { where: "--tasks", hint: "upcycle eval --list" });
  const entries: TaskEntry[] = [];
  for (const folder of [shippedTasks, ...includePaths]) entries.push(...(await readFolder(folder)));
  const names: string[] = [];
  for (const name of tasks) {
    if (!isYaml(name)) {
      names.push(name);
      continue;
    }
    // A group's file may name tasks of the files beside it.
    const known = new Set(entries.map(({ file }) => file));
    for (const entry of await readFolder(dirname(resolve(name)))) if (!known.has(entry.file)) entries.push(entry);
    const entry = { file: resolve(name), keys: await readMerged(resolve(name)) };
    const own = entry.keys.group ?? entry.keys.task;
    if (typeof own !== "string") throw inputError("the file names neither a task nor a group", { where: name });
    entries.push(entry);
    names.push(own);
  }
  return selectTasks(names, entries);
}

/** All tasks and groups that come along or lie in the folders, as their files say. */
export async function listTasks(includePaths: readonly string[] = []): Promise<readonly TaskEntry[]> {
  const entries: TaskEntry[] = [];
  for (const folder of [shippedTasks, ...includePaths]) entries.push(...(await readFolder(folder)));
  return entries.filter(({ keys, problem }) => problem === undefined && typeof (keys.group ?? keys.task) === "string");
}

/** The files in a folder and those below, in the order of their names; what only others include is left out. */
async function readFolder(folder: string): Promise<readonly TaskEntry[]> {
  const info = await withFsErrors(folder, "read folder of tasks", () => stat(folder));
  if (!info.isDirectory()) throw inputError("this is no folder of tasks", { where: folder });
  const names = await withFsErrors(folder, "read folder of tasks", () =>
    readdir(folder, { recursive: true, encoding: "utf8" }),
  );
  const files = names
    .filter((name) => isYaml(name) && !name.split(sep).some((part) => part.startsWith(".")))
    .sort()
    .map((name) => join(resolve(folder), name));
  const entries = await Promise.all(files.map(readEntry));
  return entries.filter((entry) => entry !== null);
}

/**
 * What a file of a folder defines; null for other YAML, which lies in many folders. What is wrong with a file is told
 * once somebody asks for its task: folders of the harness hold thousands.
 */
async function readEntry(file: string): Promise<TaskEntry | null> {
  const source = await sourceOf(file);
  const [, kind, name] = /^["']?(task|group)["']?\s*:[ \t]*["']?([^"'\n#[{]*)/m.exec(source) ?? [];
  if (kind === undefined) return null;
  try {
    return { file, keys: await readMerged(file) };
  } catch (cause) {
    if (!(cause instanceof UpcycleError)) throw cause;
    return { file, keys: { [kind]: (name ?? "").trim() }, problem: cause };
  }
}

async function sourceOf(file: string): Promise<string> {
  return utf8Text(await readWhole(file, sizeLimits.yaml, "read task"), file, "the file is not valid UTF-8", "");
}

/** The keys of a file, over those of the files that it includes. */
async function readMerged(file: string, open: readonly string[] = []): Promise<TaskFile> {
  if (open.includes(file)) throw inputError("the file includes itself", { where: file });
  const own = parseTaskFile(await sourceOf(file), file);
  const { include, ...keys } = own;
  const included = include === undefined ? [] : typeof include === "string" ? [include] : include;
  let merged: TaskFile = {};
  for (const name of included) {
    const path = isAbsolute(name) ? name : join(dirname(file), name);
    merged = { ...merged, ...(await readMerged(path, [...open, file])) };
  }
  return { ...merged, ...keys };
}
