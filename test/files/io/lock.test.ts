import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { BusyFolderError, isFolderLocked, lockFolder, lockMade } from "../../../src/files/io/lock.js";
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

it("a folder that is removed between its making and its locking is made again", async () => {
  const dir = join(base, String(count++));
  let made = 0;
  const release = await lockMade(dir, () => {
    mkdirSync(dir);
    // As a command does that has just finished there.
    if (++made < 3) rmdirSync(dir);
    return Promise.resolve();
  });
  expect([made, readdirSync(dir)]).toEqual([3, [".lock"]]);
  await release();
  await expect(lockMade(join(base, "none"), () => Promise.resolve())).rejects.toThrow("no such file or folder");
});

it("giving it back a second time leaves the lock of whoever has it now", async () => {
  const dir = fresh();
  const first = await lockFolder(dir);
  await first();
  writeFileSync(join(dir, ".lock"), String(process.ppid));
  await first();
  expect(readdirSync(dir)).toEqual([".lock"]);
});

it("is taken over from a process that ended, also one with our own id or one that wrote nothing", async () => {
  const child = spawn(process.execPath, ["-e", ""]);
  await once(child, "exit");
  for (const owner of [String(child.pid), String(process.pid), ""]) {
    const dir = fresh();
    writeFileSync(join(dir, ".lock"), owner);
    const release = await lockFolder(dir);
    expect(readFileSync(join(dir, ".lock"), "utf8").split("\n").slice(0, 2)).toEqual([String(process.pid), hostname()]);
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

describe("on a disk that machines share", () => {
  it("the lock of another machine's process stays, whatever runs here, and the refusal says what to delete", async () => {
    const ended = spawn(process.execPath, ["-e", ""]);
    await once(ended, "exit");
    for (const pid of [ended.pid, process.ppid, process.pid]) {
      const dir = fresh();
      const text = `${pid}\nnode-7\n0b0e1c7e-0000-4000-8000-000000000000\n`;
      writeFileSync(join(dir, ".lock"), text);
      expect(await isFolderLocked(dir)).toBe(true);
      const refusal = await lockFolder(dir).catch((cause: unknown) => cause);
      expect(refusal).toBeInstanceOf(BusyFolderError);
      const { line, isOwn } = refusal as BusyFolderError;
      expect([isOwn, line]).toEqual([
        false,
        `${dir}: another command (process ${pid} of host node-7) is working in this folder, unless it was killed: this ` +
          "machine cannot see that; wait for it, choose another folder, or, where no such process runs on node-7, " +
          `remove ${join(dir, ".lock")}`,
      ]);
      expect(readFileSync(join(dir, ".lock"), "utf8")).toBe(text);
      expect(readdirSync(dir)).toEqual([".lock"]);
    }
  });

  it("what another machine does to a lock that has ended is not disturbed", async () => {
    const dir = fresh();
    writeFileSync(join(dir, ".lock"), String(process.pid));
    writeFileSync(join(dir, ".lock-takeover"), `${process.pid}\nnode-7\n`);
    await expect(lockFolder(dir)).rejects.toThrow(BusyFolderError);
    expect(readFileSync(join(dir, ".lock-takeover"), "utf8")).toContain("node-7");
  });

  it("a lock of this machine is refused while its process runs, and taken over when that has ended", async () => {
    const dir = fresh();
    const child = spawn(process.execPath, ["-e", "setTimeout(() => {}, 60000)"]);
    writeFileSync(join(dir, ".lock"), `${child.pid}\n${hostname()}\n`);
    await expect(lockFolder(dir)).rejects.toThrow(`another command (process ${child.pid}) is working in this folder`);
    child.kill("SIGKILL");
    await once(child, "exit");
    await (
      await lockFolder(dir)
    )();
  });

  it.skipIf(process.platform !== "linux")(
    "a lock from before this machine started is taken over, though a process has its id again",
    async () => {
      const dir = fresh();
      writeFileSync(join(dir, ".lock"), `${process.ppid}\n${hostname()}\n0b0e1c7e-0000-4000-8000-000000000000\n`);
      expect(await isFolderLocked(dir)).toBe(false);
      await (
        await lockFolder(dir)
      )();
      const release = await lockFolder(dir);
      const [, , boot = ""] = readFileSync(join(dir, ".lock"), "utf8").split("\n");
      await release();
      writeFileSync(join(dir, ".lock"), `${process.ppid}\n${hostname()}\n${boot}\n`);
      await expect(lockFolder(dir)).rejects.toThrow(`process ${process.ppid}`);
    },
  );
});

it("a file of that name that holds no process id is somebody else's and stays", async () => {
  const dir = fresh();
  writeFileSync(join(dir, ".lock"), "the combination is 1234");
  await expect(lockFolder(dir)).rejects.toThrow(".lock is no lock of a command");
  expect(readFileSync(join(dir, ".lock"), "utf8")).toBe("the combination is 1234");
});

it("a lock that says nothing yet belongs to whoever is just making it", async () => {
  const dir = fresh();
  const child = spawn(process.execPath, ["-e", "setTimeout(() => {}, 60000)"]);
  writeFileSync(join(dir, ".lock"), "");
  const taken = lockFolder(dir);
  setTimeout(() => {
    writeFileSync(join(dir, ".lock"), String(child.pid));
  }, 50);
  await expect(taken).rejects.toThrow(`another command (process ${child.pid}) is working in this folder`);
  child.kill("SIGKILL");
});

it("of several processes that find the lock of one that ended, one at a time has the folder", async () => {
  const dir = fresh();
  const module = join(process.cwd(), "dist/files/io/lock.js");
  const ended = spawn(process.execPath, ["-e", ""]);
  await once(ended, "exit");
  // Each takes the folder as often as it can; a file that must not be there when it does so shows a second holder.
  const program = `
    import { lockFolder, BusyFolderError } from ${JSON.stringify(pathToFileURL(module).href)};
    import { closeSync, openSync, unlinkSync, writeFileSync } from "node:fs";
    process.chdir(${JSON.stringify(dir)});
    for (const end = Date.now() + 1500; Date.now() < end; ) {
      const release = await lockFolder(".").catch((cause) => { if (!(cause instanceof BusyFolderError)) throw cause; });
      if (release === undefined) continue;
      closeSync(openSync("held", "wx"));
      await new Promise((resolve) => setTimeout(resolve, 1));
      unlinkSync("held");
      // As one that was killed does.
      writeFileSync(".lock", "${ended.pid}");
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    process.exit(0);`;
  const others = Array.from({ length: 4 }, () =>
    spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", "ignore", "pipe"] }),
  );
  const told = others.map(async (child) => {
    let text = "";
    child.stderr.setEncoding("utf8").on("data", (part: string) => (text += part));
    await once(child, "close");
    return text;
  });
  expect(await Promise.all(told)).toEqual(["", "", "", ""]);
});
