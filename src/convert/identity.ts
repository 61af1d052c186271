/** What a conversion is made of, in a form that can be compared after an interruption. */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { Identity } from "../checkpoint/attempt.js";
import type { Checkpoint } from "../checkpoint/open.js";
import { printExpr } from "../surgery/expr.js";
import type { Work } from "./execute.js";

/** What else the bytes and their order depend on. */
export interface Settings {
  readonly version: string;
  readonly dtype: string;
  readonly maxShardBytes: number | null;
  readonly chunkBytes: number | null;
  /** Texts of further files. */
  readonly files: Readonly<Record<string, string>>;
}

export async function identityOf(work: Pick<Work, "name" | "settings" | "target" | "outputs" | "data">, settings: Settings, parents: readonly Checkpoint[]): Promise<Identity> {
  const outputs = work.outputs.map(({ slot, value }) => [slot.key, slot.shape, printExpr(value)]);
  const hash = createHash("sha256").update(JSON.stringify([settings, work.settings, work.target, outputs]));
  for (const { name, values } of work.data ?? []) hash.update(name).update(Float64Array.from(values));
  return { name: `${work.name} as ${settings.dtype}`, request: hash.digest("hex"), sources: await sourceStamps(parents) };
}

/** Size, time and declared tensors of every file that weights are read from, and of config.json. */
export async function sourceStamps(parents: readonly Checkpoint[]): Promise<Identity["sources"]> {
  return Object.assign({}, ...(await Promise.all(parents.map(stampsOf)))) as Identity["sources"];
}

async function stampsOf(source: Checkpoint): Promise<Identity["sources"]> {
  const tensors = new Map<string, unknown[]>([["config.json", [source.config]]]);
  for (const [name, { file, dtype, shape }] of source.tensors) {
    const known = tensors.get(file);
    if (known === undefined) tensors.set(file, [[name, dtype, shape]]);
    else known.push([name, dtype, shape]);
  }
  const stamps: Record<string, string> = {};
  for (const [file, declared] of [...tensors].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const path = join(source.dir, file);
    const info = await stat(path).catch(() => null);
    const hash = createHash("sha256").update(JSON.stringify(declared)).digest("hex").slice(0, 12);
    if (info !== null) stamps[path] = `${info.size} bytes of ${info.mtime.toISOString()}, header ${hash}`;
  }
  return stamps;
}
