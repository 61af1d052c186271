import { readdirSync, readlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { rangePool } from "../../../src/files/io/range-pool.js";
import { temporaryFolder } from "./temporary.js";

const root = temporaryFolder();
const linux = process.platform === "linux";

function writeFiles(name: string, count: number): string[] {
  return Array.from({ length: count }, (_, i) => {
    const path = join(root, `${name}-${i}`);
    writeFileSync(path, `file ${String(i).padStart(3, "0")} of ${name}`);
    return path;
  });
}

/** Files of the test's folder that the process holds open. */
function openFileCount(): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(root);
    } catch {
      return false;
    }
  }).length;
}

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

describe("a pool of files", () => {
  it.skipIf(!linux)("reads 60 files in any order with 3 of them open", async () => {
    const pool = rangePool(3);
    const files = [];
    for (const path of writeFiles("many", 60)) files.push(await pool.open(path));
    for (const i of [0, 59, 1, 0, 30, 59, 59, 2]) {
      expect(text(await at(files, i).read(5, 3))).toBe(String(i).padStart(3, "0"));
      expect(openFileCount()).toBeLessThanOrEqual(3);
    }
    await Promise.all(files.map((file) => file.close()));
    expect([openFileCount(), pool.openFiles]).toEqual([0, 0]);
  });

  it("makes readers wait for their turn where more files are read at once than may be open", async () => {
    const pool = rangePool(2);
    const files = [];
    for (const path of writeFiles("together", 20)) files.push(await pool.open(path));
    let most = 0;
    const texts = await Promise.all(
      [...files, ...files].map(async (file) => {
        const bytes = await file.read(5, 3);
        most = Math.max(most, pool.openFiles);
        return text(bytes);
      }),
    );
    expect(texts).toEqual([...files, ...files].map((_, i) => String(i % 20).padStart(3, "0")));
    expect(most).toBeLessThanOrEqual(2);
    await Promise.all(files.map((file) => file.close()));
    expect(pool.openFiles).toBe(0);
  });

  it("refuses a file that was replaced while it was closed, and gives its place back", async () => {
    const pool = rangePool(1);
    const [one, two] = writeFiles("replaced", 2) as [string, string];
    const first = await pool.open(one);
    const second = await pool.open(two);
    writeFileSync(one, "another file of another size");
    utimesSync(one, 1, 1);
    await expect(first.read(0, 4)).rejects.toMatchObject({
      kind: "input",
      where: one,
      message: "the file was replaced while it was read",
    });
    expect(text(await second.read(0, 8))).toBe("file 001");
    await Promise.all([first.close(), second.close()]);
    expect(pool.openFiles).toBe(0);
  });

  it("gives the place of a file that cannot be opened to the next", async () => {
    const pool = rangePool(1);
    await expect(pool.open(join(root, "missing"))).rejects.toMatchObject({ kind: "input" });
    const [path] = writeFiles("after", 1) as [string];
    const file = await pool.open(path);
    expect(text(await file.read(0, 4))).toBe("file");
    await file.close();
  });
});
