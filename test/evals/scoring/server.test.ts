import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import type { Answered } from "../../../src/evals/scoring/model.js";
import { serverAddress, serverModel, type ServerSettings } from "../../../src/evals/scoring/server.js";
import type { Request, Sample } from "../../../src/evals/tasks/prompt.js";
import type { TextTokenizer } from "../../../src/text/tokenizer/load.js";

/** Each character is a token, with the number of its code; token 1 ends texts. */
const tokenizer: TextTokenizer = {
  vocab: 256,
  eosId: 1,
  bosId: undefined,
  encode: (text) => Promise.resolve(Int32Array.from(text, (letter) => letter.charCodeAt(0))),
  async *encodeAll(texts) {
    for await (const text of texts) yield Int32Array.from(text, (letter) => letter.charCodeAt(0));
  },
  decode: (ids) => Promise.resolve(String.fromCharCode(...ids)),
  idToToken: (id) => Promise.resolve(String.fromCharCode(id)),
  tokenToId: (token) => Promise.resolve(token.charCodeAt(0)),
  close: () => Promise.resolve(),
};

interface Body {
  readonly prompt: readonly (readonly number[])[];
  readonly echo?: boolean;
  readonly max_tokens: number;
  readonly stop?: readonly string[];
}

let server: Server | undefined;
afterEach(() => server?.close());

/** What a server answers to a path. */
interface Reply {
  readonly status?: number;
  readonly json: unknown;
}

