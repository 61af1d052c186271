import { join } from "node:path";
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openTokenizer, type TextTokenizer } from "../../../src/text/tokenizer/load.js";
import { textStream } from "../../../src/text/tokenizer/stream.js";
import { trainByteLevelBpe } from "../../../src/text/tokenizer/train.js";
import { temporaryFolder } from "../../files/io/temporary.js";

const dir = temporaryFolder();
let tokenizer: TextTokenizer;

beforeAll(async () => {
  // A vocabulary of little more than the bytes: every other character takes several tokens.
  writeFileSync(
    join(dir, "tokenizer.json"),
    await trainByteLevelBpe(["plain words and more plain words"], { vocab: 270 }),
  );
  tokenizer = await openTokenizer(dir);
});

afterAll(() => tokenizer.close());

async function streamed(ids: Int32Array, before: Int32Array = new Int32Array()): Promise<string[]> {
  const stream = textStream(tokenizer, before);
  const texts: string[] = [];
  for (const id of ids) texts.push(await stream.push(id));
  return [...texts, await stream.end()];
}

describe("textStream", () => {
  it.each(["plain words", "naïve café", "日本語と🐋🐋", " leading, 🏳️‍🌈 and trailing ", "é"])(
    "shows %j in whole characters",
    async (text) => {
      const ids = await tokenizer.encode(text);
      const texts = await streamed(ids, await tokenizer.encode("a 🐋 prompt 日"));
      expect(texts.join("")).toBe(text);
      expect(texts.every((part) => !part.includes("\uFFFD"))).toBe(true);
      expect(texts.filter((part) => part !== "").length).toBeGreaterThan(text.length > 1 ? 1 : 0);
    },
  );

  it.each(["\uFFFD", ""])("decodes few tokens at a time where each of them is %j for ever", async (piece) => {
    let longest = 0;
    const decode = (ids: Iterable<number>): Promise<string> => {
      const { length } = Array.from(ids);
      longest = Math.max(longest, length);
      return Promise.resolve(piece.repeat(length));
    };
    const stream = textStream({ decode }, new Int32Array());
    let text = "";
    for (let id = 0; id < 500; id++) text += await stream.push(id);
    expect(text + (await stream.end())).toBe(piece.repeat(500));
    expect(longest).toBeLessThan(100);
  });

  it("gives the same text as decoding at once where bytes are no UTF-8", async () => {
    const whale = await tokenizer.encode("🐋");
    const ids = Int32Array.from([
      ...whale.subarray(0, 2),
      ...(await tokenizer.encode("a")),
      ...whale,
      ...whale.subarray(0, 3),
    ]);
    expect((await streamed(ids)).join("")).toBe(await tokenizer.decode(ids));
    expect((await streamed(ids)).at(-1)).toBe("\uFFFD");
  });
});
