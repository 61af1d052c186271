/**
 * A model behind an OpenAI-compatible completion server (vLLM, SGLang, llama.cpp): prompts go out as token ids of a
 * tokenizer that is here, and come back with the log-probabilities of their own tokens, as the LM Evaluation Harness
 * asks (lm_eval/models/openai_completions.py). Chat completions cannot do that.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { inputError, interruptedError, stopError } from "../../base/errors.js";
import type { TextTokenizer } from "../../text/tokenizer/load.js";
import type { Response as Answer } from "../tasks/sample-results.js";
import type { Request } from "../tasks/prompt.js";
import { cutAt } from "./generate-until.js";
import type { AnsweringModel } from "./model.js";
import { encoderOf, sequencesOf, type Encoder, type Sequence } from "./sequences.js";

/** Where a model is reached. */
export interface ServerAddress {
  /** Address of the API, such as `http://localhost:8000/v1`. */
  readonly base: string;
  /** What the server calls the model; undefined: the only one that it has. */
  readonly model: string | undefined;
}

/** How a server is asked. */
export interface ServerSettings {
  /** Sent as a bearer token. */
  readonly key?: string | undefined;
  /** Most tokens of prompt and answer; what the server says, else 2048. */
  readonly maxLength?: number | undefined;
  /** Milliseconds before the first retry; later ones wait twice as long each. */
  readonly retryMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The harness's own limit where nobody says another. */
const DEFAULT_LENGTH = 2048;
/** Samples that are asked at once, each in a request of its own. */
const TOGETHER = 8;
const ATTEMPTS = 5;

/**
 * Reads `http://HOST/v1` or `http://HOST/v1?model=NAME`; a path that ends in `/completions` means the same. Null for what
 * is no such address.
 */
export function serverAddress(words: string): ServerAddress | null {
  if (!/^https?:\/\//.test(words) || !URL.canParse(words)) return null;
  const url = new URL(words);
  const model = url.searchParams.get("model") ?? undefined;
  return { base: `${url.origin}${url.pathname.replace(/\/(completions)?\/*$/, "").replace(/\/$/, "")}`, model };
}

interface Choice {
  readonly index?: number;
  readonly text?: string;
  readonly logprobs?: {
    readonly token_logprobs?: readonly (number | null)[];
    readonly top_logprobs?: readonly (Readonly<Record<string, number>> | null)[];
  } | null;
}

/** A model behind a server, and what the server calls it. */
export interface ServedModel extends AnsweringModel {
  readonly name: string;
}

/**
 * Opens a model behind a server. Throws inputError for a server that has no such model or no log-probabilities of
 * prompts, and stopError where it cannot be reached. It closes the tokenizer.
 */
export async function serverModel(
  { base, model }: ServerAddress,
  tokenizer: TextTokenizer,
  settings: ServerSettings,
): Promise<ServedModel> {
  const client = new Client(base, settings);
  const listed =
    ((await client.get("/models")) as { data?: readonly { id: string; max_model_len?: number }[] }).data ?? [];
  const own = model === undefined ? listed[0] : listed.find(({ id }) => id === model);
  if (own === undefined || (model === undefined && listed.length > 1))
    throw inputError(`the server has ${listed.map(({ id }) => id).join(", ") || "no models"}`, {
      where: base,
      hint: "name one: ADDRESS?model=NAME",
    });
  const maxLength = settings.maxLength ?? own.max_model_len ?? DEFAULT_LENGTH;
  // All tokens are sent, the last one too, which a model here would only be asked about.
  const encoder = await encoderOf(tokenizer, maxLength - 1, base);
  return {
    name: own.id,
    maxLength,
    async prepare(samples, where) {
      const sequences = await sequencesOf(samples, encoder, where);
      const ask = async (sample: number): Promise<readonly Answer[]> => {
        const { requests } = samples[sample]!;
        const [first] = requests;
        if (first?.kind === "generate") return [await generated(client, own.id, encoder, first)];
        const scores = await scored(client, own.id, sequences[sample]!);
        return first?.kind === "rolling"
          ? [{ kind: "rolling", logLikelihood: scores.reduce((sum, { logLikelihood }) => sum + logLikelihood, 0) }]
          : scores;
      };
      return {
        tokens: sequences.map((own_, i) =>
          own_.length > 0
            ? own_.reduce((sum, { tokens }) => sum + tokens.length, 0)
            : promptLength(samples[i]!.requests),
        ),
        async *answers(isDone, signal) {
          const pending = samples.flatMap((_, sample) => (isDone(sample) ? [] : [sample]));
          for (let i = 0; i < pending.length && signal?.aborted !== true; i += TOGETHER) {
            const batch = pending.slice(i, i + TOGETHER);
            const answers = await Promise.all(batch.map(ask)).catch((cause: unknown) => {
              if (signal?.aborted === true) return null;
              throw cause;
            });
            if (answers === null) return;
            yield batch.map((sample, k) => ({
              sample,
              responses: answers[k]!,
              truncated: sequences[sample]!.filter(({ truncated }) => truncated).length,
            }));
          }
        },
      };
    },
    close: () => tokenizer.close(),
  };
}

const promptLength = (requests: readonly Request[]): number =>
  requests.reduce((sum, request) => sum + (request.kind === "generate" ? request.context.length / 4 : 0), 1);

/** Log-likelihoods of sequences, all in one request. */
async function scored(
  client: Client,
  model: string,
  sequences: readonly Sequence[],
): Promise<readonly Extract<Answer, { kind: "loglikelihood" }>[]> {
  if (sequences.length === 0) return [];
  const choices = await client.complete({
    model,
    prompt: sequences.map(({ tokens }) => [...tokens]),
    temperature: 0,
    max_tokens: 1,
    logprobs: 1,
    echo: true,
    seed: 1234,
  });
  return sequences.map((sequence, i) => scoreOf(sequence, choices[i], client.base));
}

function scoreOf(
  { tokens, scored: count }: Sequence,
  choice: Choice | undefined,
  where: string,
): Extract<Answer, { kind: "loglikelihood" }> {
  const all = choice?.logprobs?.token_logprobs;
  const top = choice?.logprobs?.top_logprobs;
  // Behind the prompt comes the one token that had to be asked for.
  if (all === undefined || all.length < tokens.length)
    throw inputError("the server gives no log-probabilities of the prompt's own tokens", {
      where,
      hint: "it has to know echo and logprobs of /completions, as vLLM and SGLang do",
    });
  let logLikelihood = 0;
  let greedy = true;
  for (let place = tokens.length - count; place < tokens.length; place++) {
    const own = all[place] ?? NaN;
    logLikelihood += own;
    const best = Math.max(...Object.values(top?.[place] ?? {}));
    greedy &&= own >= best;
  }
  return { kind: "loglikelihood", logLikelihood, greedy };
}

async function generated(
  client: Client,
  model: string,
  { tokenizer, maxLength, prefixText }: Encoder,
  { context, until, maxTokens }: Extract<Request, { kind: "generate" }>,
): Promise<Answer> {
  const ids = await tokenizer.encode(context, { addSpecialTokens: !context.startsWith(prefixText) });
  const room = Math.max(1, maxLength + 1 - maxTokens);
  const [choice] = await client.complete({
    model,
    prompt: [[...ids.subarray(Math.max(0, ids.length - room))]],
    temperature: 0,
    max_tokens: maxTokens,
    // Servers take four stop strings at most.
    stop: until.slice(0, 4),
    seed: 1234,
  });
  return { kind: "generate", text: cutAt(until, choice?.text ?? "") };
}

/** Sends requests, and sends them again where the network or the server has trouble. */
class Client {
  constructor(
    readonly base: string,
    private readonly settings: ServerSettings,
  ) {}

  get(path: string): Promise<unknown> {
    return this.send(path, undefined);
  }

  /** The choices in the order of the prompts. */
  async complete(body: Readonly<Record<string, unknown>>): Promise<readonly Choice[]> {
    const { choices } = (await this.send("/completions", body)) as { choices?: readonly Choice[] };
    if (!Array.isArray(choices)) throw inputError("the server's answer has no choices", { where: this.base });
    return [...(choices as readonly Choice[])].sort((a, b) => (a.index ?? 0) - (b.index ?? 0));
  }

  private async send(path: string, body: Readonly<Record<string, unknown>> | undefined): Promise<unknown> {
    const { retryMs = 1000, signal, key } = this.settings;
    const headers: Record<string, string> = { "content-type": "application/json" };
    if (key !== undefined && key !== "") headers["authorization"] = `Bearer ${key}`;
    let trouble = "";
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (attempt > 0)
        await sleep(retryMs * 2 ** (attempt - 1), undefined, signal === undefined ? {} : { signal }).catch(
          () => undefined,
        );
      if (signal?.aborted === true) throw interruptedError("stopped while a server was asked", { where: this.base });
      try {
        const response = await fetch(this.base + path, {
          method: body === undefined ? "GET" : "POST",
          headers,
          ...(body !== undefined && { body: JSON.stringify(body) }),
          ...(signal !== undefined && { signal }),
        });
        if (response.ok) return await response.json();
        const text = (await response.text()).slice(0, 300);
        trouble = `HTTP ${response.status}: ${text}`;
        if (response.status < 500 && response.status !== 429 && response.status !== 408)
          throw inputError(`the server refuses ${path} (${trouble})`, { where: this.base });
      } catch (cause) {
        if (cause instanceof Error && cause.name === "UpcycleError") throw cause;
        trouble = (cause as { cause?: Error }).cause?.message ?? (cause as Error).message;
      }
    }
    throw stopError(`the server does not answer ${path} (${trouble})`, {
      where: this.base,
      hint: "the same command goes on with what is missing",
    });
  }
}
