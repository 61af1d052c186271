import { closeSync, copyFileSync, ftruncateSync, openSync, utimesSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { fileFingerprint } from "../../../src/files/io/fingerprint.js";
import { temporaryFolder } from "./temporary.js";

const dir = temporaryFolder();

/** A file of 40 MB that is empty but for one byte. */
function large(name: string, at: number): string {
  const path = join(dir, name);
  const file = openSync(path, "w");
  ftruncateSync(file, 40_000_000);
  writeSync(file, Uint8Array.of(1), 0, 1, at);
  closeSync(file);
  return path;
}

describe("a file's fingerprint", () => {
  it("is that of its copy, whenever it was made, and no other's of the same size", async () => {
    const path = join(dir, "notes.txt");
    writeFileSync(path, "some notes");
    const copy = join(dir, "copy.txt");
    copyFileSync(path, copy);
    utimesSync(copy, 1, 1);
    const fingerprint = await fileFingerprint(path);
    expect(fingerprint).toMatch(/^10 bytes, [0-9a-f]{16}$/);
    expect(await fileFingerprint(copy)).toBe(fingerprint);
    writeFileSync(copy, "some motes");
    expect(await fileFingerprint(copy)).not.toBe(fingerprint);
  });

  it("of a large file sees its beginning, its end, and what is changed all over", async () => {
    const marks = await Promise.all(
      [0, 1000, 39_999_999, 20_000_000 - 32_768].map((at, i) => fileFingerprint(large(`large-${i}`, at))),
    );
    expect(await fileFingerprint(large("again", 1000))).toBe(marks[1]);
    expect(new Set(marks.slice(0, 3)).size).toBe(3);
  });

  it("of an empty file exists; a folder has none", async () => {
    writeFileSync(join(dir, "empty"), "");
    expect(await fileFingerprint(join(dir, "empty"))).toMatch(/^0 bytes, /);
    await expect(fileFingerprint(dir)).rejects.toThrow("this is a folder, expected a file");
  });
});
