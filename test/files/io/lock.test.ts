import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { lockFolder } from "../../../src/files/io/lock.js";
import { temporaryFolder } from "./temporary.js";

const base = temporaryFolder();
let count = 0;

function fresh(): string {
  const dir = join(base, String(count++));
  mkdirSync(dir);
  return dir;
}

it("one holder at a time; giving it back lets the next one in", async () => {
  const dir = fresh();
  const release = await lockFolder(dir);
  await expect(lockFolder(dir)).rejects.toThrow(`another command (process ${process.pid}) is working in this folder`);
  await release();
  expect(readdirSync(dir)).toEqual([]);
  await (
    await lockFolder(dir)
  )();
});

it("is taken over from a process that ended, also one with our own id or one that wrote nothing", async () => {
  const child = spawn(process.execPath, ["-e", ""]);
  await once(child, "exit");
  for (const owner of [String(child.pid), String(process.pid), ""]) {
    const dir = fresh();
    writeFileSync(join(dir, ".lock"), owner);
    const release = await lockFolder(dir);
    expect(readFileSync(join(dir, ".lock"), "utf8")).toBe(String(process.pid));
    await release();
  }
});

it("is refused while another process runs", async () => {
  const dir = fresh();
  const child = spawn(process.execPath, ["-e", "setTimeout(() => {}, 60000)"]);
  writeFileSync(join(dir, ".lock"), String(child.pid));
  await expect(lockFolder(dir)).rejects.toThrow(`process ${child.pid}`);
  child.kill("SIGKILL");
});

it("a file of that name that holds no process id is somebody else's and stays", async () => {
  const dir = fresh();
  writeFileSync(join(dir, ".lock"), "the combination is 1234");
  await expect(lockFolder(dir)).rejects.toThrow(".lock is no lock of a command");
  expect(readFileSync(join(dir, ".lock"), "utf8")).toBe("the combination is 1234");
});
