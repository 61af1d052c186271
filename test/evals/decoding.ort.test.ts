import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import { startDecoding } from "../../src/evals/decoding.js";
import { generateBatch } from "../../src/evals/generate.js";
import { openModel, type TextModel } from "../../src/evals/model.js";
import { slidingPerplexity, type PerplexitySettings } from "../../src/evals/perplexity.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { inThread } from "../support/backend.js";
import { golden, goldenModels } from "../support/golden.js";

const root = temporaryFolder();

/** Logits behind each text, computed without a cache. */
async function whole(model: TextModel, texts: readonly (readonly number[])[]): Promise<Float32Array[]> {
  const out: Float32Array[] = [];
  for (const text of texts)
    out.push(
      (
        await model.logits(Int32Array.from(text), { batch: 1, sequence: text.length }, Int32Array.of(text.length - 1))
      ).slice(),
    );
  return out;
}

function expectRows(logits: Float32Array, expected: readonly Float32Array[], vocab: number, where: string): void {
  expected.forEach((expectedRow, row) => {
    const scale = Math.max(...expectedRow.map(Math.abs));
    expectedRow.forEach((value, i) => {
      if (!(Math.abs(at(logits, row * vocab + i) - value) <= 2e-5 * scale))
        throw new Error(`${where}, row ${row}, token ${i}: ${logits[row * vocab + i]} for ${value}`);
    });
  });
}

const token = (i: number, vocab: number): number => (i * 37 + 11) % vocab;
const text = (length: number, first: number, vocab: number): number[] =>
  Array.from({ length }, (_, i) => token(i + first, vocab));

describe("behind a cache", () => {
  // Every family: norms, biases, partial and scaled rope, windows (the texts are longer), softcaps, parallel blocks,
  // experts, shared experts.
  it.each(goldenModels)("%s: the same logits as a whole forward pass, for rows of different lengths", async (name) => {
    const model = await openModel(golden(name), inThread, 1);
    const { vocab } = model.spec;
    const texts = [text(61, 0, vocab), text(3, 5, vocab), text(33, 2, vocab)];
    // No room is expected, so that the cache has to grow past 64 while tokens come.
    let decoding = await startDecoding(model, texts, { expected: 0 });
    expectRows(decoding.logits, await whole(model, texts), vocab, "prompts");
    for (let step = 0; step < 5; step++) {
      const ids = texts.map((_, row) => token(100 + step + row, vocab));
      ids.forEach((id, row) => at(texts, row).push(id));
      decoding = await decoding.next(ids);
      expectRows(decoding.logits, await whole(model, texts), vocab, `step ${step}`);
    }
    expect(decoding.timings).toMatchObject({ promptTokens: 97, newTokens: 15 });
    await model.close();
  });

  it("long prompts are read in pieces", async () => {
    const dir = join(root, "long");
    cpSync(golden("moe/qwen3_moe"), dir, { recursive: true });
    const path = join(dir, "config.json");
    writeFileSync(
      path,
      readFileSync(path, "utf8").replace(/"max_position_embeddings": \d+/, '"max_position_embeddings": 4096'),
    );
    const model = await openModel(dir, inThread, 1);
    const { vocab } = model.spec;
    const texts = [text(700, 0, vocab), text(5, 3, vocab), text(513, 9, vocab)];
    const decoding = await startDecoding(model, texts, { expected: 10 });
    expectRows(decoding.logits, await whole(model, texts), vocab, "prompts");
    const next = await decoding.next([1, null, 2]);
    const longer = [[...at(texts, 0), 1], at(texts, 1), [...at(texts, 2), 2]];
    const expected = await whole(model, longer);
    expectRows(next.logits.subarray(0, vocab), [at(expected, 0)], vocab, "row 0");
    expectRows(next.logits.subarray(2 * vocab), [at(expected, 2)], vocab, "row 2");
    await model.close();
  });

  it("a prompt that nobody waits for any more is read no further, and the next one is read right", async () => {
    const dir = join(root, "left");
    cpSync(golden("dense/llama"), dir, { recursive: true });
    const path = join(dir, "config.json");
    writeFileSync(
      path,
      readFileSync(path, "utf8").replace(/"max_position_embeddings": \d+/, '"max_position_embeddings": 4096'),
    );
    const model = await openModel(dir, inThread, 1);
    const controller = new AbortController();
    let pieces = 0;
    const watched: TextModel = {
      ...model,
      extend: (...request) => (++pieces === 2 && controller.abort(), model.extend(...request)),
    };
    const prompt = text(2000, 0, model.spec.vocab);
    const settings = { temperature: 0, maxNewTokens: 5, seed: 0, stop: [], signal: controller.signal };
    for await (const token of generateBatch(watched, [Int32Array.from(prompt)], settings))
      throw new Error(`token ${token.id}`);
    expect(pieces).toBe(2);
    expectRows(
      (await startDecoding(model, [prompt], { expected: 10 })).logits,
      await whole(model, [prompt]),
      model.spec.vocab,
      "read again",
    );
    await model.close();
  });

  it("rope that changes with the length changes when it must", async () => {
    const dir = join(root, "longrope");
    cpSync(golden("dense/phi3"), dir, { recursive: true });
    const path = join(dir, "config.json");
    const config = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown> & {
      hidden_size: number;
      num_attention_heads: number;
    };
    const half = config.hidden_size / config.num_attention_heads / 2;
    const factors = (of: number): number[] => Array.from({ length: half }, (_, i) => 1 + of * i);
    delete config.rope_parameters;
    Object.assign(config, {
      rope_theta: 10000,
      original_max_position_embeddings: 40,
      rope_scaling: { type: "longrope", short_factor: factors(0.1), long_factor: factors(2) },
    });
    writeFileSync(path, JSON.stringify(config));
    const model = await openModel(dir, inThread, 1);
    expect(at(model.spec.layers, 0).rope!.scaling.kind).toBe("longrope");
    const { vocab } = model.spec;
    const texts = [text(37, 0, vocab)];
    let decoding = await startDecoding(model, texts, { expected: 0 });
    for (let step = 0; step < 6; step++) {
      expectRows(decoding.logits, await whole(model, texts), vocab, `${at(texts, 0).length} tokens`);
      at(texts, 0).push(step);
      decoding = await decoding.next([step]);
    }
    await model.close();
  });
});

