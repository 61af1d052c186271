import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generate, type GenerateSettings } from "../../src/evals/generate.js";
import { openModel, type RunnableModel } from "../../src/evals/model.js";
import { argmax } from "../../src/text/sample.js";
import { temporaryFolder } from "../io/temporary.js";
import { inThread } from "../support/backend.js";
import { golden } from "../support/golden.js";

const root = temporaryFolder();
const prompt = Int32Array.of(5, 17, 80);
const greedy: GenerateSettings = { temperature: 0, maxNewTokens: 45, seed: 0, stop: [] };
let model: RunnableModel;
beforeAll(async () => void (model = await openModel(golden("moe/qwen3_moe"), inThread, 1)));
afterAll(() => model.close());

async function collect(from: RunnableModel, start: Int32Array, settings: GenerateSettings): Promise<number[]> {
  const out: number[] = [];
  for await (const id of generate(from, start, settings)) out.push(id);
  return out;
}

/** Argmax of a full forward over exactly the last `window` tokens, again and again. */
async function chain(from: RunnableModel, start: Int32Array, count: number, window = Infinity): Promise<number[]> {
  const text = Array.from(start);
  for (let i = 0; i < count; i++) {
    const seen = Int32Array.from(text.slice(-window));
    const logits = await from.logits(seen, { batch: 1, sequence: seen.length });
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
    writeFileSync(path, readFileSync(path, "utf8").replace(/"max_position_embeddings": \d+/, `"max_position_embeddings": ${positions}`));
    const short = await openModel(dir, inThread, 1);
    expect(short.spec.maxPositions).toBe(positions);
    const lengths = new Set<number>();
    const watched: RunnableModel = { ...short, logits: (ids, shape, rows) => (lengths.add(shape.sequence), short.logits(ids, shape, rows)) };
    expect(await collect(watched, prompt, greedy)).toEqual(await chain(short, prompt, 45, positions));
    expect(Math.max(...lengths)).toBe(positions);
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
    const first = text.indexOf(text[4]!);
    expect(await collect(model, prompt, { ...greedy, stop: [text[4]!] })).toEqual(text.slice(0, first));
    expect(await collect(model, prompt, { ...greedy, maxNewTokens: 0 })).toEqual([]);
    const controller = new AbortController();
    const seen: number[] = [];
    for await (const id of generate(model, prompt, { ...greedy, signal: controller.signal })) if (seen.push(id) === 3) controller.abort();
    expect(seen).toEqual(text.slice(0, 3));
  });

  it("refuses an empty prompt and unknown ids", async () => {
    await expect(collect(model, new Int32Array(0), greedy)).rejects.toThrow("the prompt has no tokens");
    await expect(collect(model, Int32Array.of(96), greedy)).rejects.toThrow("token id 96 is outside the vocabulary 0..95");
  });
});
