/** Weights that are NaN or infinite: what is said of a model that has them. */
import { join } from "node:path";
import { compact } from "../../base/format.js";
import { recordFiles } from "../../files/formats/model-files.js";
import { exists } from "../../files/io/atomic.js";
import { readJson } from "../../files/io/ranges.js";

/** How many values that are no numbers were written to each stored tensor that has any. */
export type Damage = ReadonlyMap<string, number>;

/** The verdict on a model with such values; null: it has none. */
export function damageWords(damage: Damage): string | null {
  const [first] = damage.keys();
  if (first === undefined) return null;
  const values = [...damage.values()].reduce((a, b) => a + b, 0);
  const tensors = damage.size === 1 ? `tensor ${first}` : `${damage.size} tensors, such as ${first}`;
  return (
    `this model is damaged: ${compact(values)} ${values === 1 ? "value is" : "values are"} NaN or infinite, in ` +
    `${tensors}, as what it was made of has them`
  );
}

/** A card that says so first, and no longer what is kept of a function. */
export function damagedCard(card: string, damage: Damage): string {
  const words = damageWords(damage);
  if (words === null) return card;
  const lines = card.split("\n").filter((line) => !line.startsWith("| function |"));
  const title = lines.findIndex((line) => line.startsWith("# "));
  return lines.toSpliced(title + 1, 0, "", damageParagraph(words)).join("\n");
}

/** The verdict as a paragraph of a card. */
export const damageParagraph = (words: string): string => `**${words.charAt(0).toUpperCase()}${words.slice(1)}.**`;

/** The records among `files` with what was found, so that it is known of the folder later. */
export function damagedRecords(files: Readonly<Record<string, string>>, damage: Damage): Record<string, string> {
  const records = Object.entries(files).filter(([name]) => recordFiles.includes(name));
  return Object.fromEntries(
    records.map(([name, text]) => {
      const record = { ...(JSON.parse(text) as object), nonFinite: Object.fromEntries(damage) };
      return [name, `${JSON.stringify(record, null, 2)}\n`];
    }),
  );
}

/** What the records of a folder say of its weights. */
export async function recordedDamage(dir: string): Promise<Damage> {
  for (const name of recordFiles) {
    if (!(await exists(join(dir, name)))) continue;
    const { nonFinite } = (await readJson(join(dir, name))) as { nonFinite?: Record<string, number> };
    if (nonFinite !== undefined) return new Map(Object.entries(nonFinite));
  }
  return new Map();
}
