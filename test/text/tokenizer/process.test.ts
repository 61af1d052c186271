/** What the native library does to the process it runs in, and what is left of that for a command. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { readDocuments } from "../../../src/text/documents/corpus.js";
import {
  openTokenizer,
  withTokenizer,
  type OpenSettings,
  type TextTokenizer,
} from "../../../src/text/tokenizer/load.js";
import { trainByteLevelBpe } from "../../../src/text/tokenizer/train.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { built, runScript } from "../../support/built.js";

const tiny = fileURLToPath(new URL("../../../models/tiny", import.meta.url));

const dir = temporaryFolder();
let folders = 0;

type Json = Readonly<Record<string, unknown>>;

const bpe = {
  type: "BPE",
  dropout: null,
  unk_token: null,
  continuing_subword_prefix: null,
  end_of_word_suffix: null,
  fuse_unk: false,
  byte_fallback: false,
  vocab: { a: 0, "!": 1, aa: 2 },
  merges: [["a", "a"]],
};

/** A folder with a tokenizer of three tokens that differs from a harmless one by `changes`. */
function tokenizerWith(changes: Json): string {
  const folder = join(dir, `tokenizer-${folders++}`);
  mkdirSync(folder);
  const harmless = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    model: bpe,
  };
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify({ ...harmless, ...changes }));
  return folder;
}

/**
 * The number of ways to cut a run of n letters is 2^n: the library gives up on 40 of them, and takes a moment for each
 * run of 21.
 */
const pattern = { Regex: "(a+)+$" };
const split = { pre_tokenizer: { type: "Split", pattern, behavior: "Isolated", invert: false } };
const hopeless = `${"a".repeat(40)}!`;
const endless = `${"a".repeat(21)}!`.repeat(1000);

