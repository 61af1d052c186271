/** What a conversion is made of, in a form that can be compared after an interruption. */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { Identity } from "../../files/checkpoint/resumable-write.js";
import { adapterConfigFile } from "../../files/checkpoint/adapter.js";
import type { Checkpoint, StoredTensor } from "../../files/checkpoint/open.js";
import { realPath } from "../../files/io/atomic.js";
import { decoderRecord } from "../../model/decoder/record.js";
import { printExpr } from "../planning/expr.js";
import type { Work } from "./work.js";

/** What the bytes and their order depend on besides the work itself. */
interface IdentitySettings {
  readonly version: string;
  /** Left out of the hash for a model folder of Hugging Face. */
  readonly format?: string | undefined;
  readonly dtype: string;
  readonly maxShardBytes: number | null;
  readonly chunkBytes: number | null;
  /** Texts of further files. */
  readonly files: Readonly<Record<string, string>>;
}

/**
 * What a folder is made of, for `files/checkpoint/resumable-write.ts`: equal identities give equal bytes, and only work
 * of equal identity is resumed.
 */
export async function identityOf(
  work: Pick<Work, "name" | "settings" | "target" | "outputs" | "data">,
  settings: IdentitySettings,
  parents: readonly Checkpoint[],
): Promise<Identity> {
  const outputs = work.outputs.map(({ slot, value }) => [slot.key, slot.shape, printExpr(value)]);
  // Expressions count parents and stamps name files. Neither says which folder is which parent, and which adapter is
  // merged into which, so the folders are hashed too.
  const folders = await Promise.all(
    parents.map(async ({ dir, adapter }) => [
      await realPath(dir),
      adapter === null ? null : await realPath(adapter.dir),
    ]),
  );
  const target = decoderRecord(work.target);
  const hash = createHash("sha256").update(JSON.stringify([settings, work.settings, target, outputs, folders]));
  for (const { name, values } of work.data ?? []) hash.update(name).update(Float64Array.from(values));
  return {
    name: `${work.name} as ${settings.dtype}`,
    request: hash.digest("hex"),
    sources: await sourceStamps(parents),
  };
}

/**
 * Size, time and declared tensors of every file that weights are read from, and of the configs of models and adapters,
 * by real path.
 */
export async function sourceStamps(parents: readonly Checkpoint[]): Promise<Identity["sources"]> {
  const folders = parents.flatMap(({ dir, config, tensors, adapter }) => [
    { dir, file: "config.json", config, tensors },
    ...(adapter === null
      ? []
      : [{ dir: adapter.dir, file: adapterConfigFile, config: adapter.config, tensors: adapter.tensors }]),
  ]);
  return Object.assign({}, ...(await Promise.all(folders.map(stampsOf)))) as Identity["sources"];
}

interface StampedFolder extends Pick<Checkpoint, "dir"> {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Name and content of its config. */
  readonly file: string;
  readonly config: unknown;
}

async function stampsOf(source: StampedFolder): Promise<Identity["sources"]> {
  const tensors = new Map<string, unknown[]>([[source.file, [source.config]]]);
  for (const [name, { file: first, otherFiles = [], dtype, shape }] of source.tensors) {
    for (const file of [first, ...otherFiles]) {
      const declared = tensors.get(file);
      if (declared === undefined) tensors.set(file, [[name, dtype, shape]]);
      else declared.push([name, dtype, shape]);
    }
  }
  const stamps: Record<string, string> = {};
  // The real path is the same however the folder was named.
  const folder = await realPath(source.dir);
  for (const [file, declared] of [...tensors].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const path = join(folder, file);
    const info = await stat(path).catch(() => null);
    const hash = createHash("sha256").update(JSON.stringify(declared)).digest("hex").slice(0, 12);
    if (info !== null) stamps[path] = `${info.size} bytes of ${info.mtime.toISOString()}, header ${hash}`;
  }
  return stamps;
}
