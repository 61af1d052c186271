import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { valueAt } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { stageDirectory, stageFile, writeFileAtomic } from "../../../src/files/io/atomic.js";
import { stageResumable } from "../../../src/files/io/resumable-directory.js";
import { readDocuments } from "../../../src/text/documents/corpus.js";
import { openJsonl, readJsonl } from "../../../src/files/io/jsonl.js";
import { lockFolder } from "../../../src/files/io/lock.js";
import { sizeLimits, openForWriting, readWhole, requireOutputFile } from "../../../src/files/io/open.js";
import { openRanges, readJson, readText } from "../../../src/files/io/ranges.js";
import { openTensorFile, writeTensorFile } from "../../../src/files/io/tensor-file.js";
import { hasSpecialFiles, makeFifo, oneOfEach, writer } from "./special.js";
import { temporaryFolder } from "./temporary.js";

const root = temporaryFolder();
const path = (name: string): string => join(root, name);
const line = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no error",
    (error: unknown) => {
      expect(error).toBeInstanceOf(UpcycleError);
      expect((error as UpcycleError).exitCode).toBe(2);
      return (error as UpcycleError).line;
    },
  );
const drain = async (documents: AsyncIterable<unknown>): Promise<void> => {
  for await (const _ of documents) void _;
};

describe.skipIf(!hasSpecialFiles)("what is no regular file is refused by its name, at once", () => {
  const readers: Readonly<Record<string, (path: string) => Promise<unknown>>> = {
    openRanges,
    readText,
    readJson,
    openTensorFile,
    openJsonl,
    readJsonl,
    readWhole: (file) => readWhole(file, 1),
  };

  it.each(Object.keys(readers))("%s names the special file and what it is", async (name) => {
    mkdirSync(path(name));
    for (const [words, special] of await oneOfEach(path(name))) {
      // A log is made where it is not there, through a link too.
      if (name === "openJsonl" && words.startsWith("a link")) continue;
      const message = await line(valueAt(readers, name)(special));
      expect(message.startsWith(`${special}: `) && message.includes(words), message).toBe(true);
    }
  });

  it.each(["txt", "jsonl", "jsonl.gz", "parquet"])("a pipe as text that ends in .%s", async (extension) => {
    const fifo = makeFifo(path(`text.${extension}`));
    expect(await line(drain(readDocuments({ path: fifo })))).toBe(
      `${fifo}: this is a pipe (FIFO), expected a regular file`,
    );
  });

  it("a pipe that somebody writes into keeps its reader to come", async () => {
    const fifo = makeFifo(path("waiting"));
    const child = writer("echo text", fifo);
    expect(await line(readText(fifo))).toContain("this is a pipe (FIFO)");
    expect(child.exitCode).toBeNull();
  });

  it("a pipe in the place of a lock, which is not removed", async () => {
    mkdirSync(path("locked"));
    const fifo = makeFifo(path("locked/.lock"));
    expect(await line(lockFolder(path("locked")))).toContain(".lock: this is a pipe (FIFO)");
    expect(lstatSync(fifo).isFIFO()).toBe(true);
  });
});

