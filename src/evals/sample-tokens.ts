/** Tokens to measure a model on: the user's text, else text that comes along, else random ids. */
import { basename, join } from "node:path";
import { inputError } from "../base/errors.js";
import { randomStream } from "../base/random.js";
import { exists } from "../files/io/atomic.js";
import { readDocuments, type CorpusSource } from "../text/documents/corpus.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { withTokenizer } from "../text/tokenizer/load.js";

interface SampleTokens {
  readonly tokens: Int32Array;
  /** What they are, in words. */
  readonly source: string;
}

interface SampleRequest {
  /** The model whose tokenizer is used. */
  readonly dir: string;
  readonly spec: DecoderSpec;
  /** Text files, or folders of them; none: the built-in addresses, if the model has a tokenizer. */
  readonly files: readonly string[];
  /** Most tokens to return. */
  readonly limit: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The first `limit` tokens. Throws inputError for text that cannot be read and for text given to a model without
 * tokenizer.
 */
export async function sampleTokens({ dir, spec, files, limit, signal }: SampleRequest): Promise<SampleTokens> {
  if (files.length === 0 && !(await exists(join(dir, "tokenizer.json")))) {
    const stream = randomStream(0, "sample tokens");
    const tokens = Int32Array.from({ length: limit }, (_, i) => Math.floor(stream.uniformAt(i) * spec.vocab));
    return { tokens, source: "random token ids (the model has no tokenizer.json)" };
  }
  const sources: CorpusSource[] = files.length === 0 ? [{ builtin: "sotu" }] : files.map((path) => ({ path }));
  const ids: number[] = [];
  await withTokenizer(dir, { signal }, async (tokenizer) => {
    for await (const document of tokenizer.encodeAll(texts(sources))) {
      if (ids.length > 0 && tokenizer.eosId !== undefined) ids.push(tokenizer.eosId);
      for (const id of document) ids.push(id);
      if (ids.length >= limit) break;
    }
  });
  if (ids.length < 2)
    throw inputError(`too little text: ${ids.length} tokens, a comparison needs at least 2`, {
      where: files.join(", "),
    });
  const source = files.length === 0 ? "State of the Union addresses" : files.map((file) => basename(file)).join(", ");
  return { tokens: Int32Array.from(ids.slice(0, limit)), source };
}

async function* texts(sources: readonly CorpusSource[]): AsyncGenerator<string> {
  for (const source of sources) for await (const { text } of readDocuments(source)) yield text;
}
