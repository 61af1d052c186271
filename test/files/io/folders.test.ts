import { existsSync, mkdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { makeFolders } from "../../../src/files/io/folders.js";
import { temporaryFolder } from "./temporary.js";

const root = temporaryFolder();

describe("makeFolders", () => {
  it("makes what is missing, and leaves what is there", async () => {
    const path = join(root, "a", "b", "c");
    await makeFolders(path);
    expect(statSync(path).isDirectory()).toBe(true);
    writeFileSync(join(path, "file"), "x");
    await makeFolders(path);
    await makeFolders(`${path}/`);
    expect(existsSync(join(path, "file"))).toBe(true);
    await makeFolders("/");
  });

  it("makes one folder when many ask for it at the same time", async () => {
    for (let round = 0; round < 200; round++) {
      const path = join(root, `${round}`, "made", "by", "many");
      await Promise.all(Array.from({ length: 8 }, () => makeFolders(path)));
      expect(statSync(path).isDirectory()).toBe(true);
    }
  });

  it("goes through a link to a folder", async () => {
    mkdirSync(join(root, "target"));
    symlinkSync(join(root, "target"), join(root, "link"));
    await makeFolders(join(root, "link"));
    await makeFolders(join(root, "link", "x", "y"));
    expect(existsSync(join(root, "target", "x", "y"))).toBe(true);
  });

  it("says what the system says where a file is in the way", async () => {
    writeFileSync(join(root, "file"), "x");
    await expect(makeFolders(join(root, "file"))).rejects.toMatchObject({ code: "EEXIST" });
    await expect(makeFolders(join(root, "file", "x", "y"))).rejects.toMatchObject({ code: "ENOTDIR" });
    symlinkSync(join(root, "nowhere"), join(root, "dangling"));
    await expect(makeFolders(join(root, "dangling"))).rejects.toMatchObject({ code: "EEXIST" });
    await expect(makeFolders(join(root, "dangling", "x"))).rejects.toMatchObject({ code: "EEXIST" });
  });

  it.runIf(existsSync("/proc/self"))("ends where a system makes no folders", async () => {
    await expect(makeFolders("/proc/no/such/place")).rejects.toMatchObject({ code: "ENOENT" });
  });
});