describe("the whole of a file", () => {
  it("has a limit, found before anything is read", async () => {
    writeFileSync(path("huge"), "");
    truncateSync(path("huge"), 2 ** 40);
    expect(await line(readJson(path("huge"), sizeLimits.settings))).toBe(
      `${path("huge")}: file has 1.1 TB, the limit for this is 16 MB; is this the right file?`,
    );
    expect(await line(readJsonl(path("huge")))).toContain("log has 1.1 TB, the limit for this is 500 MB");
    expect(
      await line(drain(readDocuments({ path: (linkSync(path("huge"), path("huge.txt")), path("huge.txt")) }))),
    ).toContain("the limit for one document is");
  });

  it.skipIf(!existsSync("/proc/self/status"))("that holds more than it says is refused", async () => {
    expect(await line(readText("/proc/self/status"))).toBe(
      "/proc/self/status: file has more than the 0 bytes it had when opened; something else is changing it: " +
        "wait for that, or give a copy",
    );
  });

  it("is text in UTF-8, with or without its byte order mark, and JSON is not empty", async () => {
    writeFileSync(path("mark"), "\ufeff{}");
    expect(await readJson(path("mark"))).toEqual({});
    for (const order of ["fffe7b007d00", "feff007b007d"]) {
      writeFileSync(path("utf16"), Buffer.from(order, "hex"));
      expect(await line(readText(path("utf16")))).toBe(
        `${path("utf16")}: this is UTF-16 text, expected UTF-8; convert it first, for example with iconv -f ` +
          "utf-16 -t utf-8",
      );
    }
    writeFileSync(path("empty"), "\r\n");
    expect(await line(readJson(path("empty")))).toBe(`${path("empty")}: the file is empty, expected JSON`);
    writeFileSync(path("crlf"), '{\r\n"a": 1\r\n}\r\n');
    expect(await readJson(path("crlf"))).toEqual({ a: 1 });
  });

  it("under a name with newlines is named in one line", async () => {
    expect(await line(readText(path("two\nlines")))).toBe(
      `${path("two\\nlines")}: cannot open file: no such file or folder`,
    );
  });
});

describe.skipIf(!hasSpecialFiles)("a file to be made", () => {
  const makers: Readonly<Record<string, (path: string) => Promise<unknown>>> = {
    requireOutputFile,
    stageFile,
    writeFileAtomic: (file) => writeFileAtomic(file, "text"),
  };

  it.each(Object.keys(makers))("%s takes the place of nothing but a file", async (name) => {
    mkdirSync(path(`out-${name}`));
    const before = (): string[] => readdirSync(path(`out-${name}`));
    const specials = await oneOfEach(path(`out-${name}`));
    const names = before();
    for (const [words, special] of specials) {
      if (words.startsWith("a link")) continue;
      expect(await line(valueAt(makers, name)(special))).toContain(words);
    }
    expect(await line(valueAt(makers, name)("/dev/stdout"))).toMatch(
      /^\/dev\/stdout: this is a .*, expected a file; name a file to be made/,
    );
    expect(await line(valueAt(makers, name)(path("none/file")))).toBe(
      `${path("none/file")}: cannot write file: its folder does not exist; make it first`,
    );
    expect(await line(valueAt(makers, name)(""))).toContain("the name of the file to make is empty");
    expect(before()).toEqual(names);
    expect(lstatSync(path(`out-${name}/fifo`)).isFIFO()).toBe(true);
  });

  it("is not begun in a pipe or a device that lies in its way", async () => {
    const fifo = makeFifo(path("way"));
    expect(await line(openForWriting(fifo))).toContain("a pipe");
    expect(await line(writeTensorFile(fifo, [], () => Promise.reject(new Error("not asked"))))).toContain("a pipe");
    expect(await line(openForWriting("/dev/null"))).toBe("/dev/null: this is a device, expected a regular file");
    writeFileSync(path("old"), "a long text");
    const handle = await openForWriting(path("old"));
    await handle.close();
    expect(readFileSync(path("old"), "utf8")).toBe("");
  });
});

describe.skipIf(!hasSpecialFiles)("a folder to be made", () => {
  it.each([
    ["stageDirectory", stageDirectory],
    ["stageForAttempts", stageResumable],
  ] as const)("%s is refused by name where something else is, and where a link leads nowhere", async (name, stage) => {
    mkdirSync(path(name));
    const fifo = makeFifo(join(path(name), "fifo"));
    symlinkSync("gone", join(path(name), "dead"));
    for (const overwrite of [false, true]) {
      expect(await line(stage(fifo, { overwrite }))).toBe(`${fifo}: this is a pipe (FIFO), expected a folder`);
      expect(await line(stage("/dev/null", { overwrite }))).toBe("/dev/null: this is a device, expected a folder");
      expect(await line(stage(join(path(name), "dead"), { overwrite }))).toContain(
        "dead: this is a link to gone, which is not there",
      );
    }
    expect(readdirSync(path(name)).sort()).toEqual(["dead", "fifo"]);
  });
});
