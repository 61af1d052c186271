import { appendFileSync, existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { openJsonl, readJsonl } from "../../../src/files/io/jsonl.js";
import { openRanges, readJson, readText } from "../../../src/files/io/ranges.js";
import { freeBytes, requireFreeSpace } from "../../../src/files/io/space.js";
import { temporaryFolder } from "./temporary.js";

const root = temporaryFolder();
const path = (name: string): string => join(root, name);
const line = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no error",
    (error: unknown) => {
      expect(error).toBeInstanceOf(UpcycleError);
      return (error as UpcycleError).line;
    },
  );

describe("openRanges", () => {
  it("reads exactly what is asked for", async () => {
    writeFileSync(
      path("bytes"),
      Uint8Array.from({ length: 100 }, (_, i) => i),
    );
    const file = await openRanges(path("bytes"));
    expect(file.size).toBe(100);
    expect([...(await file.read(98, 2))]).toEqual([98, 99]);
    expect((await file.read(100, 0)).byteLength).toBe(0);
    expect((await file.read(3, 8)).byteOffset).toBe(0);
    expect(await line(file.read(98, 3))).toContain("asked for bytes 98 to 101, the file has 100");
    truncateSync(path("bytes"), 10);
    expect(await line(file.read(8, 8))).toContain("file ends at byte 10, it had 100 when opened");
    await file.close();
  });

  it("refuses missing files, folders and devices as bad input", async () => {
    mkdirSync(path("folder"));
    expect(await line(openRanges(path("missing")))).toBe(
      `${path("missing")}: cannot open file: no such file or folder`,
    );
    expect(await line(openRanges(path("folder")))).toBe(`${path("folder")}: this is a folder, expected a file`);
    if (existsSync("/dev/full"))
      expect(await line(openRanges("/dev/full"))).toContain("this is a device, expected a regular file");
  });

  it("reads text and JSON, and refuses what is too large, not UTF-8 or not JSON", async () => {
    writeFileSync(path("t"), "é");
    writeFileSync(path("binary"), Uint8Array.of(255));
    expect(await readText(path("t"))).toBe("é");
    expect(await line(readText(path("t"), 1))).toContain("file has 2 B, the limit for this is 1 B");
    expect(await line(readText(path("binary")))).toContain("file is not UTF-8 text");
    expect(await line(readJson(path("t")))).toContain("not valid JSON");
    writeFileSync(path("deep"), `{"a":"[\\"[","b":${"[".repeat(100_000)}${"]".repeat(100_000)}}`);
    expect(await line(readJson(path("deep")))).toContain("nested more than 500 levels deep");
  });
});

describe("the free space of a disk", () => {
  it("is that of the nearest folder that exists", async () => {
    expect(await freeBytes(join(root, "not", "yet"))).toBeGreaterThan(0);
    await requireFreeSpace(root, 1);
    expect(await line(requireFreeSpace(join(root, "new"), 1e18))).toMatch(
      /not enough disk space: 1000 PB needed, [\d.]+ [kMGTP]?B free; free some space/,
    );
  });
});

describe("a log of JSON lines", () => {
  it("has its lines in the order of the calls", async () => {
    const log = await openJsonl(path("log"));
    await Promise.all(Array.from({ length: 50 }, (_, step) => log.append({ step })));
    await log.sync();
    await log.close();
    const again = await openJsonl(path("log"));
    await again.append({ step: 50 });
    await again.close();
    expect(await readJsonl(path("log"))).toEqual(Array.from({ length: 51 }, (_, step) => ({ step })));
  });

  it("that is cut anywhere keeps its complete lines, drops the torn one and can be appended to", async () => {
    const records = [{ a: 1 }, { text: "é\n" }, 12345, [1, 2]];
    const whole = Buffer.from(records.map((record) => `${JSON.stringify(record)}\n`).join(""));
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.byteLength), fc.constantFrom("", "\0\0\0\n"), async (cut, garbage) => {
        const complete = records.slice(0, whole.subarray(0, cut).toString().split("\n").length - 1);
        writeFileSync(path("torn"), whole.subarray(0, cut));
        // Blocks allocated but never written read as zeros after a power cut.
        if (garbage !== "" && whole[cut - 1] === 10) appendFileSync(path("torn"), garbage);
        expect(await readJsonl(path("torn"))).toEqual(complete);
        const log = await openJsonl(path("torn"));
        await log.append("next");
        await log.close();
        expect(await readJsonl(path("torn"))).toEqual([...complete, "next"]);
      }),
    );
  });

  it("that ends in a long torn line loses that line", async () => {
    writeFileSync(path("long"), `1\n"${"x".repeat(200_000)}`);
    await (await openJsonl(path("long"))).close();
    expect(readFileSync(path("long"), "utf8")).toBe("1\n");
  });

  it("is refused with a broken line in the middle", async () => {
    writeFileSync(path("broken"), "1\nnope\n3\n");
    expect(await line(readJsonl(path("broken")))).toContain("line 2 is not JSON");
    expect(await line(readJsonl(path("no-log")))).toContain("no such file");
  });

  it("stops at a full disk, and tries the next line all the same", async () => {
    const log = await openJsonl(path("full"));
    const handle = await open(path("any"), "w");
    const write = vi
      .spyOn(Object.getPrototypeOf(handle) as FileHandle, "appendFile")
      .mockRejectedValue(Object.assign(new Error("ENOSPC"), { code: "ENOSPC" }));
    const both = await Promise.all([line(log.append(1)), line(log.append(2))]);
    write.mockRestore();
    await Promise.all([log.close(), handle.close()]);
    for (const text of both) expect(text).toContain("full: cannot write log: the disk is full");
  });
});
