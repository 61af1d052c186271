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

/** A server as vLLM answers: the log-probability of a token is minus its number over 1000, that of "a" the largest. */
async function fakeServer(
  answer: (body: Body) => { readonly status?: number; readonly json?: unknown } | null = () => null,
  models: readonly object[] = [{ id: "tiny", max_model_len: 40 }],
): Promise<{ readonly base: string; readonly bodies: Body[] }> {
  const bodies: Body[] = [];
  server = createServer((request, response) => {
    let text = "";
    request.on("data", (part: Buffer) => (text += part.toString()));
    request.on("end", () => {
      const reply = (status: number, json: unknown): void =>
        void response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(json));
      if (request.url === "/v1/models") return reply(200, { data: models });
      const body = JSON.parse(text) as Body;
      bodies.push(body);
      const own = answer(body);
      if (own !== null) return reply(own.status ?? 200, own.json ?? {});
      const choices = body.prompt.map((prompt, index) => {
        if (body.echo !== true) return { index, text: "yes, that is\nit" };
        const all = [...prompt, 0];
        return {
          index,
          logprobs: {
            token_logprobs: all.map((token, place) => (place === 0 ? null : -token / 1000)),
            top_logprobs: all.map((token, place) =>
              place === 0 ? null : { x: token === 97 ? -0.097 : -0.001, [String(token)]: -token / 1000 },
            ),
          },
        };
      });
      reply(200, { choices: choices.reverse() });
    });
  });
  await new Promise<void>((resolve) => server?.listen(0, "127.0.0.1", resolve));
  return { base: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`, bodies };
}

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

  it("gives the log-probabilities of continuations, whatever the order of its answers", async () => {
    const { base, bodies } = await fakeServer();
    const [answer] = await ask(base, [sample(0, [loglikelihood("Q:", " b"), loglikelihood("Q:", "aa")])]);
    expect(answer?.responses).toEqual([
      { kind: "loglikelihood", logLikelihood: -(32 + 98) / 1000, greedy: false },
      { kind: "loglikelihood", logLikelihood: -(97 + 97) / 1000, greedy: true },
    ]);
    expect(bodies[0]).toMatchObject({ echo: true, max_tokens: 1, temperature: 0, logprobs: 1, seed: 1234 });
    expect(bodies[0]?.prompt[0]).toEqual([...Buffer.from("Q: b")]);
  });

  it("cuts contexts off in front where the server takes fewer tokens, and says so", async () => {
    const { base, bodies } = await fakeServer();
    const [answer] = await ask(base, [sample(0, [loglikelihood("x".repeat(60), "b")])]);
    expect(answer?.truncated).toBe(1);
    expect(bodies[0]?.prompt[0]).toHaveLength(40);
  });

  it("generates until a stop string", async () => {
    const { base, bodies } = await fakeServer();
    const request: Request = { kind: "generate", context: "Q:", until: ["\n", ","], maxTokens: 8 };
    const [answer] = await ask(base, [sample(0, [request])]);
    expect(answer?.responses).toEqual([{ kind: "generate", text: "yes" }]);
    expect(bodies[0]).toMatchObject({ max_tokens: 8, stop: ["\n", ","] });
  });

  it("is asked again after trouble, and refused for what it cannot do", async () => {
    let failures = 2;
    const busy = await fakeServer(() => (failures-- > 0 ? { status: 503 } : null));
    expect(await ask(busy.base, [sample(0, [loglikelihood("Q:", "b")])])).toHaveLength(1);
    server?.close();
    const mute = await fakeServer(() => ({ json: { choices: [{ index: 0, text: "b", logprobs: null }] } }));
    await expect(ask(mute.base, [sample(0, [loglikelihood("Q:", "b")])])).rejects.toThrow(/no log-probabilities/);
    server?.close();
    const two = await fakeServer(() => null, [{ id: "a" }, { id: "b" }]);
    await expect(ask(two.base, [])).rejects.toThrow(UpcycleError);
  });
});
