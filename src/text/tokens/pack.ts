/** Documents as one long row of tokens, each closed by an end-of-text token. */

/** Documents as one row of tokens. */
interface PackedTokens {
  /** Every document's tokens followed by one end-of-text token. */
  readonly tokens: Int32Array;
  /** [documents + 1]: document i is `tokens[documents[i] .. documents[i + 1])`, its end-of-text token included. */
  readonly documents: Int32Array;
}

/** Collects documents one at a time, so that a corpus never lives in memory as many small arrays. */
interface TokenPacker {
  /** Appends one document and the end-of-text token. */
  add(document: Int32Array): void;
  /** Everything added so far, in arrays of exactly the size needed. */
  finish(): PackedTokens;
}

/** A packer that writes `endOfText` after every document. */
export function tokenPacker(endOfText: number): TokenPacker {
  let tokens = new Int32Array(1024);
  let length = 0;
  const ends: number[] = [0];
  return {
    add(document) {
      const needed = length + document.length + 1;
      if (needed > tokens.length) {
        const larger = new Int32Array(Math.max(needed, 2 * tokens.length));
        larger.set(tokens.subarray(0, length));
        tokens = larger;
      }
      tokens.set(document, length);
      tokens[needed - 1] = endOfText;
      length = needed;
      ends.push(length);
    },
    finish() {
      return { tokens: tokens.slice(0, length), documents: Int32Array.from(ends) };
    },
  };
}
