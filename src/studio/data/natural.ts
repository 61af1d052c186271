/**
 * The order of names in lists: numbers in them by their values, small and capital letters alike. A browser that has not
 * used `Intl` yet needs longer to begin with it than to sort and show a thousand runs, so names in ASCII are compared
 * here, as `Intl.Collator` compares them.
 */

/** Printable ASCII in the order of the Unicode Collation Algorithm (its root table), letters in lower case. */
const order = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789abcdefghijklmnopqrstuvwxyz";
const ranks = new Uint8Array(128);
for (let i = 0; i < order.length; i++) {
  ranks[order.charCodeAt(i)] = i + 1;
  ranks[order.toUpperCase().charCodeAt(i)] = i + 1;
}

const isPlain = (text: string): boolean => /^[ -~]*$/.test(text);
const isDigit = (code: number): boolean => code >= 48 && code <= 57;

/** Where the digits that begin at `from` end. */
function digitsEnd(text: string, from: number): number {
  let at = from;
  while (at < text.length && isDigit(text.charCodeAt(at))) at++;
  return at;
}

/** The first of the digits from `from` to `end` that is not a leading zero. */
function digitsStart(text: string, from: number, end: number): number {
  let at = from;
  while (at < end && text.charCodeAt(at) === 48) at++;
  return at;
}

/** Compares names in printable ASCII; 0 for those that differ in nothing but leading zeros. */
function comparePlain(a: string, b: string): number {
  let [i, j, byCase] = [0, 0, 0];
  while (i < a.length && j < b.length) {
    const [one, other] = [a.charCodeAt(i), b.charCodeAt(j)];
    if (isDigit(one) && isDigit(other)) {
      const [end, otherEnd] = [digitsEnd(a, i), digitsEnd(b, j)];
      [i, j] = [digitsStart(a, i, end), digitsStart(b, j, otherEnd)];
      const longer = end - i - (otherEnd - j);
      if (longer !== 0) return longer;
      for (; i < end; i++, j++) if (a.charCodeAt(i) !== b.charCodeAt(j)) return a.charCodeAt(i) - b.charCodeAt(j);
      continue;
    }
    if (one !== other) {
      const difference = ranks[one]! - ranks[other]!;
      if (difference !== 0) return difference;
      // The same letter: a small one comes first, where nothing else decides.
      if (byCase === 0) byCase = other - one;
    }
    i++;
    j++;
  }
  return a.length - i - (b.length - j) || byCase;
}

/**
 * What compares the names of one list. Names that are not in printable ASCII, and all others of their list, are left to
 * `Intl.Collator`, so that the order of a list is one order.
 */
export function naturalOrder(names: Iterable<string>): (a: string, b: string) => number {
  for (const name of names) if (!isPlain(name)) return new Intl.Collator("en", { numeric: true }).compare;
  return comparePlain;
}
