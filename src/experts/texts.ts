/** Texts to look at a model's experts with: each a row of sequences, every other one held out. */
import { basename, join } from "node:path";
import { at, entryOf } from "../base/at.js";
import { inputError } from "../base/errors.js";
import { readJson } from "../files/io/ranges.js";
import { readDocuments, type CorpusSource } from "../text/documents/corpus.js";
import type { TextTokenizer } from "../text/tokenizer/load.js";
import { textOfPiece, tokenClass, tokenClasses, type TokenText } from "./measures/token-class.js";

/** One sequence of a text. */
export interface Sequence {
  /** Index of its text. */
  readonly text: number;
  /** [S] */
  readonly ids: Int32Array;
  /** [S], the token behind each */
  readonly targets: Int32Array;
  /** [S], index into `tokenClasses` of each id */
  readonly classes: Int32Array;
}

/** Texts cut into sequences. */
export interface SequencedTexts {
  readonly names: readonly string[];
  /** What is looked at: the first, third, ... sequence of each text. */
  readonly observed: readonly Sequence[];
  /** What costs are measured on: the others. */
  readonly heldOut: readonly Sequence[];
}

/** How texts are cut. */
interface TextSettings {
  /** Tokens of one sequence. */
  readonly sequence: number;
  /** Most tokens of each text. */
  readonly tokens: number;
}

/** Texts by name: those that come along where no file is given. Throws inputError for two of one name. */
export function textSources(files: readonly string[]): ReadonlyMap<string, CorpusSource> {
  if (files.length === 0)
    return new Map([
      ["sotu", { builtin: "sotu" }],
      ["moby-dick", { builtin: "moby-dick" }],
    ]);
  const names = new Map<string, CorpusSource>();
  for (const path of files) {
    const name = basename(path);
    if (names.has(name))
      throw inputError("two texts have this name, by which they are told apart", { where: `--text ${name}` });
    names.set(name, { path });
  }
  return names;
}

/**
 * Tokenises the texts. Throws inputError for text that cannot be read, and for one that has no two sequences: one to
 * look at, one to hold out.
 */
export async function readTexts(
  tokenizer: TextTokenizer,
  dir: string,
  sources: ReadonlyMap<string, CorpusSource>,
  settings: TextSettings,
): Promise<SequencedTexts> {
  const special = await specialIds(dir, tokenizer);
  const [observed, heldOut]: [Sequence[], Sequence[]] = [[], []];
  const texts = new Map<number, TokenText>();
  for (const [text, [name, source]] of [...sources].entries()) {
    const ids = await firstTokens(tokenizer, source, settings.tokens + 1);
    const windows = Math.floor((ids.length - 1) / settings.sequence);
    if (windows < 2)
      throw inputError(
        `the text has ${ids.length} tokens, needed at least ${2 * settings.sequence + 1}: a sequence to look at and ` +
          "one to hold out",
        { where: name, hint: "give more text, or a smaller --sequence" },
      );
    const classes = await classesOf(tokenizer, ids, special, texts);
    for (let window = 0; window < windows; window++) {
      const [start, end] = [window * settings.sequence, (window + 1) * settings.sequence];
      (window % 2 === 0 ? observed : heldOut).push({
        text,
        ids: ids.slice(start, end),
        targets: ids.slice(start + 1, end + 1),
        classes: classes.slice(start, end),
      });
    }
  }
  return { names: [...sources.keys()], observed, heldOut };
}

/** The first tokens of a text, its documents divided by the tokenizer's end of text. */
async function firstTokens(tokenizer: TextTokenizer, source: CorpusSource, limit: number): Promise<Int32Array> {
  const ids: number[] = [];
  for await (const document of tokenizer.encodeAll(textOf(source))) {
    if (ids.length > 0 && tokenizer.eosId !== undefined) ids.push(tokenizer.eosId);
    for (const id of document) ids.push(id);
    if (ids.length >= limit) break;
  }
  return Int32Array.from(ids.slice(0, limit));
}

async function* textOf(source: CorpusSource): AsyncGenerator<string> {
  for await (const { text } of readDocuments(source)) yield text;
}

/** Each token's class, from its own text and that of the token in front of it. `texts` is filled on the way. */
async function classesOf(
  tokenizer: TextTokenizer,
  ids: Int32Array,
  special: ReadonlySet<number>,
  texts: Map<number, TokenText>,
): Promise<Int32Array> {
  for (const id of new Set(ids)) {
    if (texts.has(id)) continue;
    const piece = (await tokenizer.idToToken(id)) ?? "";
    texts.set(id, { text: textOfPiece(piece, await tokenizer.decode([id])), special: special.has(id) });
  }
  return ids.map((id, i) => {
    const previous = i === 0 ? null : entryOf(texts, at(ids, i - 1));
    return tokenClasses.indexOf(tokenClass(entryOf(texts, id), previous));
  });
}

/** Ids of the tokens that tokenizer.json calls special, and of those that begin and end a text. */
async function specialIds(dir: string, { eosId, bosId }: TextTokenizer): Promise<ReadonlySet<number>> {
  const file = (await readJson(join(dir, "tokenizer.json"))) as { readonly added_tokens?: unknown };
  const added = Array.isArray(file.added_tokens) ? (file.added_tokens as readonly AddedToken[]) : [];
  const named = added.flatMap(({ id, special }) => (special === true && typeof id === "number" ? [id] : []));
  return new Set([...named, ...[eosId, bosId].filter((id) => id !== undefined)]);
}

interface AddedToken {
  readonly id?: unknown;
  readonly special?: unknown;
}
