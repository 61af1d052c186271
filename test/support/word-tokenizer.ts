/** A tokenizer of ten words for tiny models. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

const words = ["<unk>", "<s>", "</s>", "code", "verse", "loop", "rhyme", "the", "a", "of", "and"];

/** Puts tokenizer.json into a model folder: text is split at spaces, each word is a token. Returns the folder. */
export function withWordTokenizer(dir: string): string {
  const vocab = Object.fromEntries(words.map((word, id) => [word, id]));
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "Whitespace" },
    post_processor: null,
    decoder: null,
    model: { type: "WordLevel", vocab, unk_token: "<unk>" },
  };
  writeFileSync(join(dir, "tokenizer.json"), JSON.stringify(tokenizer));
  return dir;
}

/** The token of each word of a text that is split at spaces. */
export const wordIds = (text: string): number[] => text.split(" ").map((word) => words.indexOf(word));

/** The word of a token. */
export const wordOf = (id: number): string => words[id] ?? "<unk>";