/** A server whose answers are made of path and body; its address without a path. */
async function serve(answer: (path: string, body: unknown) => Reply): Promise<string> {
  server = createServer((request, response) => {
    let text = "";
    request.on("data", (part: Buffer) => (text += part.toString()));
    request.on("end", () => {
      const { status = 200, json } = answer(request.url ?? "", text === "" ? undefined : JSON.parse(text));
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(json));
    });
  });
  await new Promise<void>((resolve) => server?.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A server that gives log-probabilities of prompts: that of a token is minus its number over 1000. */
async function echoServer(
  choiceOf: (tokens: readonly number[], index: number) => object,
  answer: (body: Body) => Reply | null = () => null,
  models: readonly object[] = [{ id: "tiny", max_model_len: 40 }],
): Promise<{ readonly base: string; readonly bodies: Body[] }> {
  const bodies: Body[] = [];
  const address = await serve((path, sent) => {
    if (path === "/v1/models") return { json: { data: models } };
    const body = sent as Body;
    bodies.push(body);
    const choices = body.prompt.map((prompt, index) =>
      body.echo === true ? choiceOf(prompt, index) : { index, text: "yes, that is\nit" },
    );
    return answer(body) ?? { json: { choices: choices.reverse() } };
  });
  return { base: `${address}/v1`, bodies };
}

/** As vLLM refuses prompts that leave no room for what is to be generated (vllm/renderers/params.py). */
const refusesMoreThan =
  (most: number) =>
  ({ prompt, max_tokens: generated }: Body): Reply | null =>
    prompt.some(({ length }) => length > most - generated)
      ? { status: 400, json: { message: `This model's maximum context length is ${most} tokens.` } }
      : null;

const logProbability = (token: number): number => -token / 1000;

/**
 * A choice of vLLM (vllm/entrypoints/openai/serving_completion.py): the prompt's tokens and the one behind it, none for
 * the first; the most likely token beside each, where it is another; "a" is the likeliest everywhere.
 */
const vllmChoice = (prompt: readonly number[], index: number): object => {
  const all = [...prompt, 0];
  const beside = (token: number): object => (token === 97 ? {} : { a: -0.0001 });
  return {
    index,
    text: String.fromCharCode(...prompt),
    logprobs: {
      text_offset: all.map((_, place) => place),
      token_logprobs: all.map((token, place) => (place === 0 ? null : logProbability(token))),
      tokens: all.map((token) => String.fromCharCode(token)),
      top_logprobs: all.map((token, place) =>
        place === 0 ? null : { [String.fromCharCode(token)]: logProbability(token), ...beside(token) },
      ),
    },
    finish_reason: "length",
    stop_reason: null,
    prompt_logprobs: null,
  };
};

/** A choice of SGLang: as many likeliest tokens as are asked for, the token itself only where it is one of them. */
const sglangChoice = (prompt: readonly number[], index: number): object => {
  const all = [...prompt, 0];
  return {
    index,
    text: String.fromCharCode(...prompt),
    logprobs: {
      text_offset: [],
      token_logprobs: all.map((token, place) => (place === 0 ? null : logProbability(token))),
      tokens: all.map((token) => String.fromCharCode(token)),
      top_logprobs: all.map((_, place) => (place === 0 ? null : { a: logProbability(97) })),
    },
    finish_reason: "length",
    matched_stop: null,
  };
};

const sample = (id: number, requests: readonly Request[]): Sample => ({ id, doc: {}, target: "", requests });
const loglikelihood = (context: string, continuation: string): Request => ({
  kind: "loglikelihood",
  context,
  continuation,
});

async function ask(base: string, samples: readonly Sample[], settings: ServerSettings = {}): Promise<Answered[]> {
  const model = await serverModel({ base, model: undefined }, tokenizer, { retryMs: 1, ...settings });
  const questions = await model.prepare(samples, "task");
  const answers: Answered[] = [];
  for await (const batch of questions.answers(() => false)) answers.push(...batch);
  return answers;
}

describe("a completion server", () => {
  it("is read from an address, with the model's name behind it", () => {
    expect(serverAddress("http://localhost:8000/v1?model=org/name")).toEqual({
      base: "http://localhost:8000/v1",
      model: "org/name",
    });
    expect(serverAddress("https://host/v1/completions")).toEqual({ base: "https://host/v1", model: undefined });
    expect(serverAddress("models/dense")).toBeNull();
  });

  it.each([
    ["vLLM", vllmChoice],
    ["SGLang", sglangChoice],
  ])("such as %s gives the log-probabilities of continuations in any order", async (_, choiceOf) => {
    const { base, bodies } = await echoServer(choiceOf);
    const [answer] = await ask(base, [sample(0, [loglikelihood("Q:", " b"), loglikelihood("Q:", "aa")])]);
    expect(answer?.responses).toEqual([
      { kind: "loglikelihood", logLikelihood: -(32 + 98) / 1000, greedy: false },
      { kind: "loglikelihood", logLikelihood: -(97 + 97) / 1000, greedy: true },
    ]);
    expect(bodies[0]).toMatchObject({ echo: true, max_tokens: 1, temperature: 0, logprobs: 1, seed: 1234 });
    expect(bodies[0]?.prompt[0]).toEqual([...Buffer.from("Q: b")]);
  });

  it("cuts contexts off in front where the server takes fewer tokens, and says so", async () => {
    const { base, bodies } = await echoServer(vllmChoice, refusesMoreThan(40));
    const [answer] = await ask(base, [sample(0, [loglikelihood("x".repeat(60), "b")])]);
    expect(answer?.truncated).toBe(1);
    expect(bodies[0]?.prompt[0]).toHaveLength(39);
  });

  it("has room for the token that a server generates behind a prompt, in windows of long texts too", async () => {
    const { base, bodies } = await echoServer(vllmChoice, refusesMoreThan(40));
    const [answer] = await ask(base, [sample(0, [{ kind: "rolling", text: "a".repeat(100) }])]);
    expect(bodies[0]?.prompt.map(({ length }) => length)).toEqual([39, 39, 39]);
    const [response] = answer?.responses ?? [];
    expect(response?.kind === "rolling" && response.logLikelihood).toBeCloseTo(-9.7, 10);
    const request: Request = { kind: "generate", context: "Q".repeat(60), until: ["\n"], maxTokens: 8 };
    expect(await ask(base, [sample(0, [request])])).toHaveLength(1);
  });

  it("is asked without penalties where it would take them from the model's folder", async () => {
    const none = { repetition_penalty: 1, presence_penalty: 0, frequency_penalty: 0 };
    for (const [owner, expected] of [
      ["vllm", none],
      ["sglang", none],
      ["me", {}],
    ] as const) {
      const { base, bodies } = await echoServer(vllmChoice, undefined, [{ id: "tiny", owned_by: owner }]);
      await ask(base, [sample(0, [{ kind: "generate", context: "Q:", until: [], maxTokens: 8 }])]);
      expect(Object.fromEntries(Object.entries(bodies[0] ?? {}).filter(([key]) => key.endsWith("_penalty")))).toEqual(
        expected,
      );
      server?.close();
    }
  });

  it("generates until a stop string", async () => {
    const { base, bodies } = await echoServer(vllmChoice);
    const request: Request = { kind: "generate", context: "Q:", until: ["\n", ","], maxTokens: 8 };
    const [answer] = await ask(base, [sample(0, [request])]);
    expect(answer?.responses).toEqual([{ kind: "generate", text: "yes" }]);
    expect(bodies[0]).toMatchObject({ max_tokens: 8, stop: ["\n", ","] });
  });

  it("generates behind the token that begins texts where a prompt is empty and says what it cut", async () => {
    const { base, bodies } = await echoServer(vllmChoice);
    const generate = (context: string, maxTokens: number): Request => ({
      kind: "generate",
      context,
      until: [],
      maxTokens,
    });
    const answers = await ask(base, [sample(0, [generate("", 8)]), sample(1, [generate("Q".repeat(60), 8)])]);
    expect(answers.map(({ truncated }) => truncated)).toEqual([0, 1]);
    expect(bodies.map(({ prompt: [first] }) => first?.length)).toEqual([1, 31]);
    expect(bodies[0]?.prompt).toEqual([[1]]);
    await expect(ask(base, [sample(0, [generate("Q:", 100)])])).rejects.toThrow(
      /answers of up to 100 tokens leave no room among 39 positions/,
    );
  });

  it("is asked again after trouble, and refused for what it cannot do", async () => {
    let failures = 2;
    const busy = await echoServer(vllmChoice, () => (failures-- > 0 ? { status: 503, json: {} } : null));
    expect(await ask(busy.base, [sample(0, [loglikelihood("Q:", "b")])])).toHaveLength(1);
    server?.close();
    const mute = await echoServer(vllmChoice, () => ({ json: { choices: [{ index: 0, text: "b", logprobs: null }] } }));
    await expect(ask(mute.base, [sample(0, [loglikelihood("Q:", "b")])])).rejects.toThrow(/no log-probabilities/);
    server?.close();
    const two = await echoServer(vllmChoice, () => null, [{ id: "a" }, { id: "b" }]);
    await expect(ask(two.base, [])).rejects.toThrow(UpcycleError);
  });
});

/** What is sent to llama.cpp. */
interface LlamaCppBody {
  readonly prompt: readonly number[];
  readonly n_predict: number;
  readonly n_probs?: number;
  readonly logit_bias?: readonly (readonly [number, number])[];
  readonly stop?: readonly string[];
  readonly tokens?: readonly number[];
}

/**
 * llama.cpp's server with two slots of 40 tokens: behind a prompt of n tokens, token n has the log-probability -0.1,
 * and every other -1 minus its number over 1000; token 299 has the probability 0.
 */
async function llamaCppServer(
  changes: { readonly detokenized?: string; readonly withIds?: boolean } = {},
): Promise<{ readonly base: string; readonly bodies: LlamaCppBody[]; readonly paths: string[] }> {
  const bodies: LlamaCppBody[] = [];
  const paths: string[] = [];
  const vocabulary = 300;
  const completion = ({ prompt, n_probs: count = 0, n_predict: most }: LlamaCppBody): object => {
    if (most > 1) return { content: "yes, that is\nit", stop: true };
    const all = Array.from({ length: vocabulary }, (_, id) => ({
      ...(changes.withIds !== false && { id }),
      token: String.fromCharCode(id),
      logprob: id === 299 ? -3.4028234663852886e38 : id === prompt.length ? -0.1 : -1 - id / 1000,
    })).sort((a, b) => b.logprob - a.logprob);
    return { content: "", completion_probabilities: [{ ...all[0], top_logprobs: all.slice(0, count) }] };
  };
  const address = await serve((path, sent) => {
    paths.push(path);
    const body = sent as LlamaCppBody;
    switch (path) {
      case "/v1/models":
        return { json: { data: [{ id: "tiny.gguf", owned_by: "llamacpp", meta: { n_vocab: vocabulary } }] } };
      case "/props?model=tiny.gguf":
        return { json: { total_slots: 2, default_generation_settings: { n_ctx: 40 } } };
      case "/detokenize":
        return { json: { content: changes.detokenized ?? String.fromCharCode(...(body.tokens ?? [])) } };
      case "/completion":
        bodies.push(body);
        return { json: completion(body) };
      default:
        return { status: 404, json: {} };
    }
  });
  return { base: `${address}/v1`, bodies, paths };
}

describe("llama.cpp's own server", () => {
  it("is asked for the next token at every scored place, once for choices that share it", async () => {
    const { base, bodies } = await llamaCppServer();
    const [answer] = await ask(base, [sample(0, [loglikelihood("Q:", "bc"), loglikelihood("Q:", "bd")])]);
    expect(answer?.responses).toEqual([
      { kind: "loglikelihood", logLikelihood: -1.098 - 1.099, greedy: false },
      { kind: "loglikelihood", logLikelihood: -1.098 - 1.1, greedy: false },
    ]);
    expect(bodies.map(({ prompt }) => String.fromCharCode(...prompt))).toEqual(["Q:", "Q:b"]);
    expect(bodies[0]).toMatchObject({
      n_predict: 1,
      n_probs: 256,
      post_sampling_probs: false,
      cache_prompt: true,
      logit_bias: [[1, 1e9]],
    });
  });

  it("is asked for its whole vocabulary where a scored token is not among the likeliest", async () => {
    const { base, bodies } = await llamaCppServer();
    const [rare, impossible] = [String.fromCharCode(290), String.fromCharCode(299)];
    const [answer] = await ask(base, [sample(0, [loglikelihood("Q:", rare), loglikelihood("Q:", impossible)])]);
    expect(answer?.responses).toEqual([
      { kind: "loglikelihood", logLikelihood: -1.29, greedy: false },
      { kind: "loglikelihood", logLikelihood: -Infinity, greedy: false },
    ]);
    expect(bodies.map(({ n_probs: count }) => count)).toEqual([256, 300]);
  });

  it("says which continuations are the likeliest, and cuts contexts that are too long", async () => {
    const { base, bodies } = await llamaCppServer();
    const likeliest = String.fromCharCode(33, 34);
    const [short, long] = await ask(base, [
      sample(0, [loglikelihood("x".repeat(33), likeliest)]),
      sample(1, [loglikelihood("x".repeat(60), "b")]),
    ]);
    expect(short?.responses).toEqual([{ kind: "loglikelihood", logLikelihood: -0.2, greedy: true }]);
    expect([short?.truncated, long?.truncated]).toEqual([0, 1]);
    expect(Math.max(...bodies.map(({ prompt }) => prompt.length))).toBe(39);
  });

  it("generates until a stop string", async () => {
    const { base, bodies } = await llamaCppServer();
    const request: Request = { kind: "generate", context: "Q:", until: ["\n", ",", ";", "?", "!"], maxTokens: 8 };
    const [answer] = await ask(base, [sample(0, [request])]);
    expect(answer?.responses).toEqual([{ kind: "generate", text: "yes" }]);
    expect(bodies[0]).toMatchObject({ n_predict: 8, stop: ["\n", ",", ";", "?", "!"] });
  });

  it("is asked together only about what its places have room for, which share their keys and values", async () => {
    const model = await serverModel({ base: (await llamaCppServer()).base, model: undefined }, tokenizer, {
      retryMs: 1,
    });
    const request = (length: number): Request => ({
      kind: "generate",
      context: "Q".repeat(length),
      until: [],
      maxTokens: 8,
    });
    const questions = await model.prepare(
      [30, 5, 5, 30].map((length, id) => sample(id, [request(length)])),
      "task",
    );
    const sizes: number[] = [];
    for await (const batch of questions.answers(() => false)) sizes.push(batch.length);
    expect(sizes).toEqual([1, 2, 1]);
  });

  it("is refused for more tokens than it has, and for a model that it does not have", async () => {
    const { base } = await llamaCppServer();
    await expect(ask(base, [], { maxLength: 41 })).rejects.toThrow(/41 tokens are more than the server's 40/);
    await expect(serverModel({ base, model: "other" }, tokenizer, {})).rejects.toThrow(
      /the server has tiny.gguf, and no model other/,
    );
  });

  it("is quoted with what its error says", async () => {
    // As llama.cpp v0.4.0 answers.
    const error = { code: 401, message: "Invalid API Key", type: "authentication_error" };
    const address = await serve(() => ({ status: 401, json: { error } }));
    await expect(ask(`${address}/v1`, [])).rejects.toThrow("the server refuses /models (HTTP 401: Invalid API Key)");
  });

  it("is refused with another tokenizer, and where it does not say which tokens are likely", async () => {
    const other = await llamaCppServer({ detokenized: "Dbmm nf" });
    await expect(ask(other.base, [])).rejects.toThrow(/the tokenizer is not that of the server's model/);
    server?.close();
    const old = await llamaCppServer({ withIds: false });
    await expect(ask(old.base, [sample(0, [loglikelihood("Q:", "b")])])).rejects.toThrow(
      /no log-probabilities with the numbers of their tokens/,
    );
  });
});
