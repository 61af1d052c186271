/** Data sets for Megatron-LM, beside what a Python writer of the same format makes of the same ids. */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { resultOf } from "../../../src/base/events.js";
import { readDocuments } from "../../../src/text/documents/corpus.js";
import { readIndexed } from "../../../src/text/documents/indexed.js";
import { prepareData, type PrepareEvent, type PrepareOptions } from "../../../src/text/prepare/prepare.js";
import { tokenizerConfig } from "../../../src/text/tokenizer/config.js";
import { withTokenizer } from "../../../src/text/tokenizer/load.js";
import { trainByteLevelBpe } from "../../../src/text/tokenizer/train.js";

const root = mkdtempSync(join(tmpdir(), "upcycle-prepare-"));
const tokenizer = join(root, "tokenizer");
const input = join(root, "text.jsonl");
let made = 0;
let texts: string[] = [];
afterAll(() => rmSync(root, { recursive: true, force: true }));

beforeAll(async () => {
  for await (const { text } of readDocuments({ builtin: "moby-dick" })) {
    texts.push(...text.slice(0, 6000).split("\n\n"));
    if (texts.length > 200) break;
  }
  texts = ["", ...texts.slice(0, 200), "", "", "the end é😀"];
  mkdirSync(tokenizer);
  writeFileSync(join(tokenizer, "tokenizer.json"), await trainByteLevelBpe(texts, { vocab: 700 }));
  writeFileSync(join(tokenizer, "tokenizer_config.json"), tokenizerConfig({ maxLength: 512 }));
  writeFileSync(input, texts.map((text) => `${JSON.stringify({ text })}\n`).join(""));
});

const options = (more: Partial<PrepareOptions> = {}): PrepareOptions => ({
  inputs: [input],
  field: "text",
  tokenizer,
  out: join(root, `out${made++}`),
  appendEod: true,
  specialTokens: true,
  workers: 2,
  pace: { batchUnits: 2000, flushIds: 3000 },
  ...more,
});
const bytes = (prefix: string): string[] =>
  ["bin", "idx"].map((kind) => readFileSync(`${prefix}.${kind}`).toString("hex"));

async function byPython(eod: boolean): Promise<string[]> {
  const prefix = join(root, `python${made++}`);
  const lines = await withTokenizer(tokenizer, {}, async (opened) => {
    const ids: string[] = [];
    for await (const one of opened.encodeAll(texts, { addSpecialTokens: true })) ids.push(JSON.stringify([...one]));
    return { ids, eos: opened.eosId };
  });
  const script = new URL("../../external/preprocess.py", import.meta.url).pathname;
  const args = [script, prefix, "700", eod ? String(lines.eos) : "none"];
  const { status, stderr } = spawnSync("python3", args, { input: `${lines.ids.join("\n")}\n`, encoding: "utf8" });
  expect(status, stderr).toBe(0);
  return bytes(prefix);
}

const hasPython = spawnSync("python3", ["--version"]).status === 0;

describe("a data set", () => {
  it.skipIf(!hasPython)(
    "is byte for byte what Megatron's format asks for, with and without ends, empty documents too",
    async () => {
      for (const appendEod of [true, false]) {
        const { prefix } = await resultOf(prepareData(options({ appendEod })));
        expect(bytes(prefix)).toEqual(await byPython(appendEod));
      }
    },
  );

  it("is the same for any number of tokenizers and any size of batches", async () => {
    const first = await resultOf(prepareData(options({ workers: 1 })));
    expect(first).toMatchObject({ documents: texts.length, width: "uint16" });
    for (const more of [{ workers: 3 }, { workers: 2, pace: { batchUnits: 100 } }, { pace: {} }])
      expect(bytes((await resultOf(prepareData(options(more)))).prefix)).toEqual(bytes(first.prefix));
    const read = await readIndexed(first.prefix);
    expect(read.tokens.length).toBe(first.tokens);
  });

  it("goes on where it was stopped, again and again, and gives the same bytes", async () => {
    const whole = await resultOf(prepareData(options()));
    const out = join(root, `out${made++}`);
    const events: PrepareEvent[] = [];
    for (let tries = 0; ; tries++) {
      const abort = new AbortController();
      let seen = 0;
      const run = resultOf(
        prepareData(options({ out, signal: abort.signal, pace: { batchUnits: 500, flushIds: 1 } })),
        (event) => {
          events.push(event);
          if (event.type === "progress" && ++seen === 7) abort.abort();
        },
      );
      const done = await run.then(
        () => true,
        (cause: unknown) => {
          expect((cause as UpcycleError).kind).toBe("interrupted");
          return false;
        },
      );
      if (done) break;
      expect(existsSync(`${out}_text_document.bin`)).toBe(false);
      expect(tries).toBeLessThan(60);
    }
    expect(events.filter(({ type }) => type === "resumed").length).toBeGreaterThan(2);
    expect(bytes(`${out}_text_document`)).toEqual(bytes(whole.prefix));
    expect(readdirSync(root).filter((name) => name.endsWith(".unfinished"))).toEqual([]);
  });

  it("starts over for other settings, and refuses text that changed meanwhile", async () => {
    const out = join(root, `out${made++}`);
    const copy = join(root, "copy.jsonl");
    writeFileSync(copy, readFileSync(input));
    const stopped = async (more: Partial<PrepareOptions>): Promise<string> => {
      const abort = new AbortController();
      const run = resultOf(prepareData(options({ out, inputs: [copy], signal: abort.signal, ...more })), () =>
        abort.abort(),
      );
      return run.then(
        () => "done",
        (cause: UpcycleError) => `${cause.kind}: ${cause.message}`,
      );
    };
    expect(await stopped({})).toContain("interrupted");
    utimesSync(copy, 1, 1);
    expect(await stopped({})).toContain("the text changed since this work began");
    expect(await stopped({ appendEod: false })).toContain("interrupted");
  });

  it("refuses a place that is taken, a missing end-of-text token and text without tokens", async () => {
    const { prefix } = await resultOf(prepareData(options()));
    const out = prefix.replace("_text_document", "");
    await expect(resultOf(prepareData(options({ out })))).rejects.toThrow("file exists");
    await resultOf(prepareData(options({ out, overwrite: true })));
    const bare = join(root, "bare");
    mkdirSync(bare);
    writeFileSync(join(bare, "tokenizer.json"), readFileSync(join(tokenizer, "tokenizer.json")));
    await expect(resultOf(prepareData(options({ tokenizer: bare })))).rejects.toThrow(
      "no file says which token ends a text",
    );
    const empty = join(root, "empty.jsonl");
    writeFileSync(empty, '{"text":""}\n');
    await expect(resultOf(prepareData(options({ inputs: [empty] })))).rejects.toThrow("no document has a token");
  });
});
