/** Changes to a block: a schema in which every key may be left out and has no default, and the merging of the two. */
import { z } from "zod";

/** Plain data of a block, or of changes to one. */
export type Block = Readonly<Record<string, unknown>>;

/**
 * The schema of changes to blocks of `schema`: the same keys with the same limits, each optional at every depth. Rules
 * about several keys are left out, because only the merged block can be judged by them.
 */
export function changesSchema(schema: z.ZodObject): z.ZodType<Block, Block> {
  const shape = Object.fromEntries(
    Object.entries(schema.shape).map(([key, field]) => [key, changeOf(field as z.ZodType)]),
  );
  return z.strictObject(shape);
}

/** The field without its default; what is nested becomes changes too. */
function changeOf(field: z.ZodType): z.ZodType {
  let description = field.description;
  let inner = field;
  while (inner instanceof z.ZodDefault || inner instanceof z.ZodPrefault || inner instanceof z.ZodOptional) {
    inner = inner.unwrap() as z.ZodType;
    description ??= inner.description;
  }
  const change = inner instanceof z.ZodObject ? changesSchema(inner) : inner;
  const described = description === undefined ? change : change.describe(description);
  return described.optional();
}

/** Whether a value is a block of keys. */
export const isBlock = (value: unknown): value is Block =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The block with the changes made; blocks are merged key by key, everything else is replaced. */
export function merged(block: Block, changes: Block): Block {
  const result: Record<string, unknown> = { ...block };
  for (const [key, change] of Object.entries(changes)) {
    const before = Object.hasOwn(block, key) ? block[key] : undefined;
    if (change !== undefined) result[key] = isBlock(before) && isBlock(change) ? merged(before, change) : change;
  }
  return result;
}

/** Changes that set one value: `lr.peak` and 1e-3 give `{ lr: { peak: 1e-3 } }`. */
export function changesAt(path: string, value: unknown): Block {
  return path.split(".").reduceRight<unknown>((inner, key) => ({ [key]: inner }), value) as Block;
}
