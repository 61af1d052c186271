/**
 * Requests as token sequences, as the hf model of the LM Evaluation Harness makes them (lm_eval/api/model.py,
 * lm_eval/models/huggingface.py, lm_eval/utils.py).
 */
import { inputError } from "../../base/errors.js";
import type { Request, Sample } from "../tasks/prompt.js";
import { stripEnd } from "../tasks/python-text.js";
import type { TextTokenizer } from "../../text/tokenizer/load.js";

/** Tokens of which the last ones are scored: each by the model's answer to all before it. */
export interface Sequence {
  /** What the model sees, and behind it the last token that is scored. */
  readonly tokens: Int32Array;
  /** How many tokens at the end are scored, fewer than all. */
  readonly scored: number;
  /** Whether tokens were cut off in front, because the model has too few positions. */
  readonly truncated: boolean;
}

/** What makes sequences out of texts. */
export interface Encoder {
  readonly tokenizer: TextTokenizer;
  /** The token before a text that has none before it: BOS, or EOS for models without. */
  readonly prefixId: number;
  /** How that token is written; a text that begins with it gets no second one. */
  readonly prefixText: string;
  /** Most tokens that the model sees. */
  readonly maxLength: number;
}

/** The encoder of a model's tokenizer. Throws inputError for a tokenizer with neither BOS nor EOS. */
export async function encoderOf(tokenizer: TextTokenizer, maxLength: number, where: string): Promise<Encoder> {
  const prefixId = tokenizer.bosId ?? tokenizer.eosId;
  if (prefixId === undefined)
    throw inputError("the tokenizer names neither a BOS nor an EOS token, which texts without context begin with", {
      where,
      hint: "name one in tokenizer_config.json",
    });
  return { tokenizer, prefixId, prefixText: await tokenizer.decode([prefixId]), maxLength };
}

/** Texts that are encoded together, each once. */
class TextBook {
  private readonly ids = new Map<string, Int32Array>();
  private readonly wanted = { special: new Set<string>(), plain: new Set<string>() };

  constructor(private readonly encoder: Encoder) {}

  /** Asks for a text with the tokens that the tokenizer adds by itself, unless the text begins with them. */
  want(text: string): void {
    this.wanted[this.kindOf(text)].add(text);
  }

  wantPlain(text: string): void {
    this.wanted.plain.add(text);
  }

  private kindOf(text: string): "special" | "plain" {
    return text.startsWith(this.encoder.prefixText) ? "plain" : "special";
  }

  async encode(): Promise<void> {
    for (const kind of ["special", "plain"] as const) {
      const texts = [...this.wanted[kind]];
      let place = 0;
      const settings = { addSpecialTokens: kind === "special" };
      for await (const ids of this.encoder.tokenizer.encodeAll(texts, settings))
        this.ids.set(`${kind} ${texts[place++]}`, ids);
    }
  }

  get(text: string): Int32Array {
    return this.ids.get(`${this.kindOf(text)} ${text}`)!;
  }

  getPlain(text: string): Int32Array {
    return this.ids.get(`plain ${text}`)!;
  }
}

/** Context and continuation, with the white space at the context's end moved to the continuation. */
function seamed(context: string, continuation: string): { readonly context: string; readonly whole: string } {
  return { context: stripEnd(context), whole: context + continuation };
}

/**
 * The sequences of each sample's requests, in their order: one for each log-likelihood, one for each window of a
 * rolling one. Throws inputError for a continuation without tokens, or of more than the model has positions.
 */
export async function sequencesOf(
  samples: readonly Sample[],
  encoder: Encoder,
  where: string,
): Promise<readonly (readonly Sequence[])[]> {
  const book = new TextBook(encoder);
  for (const { requests } of samples) for (const request of requests) wantTexts(request, book);
  await book.encode();
  return samples.map(({ requests, id }) =>
    requests.flatMap((request) => sequencesOfRequest(request, book, encoder, `${where}, document ${id + 1}`)),
  );
}

function wantTexts(request: Request, book: TextBook): void {
  if (request.kind === "rolling") book.want(request.text);
  if (request.kind !== "loglikelihood") return;
  const { context, whole } = seamed(request.context, request.continuation);
  if (request.context === "") book.wantPlain(request.continuation);
  else {
    book.want(context);
    book.want(whole);
  }
}

function sequencesOfRequest(request: Request, book: TextBook, encoder: Encoder, where: string): readonly Sequence[] {
  if (request.kind === "rolling") return rollingWindows(book.get(request.text), encoder.prefixId, encoder.maxLength);
  if (request.kind === "generate") return [];
  const { tokens, scored } = pairOf(request, book, encoder);
  if (scored <= 0) throw inputError("a continuation has no tokens of its own", { where });
  if (scored > encoder.maxLength)
    throw inputError(`a continuation has ${scored} tokens, more than the model's ${encoder.maxLength} positions`, {
      where,
    });
  const kept = tokens.subarray(Math.max(0, tokens.length - encoder.maxLength - 1));
  return [{ tokens: kept, scored, truncated: kept.length < tokens.length }];
}

/** The tokens of context and continuation; the seam is where the context alone would end. */
function pairOf(
  { context, continuation }: Extract<Request, { kind: "loglikelihood" }>,
  book: TextBook,
  { prefixId }: Encoder,
): { readonly tokens: Int32Array; readonly scored: number } {
  if (context !== "") {
    const texts = seamed(context, continuation);
    const tokens = book.get(texts.whole);
    return { tokens, scored: tokens.length - book.get(texts.context).length };
  }
  const own = book.getPlain(continuation);
  if (own[0] === prefixId) return { tokens: own, scored: own.length - 1 };
  return { tokens: Int32Array.of(prefixId, ...own), scored: own.length };
}

/**
 * Windows over a text, each token scored once: the first behind the prefix, later ones as full as they can be, so that
 * each scored token sees as much as the model's positions allow.
 */
export function rollingWindows(text: Int32Array, prefixId: number, maxLength: number): readonly Sequence[] {
  const windows: Sequence[] = [];
  const first = Math.min(maxLength, text.length);
  if (first === 0) return windows;
  windows.push({ tokens: Int32Array.of(prefixId, ...text.subarray(0, first)), scored: first, truncated: false });
  for (let done = first; done < text.length;) {
    const scored = Math.min(text.length - done, maxLength);
    const end = done + scored;
    windows.push({ tokens: text.subarray(end - maxLength - 1, end), scored, truncated: false });
    done = end;
  }
  return windows;
}
