import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import {
  generate,
  generateBatch,
  type GeneratedToken,
  type GenerateSettings,
  type RoutedToken,
} from "../../src/evals/generate.js";
import { openModel, type TextModel } from "../../src/evals/model.js";
import { argmax } from "../../src/text/tokens/sample.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { inThread } from "../support/backend.js";
import { golden } from "../support/golden.js";

const root = temporaryFolder();
const prompt = Int32Array.of(5, 17, 80);
const greedy: GenerateSettings = { temperature: 0, maxNewTokens: 45, seed: 0, stop: [] };
let model: TextModel;
beforeAll(async () => void (model = await openModel(golden("moe/qwen3_moe"), inThread, 1)));
afterAll(() => model.close());

async function collect(from: TextModel, start: Int32Array, settings: GenerateSettings): Promise<number[]> {
  const out: number[] = [];
  for await (const id of generate(from, start, settings)) out.push(id);
  return out;
}

async function collectTokens(
  from: TextModel,
  start: Int32Array,
  settings: GenerateSettings,
): Promise<GeneratedToken[]> {
  const out: GeneratedToken[] = [];
  for await (const token of generateBatch(from, [start], settings)) out.push(token);
  return out;
}

interface RoutedText {
  readonly ids: readonly number[];
  readonly layers: readonly {
    readonly experts: readonly (readonly number[])[];
    readonly weights: readonly (readonly number[])[];
  }[];
  /** Ids and log-probabilities. */
  readonly last: readonly (readonly [number, number])[];
}
const routed = JSON.parse(readFileSync(new URL("./transformers-routing.json", import.meta.url), "utf8")) as Readonly<
  Record<string, RoutedText>
>;

/** Argmax of a full forward over exactly the last `window` tokens, again and again. */
async function chain(from: TextModel, start: Int32Array, count: number, window = Infinity): Promise<number[]> {
  const text = Array.from(start);
  for (let i = 0; i < count; i++) {
    const context = Int32Array.from(text.slice(-window));
    const logits = await from.logits(context, { batch: 1, sequence: context.length });
    text.push(argmax(logits.subarray(-from.spec.vocab)));
  }
  return text.slice(start.length);
}

