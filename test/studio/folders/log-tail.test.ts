import {
  appendFileSync,
  linkSync,
  mkdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LogTail } from "../../../src/studio/folders/log-tail.js";
import { temporaryFolder } from "../../files/io/temporary.js";

const dir = temporaryFolder();
let files = 0;
const fresh = (text = ""): string => {
  const path = join(dir, `${files++}.jsonl`);
  writeFileSync(path, text);
  return path;
};
const readAll = async (tail: LogTail): Promise<unknown[]> => {
  const found: unknown[] = [];
  await tail.read({ take: (value) => found.push(value) > 0, restart: () => found.push(undefined) });
  return found;
};

describe("a log that is being written", () => {
  it("gives every line once, when it is complete, whatever pieces it is written in", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.jsonValue(), { maxLength: 12 }),
        fc.array(fc.nat(400), { maxLength: 8 }),
        async (values, cuts) => {
          const wanted = values.map((value) => ({ value }));
          const bytes = Buffer.from(wanted.map((line) => `${JSON.stringify(line)}\n`).join(""));
          const places = [...cuts.map((cut) => Math.min(cut, bytes.length)), bytes.length].sort((a, b) => a - b);
          const path = fresh();
          const tail = new LogTail(path);
          const found: unknown[] = [];
          let from = 0;
          for (const to of places) {
            appendFileSync(path, bytes.subarray(from, to));
            from = to;
            found.push(...(await readAll(tail)));
            const complete = bytes.subarray(0, to).toString("utf8").split("\n").length - 1;
            expect(found).toHaveLength(bytes.subarray(0, to).filter((byte) => byte === 10).length);
            expect(complete).toBe(found.length);
          }
          expect(JSON.stringify(found)).toBe(JSON.stringify(wanted));
          expect(tail.badLines).toBe(0);
        },
      ),
      { numRuns: 30 },
    );
  });

  it("passes over lines that are no JSON and counts them", async () => {
    const tail = new LogTail(fresh('{"a":1}\n{"a":\nnull\n\n{"a":2}\n'));
    expect(await readAll(tail)).toEqual([{ a: 1 }, null, { a: 2 }]);
    expect(tail.badLines).toBe(1);
  });

  it("begins anew where the log was cut off, replaced, or written over with as many bytes", async () => {
    const path = fresh('{"a":1}\n{"a":2}\n');
    const tail = new LogTail(path);
    expect(await readAll(tail)).toHaveLength(2);
    truncateSync(path, 0);
    appendFileSync(path, '{"a":3}\n');
    expect(await readAll(tail)).toEqual([undefined, { a: 3 }]);
    const other = fresh('{"a":4}\n{"a":5}\n');
    renameSync(other, path);
    expect(await readAll(tail)).toEqual([undefined, { a: 4 }, { a: 5 }]);
    writeFileSync(path, '{"a":6}\n{"a":7}\n{"a":8}\n');
    expect(await readAll(tail)).toEqual([undefined, { a: 6 }, { a: 7 }, { a: 8 }]);
  });

  it("goes on behind a torn line that was cut off before the next was written", async () => {
    const path = fresh('{"a":1}\n{"a":');
    const tail = new LogTail(path);
    expect(await readAll(tail)).toEqual([{ a: 1 }]);
    truncateSync(path, 8);
    appendFileSync(path, '{"a":2}\n');
    expect(await readAll(tail)).toEqual([{ a: 2 }]);
  });

  it("opens no link, no folder and nothing that is not there", async () => {
    const path = fresh('{"a":1}\n');
    symlinkSync(path, join(dir, "link"));
    mkdirSync(join(dir, "folder"));
    for (const name of ["link", "folder", "nothing"])
      expect(await new LogTail(join(dir, name)).read({ take: () => true, restart: () => undefined })).toBeNull();
    linkSync(path, join(dir, "hard"));
    rmSync(path);
    expect(await readAll(new LogTail(join(dir, "hard")))).toEqual([{ a: 1 }]);
  });
});
