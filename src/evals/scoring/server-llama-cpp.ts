/**
 * llama.cpp's own server (tools/server in its repository). It gives no log-probabilities of a prompt: its
 * `/v1/completions` refuses `echo` or leaves it out. But it gives those of the next token, for as many tokens of the
 * vocabulary as are asked for (`n_probs` of `/completion`), from a softmax over all logits before any sampler
 * (`get_token_probabilities`). So every scored token costs a request with what stands before it. The server keeps the
 * keys and values of the request before, of which this one is the continuation.
 */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import type { TextTokenizer } from "../../text/tokenizer/load.js";
import { SEED, type LogLikelihood, type ServerApi } from "./server-api.js";
import type { Client } from "./server-client.js";
import type { Sequence } from "./sequences.js";

/** What `/models` of llama.cpp says about a model. */
export interface LlamaCppModel {
  readonly id: string;
  readonly meta?: { readonly n_vocab?: number } | null;
}

/** Tokens of the vocabulary that are asked for at first; where one that is scored is not among them, all are. */
const FIRST_PROBABILITIES = 256;

/** A probability that is 0 in float32 has the least float32 as its logarithm, below this. */
const NOTHING = -1e30;

interface NextToken {
  readonly id?: number;
  readonly logprob?: number;
}

interface Completion {
  readonly content?: string;
  readonly completion_probabilities?: readonly { readonly top_logprobs?: readonly NextToken[] }[];
}

/**
 * The API of a model behind llama.cpp's server, at the address above `/v1`. Throws inputError for a tokenizer that
 * numbers tokens in another way than the server's model.
 */
export async function llamaCppApi(
  client: Client,
  { id: model, meta }: LlamaCppModel,
  tokenizer: TextTokenizer,
): Promise<ServerApi> {
  const { total_slots: slots = 1, default_generation_settings: settings } = (await client.get(
    `/props?model=${encodeURIComponent(model)}`,
  )) as { readonly total_slots?: number; readonly default_generation_settings?: { readonly n_ctx?: number } };
  await requireSameTokens(client, model, tokenizer);
  const { bosId, eosId } = tokenizer;
  const ender = eosId ?? bosId;
  const complete = (prompt: readonly number[], more: Readonly<Record<string, unknown>>): Promise<Completion> =>
    client.post("/completion", {
      model,
      prompt,
      temperature: 0,
      // The documented default is 1.1, which would make an answer another one.
      repeat_penalty: 1,
      cache_prompt: true,
      seed: SEED,
      ...more,
    }) as Promise<Completion>;
  /** Log-probabilities of the likeliest `count` tokens behind a prompt, the likeliest first. */
  const nextTokens = async (prompt: readonly number[], count: number): Promise<ReadonlyMap<number, number>> => {
    const { completion_probabilities: [first] = [] } = await complete(prompt, {
      n_predict: 1,
      n_probs: count,
      post_sampling_probs: false,
      // An answer that would end within a character comes without probabilities; one that is empty has them. They are
      // those before this bias.
      ...(ender !== undefined && { logit_bias: [[ender, 1e9]] }),
    });
    const all = first?.top_logprobs;
    if (all === undefined || all.some(({ id, logprob }) => id === undefined || logprob === undefined))
      throw inputError("the server gives no log-probabilities with the numbers of their tokens", {
        where: client.base,
        hint: "llama.cpp does since December 2024; use a newer one",
      });
    return new Map(all.map(({ id = -1, logprob = NaN }) => [id, logprob < NOTHING ? -Infinity : logprob]));
  };
  const vocabulary = meta?.n_vocab ?? tokenizer.vocab;
  /** Log-probabilities behind a prompt, of the tokens in `wanted` at least. */
  const probabilities = async (prompt: readonly number[], wanted: ReadonlySet<number>) => {
    const some = await nextTokens(prompt, Math.min(FIRST_PROBABILITIES, vocabulary));
    if ([...wanted].every((token) => some.has(token))) return some;
    return nextTokens(prompt, vocabulary);
  };
  return {
    maxLength: settings?.n_ctx,
    // The last token of a sequence is asked about, not sent.
    behind: 0,
    // More than the server has places for would drive each other's keys and values out.
    together: slots,
    // Unless told otherwise its places share the room for keys and values, and all requests fail where what it is asked
    // together needs more.
    roomTogether: settings?.n_ctx,
    score: (sequences) => scoresOf(sequences, probabilities),
    async generate(prompt, { until, maxTokens }) {
      return (await complete(prompt, { n_predict: maxTokens, stop: until })).content ?? "";
    },
  };
}

/** Scores sequences; what several have before a scored token is asked for once. */
async function scoresOf(
  sequences: readonly Sequence[],
  probabilities: (prompt: readonly number[], wanted: ReadonlySet<number>) => Promise<ReadonlyMap<number, number>>,
): Promise<readonly LogLikelihood[]> {
  const places = new Map<string, { prompt: readonly number[]; wanted: Map<number, number[]> }>();
  for (const [sequence, { tokens, scored }] of sequences.entries())
    for (let end = tokens.length - scored; end < tokens.length; end++) {
      const prompt = [...tokens.subarray(0, end)];
      const key = prompt.join();
      const place = places.get(key) ?? { prompt, wanted: new Map<number, number[]>() };
      places.set(key, place);
      const token = at(tokens, end);
      place.wanted.set(token, [...(place.wanted.get(token) ?? []), sequence]);
    }
  const scores = sequences.map(() => ({ kind: "loglikelihood" as const, logLikelihood: 0, greedy: true }));
  for (const { prompt, wanted } of places.values()) {
    const found = await probabilities(prompt, new Set(wanted.keys()));
    const [best = NaN] = found.values();
    for (const [token, owners] of wanted)
      for (const owner of owners) {
        const score = at(scores, owner);
        const own = found.get(token) ?? NaN;
        score.logLikelihood += own;
        score.greedy &&= own >= best;
      }
  }
  return scores;
}

/** Text with letters, digits, signs and white space, whose tokens are compared. */
const PROBE = "Call me Ishmael. In 1851, “whale” cost £3.5 –\n\tfor (i = 0; i < 10; i++) { a[i] *= 2; }";

/** Throws inputError where the server reads the tokenizer's numbers as other text. */
async function requireSameTokens(client: Client, model: string, tokenizer: TextTokenizer): Promise<void> {
  const tokens = [...(await tokenizer.encode(PROBE, { addSpecialTokens: false }))];
  const { content = "" } = (await client.post("/detokenize", { model, tokens })) as { readonly content?: string };
  // Some tokenizers begin every text with a space.
  if (content.trimStart() === PROBE) return;
  throw inputError(
    `the tokenizer is not that of the server's model, which reads its tokens as ${JSON.stringify(content)}`,
    {
      where: client.base,
      hint: "name the folder of the model that the server's file was made from: --tokenizer",
    },
  );
}
