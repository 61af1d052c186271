import { mkdtemp, readdir, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { byteLevelAlphabet } from "tokenizers";
import { beforeAll, describe, expect, it, vi } from "vitest";
import { entryOf } from "../../../src/base/at.js";
import { readDocuments } from "../../../src/text/documents/corpus.js";
import { END_OF_TEXT, trainByteLevelBpe } from "../../../src/text/tokenizer/train.js";

interface Parsed {
  added_tokens: { id: number; content: string }[];
  model: { vocab: Record<string, number>; merges: [string, string][] };
}

const texts: string[] = [];
const train = async (vocab: number, specialTokens?: string[]): Promise<Parsed> =>
  JSON.parse(await trainByteLevelBpe(texts, { vocab, specialTokens })) as Parsed;

beforeAll(async () => {
  for await (const { text } of readDocuments({ builtin: "moby-dick" })) {
    if (texts.push(text) === 20) break;
  }
});

/** Plain greedy BPE over words with counts, written for clarity: what the Rust trainer has to agree with. */
function slowMerges(words: Map<string, number>, count: number): [string, string][] {
  const split = [...words].map(([word, times]) => ({ parts: [...word], times }));
  const merges: [string, string][] = [];
  const order = new Map(
    byteLevelAlphabet()
      .sort()
      .map((token, id) => [token, id]),
  );
  while (merges.length < count) {
    const counts = new Map<string, number>();
    for (const { parts, times } of split) {
      for (let i = 1; i < parts.length; i++) {
        const pair = `${parts[i - 1]} ${parts[i]}`;
        counts.set(pair, (counts.get(pair) ?? 0) + times);
      }
    }
    const id = (pair: string): number =>
      entryOf(order, pair.split(" ")[0]!) * 1e6 + entryOf(order, pair.split(" ")[1]!);
    const [best] = [...counts].reduce((a, b) => (b[1] > a[1] || (b[1] === a[1] && id(b[0]) < id(a[0])) ? b : a));
    const [left, right] = best.split(" ") as [string, string];
    merges.push([left, right]);
    if (!order.has(left + right)) order.set(left + right, order.size);
    for (const word of split) {
      for (let i = 1; i < word.parts.length; i++) {
        if (word.parts[i - 1] === left && word.parts[i] === right) word.parts.splice(i - 1, 2, left + right);
      }
    }
  }
  return merges;
}

describe("trainByteLevelBpe", () => {
  it("numbers special tokens, all 256 bytes and merges without gaps", async () => {
    const { added_tokens, model } = await train(600, [END_OF_TEXT, "<|pad|>"]);
    expect(added_tokens.map(({ id, content }) => [id, content])).toEqual([
      [0, END_OF_TEXT],
      [1, "<|pad|>"],
    ]);
    expect(Object.values(model.vocab).sort((a, b) => a - b)).toEqual(Array.from({ length: 600 }, (_, i) => i));
    byteLevelAlphabet()
      .sort()
      .forEach((character, i) => expect(model.vocab[character]).toBe(2 + i));
    for (const [left, right] of model.merges) expect(model.vocab).toHaveProperty([left + right]);
  });

  it("gives the same bytes every time", async () => {
    const first = await trainByteLevelBpe(texts, { vocab: 3000 });
    for (let run = 0; run < 3; run++) expect(await trainByteLevelBpe(texts, { vocab: 3000 })).toBe(first);
  });

  it("a smaller vocabulary is a prefix of a larger one", async () => {
    const small = await train(500);
    const large = await train(2000);
    expect(large.model.merges.slice(0, small.model.merges.length)).toEqual(small.model.merges);
    for (const [token, id] of Object.entries(small.model.vocab)) expect(large.model.vocab[token]).toBe(id);
  });

  it("chooses the merges that plain greedy training chooses, ties by lowest ids", async () => {
    const words = new Map<string, number>();
    const text = texts
      .slice(0, 3)
      .join("\n")
      .replace(/[^a-z ]/g, "");
    for (const [word] of text.matchAll(/ ?[a-z]+| +(?![a-z])| +/g)) {
      const key = word.replaceAll(" ", "\u0120");
      words.set(key, (words.get(key) ?? 0) + 1);
    }
    const { model } = JSON.parse(await trainByteLevelBpe([text], { vocab: 257 + 150 })) as Parsed;
    expect(model.merges).toEqual(slowMerges(words, model.merges.length));
  });

  it("says how far small texts reach and cleans up behind itself", async () => {
    const empty = await mkdtemp(join(tmpdir(), "upcycle-train-"));
    vi.stubEnv("TMPDIR", empty);
    await expect(trainByteLevelBpe(["abab abab"], { vocab: 400 })).rejects.toThrow(
      "the texts are too small: they give 260 entries, wanted 400",
    );
    await expect(trainByteLevelBpe([], { vocab: 300 })).rejects.toThrow("they give 257 entries, wanted 300");
    expect(JSON.parse(await trainByteLevelBpe([], { vocab: 257 }))).toHaveProperty("model.merges", []);
    expect(await readdir(empty)).toEqual([]);
    vi.unstubAllEnvs();
    await rmdir(empty);
  });

  it("refuses sizes and special tokens that cannot be", async () => {
    for (const vocab of [256, 30_001, 1000.5]) {
      await expect(trainByteLevelBpe(texts, { vocab })).rejects.toThrow("expected a whole number from 257 to 30000");
    }
    const withSpecial = (...specialTokens: string[]) => trainByteLevelBpe(texts, { vocab: 300, specialTokens });
    await expect(withSpecial("<a>", "<a>")).rejects.toThrow("different from each other");
    await expect(withSpecial("a")).rejects.toThrow('"a" is also the character of a byte');
  });
});

it("a temporary folder that is not there is named, with what it is for", async () => {
  vi.stubEnv("TMPDIR", "/nowhere");
  try {
    await expect(trainByteLevelBpe(["the whale"], { vocab: 300 })).rejects.toMatchObject({
      kind: "input",
      where: "/nowhere",
      message: "cannot make a temporary folder (TMPDIR): no such file or folder",
    });
  } finally {
    vi.unstubAllEnvs();
  }
});
