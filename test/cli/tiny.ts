/** A train file and a text so small that a whole training takes a second or two. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

/** Keys of the train file that differ from the tiny one. */
export interface TinyChanges {
  readonly training?: Readonly<Record<string, unknown>>;
  readonly [key: string]: unknown;
}

/** Prose with a non-ASCII character in every line, some 20 kB. */
export function writeText(dir: string): string {
  const path = join(dir, "text.txt");
  const words = ["whale", "ship", "café", "sea", "naïve", "captain", "harpoon", "日本", "wind", "🐋"];
  const line = (n: number): string =>
    Array.from({ length: 12 }, (_, i) => words[(n * n + 3 * i + n * i) % words.length]).join(" ");
  writeFileSync(path, Array.from({ length: 240 }, (_, n) => `${n} ${line(n)}.`).join("\n"));
  return path;
}

/** YAML is a superset of JSON. */
export function writeTrainFile(dir: string, name: string, { training, ...changes }: TinyChanges = {}): string {
  const path = join(dir, name);
  const config = {
    out: join(dir, "run"),
    threads: 1,
    model: { hidden: 16, layers: 1, heads: 2, inner: 32, maxPositions: 64 },
    tokenizer: { vocab: 300 },
    text: { files: [join(dir, "text.txt")], heldOut: 0.1 },
    training: { steps: 20, batch: 2, sequence: 16, lr: { peak: 0.003 }, evalEvery: 10, saveEvery: 10, ...training },
    evaluation: { tokens: 200 },
    ...changes,
  };
  writeFileSync(path, JSON.stringify(config, null, 2));
  return path;
}
