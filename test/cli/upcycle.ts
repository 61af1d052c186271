/** Runs the built command line as a child process, as a user would. */
import { spawn, type ChildProcess } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

const main = fileURLToPath(new URL("../../bin/upcycle.js", import.meta.url));

/** How a command ended. */
export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that runs. */
export interface Running {
  readonly process: ChildProcess;
  readonly outcome: Promise<Outcome>;
  /** Resolves once the outputs so far contain `text`; rejects if the process ends before. */
  saw(text: string): Promise<void>;
}

/**
 * Starts the command line. `input` is its standard input, empty if left out. The variable in which shells name their
 * command is empty, so that tests that `nohup` has started do not count as such a command.
 */
export function start(
  args: readonly string[],
  cwd?: string,
  { input, env = {} }: { readonly input?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Running {
  const child = spawn(process.execPath, [main, ...args], {
    cwd,
    env: { ...process.env, _: "", ...env },
    stdio: ["pipe", "pipe", "pipe"],
  });
  // A command that does not read its input may end first.
  child.stdin.on("error", () => undefined).end(input);
  const output = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"] as const) {
    child[stream].setEncoding("utf8").on("data", (text: string) => (output[stream] += text));
  }
  const outcome = new Promise<Outcome>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, ...output }));
  });
  const saw = (text: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (`${output.stdout}\n${output.stderr}`.includes(text)) resolve();
      };
      child.stdout.on("data", look);
      child.stderr.on("data", look);
      child.on("close", () => reject(new Error(`ended without "${text}": ${output.stderr}`)));
      look();
    });
  return { process: child, outcome, saw };
}

/** Runs a line of bash in which `upcycle` is the command line and "$1", "$2" and so on the arguments. */
export async function shell(line: string, ...args: readonly string[]): Promise<Outcome> {
  const child = spawn("bash", ["-c", `upcycle() { "$node" "$main" "$@"; }; ${line}`, "bash", ...args], {
    env: { ...process.env, node: process.execPath, main },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"] as const)
    child[stream].setEncoding("utf8").on("data", (text: string) => (output[stream] += text));
  const code = await new Promise<number | null>((resolve, reject) => child.on("error", reject).on("close", resolve));
  return { code, ...output };
}

/** Runs the command line to its end. */
export const upcycle = (...args: readonly string[]): Promise<Outcome> => start(args).outcome;

/** The JSON document that a command printed; fails with its errors where it did not succeed. */
export async function upcycleJson(...args: readonly string[]): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await upcycle(...args, "--json");
  if (code !== 0) throw new Error(`exit ${code}: ${stderr}`);
  return JSON.parse(stdout) as Record<string, unknown>;
}

/** A copy of a model folder that a test may damage. */
export function copyModel(from: string, to: string): string {
  mkdirSync(dirname(to), { recursive: true });
  cpSync(from, to, { recursive: true });
  return to;
}

/** Rewrites the header of a safetensors file; the tensors' bytes stay. */
export function editHeader(
  path: string,
  edit: (header: Record<string, { dtype: string; shape: number[] }>) => void,
): void {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + length).toString()) as Parameters<typeof edit>[0];
  edit(header);
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.byteLength));
  writeFileSync(path, Buffer.concat([size, json, file.subarray(8 + length)]));
}
