import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import { UpcycleError } from "../../src/base/errors.js";
import type { MixPartConfig } from "../../src/base/schemas/index.js";
import type { TextTokenizer } from "../../src/text/tokenizer/load.js";
import {
  describeDataMix,
  heldOutFrom,
  learnableTexts,
  readDataMix,
  requireEnoughOfEach,
  tokenizeDataMix,
} from "../../src/train/data-mix.js";
import { writeIndexed } from "../text/documents/indexed.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { block } from "../support/runs.js";

const dir = temporaryFolder();
/** Each letter is a token. */
const tokenizer = {
  vocab: 128,
  eosId: 10,
  async *encodeAll(texts: Iterable<string>) {
    for (const text of texts) yield Int32Array.from(text, (char) => char.charCodeAt(0));
  },
} as unknown as TextTokenizer;

const lines = (name: string, texts: readonly string[]): string => {
  const path = join(dir, name);
  writeFileSync(path, texts.map((text) => JSON.stringify({ text })).join("\n"));
  return path;
};
const part = (changes: Partial<MixPartConfig>): MixPartConfig => ({ weight: 1, field: "text", ...changes });
const read = (...mix: MixPartConfig[]) => readDataMix({ field: "text", heldOut: 0.2, mix });

async function failure(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  if (!(error instanceof UpcycleError)) throw new Error(String(error));
  return error.line.replaceAll(`${dir}/`, "");
}

const texts = Array.from({ length: 20 }, (_, i) => `document ${"abcdefghijklmnopqrstuvwxyz"[i]}`);

describe("a data mix", () => {
  it("never trains on what another part holds out", async () => {
    const parts = await read(
      part({ path: lines("a.jsonl", texts) }),
      part({ path: lines("b.jsonl", [...texts.slice(5), "only b 1", "only b 2", "only b 3"]), heldOut: 0.4 }),
    );
    const [a, b] = await tokenizeDataMix(parts, tokenizer, 10);
    const documents = (tokens: ArrayLike<number>): string[] =>
      String.fromCharCode(...Array.from(tokens))
        .split("\n")
        .filter((text) => text !== "");
    const heldOutTexts = new Set([...documents(a!.heldOut), ...documents(b!.heldOut)]);
    expect(heldOutTexts.size).toBeGreaterThan(4);
    for (const text of [...documents(a!.train), ...documents(b!.train)])
      expect(heldOutTexts.has(text), text).toBe(false);
    expect(documents(a!.train).length + documents(a!.heldOut).length).toBeLessThan(20);
    expect(learnableTexts(parts).map(({ text }) => text)).toEqual([...documents(a!.train), ...documents(b!.train)]);
  });

  it("takes tokens as they are, the last documents held out", async () => {
    const prefix = join(dir, "ready");
    writeIndexed(
      prefix,
      Array.from({ length: 10 }, (_, i) => [[20 + i, 30 + i, 40 + i, 10]]),
    );
    const parts = await read(
      part({ path: `${prefix}.bin` }),
      part({ path: lines("c.jsonl", texts), name: "text", weight: 3 }),
    );
    const [ready] = await tokenizeDataMix(parts, tokenizer, 10);
    expect(ready).toMatchObject({ name: "ready", weight: 1, warning: null });
    expect([...ready!.train].slice(-4)).toEqual([27, 37, 47, 10]);
    expect([...ready!.heldOut]).toEqual([28, 38, 48, 10, 29, 39, 49, 10]);
    expect(() => learnableTexts(parts)).toThrow(
      "these tokens were made by some tokenizer, a new model would learn another",
    );
  });

  it("refuses another tokenizer's tokens, and says so where documents do not end as they should", async () => {
    const prefix = join(dir, "foreign");
    writeIndexed(prefix, [[[1, 2, 3]], [[4, 128, 5]]]);
    expect(await failure(tokenizeDataMix(await read(part({ path: `${prefix}.idx` })), tokenizer, 10))).toBe(
      "foreign.idx: holds token 128, the model's tokenizer ends at 127; prepare it with this model's tokenizer",
    );
    writeIndexed(prefix, [[[1, 2, 3]], [[4, 127, 5]]]);
    const tokenized = await tokenizeDataMix(await read(part({ path: `${prefix}.idx` })), tokenizer, 10);
    expect(at(tokenized, 0).warning).toBe(
      "foreign: no document ends with the tokenizer's end-of-text token 10; was it prepared with this " +
        "tokenizer and --append-eod?",
    );
  });

  it("refuses parts of one name, and parts with nothing left", async () => {
    const path = lines("d.jsonl", texts);
    expect(await failure(read(part({ path }), part({ path })))).toBe(
      'text.mix: two parts of the data mix are called "d.jsonl"; give them names of their own',
    );
    const parts = await read(part({ path }));
    const heldOutTexts = parts.flatMap((part) => (part.kind === "text" ? part.heldOut.map(({ text }) => text) : []));
    expect(
      await failure(
        read(
          part({ path }),
          part({ path: lines("e.jsonl", [...heldOutTexts, at(heldOutTexts, 0)]), name: "e", heldOut: 0.01 }),
        ),
      ),
    ).toMatch(/^e: (every document of this part is held out|too little text)/);
  });

  it("is described in a table with epochs, and is long enough", () => {
    const row = (length: number): Int32Array => new Int32Array(length);
    const parts = [
      { name: "web", weight: 3, train: row(321), heldOut: row(40), warning: null },
      { name: "code", weight: 1, train: row(161), heldOut: row(2), warning: "code: beware" },
    ];
    // 12 steps of 2 x 2 sequences of 16: 36 of 20 windows and 12 of 10.
    expect(describeDataMix(parts, block)).toEqual([
      "part  share  training tokens  held out  epochs",
      "----  -----  ---------------  --------  ------",
      "web    75 %              321        40    1.80",
      "code   25 %              161         2    1.20",
      "warning: code: beware",
    ]);
    requireEnoughOfEach(parts, { sequence: 160 });
    expect(() => requireEnoughOfEach(parts, { sequence: 161 })).toThrow(
      "too little text: 161 training tokens, one sequence needs 162",
    );
    expect(() => requireEnoughOfEach([{ ...at(parts, 0), heldOut: row(1) }], { sequence: 2 })).toThrow(
      "1 held-out tokens",
    );
  });
});

it.each([
  [[0, 10, 20, 30, 40], 0.25, 30],
  [[0, 10, 20, 30, 40], 0.5, 20],
  [[0, 10, 20, 30, 40], 0.01, 30],
  [[0, 100], 0.1, 90],
  [[0, 1, 100], 0.5, 1],
  [[0, 0, 40], 0.5, 0],
])("of documents %j, %d is held out from token %d on", (documents, fraction, cut) => {
  expect(heldOutFrom(Float64Array.from(documents), fraction)).toBe(cut);
});
