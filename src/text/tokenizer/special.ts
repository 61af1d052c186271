/** Which ids begin and end a text, read from the files that lie beside a `tokenizer.json`. */
import { join } from "node:path";
import { inputError, type UpcycleError } from "../../base/errors.js";
import { shown } from "../../base/shown.js";
import { isNestedTooDeeply, nestedTooDeeply } from "../../files/formats/duplicate-key.js";
import { foreignText } from "../../files/formats/foreign-file.js";
import { LARGEST_FILE_BESIDE } from "./limits.js";
import { readText } from "../../files/io/ranges.js";

/** Ids of the special tokens; undefined where the model has none. */
export interface SpecialIds {
  readonly eosId: number | undefined;
  readonly bosId: number | undefined;
}

type Json = Readonly<Record<string, unknown>>;
type TokenToId = (token: string) => Promise<number | undefined>;

/** The largest id: ids take 32 bits with a sign, and so does the vocabulary's size, which is one more. */
export const LARGEST_ID = 2 ** 31 - 2;

/**
 * Finds the ids in the files beside a tokenizer. It looks in tokenizer_config.json, special_tokens_map.json (both name
 * the token) and config.json (gives the id, or a list whose first is taken), in that order; a missing file is skipped.
 * `null` in the first file that has the key means none. Throws an input error for a broken file, for a name that the
 * tokenizer lacks, and for what is no id.
 */
export async function readSpecialIds(folder: string, tokenToId: TokenToId): Promise<SpecialIds> {
  const files = ["tokenizer_config.json", "special_tokens_map.json", "config.json"].map((name) => join(folder, name));
  const settings = await Promise.all(files.map(async (file) => ({ file, json: await readJsonIfThere(file) })));
  const idOf = async (kind: "eos" | "bos"): Promise<number | undefined> => {
    for (const { file, json } of settings) {
      const name = json[`${kind}_token`];
      if (name === null) return undefined;
      if (name !== undefined) return idOfName(name, `${kind}_token`, file, tokenToId);
      const id: unknown = [json[`${kind}_token_id`]].flat()[0];
      if (typeof id === "number") return checkedId(id, `${kind}_token_id`, file);
    }
    return undefined;
  };
  return { eosId: await idOf("eos"), bosId: await idOf("bos") };
}

/**
 * The id of a token that is written as its text or as an object with `content`. Throws inputError for anything else.
 */
async function idOfName(name: unknown, key: string, file: string, tokenToId: TokenToId): Promise<number> {
  const content = typeof name === "object" && name !== null ? (name as Json)["content"] : name;
  if (typeof content !== "string") {
    throw inputError(`${key} is neither a string nor an object with "content"`, { where: file });
  }
  const id = await tokenToId(content);
  if (id === undefined)
    throw inputError(`${key} is ${shown(content)}, which the tokenizer does not have`, { where: file });
  return id;
}

/** The id itself. Throws inputError for what is no id. */
function checkedId(id: number, key: string, file: string): number {
  if (Number.isInteger(id) && id >= 0 && id <= LARGEST_ID) return id;
  throw inputError(`${key} is ${id}, expected the id of a token: a whole number from 0`, { where: file });
}

/** The object in a file, which is empty where there is no file. Throws inputError for anything but a JSON object. */
async function readJsonIfThere(file: string): Promise<Json> {
  let text: string;
  try {
    text = await readText(file, LARGEST_FILE_BESIDE);
  } catch (cause) {
    if (((cause as Error).cause as NodeJS.ErrnoException | undefined)?.code === "ENOENT") return {};
    throw cause;
  }
  if (isNestedTooDeeply(text)) throw inputError(nestedTooDeeply, { where: file });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw notJson(text, file, cause);
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw inputError("the file is not a JSON object", { where: file });
  }
  return json as Json;
}

/** The error for a text that is no JSON: it says what the file is where that is known. */
export function notJson(text: string, where: string, cause?: unknown): UpcycleError {
  const foreign = foreignText(text);
  if (foreign !== null) return inputError(`this is ${foreign.what}`, { where, hint: foreign.hint });
  return inputError("the file is not JSON", { where, hint: "it may be cut short: fetch it again", cause });
}
