/**
 * Model folders as what may be replaced. One rule for all that replaces or tidies up: what is removed are files by the
 * names that a model folder holds (`files/formats/model-files.ts`), one by one. Folders are never removed with what is
 * in them, and links never followed.
 */
import type { Stats } from "node:fs";
import { lstat, readdir, rename, rmdir, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { inputError } from "../../base/errors.js";
import { isCheckpointFile, isModelFile, recordFiles } from "../formats/model-files.js";
import { requireNoDeadLink } from "./fs-errors.js";
import { kindOf } from "./open.js";
import { readJson } from "./ranges.js";

/**
 * Whether a folder that is not empty may be replaced: not at all; where it is a model and nothing else (true); or, for
 * a training that has made it, in any case, what is not the training's moving along into the new one.
 */
export type Overwrite = boolean | "checkpoint";

/** What has this name itself, not what a link leads to; null where nothing has it. */
export const entryAt = (path: string): Promise<Stats | null> => unlessGone(lstat(path));

/** Null where what was asked of the disk finds nothing: another command may have moved or removed it. */
export async function unlessGone<T>(asked: Promise<T>): Promise<T | null> {
  try {
    return await asked;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw cause;
  }
}

/** Names in a folder of what is no regular file of a model (or of a checkpoint), sorted. */
export async function foreignEntries(folder: string, isOwn = isModelFile): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  return entries
    .filter((entry) => !entry.isFile() || !isOwn(entry.name))
    .map(({ name }) => name)
    .sort();
}

/** The first few of names, on one line whatever they are. */
export function someOf(names: readonly string[], most = 3): string {
  const shown = names.slice(0, most).map((name) => name.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "?"));
  return names.length > most ? `${shown.join(", ")} and ${names.length - most} more` : shown.join(" and ");
}

/**
 * Throws inputError if the name is taken by anything but an empty folder, or one that `overwrite` lets be replaced;
 * `shownAs` is its name in errors.
 */
export async function requireReplaceable(target: string, shownAs: string, overwrite: Overwrite): Promise<void> {
  const entry = await entryAt(target);
  if (entry === null) return;
  if (entry.isSymbolicLink()) {
    await requireNoDeadLink(target, shownAs);
    throw inputError("this is a link, which a new folder would take the place of", {
      where: shownAs,
      hint: "name the folder that it leads to, or another one",
    });
  }
  if (!entry.isDirectory()) throw inputError(`this is ${kindOf(entry)}, expected a folder`, { where: shownAs });
  if (entry.dev !== (await lstat(dirname(target))).dev) {
    throw inputError("another disk is mounted here, so the folder itself cannot be replaced", {
      where: shownAs,
      hint: "name a folder to be made in it",
    });
  }
  const names = (await readdir(target)).sort();
  if (names.length === 0 || overwrite === "checkpoint") return;
  if (!overwrite) {
    throw inputError(`folder exists and is not empty (${names.length} entries, such as ${someOf(names.slice(0, 1))})`, {
      where: shownAs,
      hint: "choose another folder, or replace this one (--overwrite)",
    });
  }
  await requireModelAlone(target, shownAs, names);
}

/** Throws inputError for a folder that holds anything but a model, or nothing that says that it is one. */
async function requireModelAlone(target: string, shownAs: string, names: readonly string[]): Promise<void> {
  const foreign = await foreignEntries(target);
  if (foreign.length > 0) {
    throw inputError(`the folder is not replaced, because it holds what is no file of a model: ${someOf(foreign)}`, {
      where: shownAs,
      hint: "choose another folder, or move that away first",
    });
  }
  if (await isMarked(target)) return;
  const marks = `neither a config.json with a model_type nor ${recordFiles.join(", ")}`;
  throw inputError(
    `the folder is not replaced, because nothing in it (${someOf(names)}) says that it is a model: ${marks}`,
    {
      where: shownAs,
      hint: "choose another folder",
    },
  );
}

/** Whether a file says that the folder is a model or was made by us. */
async function isMarked(folder: string): Promise<boolean> {
  const read = async (name: string): Promise<Readonly<Record<string, unknown>>> => {
    const path = join(folder, name);
    const json = (await entryAt(path)) === null ? null : await readJson(path).catch(() => null);
    return typeof json === "object" && json !== null ? (json as Record<string, unknown>) : {};
  };
  const { model_type: family, architectures } = await read("config.json");
  if (typeof family === "string" || Array.isArray(architectures)) return true;
  for (const name of recordFiles) if (typeof (await read(name))["upcycle"] === "string") return true;
  return false;
}

/**
 * Removes a folder of model and checkpoint files. Whatever else is in it, by then or since, is moved into `rescue` if
 * it is free there, else it stays, and the folder with it. Returns whether the folder is gone; nothing is done where
 * there is none, and another command may be removing it at the same time.
 */
export async function removeModelFolder(folder: string, rescue?: string): Promise<boolean> {
  const folderEntry = await entryAt(folder);
  if (folderEntry === null) return true;
  if (!folderEntry.isDirectory()) return false;
  // config.json goes first: without it a folder that is half removed is no model.
  const entries = (await unlessGone(readdir(folder, { withFileTypes: true }))) ?? [];
  for (const entry of entries.sort((a, b) => Number(b.name === "config.json") - Number(a.name === "config.json"))) {
    const path = join(folder, entry.name);
    if (isCheckpointFile(entry.name) && (entry.isFile() || entry.isSymbolicLink())) await unlessGone(unlink(path));
    else if (rescue !== undefined && (await entryAt(join(rescue, entry.name))) === null)
      await unlessGone(rename(path, join(rescue, entry.name)));
  }
  return rmdir(folder).then(
    () => true,
    (cause: NodeJS.ErrnoException) => {
      if (cause.code === "ENOTEMPTY" || cause.code === "EEXIST") return false;
      if (cause.code === "ENOENT") return true;
      throw cause;
    },
  );
}
