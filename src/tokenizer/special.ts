/** Which ids begin and end a text, read from the files that lie beside a `tokenizer.json`. */
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { largest } from "../io/open.js";
import { readText } from "../io/ranges.js";

/** Ids of the special tokens; undefined where the model has none. */
export interface SpecialIds {
  readonly eosId: number | undefined;
  readonly bosId: number | undefined;
}

type Json = Readonly<Record<string, unknown>>;

/**
 * Looks in tokenizer_config.json, special_tokens_map.json (both name the token) and config.json (gives the id, or a
 * list whose first is taken), in that order; a missing file is skipped. `null` in the first file that has the key
 * means none. Throws an input error for a broken file and for a name that the tokenizer lacks.
 */
export async function readSpecialIds(folder: string, tokenToId: (token: string) => number | null): Promise<SpecialIds> {
  const files = ["tokenizer_config.json", "special_tokens_map.json", "config.json"].map((name) => join(folder, name));
  const found = await Promise.all(files.map(async (file) => ({ file, json: await readJsonIfThere(file) })));
  const idOf = (kind: "eos" | "bos"): number | undefined => {
    for (const { file, json } of found) {
      const name = json[`${kind}_token`];
      if (name === null) return undefined;
      if (name !== undefined) return idOfName(name, `${kind}_token`, file, tokenToId);
      const id: unknown = [json[`${kind}_token_id`]].flat()[0];
      if (typeof id === "number") return id;
    }
    return undefined;
  };
  return { eosId: idOf("eos"), bosId: idOf("bos") };
}

/** A token is written as its text or as an object with `content`. */
function idOfName(name: unknown, key: string, file: string, tokenToId: (token: string) => number | null): number {
  const content = typeof name === "object" && name !== null ? (name as Json)["content"] : name;
  if (typeof content !== "string") {
    throw inputError(`${key} is neither a string nor an object with "content"`, { where: file });
  }
  const id = tokenToId(content);
  if (id === null) throw inputError(`${key} is "${content}", which the tokenizer does not have`, { where: file });
  return id;
}

async function readJsonIfThere(file: string): Promise<Json> {
  let text: string;
  try {
    text = await readText(file, largest.settings);
  } catch (cause) {
    if (((cause as Error).cause as NodeJS.ErrnoException | undefined)?.code === "ENOENT") return {};
    throw cause;
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw inputError("the file is not JSON", { where: file, hint: "it may be cut short: fetch it again", cause });
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw inputError("the file is not a JSON object", { where: file });
  }
  return json as Json;
}
