import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { type CorpusDocument, type CorpusSource, readDocuments } from "../../../src/text/documents/corpus.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "upcycle-corpus-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function read(source: CorpusSource): Promise<CorpusDocument[]> {
  const documents: CorpusDocument[] = [];
  for await (const document of readDocuments(source)) documents.push(document);
  return documents;
}

/** Writes a file below the test's folder and gives its path. */
async function file(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(folder, name);
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, content);
  return path;
}

/** The one-line error of reading a source, with the test's folder cut off. */
async function failure(source: CorpusSource): Promise<string> {
  const error = await read(source).then(
    () => undefined,
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(UpcycleError);
  expect((error as UpcycleError).kind).toBe("input");
  return (error as UpcycleError).line.replaceAll(`${folder}/`, "");
}

describe("built-in texts", () => {
  it("have one document per speech in sotu, none twice", async () => {
    const documents = await read({ builtin: "sotu" });
    expect(documents.length).toBe(233);
    expect(at(documents, 0).name).toBe("1790_george_washington_n.txt");
    expect(at(documents, 0).text).toMatch(/^Fellow-Citizens of the Senate/);
    expect(new Set(documents.map(({ text }) => text)).size).toBe(233);
    expect(documents.map(({ name }) => name)).toEqual(documents.map(({ name }) => name).sort());
  });

  it("have 135 chapters, etymology, extracts and epilogue in moby-dick, not the whole book again", async () => {
    const documents = await read({ builtin: "moby-dick" });
    expect(documents.length).toBe(138);
    expect(documents.filter(({ name }) => name.startsWith("chapter_")).length).toBe(135);
    expect(new Set(documents.map(({ text }) => text)).size).toBe(138);
    expect(Math.max(...documents.map(({ text }) => text.length))).toBeLessThan(100_000);
  });

  it.each([
    ["sotu", "35001397b54a4548e8c46a757ad0ba8debf49e5737620b6cf01cb4473b3139d1"],
    ["moby-dick", "3d0670c709dd4c2e131e98ecc52a352ddde1b2d98dc96bcabde713c6a368e51d"],
  ] as const)("%s is what results of recipes were made with, byte for byte", async (builtin, digest) => {
    const hash = createHash("sha256");
    for (const { name, text } of await read({ builtin })) hash.update(`${JSON.stringify([name, text])}\n`);
    expect(hash.digest("hex")).toBe(digest);
  });

  it("are refused by another name", async () => {
    expect(await failure({ builtin: "bible" as "sotu" })).toBe(
      'unknown built-in text "bible"; choose one of sotu, moby-dick',
    );
  });
});

describe("text files", () => {
  it("are one document each, without their byte order mark", async () => {
    const path = await file("one.txt", "\ufeffCall me\r\nIshmael \u00e9\n");
    expect(await read({ path })).toEqual([{ name: "one.txt", text: "Call me\r\nIshmael \u00e9\n" }]);
  });

  it("in a folder come by name, without others, hidden and empty ones", async () => {
    const names = ["b.txt", "B.txt", "a.txt", "a10.txt", "a2.txt", "README.md", ".hidden.txt"];
    for (const name of names) await file(`many/${name}`, name);
    await file("many/empty.txt", "");
    await file("many/c.jsonl", '{"text": "line"}');
    const documentNames = (await read({ path: join(folder, "many") })).map(({ name }) => name);
    expect(documentNames).toEqual(["B.txt", "a.txt", "a10.txt", "a2.txt", "b.txt", "c.jsonl:1"]);
  });

  it("are refused where a folder has such a name", async () => {
    await file("odd/inner.txt/x.md", "x");
    expect(await failure({ path: join(folder, "odd") })).toBe("odd/inner.txt: this is a folder, expected a file");
  });

  it("that cannot be read are named, with what to do", async () => {
    expect(await failure({ path: join(folder, "absent.txt") })).toBe(
      "absent.txt: cannot read text: no such file or folder",
    );
    expect(await failure({ path: await file("empty.txt", "") })).toBe(
      "empty.txt: holds no text: every document is empty; give a file with text",
    );
    expect(await failure({ path: await file("a.pdf", "x") })).toBe(
      "a.pdf: unknown kind of text file, expected .txt, .jsonl, .jsonl.gz, .parquet or a folder",
    );
    await file("other/a.pdf", "x");
    expect(await failure({ path: join(folder, "other") })).toBe(
      "other: the folder has no file that ends in .txt, .jsonl, .jsonl.gz, .parquet",
    );
    expect(await failure({ path: await file("latin.txt", Uint8Array.of(99, 97, 102, 0xe9)) })).toBe(
      "latin.txt: the text is not valid UTF-8; convert it first, for example with iconv -t utf-8",
    );
  });
});

describe("lines of JSON", () => {
  it("are read plain and gzipped, with blank lines, carriage returns and empty texts, without a last line feed", async () => {
    const lines = '{"text": "one\\ntwo"}\r\n\n{"text": ""}\n{"id": 4, "text": "\u{1f642}"}';
    const expected = [
      { name: "x:1", text: "one\ntwo" },
      { name: "x:4", text: "\u{1f642}" },
    ];
    for (const [name, content] of [
      ["l.jsonl", lines],
      ["l.jsonl.gz", gzipSync(lines)],
    ] as const) {
      const documents = await read({ path: await file(name, content) });
      expect(documents.map((document) => ({ ...document, name: document.name.replace(name, "x") }))).toEqual(expected);
    }
  });

  it("come out whole where they are longer than a chunk, or a chunk cuts a character", async () => {
    const texts = Array.from({ length: 5 }, (_, i) => "\u4e2d\u{1f642}x".repeat(20_000 * i + 1));
    const path = await file("long.jsonl", texts.map((text) => JSON.stringify({ body: text })).join("\n"));
    expect((await read({ path, field: "body" })).map(({ text }) => text)).toEqual(texts);
  });

  it("are streamed: the first document arrives before a later broken line is met", async () => {
    const path = await file("stream.jsonl", '{"text": "good"}\n{broken\n');
    const documents = readDocuments({ path });
    expect((await documents.next()).value).toEqual({ name: "stream.jsonl:1", text: "good" });
    await documents.return(undefined);
  });

  it("that cannot be read are named by file and line", async () => {
    const bad = async (line: string | Uint8Array, field?: string) =>
      failure({
        path: await file("bad.jsonl", Buffer.concat([Buffer.from('{"text": "x", "t": "y"}\n'), Buffer.from(line)])),
        field,
      });
    expect(await bad("{broken")).toBe(
      "bad.jsonl:2: the line is not JSON; a .jsonl file holds one JSON object on each line",
    );
    expect(await bad("[1]")).toBe('bad.jsonl:2: the line is not a JSON object; expected {"text": "..."}');
    expect(await bad('{"body": "x"}')).toBe('bad.jsonl:2: the line has no field "text"; its fields are: body');
    expect(await bad("{}", "toString")).toBe('bad.jsonl:1: the line has no field "toString"; its fields are: text, t');
    expect(await bad('{"text": 3}')).toBe('bad.jsonl:2: field "text" is a number, expected a string');
    expect(await bad('{"text": null}')).toBe('bad.jsonl:2: field "text" is null, expected a string');
    expect(await bad(Uint8Array.of(0x22, 0xff, 0x22))).toMatch(/^bad\.jsonl:2: the text is not valid UTF-8/);
  });

  it("are refused in gzip data that is cut short, and in data that is no gzip", async () => {
    const whole = gzipSync('{"text": "x"}\n'.repeat(1000));
    expect(await failure({ path: await file("cut.jsonl.gz", whole.subarray(0, 40)) })).toMatch(
      /^cut\.jsonl\.gz: the gzip data is broken or cut short/,
    );
    expect(await failure({ path: await file("not.jsonl.gz", '{"text": "x"}') })).toMatch(
      /^not\.jsonl\.gz: the gzip data is broken/,
    );
  });
});
