/** Opens a Hugging Face `tokenizer.json` of any kind and turns text into ids and back. */
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Tokenizer } from "tokenizers";
import { inputError } from "../base/errors.js";
import { requireNoDeadLink } from "../io/fs-errors.js";
import { largest, readWhole, utf8Text } from "../io/open.js";
import { readSpecialIds, type SpecialIds } from "./special.js";

export interface EncodeSettings {
  /**
   * Let the tokenizer add what its own template asks for, such as a BOS token in front. Off when left out: packed
   * training text gets its end-of-text tokens from the packer.
   */
  readonly addSpecialTokens?: boolean | undefined;
}

export interface TextTokenizer extends SpecialIds {
  /** Largest id + 1; a model may have more rows in its embedding, never fewer. */
  readonly vocab: number;
  /** Ids of one text. A special token written out in the text becomes its id, as everywhere in Hugging Face. */
  encode(text: string, settings?: EncodeSettings): Promise<Int32Array>;
  /** Ids of each text in order; memory holds one batch of about a megabyte of text at a time. */
  encodeAll(texts: Iterable<string> | AsyncIterable<string>, settings?: EncodeSettings): AsyncGenerator<Int32Array>;
  /** The text of ids, special tokens written out. Bytes that are no UTF-8 become U+FFFD; unknown ids become nothing. */
  decode(ids: Iterable<number>): Promise<string>;
  /** undefined for an id that the tokenizer does not have. */
  idToToken(id: number): string | undefined;
  tokenToId(token: string): number | undefined;
}

/** UTF-16 units in one batch: an encoding costs roughly a hundred bytes per token until it is collected. */
const BATCH_UNITS = 1 << 20;

/**
 * The tokenizer in a folder, or in a file by any name. `special` overrides the ids found beside the file.
 * Throws an input error for a missing or broken file.
 */
export async function openTokenizer(folderOrFile: string, special: Partial<SpecialIds> = {}): Promise<TextTokenizer> {
  const file = await findFile(folderOrFile);
  const tokenizer = parse(await readText(file), file);
  // A file may carry the training run's truncation or padding, which would cut or lengthen documents silently.
  tokenizer.disableTruncation();
  tokenizer.disablePadding();
  const tokenToId = (token: string): number | null => tokenizer.tokenToId(token);
  const beside = await readSpecialIds(dirname(file), tokenToId);
  let vocab = 0;
  for (const id of Object.values(tokenizer.getVocab(true))) vocab = Math.max(vocab, id + 1);

  const encodeBatch = async (texts: string[], settings: EncodeSettings): Promise<Int32Array[]> => {
    const encodings = await tokenizer.encodeBatch(texts, { addSpecialTokens: settings.addSpecialTokens ?? false });
    return encodings.map((encoding) => Int32Array.from(encoding.getIds()));
  };
  return {
    vocab,
    eosId: special.eosId ?? beside.eosId,
    bosId: special.bosId ?? beside.bosId,
    async encode(text, settings = {}) {
      return (await encodeBatch([text], settings))[0]!;
    },
    async *encodeAll(texts, settings = {}) {
      let waiting: string[] = [];
      let units = 0;
      for await (const text of texts) {
        waiting.push(text);
        units += text.length;
        if (units < BATCH_UNITS) continue;
        yield* await encodeBatch(waiting, settings);
        waiting = [];
        units = 0;
      }
      if (waiting.length > 0) yield* await encodeBatch(waiting, settings);
    },
    decode: (ids) => tokenizer.decode(Array.from(ids), false),
    idToToken: (id) => tokenizer.idToToken(id) ?? undefined,
    tokenToId: (token) => tokenToId(token) ?? undefined,
  };
}

async function findFile(folderOrFile: string): Promise<string> {
  const status = await stat(folderOrFile).catch((cause: unknown) => {
    throw inputError("no such file or folder", { where: folderOrFile, hint: "give a folder with a tokenizer.json", cause });
  });
  return status.isDirectory() ? join(folderOrFile, "tokenizer.json") : folderOrFile;
}

async function readText(file: string): Promise<string> {
  try {
    return utf8Text(await readWhole(file, largest.record), file);
  } catch (cause) {
    if (((cause as Error).cause as NodeJS.ErrnoException | undefined)?.code !== "ENOENT") throw cause;
    await requireNoDeadLink(file);
    throw inputError("the folder has no tokenizer.json", {
      where: dirname(file),
      hint: "older models: save them again with transformers, AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
      cause,
    });
  }
}

function parse(text: string, file: string): Tokenizer {
  try {
    JSON.parse(text);
  } catch (cause) {
    throw inputError("the file is not JSON", { where: file, hint: "it may be cut short: fetch it again", cause });
  }
  try {
    return Tokenizer.fromString(text);
  } catch (cause) {
    throw inputError(`the file is no tokenizer: ${(cause as Error).message}`, { where: file, cause });
  }
}
