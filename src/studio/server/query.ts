/** Settings of a question, as its address has them. */
import { inputError } from "../../base/errors.js";

/** A word of a query. Throws inputError for one that is not among `words`. */
export function wordOf(query: URLSearchParams, key: string, words: readonly string[], usual: string): string {
  const word = query.get(key) ?? usual;
  if (words.includes(word)) return word;
  throw inputError(`"${word.slice(0, 100)}" is not one of ${words.join(", ")}`, { where: key });
}

/** What a page has of a curve: `GENERATION:TOTAL`; undefined for another word. */
export function hadOf(word = ""): { readonly generation: number; readonly total: number } | undefined {
  const [, generation, total] = /^(\d{1,15}):(\d{1,15})$/.exec(word) ?? [];
  return total === undefined ? undefined : { generation: Number(generation), total: Number(total) };
}

/** A number of a query; undefined without one. Throws inputError for what is no number. */
export function numberOf(query: URLSearchParams, key: string): number | undefined {
  const text = query.get(key);
  if (text === null || text === "") return undefined;
  const value = Number(text);
  if (Number.isFinite(value)) return value;
  throw inputError(`"${text.slice(0, 100)}" is no number`, { where: key });
}