describe("perplexity by a sliding window", () => {
  it.each([
    [16, 8, 50],
    [16, 15, 50],
    [16, 1, 40],
    [32, 16, 20],
    [4, 3, 2],
    [8, 4, 16],
    [8, 4, 17],
  ])(
    "of %i tokens, stride %i, text of %i: each token once, behind what its window holds",
    async (sequence, stride, length) => {
      const model = await openModel(golden("dense/llama"), inThread, 1);
      const { vocab } = model.spec;
      const ids = Int32Array.from(text(length, 0, vocab));
      let sum = 0;
      for (let position = 1; position < length; position++) {
        // The first window that holds the token begins at the first multiple of the stride at most sequence - 1 before
        // it.
        const begin = Math.max(0, Math.ceil((position - sequence + 1) / stride) * stride);
        const [logits] = await whole(model, [[...ids.subarray(begin, position)]]);
        const largest = Math.max(...logits!);
        sum +=
          largest +
          Math.log(logits!.reduce((total, value) => total + Math.exp(value - largest), 0)) -
          at(logits!, at(ids, position));
      }
      const windows = slidingPerplexity(model, ids, { sequence, stride });
      let next = await windows.next();
      while (next.done !== true) next = await windows.next();
      expect(next.value.tokens).toBe(length - 1);
      expect(next.value.loss).toBeCloseTo(sum / (length - 1), 5);
      await model.close();
    },
  );

  it("refuses sizes that make no sense", async () => {
    const model = await openModel(golden("dense/llama"), inThread, 1);
    const failure = (tokens: number, settings: PerplexitySettings) =>
      slidingPerplexity(model, new Int32Array(tokens), settings).next();
    await expect(failure(10, { sequence: 129, stride: 4 })).rejects.toThrow(
      "a window of 129 tokens, expected 2 to the model's 128 positions",
    );
    await expect(failure(10, { sequence: 8, stride: 8 })).rejects.toThrow("a stride of 8, expected 1 to 7");
    await expect(failure(1, { sequence: 8, stride: 4 })).rejects.toThrow("the text has 1 tokens, needed at least 2");
    await model.close();
  });
});
