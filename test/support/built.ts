/** Running the compiled package in processes of its own: what a kill or an exit does can only be seen from outside. */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = new URL("../../", import.meta.url);

/** URL of a compiled module, for import in a script. Throws if there is no build. */
export function built(path: string): string {
  const url = new URL(`dist/${path}`, root);
  if (!existsSync(fileURLToPath(url))) throw new Error(`${fileURLToPath(url)} is missing: run npm run build first`);
  return url.href;
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Script {
  readonly process: ChildProcess;
  readonly ended: Promise<Ended>;
}

/** Runs an ES module given as text; what it still runs after `limitMs` is killed. */
export function runScript(source: string, args: readonly string[] = [], limitMs = 30_000): Script {
  const child = spawn(process.execPath, ["--input-type=module", "-e", source, "script", ...args], {
    cwd: fileURLToPath(root),
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  const timer = setTimeout(() => child.kill("SIGKILL"), limitMs);
  const ended = new Promise<Ended>((resolve) => {
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stdout, stderr });
    });
  });
  return { process: child, ended };
}
