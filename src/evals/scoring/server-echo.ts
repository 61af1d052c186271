/**
 * Servers that give the log-probabilities of a prompt's own tokens (vLLM, SGLang, llama-cpp-python): `/completions`
 * with `echo` and `logprobs`, as the LM Evaluation Harness asks them (lm_eval/models/openai_completions.py).
 */
import { inputError } from "../../base/errors.js";
import { SEED, type LogLikelihood, type ServerApi } from "./server-api.js";
import type { Client } from "./server-client.js";
import type { Sequence } from "./sequences.js";

interface Choice {
  readonly index?: number;
  readonly text?: string;
  readonly logprobs?: {
    readonly token_logprobs?: readonly (number | null)[];
    readonly top_logprobs?: readonly (Readonly<Record<string, number>> | null)[];
  } | null;
}

/** Samples that are asked at once, each in a request of its own. */
const TOGETHER = 8;
/** Stop strings that servers take at most. */
const MOST_STOPS = 4;

/** What `/models` says about a model. */
export interface EchoModel {
  readonly id: string;
  readonly owned_by?: string;
  readonly max_model_len?: number;
}

/**
 * vLLM and SGLang take settings that a request leaves out from the model's generation_config.json, where a penalty on
 * repetition would make an answer another one than the likeliest.
 */
const NO_PENALTIES = { repetition_penalty: 1, presence_penalty: 0, frequency_penalty: 0 };
const withDefaultsOfModels: readonly (string | undefined)[] = ["vllm", "sglang"];

/** The API of such a server. */
export function echoApi(
  client: Client,
  { id: model, owned_by: owner, max_model_len: maxLength }: EchoModel,
): ServerApi {
  const penalties = withDefaultsOfModels.includes(owner) ? NO_PENALTIES : {};
  return {
    maxLength,
    behind: 1,
    together: TOGETHER,
    async score(sequences) {
      if (sequences.length === 0) return [];
      const choices = await complete(client, {
        model,
        prompt: sequences.map(({ tokens }) => [...tokens]),
        temperature: 0,
        max_tokens: 1,
        logprobs: 1,
        echo: true,
        seed: SEED,
      });
      return sequences.map((sequence, i) => scoreOf(sequence, choices[i], client.base));
    },
    async generate(prompt, { until, maxTokens }) {
      const [choice] = await complete(client, {
        model,
        prompt: [prompt],
        temperature: 0,
        max_tokens: maxTokens,
        stop: until.slice(0, MOST_STOPS),
        seed: SEED,
        ...penalties,
      });
      return choice?.text ?? "";
    },
  };
}

/** The choices in the order of the prompts. */
async function complete(client: Client, body: Readonly<Record<string, unknown>>): Promise<readonly Choice[]> {
  const { choices } = (await client.post("/completions", body)) as { choices?: readonly Choice[] };
  if (!Array.isArray(choices)) throw inputError("the server's answer has no choices", { where: client.base });
  return [...(choices as readonly Choice[])].sort((a, b) => (a.index ?? 0) - (b.index ?? 0));
}

function scoreOf({ tokens, scored: count }: Sequence, choice: Choice | undefined, where: string): LogLikelihood {
  const all = choice?.logprobs?.token_logprobs;
  const top = choice?.logprobs?.top_logprobs;
  // Behind the prompt comes the one token that had to be asked for.
  if (all === undefined || all.length < tokens.length)
    throw inputError("the server gives no log-probabilities of the prompt's own tokens", {
      where,
      hint: "it has to know echo and logprobs of /completions, as vLLM and SGLang do, or be llama.cpp's own server",
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
