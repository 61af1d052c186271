import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { readDocuments } from "../../../src/text/documents/corpus.js";
import { tokenizerConfig } from "../../../src/text/tokenizer/config.js";
import { openTokenizer, withTokenizer, type TextTokenizer } from "../../../src/text/tokenizer/load.js";
import { END_OF_TEXT, trainByteLevelBpe } from "../../../src/text/tokenizer/train.js";

let folder: string;
let json: string;
let tokenizer: TextTokenizer;
const texts: string[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "upcycle-load-"));
  for await (const { text } of readDocuments({ builtin: "moby-dick" })) {
    if (texts.push(text) === 10) break;
  }
  json = await trainByteLevelBpe(texts, { vocab: 1000 });
  tokenizer = await openTokenizer(
    await model("trained", { "tokenizer_config.json": tokenizerConfig({ maxLength: 512 }) }),
  );
});
afterAll(async () => {
  await tokenizer.close();
  await rm(folder, { recursive: true, force: true });
});

/** A folder with a tokenizer.json and the files given. */
async function model(name: string, files: Record<string, string>): Promise<string> {
  await mkdir(join(folder, name), { recursive: true });
  for (const [file, text] of Object.entries({ "tokenizer.json": json, ...files })) {
    await writeFile(join(folder, name, file), text);
  }
  return join(folder, name);
}

describe("encoding and decoding", () => {
  it("of any Unicode text gives the same text", async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: "binary", maxLength: 200 }), async (text) => {
        expect(await tokenizer.decode(await tokenizer.encode(text))).toBe(text);
      }),
      { numRuns: 300 },
    );
  });

  it("of every byte that UTF-8 uses, spaces and line ends", async () => {
    let text = "";
    for (let code = 0; code < 0x110000; code += code < 0x1000 ? 1 : 977) {
      if (code < 0xd800 || code > 0xdfff) text += String.fromCodePoint(code);
    }
    expect(new Set(new TextEncoder().encode(text)).size).toBe(256 - 13);
    const ids = await tokenizer.encode(text);
    expect(await tokenizer.decode(ids)).toBe(text);
    for (const tricky of ["", " ", "  a  b ", "don 't , stop !", "\r\n\n\t x \n"]) {
      expect(await tokenizer.decode(await tokenizer.encode(tricky))).toBe(tricky);
    }
  });

  it("of a special token written out", async () => {
    const ids = await tokenizer.encode(`a${END_OF_TEXT}b`);
    expect(ids.filter((id) => id === tokenizer.eosId).length).toBe(1);
    expect(await tokenizer.decode(ids)).toBe(`a${END_OF_TEXT}b`);
  });
});

