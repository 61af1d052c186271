/** How a mixture was made, from the records in its folder: upcycled (`upcycle.json`), and its experts multiplied since then (`multiply.json`). */
import { join } from "node:path";
import { z } from "zod";
import { inputError } from "../base/errors.js";
import { exists } from "../io/atomic.js";
import { readJson } from "../io/ranges.js";
import type { MergeLineage } from "../surgery/merge.js";
import { factorsByLayer, readRecord, recipeOf, recordSchema } from "./record.js";

/** In a multiplied model's folder: how it was made. */
export const multiplyFile = "multiply.json";

const multipliedSchema = z.object({
  /** The model that was multiplied, if a record said how it was upcycled. */
  upcycled: recordSchema,
  /** How many times its experts there are now. */
  copies: z.int().min(2),
  /** For each layer what `down` and its bias were multiplied by since; null where it is dense. */
  down: z.array(z.number().nullable()),
});

export type Multiplication = z.output<typeof multipliedSchema>;

/** Null: no record says anything. Throws `input` for one that is there but unreadable. */
export async function readLineage(dir: string, layerCount: number): Promise<MergeLineage | null> {
  const record = await readRecord(dir);
  if (record !== null) return { recipe: recipeOf(record), family: record.parent.family, factors: factorsByLayer(record, layerCount), inner: record.parent.inner ?? null, copies: 1 };
  const multiplied = await readMultiplication(dir);
  if (multiplied === null) return null;
  const { upcycled, copies, down } = multiplied;
  const factors = factorsByLayer(upcycled, layerCount).map((own, layer) => (own === null ? null : { ...own, down: own.down * (down[layer] ?? 1), downBias: own.downBias * (down[layer] ?? 1) }));
  return { recipe: recipeOf(upcycled), family: upcycled.parent.family, factors, inner: upcycled.parent.inner ?? null, copies };
}

/** What a multiplied model keeps of its source's records; `down` is what the multiplication does. Null: the source has none. */
export async function multiplication(source: string, copies: number, down: readonly (number | null)[]): Promise<Multiplication | null> {
  const upcycled = await readRecord(source);
  if (upcycled !== null) return { upcycled, copies, down: [...down] };
  const before = await readMultiplication(source);
  return before === null ? null : { ...before, copies: before.copies * copies, down: down.map((by, layer) => (by === null ? null : by * (before.down[layer] ?? 1))) };
}

async function readMultiplication(dir: string): Promise<Multiplication | null> {
  const path = join(dir, multiplyFile);
  if (!(await exists(path))) return null;
  const { lineage } = z.object({ lineage: z.unknown() }).catch({ lineage: null }).parse(await readJson(path));
  if (lineage === null || lineage === undefined) return null;
  const parsed = multipliedSchema.safeParse(lineage);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw inputError(`lineage.${issue!.path.join(".")}: ${issue!.message}`, { where: path, hint: "remove the file to go on without it" });
}
