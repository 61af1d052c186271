/** Files that a command makes under a name the user chose. */
import { access, constants, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { inputError } from "../../base/errors.js";
import { withFsErrors } from "./fs-errors.js";
import { requireOutputFile } from "./open.js";
import { openRanges } from "./ranges.js";

/**
 * Throws inputError unless a file can be made there; writes nothing, and is to be asked before anything slow. What has
 * the name is replaced without a question only where it is empty or what the same command writes (`isOwn`, in words
 * `what`): a slip in a name must cost nobody a file.
 */
export async function requireFilePlace(
  path: string,
  what: string,
  isOwn: (path: string) => Promise<boolean>,
): Promise<void> {
  await requireOutputFile(path);
  const existing = await withFsErrors(path, "write file", () =>
    stat(path).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === "ENOENT") return null;
      throw cause;
    }),
  );
  if (existing === null) return withFsErrors(path, "write file", () => access(dirname(resolve(path)), constants.W_OK));
  if (existing.size === 0 || (await isOwn(path))) return;
  throw inputError(`file exists and is no ${what}, so it is not replaced`, {
    where: path,
    hint: "choose another name, or move it away first",
  });
}

/** Whether a file is a page of ours: they say so at their beginning. */
export async function isOwnPage(path: string): Promise<boolean> {
  const file = await openRanges(path);
  try {
    const beginning = Buffer.from(await file.read(0, Math.min(4096, file.size))).toString("utf8");
    return (
      beginning.toLowerCase().startsWith("<!doctype html>") &&
      beginning.includes('<meta name="generator" content="upcycle ')
    );
  } finally {
    await file.close();
  }
}