async function failureOf(work: Promise<unknown>): Promise<UpcycleError> {
  const error = await work.then(
    () => undefined,
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(UpcycleError);
  return error as UpcycleError;
}

/** Exit code and line of what `work` fails with, the folder left out. */
async function failure(
  folder: string,
  work: (tokenizer: TextTokenizer) => Promise<unknown>,
  settings: OpenSettings = {},
): Promise<string> {
  const { exitCode, line } = await failureOf(withTokenizer(folder, settings, work));
  return `${exitCode} ${line.replace(`${folder}/`, "")}`;
}

const another = "; use the tokenizer.json that the model was published with";

describe("a tokenizer that the library cannot run", () => {
  it("fails alone where a pattern gives up on a text, by one line and bad input's exit code", async () => {
    const folder = tokenizerWith(split);
    await withTokenizer(tokenizerWith({}), {}, async (harmless) => {
      const tokenizer = await openTokenizer(folder);
      const line =
        `${join(folder, "tokenizer.json")}: encoding a text of 41 characters failed, because one of its ` +
        "patterns cannot be run on it " +
        `(Onig: Regex search error: retry-limit-in-match over)${another}`;
      const calls = [tokenizer.encode(hopeless), tokenizer.encode("a!"), tokenizer.decode([0])];
      expect((await Promise.all(calls.map(failureOf))).map((error) => error.line)).toEqual([line, line, line]);
      expect(await failureOf(tokenizer.encode("a!"))).toMatchObject({ exitCode: 2, line });
      await tokenizer.close();
      expect([...(await harmless.encode("aaa!"))]).toEqual([2, 0, 1]);
    });
  });

  it("is ended where a pattern takes for ever on a text", async () => {
    expect(
      await failure(tokenizerWith(split), (tokenizer) => tokenizer.encode(endless.slice(0, 3000)), { patience: 0.2 }),
    ).toBe(
      "2 tokenizer.json: encoding a text of 3,000 characters was ended after 0.5 s: most likely one of its " +
        `patterns cannot be run on it${another}`,
    );
  });

  it.each([
    [
      "a prefix longer than its tokens",
      { model: { ...bpe, continuing_subword_prefix: "xxxxxxxxx" } },
      "range end index",
    ],
    [
      "a character map that is none",
      { normalizer: { type: "Precompiled", precompiled_charsmap: "!!!" } },
      "Precompiled: Error",
    ],
  ])("says so where it panics on opening %s", async (_, changes, words) => {
    const line = await failure(tokenizerWith(changes), () => Promise.resolve());
    expect(line).toMatch(
      /^2 tokenizer\.json: opening it failed in the tokenizers library \(.*\); use the tokenizer\.json that [^\n]*$/,
    );
    expect(line).toContain(words);
  });

  it.each([
    [
      "a pattern that is none",
      { pre_tokenizer: { ...split.pre_tokenizer, pattern: { Regex: "(" } } },
      "Oniguruma error: end pattern with unmatched parenthesis",
    ],
    ["an unknown part", { pre_tokenizer: { type: "Nope" } }, "data did not match any variant"],
    ["an id beyond 32 bits", { model: { ...bpe, vocab: { a: 2 ** 32 } } }, "invalid value: integer `4294967296`"],
    ["a merge of unknown tokens", { model: { ...bpe, merges: [["a", "zz"]] } }, "Token `zz` out of vocabulary"],
  ])("says what is wrong with %s", async (_, changes, words) => {
    expect(await failure(tokenizerWith(changes), () => Promise.resolve())).toContain(
      `2 tokenizer.json: the file is no tokenizer: ${words}`,
    );
  });

  it("has no ids that a model cannot have", async () => {
    const line = await failure(tokenizerWith({ model: { ...bpe, vocab: { a: 2 ** 32 - 1 }, merges: [] } }), () =>
      Promise.resolve(),
    );
    expect(line).toBe("2 tokenizer.json: it has a token with id 4294967295, more than any model can have");
  });

  it("is ended before it takes the machine's memory", async () => {
    const grow = { type: "Replace", pattern: { String: "a" }, content: "a".repeat(1000) };
    const folder = tokenizerWith({ normalizer: { type: "Sequence", normalizers: [grow, grow, grow] } });
    expect(await failure(folder, (tokenizer) => tokenizer.encode(hopeless), { memory: 3e8 })).toBe(
      `2 tokenizer.json: encoding a text of 41 characters took more than 300 MB of memory${another}`,
    );
  });

  it("fails by one line where decoding panics", async () => {
    const folder = tokenizerWith({ decoder: { type: "Strip", content: "a", start: 5, stop: 5 } });
    expect(await failure(folder, (tokenizer) => tokenizer.decode([0]))).toMatch(
      /^2 tokenizer\.json: decoding 1 tokens failed in the tokenizers library \(index out of bounds[^\n]*$/,
    );
  });

  it("says what the library refuses", async () => {
    const folder = tokenizerWith({ model: { ...bpe, unk_token: "<nope>" } });
    expect(await failure(folder, (tokenizer) => tokenizer.encode("z"))).toBe(
      "2 tokenizer.json: it cannot encode a text: Unk token `<nope>` not found in the vocabulary",
    );
  });
});

describe("a file that is no tokenizer's", () => {
  it("is refused by its size before it is read", async () => {
    const folder = tokenizerWith({});
    truncateSync(join(folder, "tokenizer.json"), 3e8);
    expect(await failure(folder, () => Promise.resolve())).toBe(
      "2 tokenizer.json: the file has 300 MB, a tokenizer at most 256 MB; is it really the tokenizer?",
    );
  });

  it.runIf(process.platform === "linux")("is refused where it is a pipe or a device", async () => {
    const folder = join(dir, "pipe");
    mkdirSync(folder);
    execFileSync("mkfifo", [join(folder, "tokenizer.json")]);
    const words = "expected a regular file";
    expect(await failure(folder, () => Promise.resolve())).toBe(`2 tokenizer.json: this is a pipe (FIFO), ${words}`);
    expect(await failure("/dev/zero", () => Promise.resolve())).toBe(`2 /dev/zero: this is a device, ${words}`);
  });
});

describe("the process of a tokenizer", () => {
  it("gives the ids that the library gives in this process", async () => {
    const texts: string[] = [];
    for await (const { text } of readDocuments({ builtin: "moby-dick" })) texts.push(text);
    const folder = tokenizerWith({});
    const json = await trainByteLevelBpe(texts.slice(0, 20), { vocab: 600 });
    writeFileSync(join(folder, "tokenizer.json"), json);
    const { Tokenizer } = createRequire(import.meta.url)("tokenizers") as typeof import("tokenizers");
    // Lone surrogates and what else a string can hold go through unchanged.
    const all = ["", "\ud800 a \udc00", "\u0000", "🐋 café \ufeff", ...texts.slice(0, 40)];
    const expected = await Tokenizer.fromString(json).encodeBatch(all, { addSpecialTokens: false });
    await withTokenizer(folder, {}, async (tokenizer) => {
      let count = 0;
      for await (const ids of tokenizer.encodeAll(all))
        expect(Buffer.from(ids).equals(Buffer.from(at(expected, count++).getIds()))).toBe(true);
      expect(count).toBe(all.length);
    });
  });

  it("ends a call soon after the signal, and lets short ones come to their end", async () => {
    const controller = new AbortController();
    await withTokenizer(tokenizerWith(split), { signal: controller.signal }, async (tokenizer) => {
      const [short, long] = [tokenizer.decode([0, 1]), failureOf(tokenizer.encode(endless))];
      controller.abort();
      expect(await short).toBe("a !");
      expect(await long).toMatchObject({
        exitCode: 130,
        message: "stopped while encoding a text of 22,000 characters",
      });
    });
  });

  it.runIf(process.platform === "linux")("that something else kills is a run that had to stop", async () => {
    const folder = tokenizerWith(split);
    await withTokenizer(folder, {}, async (tokenizer) => {
      const failing = failureOf(tokenizer.encode(endless));
      for (const pid of childrenOf(process.pid)) process.kill(pid, "SIGKILL");
      expect(await failing).toMatchObject({
        exitCode: 1,
        where: join(folder, "tokenizer.json"),
        message: "the tokenizer's process was killed (SIGKILL) while encoding a text of 22,000 characters",
      });
    });
  });

  it.runIf(process.platform === "linux").each([
    // With a process that waits, one whose pool is busy, and one whose main thread is.
    ["waits", {}, "await tokenizer.encode('a');"],
    ["encodes for ever", split, "void tokenizer.encode(endless);"],
    [
      "opens for ever",
      {
        normalizer: { type: "Replace", pattern, content: "" },
        added_tokens: [
          {
            id: 3,
            content: endless,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: true,
            special: false,
          },
        ],
      },
      "",
    ],
  ])("that %s ends with the command, killed as it may be", async (_, changes, work) => {
    const script = runScript(`
      import { openTokenizer } from ${JSON.stringify(built("text/tokenizer/load.js"))};
      const endless = ${JSON.stringify(endless)};
      const opening = openTokenizer(${JSON.stringify(tokenizerWith(changes))});
      ${work === "" ? "" : `const tokenizer = await opening; ${work}`}
      console.log("ready");
      setInterval(() => {}, 1000);
    `);
    await new Promise((resolve) => script.process.stdout!.once("data", resolve));
    const pids = await until(() => childrenOf(script.process.pid!));
    script.process.kill("SIGKILL");
    await script.ended;
    await until(() => (pids.some(isTokenizer) ? [] : [0]));
  });

  it("is waited for when it is closed, also where an answer comes after that", async () => {
    // The answer that was asked for ahead lies in the pipe when the tokenizer is closed.
    const script = runScript(`
      import { openTokenizer } from ${JSON.stringify(built("text/tokenizer/load.js"))};
      const texts = Array.from({ length: 400 }, (_, i) => "the people of the union ".repeat(8) + i);
      for (const ms of [0, 5, 20, 60, 120]) {
        const tokenizer = await openTokenizer(${JSON.stringify(tiny)});
        for await (const ids of tokenizer.encodeAll(texts)) {
          for (const end = performance.now() + ms; performance.now() < end; );
          break;
        }
        await tokenizer.close();
      }
      console.log("closed");
    `);
    expect(await script.ended).toMatchObject({ code: 0, signal: null, stdout: "closed\n", stderr: "" });
  });

  it("keeps no command from ending, and writes nothing to its terminal", async () => {
    const script = runScript(`
      import { openTokenizer } from ${JSON.stringify(built("text/tokenizer/load.js"))};
      const tokenizer = await openTokenizer(${JSON.stringify(tokenizerWith(split))});
      console.log((await tokenizer.encode("aa!")).join());
      const other = await openTokenizer(${JSON.stringify(tokenizerWith(split))});
      await other.encode(${JSON.stringify(hopeless)}).catch(({ kind }) => console.log(kind));
    `);
    expect(await script.ended).toMatchObject({ code: 0, signal: null, stdout: "2,1\ninput\n", stderr: "" });
  });
});

const isTokenizer = (pid: number): boolean => {
  // A process that ended and was not yet collected has no command line.
  return existsSync(`/proc/${pid}`) && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("tokenizer-child.js");
};

/** Processes of tokenizers that `parent` has started. */
function childrenOf(parent: number): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => {
      if (!(pid > 0)) return false;
      try {
        const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)!.split(" ");
        return Number(fields[1]) === parent && isTokenizer(pid);
      } catch {
        // It has ended meanwhile.
        return false;
      }
    });
}

async function until<T>(look: () => readonly T[]): Promise<readonly T[]> {
  for (const end = Date.now() + 30_000; Date.now() < end;) {
    const result = look();
    if (result.length > 0) return result;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error("nothing came of it in 30 s");
}
