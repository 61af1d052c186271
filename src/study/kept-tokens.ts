/**
 * The tokens of a study's text, kept in its store: a study that runs in pieces tokenizes once. A folder of tokens has a
 * name by content, that of the text, its split and the tokenizer, and holds one safetensors file whose metadata say
 * what the text was made of.
 */
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { exists, stageDirectory } from "../files/io/atomic.js";
import { fileFingerprint } from "../files/io/fingerprint.js";
import { openTensorFile, writeTensorFile } from "../files/io/tensor-file.js";
import type { CorpusFacts, TokenizedCorpus } from "../train/text.js";
import { endOfText } from "../train/text.js";
import type { ModelBase } from "../train/training-data.js";
import { contentKey } from "./keys.js";

/** Tokens, and what there is to say of the text that they were made of. */
export interface KeptTokens {
  readonly text: CorpusFacts;
  readonly tokens: TokenizedCorpus;
}

const tokensFile = "tokens.safetensors";
const factsKey = "text";

/** What the metadata say. */
type Facts = CorpusFacts & Pick<TokenizedCorpus, "end" | "bytesPerToken">;

/** The folder of a text's tokens within a store; `text` is the key of the text and its split. */
export async function tokensFolder(
  store: string,
  { carry, tokenizer, spec }: ModelBase,
  text: string,
): Promise<string> {
  const content = await fileFingerprint(join(carry, "tokenizer.json"));
  const end = endOfText(tokenizer, spec.tokens.eos[0]);
  return join(store, "tokens", contentKey({ text, tokenizer: content, end }));
}

/** Reads the tokens in a folder; null where there are none. Throws inputError for a file that is none of them. */
export async function readTokens(folder: string): Promise<KeptTokens | null> {
  const path = join(folder, tokensFile);
  if (!(await exists(path))) return null;
  const file = await openTensorFile(path);
  try {
    const written = file.metadata[factsKey];
    if (written === undefined || !file.tensors.has("train") || !file.tensors.has("heldOut"))
      throw inputError("this is not the tokens of a study's text", {
        where: path,
        hint: "remove the folder, and they are made again",
      });
    const { end, bytesPerToken, ...text } = JSON.parse(written) as Facts;
    const row = async (name: string): Promise<Int32Array> => new Int32Array((await file.read(name)).buffer);
    return { text, tokens: { end, bytesPerToken, train: await row("train"), heldOut: await row("heldOut") } };
  } finally {
    await file.close();
  }
}

/**
 * Writes tokens into a folder of their own; at every moment it holds all of them or does not exist. Another command may
 * have written the same ones meanwhile.
 */
export async function keepTokens(folder: string, kept: KeptTokens): Promise<void> {
  await write(folder, kept).catch(async (cause: unknown) => {
    if (!(await exists(join(folder, tokensFile)))) throw cause;
  });
}

async function write(folder: string, { text, tokens }: KeptTokens): Promise<void> {
  const { end, bytesPerToken, train, heldOut } = tokens;
  const facts: Facts = { ...text, end, bytesPerToken };
  const rows = { train, heldOut };
  const tensors = Object.entries(rows).map(([name, { length }]) => ({ name, dtype: "I32" as const, shape: [length] }));
  const staged = await stageDirectory(folder);
  try {
    const bytes = (name: string): Promise<Uint8Array> => {
      const { buffer, byteOffset, byteLength } = rows[name as keyof typeof rows];
      return Promise.resolve(new Uint8Array(buffer, byteOffset, byteLength));
    };
    await writeTensorFile(join(staged.path, tokensFile), tensors, bytes, { [factsKey]: JSON.stringify(facts) });
    await staged.commit();
  } finally {
    await staged.discard();
  }
}
