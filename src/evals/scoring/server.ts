/**
 * A model behind a completion server (vLLM, SGLang, llama.cpp): prompts go out as token ids of a tokenizer that is
 * here, and log-probabilities come back. Chat completions cannot do that.
 */
import { inputError } from "../../base/errors.js";
import type { TextTokenizer } from "../../text/tokenizer/load.js";
import type { Response as Answer } from "../tasks/sample-results.js";
import type { Sample } from "../tasks/prompt.js";
import { cutAt, endTextOf, generationPrompts } from "./generate-until.js";
import type { AnsweringModel } from "./model.js";
import { encoderOf, sequencesOf, type Encoder } from "./sequences.js";
import type { ServerApi } from "./server-api.js";
import { Client, type ClientSettings } from "./server-client.js";
import { echoApi, type EchoModel } from "./server-echo.js";
import { llamaCppApi, type LlamaCppModel } from "./server-llama-cpp.js";

/** Where a model is reached. */
export interface ServerAddress {
  /** Address of the API, such as `http://localhost:8000/v1`. */
  readonly base: string;
  /** What the server calls the model; undefined: the only one that it has. */
  readonly model: string | undefined;
}

/** How a server is asked. */
export interface ServerSettings extends ClientSettings {
  /** Most tokens of prompt and answer; what the server says, else 2048. */
  readonly maxLength?: number | undefined;
}

/** The harness's own limit where nobody says another. */
const DEFAULT_LENGTH = 2048;

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

/** What `/models` says about a model. */
type ListedModel = LlamaCppModel & EchoModel;

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
  const listed = ((await client.get("/models")) as { data?: readonly ListedModel[] }).data ?? [];
  const own = model === undefined ? listed[0] : listed.find(({ id }) => id === model);
  const names = listed.map(({ id }) => id).join(", ") || "no models";
  if (own === undefined || (model === undefined && listed.length > 1))
    throw inputError(`the server has ${names}${model === undefined ? "" : `, and no model ${model}`}`, {
      where: base,
      hint: "name one: ADDRESS?model=NAME",
    });
  const api =
    own.owned_by === "llamacpp"
      ? await llamaCppApi(new Client(base.replace(/\/v1$/, ""), settings), own, tokenizer)
      : echoApi(client, own);
  if ((settings.maxLength ?? 0) > (api.maxLength ?? Infinity))
    throw inputError(`${settings.maxLength} tokens are more than the server's ${api.maxLength}`, {
      where: "--max-length",
      hint: "start the server with more, or ask for fewer",
    });
  const maxLength = settings.maxLength ?? api.maxLength ?? DEFAULT_LENGTH;
  // All tokens are counted, the last one too, which a model here would only be asked about.
  const encoder = await encoderOf(tokenizer, maxLength - 1 - api.behind, base);
  return {
    name: own.id,
    maxLength,
    async prepare(samples, where) {
      const questions = await (samples[0]?.requests[0]?.kind === "generate" ? generations : scorings)(
        samples,
        { api, encoder },
        where,
      );
      return {
        tokens: questions.map(({ tokens }) => tokens),
        async *answers(isDone, signal) {
          const pending = questions.flatMap((question, sample) => (isDone(sample) ? [] : [{ ...question, sample }]));
          for (let i = 0; i < pending.length && signal?.aborted !== true;) {
            const batch = pending.slice(i, i + countTogether(pending.slice(i, i + api.together), api.roomTogether));
            i += batch.length;
            const answers = await Promise.all(batch.map(({ ask }) => ask())).catch((cause: unknown) => {
              if (signal?.aborted === true) return null;
              throw cause;
            });
            if (answers === null) return;
            yield batch.map(({ sample, truncated }, k) => ({ sample, truncated, responses: answers[k]! }));
          }
        },
      };
    },
    close: () => tokenizer.close(),
  };
}

/** How many of the first questions have room together: one at least. */
function countTogether(questions: readonly Question[], room = Infinity): number {
  let used = 0;
  const tooMuch = questions.findIndex(({ longest }) => (used += longest) > room);
  return tooMuch < 0 ? questions.length : Math.max(1, tooMuch);
}

/** What a server is asked about one sample. */
interface Question {
  /** Tokens of the longest sequence that it is asked about, or of prompt and answer. */
  readonly longest: number;
  /** Its work, in tokens. */
  readonly tokens: number;
  /** Requests whose context was cut off in front. */
  readonly truncated: number;
  readonly ask: () => Promise<readonly Answer[]>;
}

interface Asking {
  readonly api: ServerApi;
  readonly encoder: Encoder;
}

async function scorings(
  samples: readonly Sample[],
  { api, encoder }: Asking,
  where: string,
): Promise<readonly Question[]> {
  const sequences = await sequencesOf(samples, encoder, where);
  return sequences.map((own, sample) => ({
    longest: own.reduce((most, { tokens }) => Math.max(most, tokens.length), 0),
    tokens: own.reduce((sum, { tokens }) => sum + tokens.length, 1),
    truncated: own.filter(({ truncated }) => truncated).length,
    async ask() {
      const scores = await api.score(own);
      return samples[sample]!.requests[0]?.kind === "rolling"
        ? [{ kind: "rolling", logLikelihood: scores.reduce((sum, { logLikelihood }) => sum + logLikelihood, 0) }]
        : scores;
    },
  }));
}

async function generations(
  samples: readonly Sample[],
  { api, encoder }: Asking,
  where: string,
): Promise<readonly Question[]> {
  // Prompt and answer have all positions; only what is asked about a sequence is one more.
  const prompts = await generationPrompts(samples, { ...encoder, maxLength: encoder.maxLength + 1 }, where);
  const endText = await endTextOf(encoder.tokenizer);
  return prompts
    .sort((a, b) => a.sample - b.sample)
    .map(({ ids, request, truncated }) => ({
      longest: ids.length + request.maxTokens,
      tokens: ids.length + request.maxTokens,
      truncated: truncated ? 1 : 0,
      async ask() {
        const text = await api.generate([...ids], request);
        return [{ kind: "generate", text: cutAt([...request.until, endText], text) }];
      },
    }));
}
