import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { UpcycleError } from "../../../src/base/errors.js";
import { readTable } from "../../../src/laws/points/table.js";
import { readInput, readInputText } from "../../../src/files/io/streams.js";
import { hasSpecialFiles, makeFifo, oneOfEach, writer } from "./special.js";
import { temporaryFolder } from "./temporary.js";

const root = temporaryFolder();
const path = (name: string): string => join(root, name);
const line = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no error",
    (error: unknown) => (error as UpcycleError).line,
  );

describe.skipIf(!hasSpecialFiles)("an input that may be a pipe", () => {
  it("is a file, or a pipe read to its end, also where a character is cut between two chunks", async () => {
    writeFileSync(path("file"), "é\r\n");
    expect(await readInputText(path("file"))).toBe("é\r\n");
    const fifo = makeFifo(path("text"));
    writer("printf 'caf\\303'; sleep 0.2; printf '\\251'", fifo);
    expect(await readInputText(fifo)).toBe("café");
    writer("true", fifo);
    expect(await readInputText(fifo)).toBe("");
  });

  it("is no folder, device or socket: each is refused by what it is", async () => {
    for (const [words, special] of await oneOfEach(root)) {
      if (!words.includes("FIFO")) expect(await line(readInput(special))).toContain(words);
    }
  });

  it("has a limit, after which the rest is not waited for", async () => {
    const fifo = makeFifo(path("endless"));
    writer("yes; sleep 60", fifo);
    expect(await line(readInput(fifo, { maxBytes: 1e6 }))).toBe(
      `${fifo}: the stream goes on after 1.0 MB, the limit for this; is this the right one?`,
    );
  });

  it("that is no text is left at its first wrong byte", async () => {
    const fifo = makeFifo(path("bytes"));
    writer("printf 'text\\377'; sleep 60", fifo);
    expect(await line(readInputText(fifo))).toBe(`${fifo}: file is not UTF-8 text`);
    writer("printf '\\377\\376t\\000'; sleep 60", fifo);
    expect(await line(readInputText(fifo))).toContain("this is UTF-16 text, expected UTF-8");
  });
});

describe.skipIf(!hasSpecialFiles)("a table from a pipe", () => {
  it("is read like one from a file", async () => {
    const fifo = makeFifo(path("table"));
    writer("printf 'N,D\\r\\n1,2\\r\\n'", fifo);
    expect(await readTable(fifo)).toEqual({ headers: ["N", "D"], rows: [["1", "2"]], lines: [2] });
  });

  it("is refused at the first zero byte, as is a device", async () => {
    const fifo = makeFifo(path("zeros"));
    writer("cat /dev/zero", fifo);
    expect(await line(readTable(fifo))).toBe(
      `${fifo}: this is no text: byte 0 is zero; expected CSV, JSON lines, or Parquet`,
    );
    expect(await line(readTable("/dev/zero"))).toBe("/dev/zero: this is a device, expected a file or a pipe");
  });
});