describe("generation", () => {
  it("greedy is the argmax of a full forward at every token, also where the compiled length doubles", async () => {
    // 3 + 45 tokens pass the first compiled length of 32.
    expect(await collect(model, prompt, greedy)).toEqual(await chain(model, prompt, 45));
  });

  it.each([12, 40])("slides its window past %i positions", async (positions) => {
    const dir = join(root, `short${positions}`);
    cpSync(golden("moe/qwen3_moe"), dir, { recursive: true });
    const path = join(dir, "config.json");
    writeFileSync(
      path,
      readFileSync(path, "utf8").replace(/"max_position_embeddings": \d+/, `"max_position_embeddings": ${positions}`),
    );
    const short = await openModel(dir, inThread, 1);
    expect(short.spec.maxPositions).toBe(positions);
    const lengths = new Set<number>();
    const watched: TextModel = {
      ...short,
      logits: (ids, shape, rows) => (lengths.add(shape.sequence), short.logits(ids, shape, rows)),
    };
    expect(await collect(watched, prompt, greedy)).toEqual(await chain(short, prompt, 45, positions));
    expect(Math.max(...lengths)).toBe(positions);
    await short.close();
  });

  it("gives each of several prompts the text that it has alone, however long it is and whenever it ends", async () => {
    const prompts = [prompt, Int32Array.from({ length: 70 }, (_, i) => (i * 7) % 96), Int32Array.of(9)];
    const alone = await Promise.all(prompts.map((text) => chain(model, text, 45)));
    const stop = [at(at(alone, 2), 20)];
    const ended = (text: readonly number[]): readonly number[] =>
      text.includes(at(stop, 0)) ? text.slice(0, text.indexOf(at(stop, 0))) : text;
    for (const [settings, expected] of [
      [greedy, alone],
      [{ ...greedy, stop }, alone.map(ended)],
    ] as const) {
      const out: number[][] = prompts.map(() => []);
      for await (const { row, id } of generateBatch(model, prompts, settings)) at(out, row).push(id);
      expect(out).toEqual(expected);
    }
  });

  it("of several prompts slides the windows of those that have become too long, and only theirs", async () => {
    const dir = join(root, "batch");
    cpSync(golden("moe/qwen3_moe"), dir, { recursive: true });
    const path = join(dir, "config.json");
    writeFileSync(
      path,
      readFileSync(path, "utf8").replace(/"max_position_embeddings": \d+/, '"max_position_embeddings": 24'),
    );
    const short = await openModel(dir, inThread, 1);
    const prompts = [
      prompt,
      Int32Array.from({ length: 30 }, (_, i) => (i * 5) % 96),
      Int32Array.from({ length: 20 }, (_, i) => (i * 11) % 96),
    ];
    const out: number[][] = prompts.map(() => []);
    for await (const { row, id } of generateBatch(short, prompts, { ...greedy, maxNewTokens: 12 }))
      at(out, row).push(id);
    expect(out).toEqual(await Promise.all(prompts.map((text) => chain(short, text, 12, 24))));
    await short.close();
  });

  it("samples the same text for a seed, another for another", async () => {
    const settings = { ...greedy, temperature: 1.5, maxNewTokens: 20, seed: 3 };
    const text = await collect(model, prompt, settings);
    expect(await collect(model, prompt, settings)).toEqual(text);
    expect(await collect(model, prompt, { ...settings, seed: 4 })).not.toEqual(text);
    // One candidate left is the greedy one.
    expect(await collect(model, prompt, { ...settings, topK: 1 })).toEqual(await chain(model, prompt, 20));
    expect(await collect(model, prompt, { ...settings, topP: 1e-9 })).toEqual(await chain(model, prompt, 20));
  });

  it("stops at a stop token, at a signal, and at nothing to say", async () => {
    const text = await chain(model, prompt, 10);
    const first = text.indexOf(at(text, 4));
    expect(await collect(model, prompt, { ...greedy, stop: [at(text, 4)] })).toEqual(text.slice(0, first));
    expect(await collect(model, prompt, { ...greedy, maxNewTokens: 0 })).toEqual([]);
    const controller = new AbortController();
    const ids: number[] = [];
    for await (const id of generate(model, prompt, { ...greedy, signal: controller.signal }))
      if (ids.push(id) === 3) controller.abort();
    expect(ids).toEqual(text.slice(0, 3));
  });

  // Hugging Face transformers 5.18.0, float32: softmax of `router_logits`, its largest entries, renormalised where the
  // model does so, and the five largest log-probabilities behind the last token.
  it.each(Object.entries(routed))("tells the experts of each token as transformers does: %s", async (name, found) => {
    const one = await openModel(golden(`moe/${name}`), inThread, 1);
    const told: RoutedToken[] = [];
    const [first] = await collectTokens(one, Int32Array.from(found.ids), {
      ...greedy,
      maxNewTokens: 1,
      alternatives: 5,
      onExperts: (token) => told.push(token),
    });
    // The new token is read too, at the end.
    expect(told.map(({ place }) => place)).toEqual([...found.ids.keys(), found.ids.length]);
    expect(told.map(({ id }) => id)).toEqual([...found.ids, first!.id]);
    for (const { place, layers } of told.slice(0, -1)) {
      expect(layers.map(({ experts }) => experts)).toEqual(found.layers.map(({ experts }) => experts[place]));
      for (const [i, { weights }] of layers.entries())
        weights.forEach((weight, k) => expect(weight).toBeCloseTo(found.layers[i]!.weights[place]![k]!, 5));
    }
    expect(first!.alternatives?.map(({ id }) => id)).toEqual(found.last.map(([id]) => id));
    first!.alternatives?.forEach(({ logProbability }, i) => expect(logProbability).toBeCloseTo(found.last[i]![1], 4));
    expect(first!.logProbability).toBe(first!.alternatives?.[0]?.logProbability);
    await one.close();
  });

  it("tells the experts of tokens one by one as of a whole text, of several texts too, and changes no token", async () => {
    const prompts = [prompt, Int32Array.from({ length: 37 }, (_, i) => (i * 7) % 96)];
    const settings = { ...greedy, temperature: 1, maxNewTokens: 6, seed: 5 };
    const plain: GeneratedToken[] = [];
    for await (const token of generateBatch(model, prompts, settings)) plain.push(token);
    const told: RoutedToken[][] = [[], []];
    const traced: GeneratedToken[] = [];
    const onExperts = (token: RoutedToken): void => void at(told, token.row).push(token);
    for await (const { row, id } of generateBatch(model, prompts, { ...settings, alternatives: 2, onExperts }))
      traced.push({ row, id });
    expect(traced).toEqual(plain);
    for (const [row, start] of prompts.entries()) {
      const text = [...start, ...plain.filter((token) => token.row === row).map(({ id }) => id)];
      const whole: RoutedToken[] = [];
      await collectTokens(model, Int32Array.from(text), {
        ...greedy,
        maxNewTokens: 1,
        onExperts: (token) => whole.push(token),
      });
      expect(at(told, row).map(({ id }) => id)).toEqual(text);
      at(told, row).forEach(({ place, layers }) =>
        expect(layers.map(({ experts }) => experts)).toEqual(at(whole, place).layers.map(({ experts }) => experts)),
      );
    }
  });

  it("refuses an empty prompt and unknown ids", async () => {
    await expect(collect(model, new Int32Array(0), greedy)).rejects.toThrow("the prompt has no tokens");
    const nothing = generateBatch(model, [prompt, new Int32Array(0)], greedy);
    await expect(nothing.next()).rejects.toThrow("prompt 2 has no tokens");
    await expect(generateBatch(model, [], greedy).next()).rejects.toThrow("there is no prompt");
    await expect(collect(model, Int32Array.of(96), greedy)).rejects.toThrow(
      "token id 96 is outside the vocabulary 0..95",
    );
  });
});
