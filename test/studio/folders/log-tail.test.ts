import {
  appendFileSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LogTail } from "../../../src/studio/folders/log-tail.js";
import { distantFiles, localFiles } from "../../../src/studio/folders/safe-file.js";
import { temporaryFolder } from "../../files/io/temporary.js";

const dir = temporaryFolder();
let count = 0;
const fresh = (text = ""): string => {
  const path = join(dir, `${count++}.jsonl`);
  writeFileSync(path, text);
  return path;
};
const readAll = async (tail: LogTail): Promise<unknown[]> => {
  const found: unknown[] = [];
  await tail.read({ take: (value) => found.push(value) > 0, restart: () => found.push(undefined) });
  return found;
};

describe.each([
  ["on a disk of this machine", localFiles],
  ["far away", distantFiles],
])("a log that is being written, %s", (_, files) => {
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
          const tail = new LogTail(path, files);
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

  it("has what the log has, however it is cut off, written over, replaced and grown between two looks", async () => {
    const change = fc.oneof(
      { weight: 5, arbitrary: fc.record({ kind: fc.constant("append" as const), size: fc.nat(60), lines: fc.nat(4) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("cut" as const), size: fc.nat(300), lines: fc.nat(3) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("over" as const), size: fc.nat(60), lines: fc.nat(6) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("other" as const), size: fc.nat(60), lines: fc.nat(6) }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(fc.record({ change, isSeen: fc.boolean() }), { maxLength: 12 }), async (changes) => {
        const path = fresh();
        const tail = new LogTail(path, files);
        let number = 0;
        let clock = 1e9;
        const more = (lines: number, size: number): string => {
          const text = Array.from({ length: lines + 1 }, () => `{"n":${++number},"pad":"${"é".repeat(size)}"}\n`).join(
            "",
          );
          // The last line is torn.
          return text.slice(0, text.length - (size % 9));
        };
        let found: unknown[] = [];
        for (const { change: one, isSeen } of changes) {
          if (one.kind === "append") appendFileSync(path, more(one.lines, one.size));
          if (one.kind === "cut") {
            truncateSync(path, Math.min(one.size, statSync(path).size));
            appendFileSync(path, more(one.lines, one.size % 7));
          }
          if (one.kind === "over") writeFileSync(path, more(one.lines, one.size));
          if (one.kind === "other") renameSync(fresh(more(one.lines, one.size)), path);
          utimesSync(path, clock, clock++);
          if (!isSeen) continue;
          await tail.read({ take: (value) => found.push(value) > 0, restart: () => (found = []) });
          const lines = readFileSync(path).toString("utf8").split("\n").slice(0, -1);
          const whole = lines.flatMap((line): unknown[] => {
            try {
              return [JSON.parse(line)];
            } catch {
              return [];
            }
          });
          expect(found).toEqual(whole);
          expect(tail.badLines).toBe(lines.filter((line) => line !== "").length - whole.length);
        }
      }),
      { numRuns: 60 },
    );
  });

  it("reads lines that are longer than a piece, and gives the text of those that are wanted as text", async () => {
    const long = `{"a":"${"x".repeat(200_000)}"}`;
    const path = fresh(`{"a":1}\n${long}\n{"a":2}\n`);
    const [kept, taken]: [string[], unknown[]] = [[], []];
    const reading = await new LogTail(path, files).read({
      keep: (line) => line.length < 10 && kept.push(line) > 0,
      take: (value) => taken.push(value) > 0,
      restart: () => undefined,
    });
    expect(reading).toMatchObject({ changed: true, restarted: false });
    expect([kept, taken]).toEqual([['{"a":1}', '{"a":2}'], [JSON.parse(long)]]);
  });

  it("counts what is no record, and what breaks whoever takes it", async () => {
    const tail = new LogTail(fresh('{"type":"what"}\n{"type":"eval"}\n{"type":"step","step":1}\n'), files);
    const takes = (value: unknown): boolean => {
      const { type } = value as { type: string };
      if (type === "eval") throw new TypeError("it has no load");
      return type === "step";
    };
    await tail.read({ take: takes, restart: () => undefined });
    expect(tail.badLines).toBe(2);
  });

  it("passes over lines that are no JSON and counts them", async () => {
    const tail = new LogTail(fresh('{"a":1}\n{"a":\nnull\n\n{"a":2}\n'), files);
    expect(await readAll(tail)).toEqual([{ a: 1 }, null, { a: 2 }]);
    expect(tail.badLines).toBe(1);
  });

  it("begins anew where the log was cut off, replaced, or written over with as many bytes", async () => {
    const path = fresh('{"a":1}\n{"a":2}\n');
    const tail = new LogTail(path, files);
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
    const tail = new LogTail(path, files);
    expect(await readAll(tail)).toEqual([{ a: 1 }]);
    truncateSync(path, 8);
    appendFileSync(path, '{"a":2}\n');
    expect(await readAll(tail)).toEqual([{ a: 2 }]);
  });

  it("opens no link, no folder and nothing that is not there", async () => {
    const path = fresh('{"a":1}\n');
    const names = ["link", "folder", "nothing"].map((name) => `${count}-${name}`);
    symlinkSync(path, join(dir, names[0]!));
    mkdirSync(join(dir, names[1]!));
    for (const name of names)
      expect(await new LogTail(join(dir, name), files).read({ take: () => true, restart: () => undefined })).toBeNull();
    const hard = join(dir, `${count}-hard`);
    linkSync(path, hard);
    rmSync(path);
    expect(await readAll(new LogTail(hard, files))).toEqual([{ a: 1 }]);
  });
});
