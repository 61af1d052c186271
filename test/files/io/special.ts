/** Things under a name that are no regular files. */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, symlinkSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { onTestFinished } from "vitest";

/** Windows has neither these pipes nor these devices. */
export const hasSpecialFiles = process.platform !== "win32";

export function makeFifo(path: string): string {
  execFileSync("mkfifo", [path]);
  return path;
}

/** Runs a shell command that writes into a pipe; ended with the test, whether or not it has found a reader. */
export function writer(command: string, path: string): ChildProcess {
  const child = spawn("sh", ["-c", `(${command}) > "$0"`, path], { stdio: "ignore", detached: true });
  onTestFinished(() => {
    try {
      process.kill(-child.pid!, "SIGKILL");
    } catch {
      // It has ended.
    }
  });
  return child;
}

/** One of each kind in a folder, by the words that a message has for it. */
export async function oneOfEach(dir: string): Promise<ReadonlyMap<string, string>> {
  const at = (name: string): string => join(dir, name);
  mkdirSync(at("folder"));
  symlinkSync("gone", at("dead"));
  symlinkSync("loop", at("loop"));
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(at("socket"), resolve));
  onTestFinished(() => void server.close());
  return new Map([
    ["this is a pipe (FIFO)", makeFifo(at("fifo"))],
    ["this is a socket", at("socket")],
    ["this is a device", "/dev/zero"],
    ["this is a folder", at("folder")],
    ["a link to gone: no such file or folder", at("dead")],
    ["links lead in a circle", at("loop")],
  ]);
}