describe("openTokenizer", () => {
  it("gives the ids that transformers' AutoTokenizer gives for the same folder", async () => {
    // From transformers 5.18.0 with tokenizers 0.23.2 in Python, on the folder this test writes.
    const expected = [
      35, 394, 351, 221, 301, 594, 77, 65, 453, 221, 12, 294, 279, 778, 1, 199, 199, 613, 18, 710, 0, 221, 128, 103,
      161, 117, 256, 173, 254, 248, 225, 221,
    ];
    const text = "Call me  Ishmael , don't!\n\n 12 whales<|endoftext|> \u00e9\u4e2d\u{1f642} ";
    expect([...(await tokenizer.encode(text))]).toEqual(expected);
  });

  it("knows sizes, special ids and names", async () => {
    expect(tokenizer.vocab).toBe(1000);
    expect(tokenizer.eosId).toBe(0);
    expect(tokenizer.bosId).toBeUndefined();
    expect(await tokenizer.idToToken(0)).toBe(END_OF_TEXT);
    expect(await tokenizer.tokenToId(END_OF_TEXT)).toBe(0);
    expect(await tokenizer.idToToken(1000)).toBeUndefined();
    expect(await tokenizer.tokenToId("no such token")).toBeUndefined();
    expect(await withTokenizer(join(folder, "trained", "tokenizer.json"), {}, async ({ eosId }) => eosId)).toBe(0);
  });

  it("encodes many texts as it encodes each", async () => {
    const many = ["", ...texts, "x".repeat(10), texts.join("").repeat(8), "end"];
    const all: Int32Array[] = [];
    for await (const ids of tokenizer.encodeAll(many)) all.push(ids);
    expect(all).toEqual(await Promise.all(many.map((text) => tokenizer.encode(text))));
  });

  it("encodes no more than a few texts for whoever takes the first ids only", async () => {
    let taken = 0;
    const endless = function* (): Generator<string> {
      for (; ; taken++) yield "the sea ".repeat(1000);
    };
    for await (const ids of tokenizer.encodeAll(endless())) {
      expect(ids.length).toBeGreaterThan(0);
      break;
    }
    expect(taken).toBeLessThan(20);
  });

  it("switches off truncation and padding, and adds special tokens only when asked", async () => {
    const changed = JSON.parse(json) as Record<string, unknown>;
    changed["truncation"] = { direction: "Right", max_length: 3, strategy: "LongestFirst", stride: 0 };
    changed["padding"] = {
      strategy: { Fixed: 64 },
      direction: "Right",
      pad_to_multiple_of: null,
      pad_id: 0,
      pad_type_id: 0,
      pad_token: "x",
    };
    changed["post_processor"] = {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: END_OF_TEXT, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
      special_tokens: { [END_OF_TEXT]: { id: END_OF_TEXT, ids: [0], tokens: [END_OF_TEXT] } },
    };
    const text = at(texts, 0).slice(0, 400);
    const plain = await tokenizer.encode(text);
    await withTokenizer(await model("template", { "tokenizer.json": JSON.stringify(changed) }), {}, async (other) => {
      expect(await other.encode(text)).toEqual(plain);
      expect([...(await other.encode(text, { addSpecialTokens: true }))]).toEqual([0, ...plain]);
    });
  });

  it("finds special ids in the file that has them", async () => {
    const map = {
      "special_tokens_map.json": JSON.stringify({ eos_token: { content: "e", lstrip: false }, bos_token: "b" }),
    };
    const config = { "config.json": JSON.stringify({ eos_token_id: [7, 8], bos_token_id: 9 }) };
    const ids = async (name: string, files: Record<string, string>, special = {}) =>
      withTokenizer(await model(name, files), { special }, async ({ eosId, bosId }) => [eosId, bosId]);
    const [e, b] = [await tokenizer.tokenToId("e"), await tokenizer.tokenToId("b")];
    expect(await ids("s1", {})).toEqual([undefined, undefined]);
    expect(await ids("s2", config)).toEqual([7, 9]);
    expect(await ids("s3", { ...map, ...config })).toEqual([e, b]);
    const ours = { "tokenizer_config.json": tokenizerConfig({ maxLength: 8 }) };
    expect(await ids("s4", { ...map, ...config, ...ours })).toEqual([0, undefined]);
    expect(await ids("s5", { ...config }, { eosId: 3 })).toEqual([3, 9]);
  });

  it("says clearly what is wrong with a file", async () => {
    const failure = async (path: string): Promise<string> => {
      const error = await openTokenizer(path).then(
        () => undefined,
        (cause: unknown) => cause,
      );
      expect(error).toBeInstanceOf(UpcycleError);
      return (error as UpcycleError).line.replaceAll(`${folder}/`, "");
    };
    await mkdir(join(folder, "bare"), { recursive: true });
    expect(await failure(join(folder, "absent"))).toBe(
      "absent: no such file or folder; give a folder with a tokenizer.json",
    );
    expect(await failure(join(folder, "bare"))).toMatch(/^bare: the folder has no tokenizer\.json; older models: /);
    expect(await failure(await model("cut", { "tokenizer.json": json.slice(0, 100) }))).toMatch(
      /^cut\/tokenizer\.json: the file is not JSON/,
    );
    const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    for (const file of ["tokenizer.json", "tokenizer_config.json"])
      expect(await failure(await model("lfs", { [file]: pointer }))).toBe(
        `lfs/${file}: this is a Git LFS pointer, not the file itself; run git lfs pull in the model's folder`,
      );
    expect(await failure(await model("alien", { "tokenizer.json": "{}" }))).toMatch(
      /^alien\/tokenizer\.json: the file is no tokenizer: Model missing/,
    );
    expect(await failure(await model("name", { "tokenizer_config.json": '{"eos_token": "</s>"}' }))).toBe(
      'name/tokenizer_config.json: eos_token is "</s>", which the tokenizer does not have',
    );
    expect(await failure(await model("id", { "config.json": '{"eos_token_id": 1e99}' }))).toBe(
      "id/config.json: eos_token_id is 1e+99, expected the id of a token: a whole number from 0",
    );
    expect(
      await failure(await model("long", { "special_tokens_map.json": `{"bos_token": "${"x".repeat(1e6)}"}` })),
    ).toMatch(/^long\/special_tokens_map\.json: bos_token is "x{20,60}\.\.\., which the tokenizer does not have$/);
    expect(await failure(await model("deep", { "tokenizer_config.json": "[".repeat(1e5) }))).toBe(
      "deep/tokenizer_config.json: lists and objects are nested more than 500 levels deep",
    );
    expect(await failure(await model("list", { "config.json": "[]" }))).toBe(
      "list/config.json: the file is not a JSON object",
    );
  });
});
