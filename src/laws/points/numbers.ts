/** Numbers as people and their programs write them: `7B`, `1,000`, `3,21`, `1 000`, `1_000`, `1.5e9`. */

/** What separates whole from broken numbers in a table. */
export type DecimalSign = "." | ",";

const multiples: Readonly<Record<string, number>> = {
  k: 1e3,
  thousand: 1e3,
  m: 1e6,
  mn: 1e6,
  million: 1e6,
  b: 1e9,
  bn: 1e9,
  g: 1e9,
  billion: 1e9,
  t: 1e12,
  tn: 1e12,
  trillion: 1e12,
};

/** Cells that say that there is no value. */
const missing = /^(?:|-|—|–|n\/?a|nan|null|none|nil|missing|\?)$/i;

/** Whether a cell says that there is no value. */
export const isMissing = (text: string): boolean => missing.test(text.trim());

/** Spaces of any kind (also those that do not break), apostrophes and underlines between groups of three digits. */
const groupSpaces = /(?<=\d)[\s_'’\u00a0\u2007\u2009\u202f](?=\d{3}(?:\D|$))/g;

/** The text with plain signs and without spaces between digits. */
function plain(text: string): string {
  return text
    .trim()
    .replace(/^[−–](?=[\d.,])/, "-")
    .replace(/(?<=[eE])[−–](?=\d)/, "-")
    .replaceAll(groupSpaces, "");
}

const parts = /^([-+]?(?:\d[\d.,]*|[.,]\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z]*)$/;

/** The number of a cell; NaN where there is none, or where it is not written as a number. */
export function numberOf(text: string, decimal: DecimalSign): number {
  const cell = plain(text);
  if (isMissing(cell)) return NaN;
  if (/^[-+]?inf(?:inity)?$/i.test(cell)) return cell.startsWith("-") ? -Infinity : Infinity;
  const match = parts.exec(cell);
  if (match === null) return NaN;
  const [, digits = "", suffix = ""] = match;
  const multiple = suffix === "" ? 1 : (multiples[suffix.toLowerCase()] ?? NaN);
  return withoutGroups(digits, decimal) * multiple;
}

/** The number of digits with one decimal sign, the other one standing between groups of three. */
function withoutGroups(digits: string, decimal: DecimalSign): number {
  const [group, sign] = decimal === "." ? [",", "\\."] : ["\\.", ","];
  const grouped = new RegExp(`^[-+]?\\d{1,3}(?:${group}\\d{3})+(?:${sign}\\d*)?(?:[eE][-+]?\\d+)?$`);
  const single = new RegExp(`^[-+]?\\d*(?:${sign}\\d*)?(?:[eE][-+]?\\d+)?$`);
  const text = grouped.test(digits) ? digits.replaceAll(decimal === "." ? "," : ".", "") : digits;
  return single.test(text) ? Number(text.replace(",", ".")) : NaN;
}

/** Which decimal sign a cell proves; null: it could be read both ways, or has neither sign. */
export function provenSign(text: string): DecimalSign | null {
  const [, digits = ""] = parts.exec(plain(text)) ?? [];
  const [mantissa = "", exponent] = digits.split(/[eE]/);
  const signs = [...mantissa].filter((one) => one === "." || one === ",") as DecimalSign[];
  const [first] = signs;
  const last = signs.at(-1);
  if (first === undefined || last === undefined) return null;
  const other: DecimalSign = first === "." ? "," : ".";
  // Two kinds: the last one is the decimal sign. Several of one kind: it stands between groups.
  if (first !== last) return last;
  if (signs.length > 1) return other;
  const [whole = "", rest = ""] = mantissa.split(first);
  const couldGroup = rest.length === 3 && exponent === undefined && /^[-+]?[1-9]\d{0,2}$/.test(whole);
  return couldGroup ? null : first;
}
