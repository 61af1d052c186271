/**
 * A model behind a completion server (vLLM, SGLang, llama.cpp): prompts go out as token ids of a tokenizer that is
 * here, and log-probabilities come back. Chat completions cannot do that.
 */
import { inputError } from "../../base/errors.js";
import type { TextTokenizer } from "../../text/tokenizer/load.js";
import type { Response as Answer } from "../tasks/sample-results.js";
import type { Request } from "../tasks/prompt.js";
import { cutAt } from "./generate-until.js";
import type { AnsweringModel } from "./model.js";
import { encoderOf, sequencesOf, type Encoder } from "./sequences.js";
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

type GenerateRequest = Extract<Request, { kind: "generate" }>;

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
  if (own === undefined || (model === undefined && listed.length > 1))
    throw inputError(`the server has ${listed.map(({ id }) => id).join(", ") || "no models"}`, {
      where: base,
      hint: "name one: ADDRESS?model=NAME",
    });
  const api =
    own.owned_by === "llamacpp"
      ? await llamaCppApi(new Client(base.replace(/\/v1$/, ""), settings), own, tokenizer)
      : echoApi(client, own);
  const maxLength = settings.maxLength ?? api.maxLength ?? DEFAULT_LENGTH;
  // All tokens are counted, the last one too, which a model here would only be asked about.
  const encoder = await encoderOf(tokenizer, maxLength - 1 - api.behind, base);
  return {
    name: own.id,
    maxLength,
    async prepare(samples, where) {
      const sequences = await sequencesOf(samples, encoder, where);
      const ask = async (sample: number): Promise<readonly Answer[]> => {
        const { requests } = samples[sample]!;
        const [first] = requests;
        if (first?.kind === "generate") {
          const text = await api.generate(await promptOf(encoder, first), first);
          return [{ kind: "generate", text: cutAt(first.until, text) }];
        }
        const scores = await api.score(sequences[sample]!);
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
          for (let i = 0; i < pending.length && signal?.aborted !== true; i += api.together) {
            const batch = pending.slice(i, i + api.together);
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

/** The tokens of a prompt, which leave room for its answer: what is too long is cut off in front. */
async function promptOf(
  { tokenizer, maxLength, prefixText }: Encoder,
  { context, maxTokens }: GenerateRequest,
): Promise<readonly number[]> {
  const ids = await tokenizer.encode(context, { addSpecialTokens: !context.startsWith(prefixText) });
  const room = Math.max(1, maxLength + 1 - maxTokens);
  return [...ids.subarray(Math.max(0, ids.length - room))];
}
