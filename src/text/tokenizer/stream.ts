/** Text from tokens as they come. */
import type { TextTokenizer } from "./load.js";

/** Turns ids that come one by one into text, never cutting a character. */
export interface TextStream {
  /** The text that this token completes; empty while a character is still missing bytes. */
  push(id: number): Promise<string>;
  /** What is left at the end: the beginning of a character that never came, as U+FFFD. */
  end(): Promise<string>;
}

/**
 * Streams the text that follows `before`. A token may hold part of a character, and how a token is written may depend
 * on the one before it, so text is the difference of two decodings that share a few tokens, given once it does not end
 * in U+FFFD, or once more tokens wait than any character has (as huggingface/text-generation-inference streams:
 * `decode_token` in its `models/model.py`). All texts together are the decoding of all tokens. Its functions throw like
 * the tokenizer's `decode`.
 */
export function textStream(tokenizer: Pick<TextTokenizer, "decode">, before: Int32Array): TextStream {
  // `ids` are the tokens that are still decoded; the text of the first `givenCount` of them has been given.
  let ids = Array.from(before.slice(-CONTEXT));
  let givenCount = ids.length;
  const rest = async (): Promise<string> => {
    const [start, whole] = await Promise.all([tokenizer.decode(ids.slice(0, givenCount)), tokenizer.decode(ids)]);
    return whole.slice(start.length);
  };
  return {
    async push(id) {
      ids.push(id);
      const text = await rest();
      const isOpen = text === "" || text.endsWith("\uFFFD");
      if (isOpen && ids.length - givenCount <= MOST_PENDING) return "";
      ids = ids.slice(givenCount);
      givenCount = ids.length;
      return text;
    },
    end: rest,
  };
}

/**
 * Tokens that wait for the rest of a character. What an untrained model says may be no UTF-8 for as long as it goes on,
 * and all that waits is decoded again for each token.
 */
const MOST_PENDING = 32;
/** Tokens of the prompt that the first decodings see: enough for any character, which has at most four bytes. */
const CONTEXT = 8;
