/**
 * Starts a run: writes its scripts into its folder and hands them to torchrun, Slurm or Kubernetes. What was started is
 * recorded, so that one run is never started twice.
 */
import { execFile, spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { mkdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { inputError, stopError } from "../../base/errors.js";
import { exists, writeFileAtomic, writeJson } from "../../files/io/atomic.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { lockFolder } from "../../files/io/lock.js";
import { readJson } from "../../files/io/ranges.js";
import { kubernetesManifest, localScript, slurmScript, type LaunchPlan } from "../plan/scripts.js";

/** Where a run was started. */
export type Started =
  | { readonly where: "local"; readonly exitCode: number; readonly log: string }
  | { readonly where: "slurm"; readonly jobs: readonly string[]; readonly script: string }
  | { readonly where: "kubernetes"; readonly name: string; readonly manifest: string };

interface LaunchRecord {
  readonly slurm?: readonly string[];
  readonly kubernetes?: string;
}

const recordName = "launch.json";

/** A name that Slurm and Kubernetes take. */
export function runName(out: string): string {
  const name = basename(resolve(out))
    .toLowerCase()
    .replace(/[^a-z0-9-]+/g, "-")
    .replace(/^-+|-+$/g, "");
  return name === "" ? "run" : name.slice(0, 50);
}

/** The texts that would be used, by the names that they get in the run's folder. */
export function launchFiles(plan: LaunchPlan, more: readonly string[] = []): Record<string, string> {
  const name = runName(plan.config.out);
  if (plan.config.slurm !== undefined) return { "job.sbatch": slurmScript(plan, name) };
  if (plan.config.kubernetes !== undefined)
    return { "job.json": `${JSON.stringify(kubernetesManifest(plan, name), null, 2)}\n` };
  return { "run.sh": localScript(plan, more) };
}

/** Starts the run. Throws inputError where it is under way already, stopError where a scheduler refuses it. */
export async function startRun(
  plan: LaunchPlan,
  {
    more = [],
    signal,
    onLine,
  }: {
    readonly more?: readonly string[];
    readonly signal?: AbortSignal;
    readonly onLine?: (line: string) => void;
  } = {},
): Promise<Started> {
  const { out } = plan.config;
  await withFsErrors(out, "create folder", () => mkdir(join(out, "logs"), { recursive: true }));
  const release = await lockFolder(out);
  try {
    await requireIdle(out);
    const files = launchFiles(plan, more);
    for (const [name, text] of Object.entries(files)) await writeFileAtomic(join(out, name), text);
    if (plan.config.slurm !== undefined) return await onSlurm(plan, join(out, "job.sbatch"));
    if (plan.config.kubernetes !== undefined) return await onKubernetes(plan, join(out, "job.json"));
    return await here(plan, join(out, "run.sh"), signal, onLine);
  } finally {
    await release();
  }
}

/** Throws inputError if jobs of this run wait or work. */
async function requireIdle(out: string): Promise<void> {
  const path = join(out, recordName);
  if (!(await exists(path))) return;
  const { slurm = [] } = (await readJson(path)) as LaunchRecord;
  if (slurm.length === 0) return;
  // Jobs that ended long ago are unknown to squeue, which then fails.
  const listed = await run("squeue", ["--noheader", "--format=%i %T", `--jobs=${slurm.join(",")}`]).catch(() => "");
  const alive = listed.split("\n").filter((line) => line.trim() !== "");
  if (alive.length > 0)
    throw inputError(`the run is under way already: job ${alive[0]!.trim()}`, {
      where: out,
      hint: `wait for it, or end it: scancel ${slurm.join(" ")}`,
    });
}

async function onSlurm(plan: LaunchPlan, script: string): Promise<Started> {
  const { jobs } = plan.config.slurm!;
  const ids: string[] = [];
  for (let job = 0; job < jobs; job++) {
    // Whatever ended the one before: its checkpoint is where the next goes on.
    const after = ids.length === 0 ? [] : [`--dependency=afterany:${ids.at(-1)}`];
    const answer = await run("sbatch", ["--parsable", ...after, script]);
    const id = /^\d+/.exec(answer.trim())?.[0];
    if (id === undefined)
      throw stopError(`sbatch answered ${JSON.stringify(answer.trim().slice(0, 100))}`, { where: script });
    ids.push(id);
    await writeJson(join(plan.config.out, recordName), { slurm: ids } satisfies LaunchRecord);
  }
  return { where: "slurm", jobs: ids, script };
}

async function onKubernetes(plan: LaunchPlan, manifest: string): Promise<Started> {
  const name = runName(plan.config.out);
  // create, not apply: a run of this name that is there is an error.
  await run("kubectl", ["create", "--filename", manifest]);
  await writeJson(join(plan.config.out, recordName), { kubernetes: name } satisfies LaunchRecord);
  return { where: "kubernetes", name, manifest };
}

/** Runs on this machine until it ends; lines go to the log and to `onLine`. */
async function here(
  plan: LaunchPlan,
  script: string,
  signal: AbortSignal | undefined,
  onLine: ((line: string) => void) | undefined,
): Promise<Started> {
  const log = join(plan.config.out, "logs", "run.log");
  const child = spawn("bash", [resolve(script)], { stdio: ["ignore", "pipe", "pipe"] });
  const stop = (): void => void child.kill("SIGTERM");
  signal?.addEventListener("abort", stop);
  const file = createWriteStream(log, { flags: "a" });
  const take = lineSplitter((line) => onLine?.(line));
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => {
      file.write(chunk);
      take(chunk);
    });
  const exitCode = await new Promise<number>((done, failed) => {
    child.on("error", failed);
    child.on("close", (code, by) => done(code ?? (by === null ? 1 : 128)));
  });
  signal?.removeEventListener("abort", stop);
  await new Promise<void>((done) => file.end(done));
  return { where: "local", exitCode, log };
}

function lineSplitter(onLine: (line: string) => void): (chunk: Buffer) => void {
  let rest = "";
  return (chunk) => {
    const lines = (rest + chunk.toString("utf8")).split("\n");
    rest = lines.pop()!;
    lines.forEach(onLine);
  };
}

/** What a program prints. Throws inputError where it is not installed, stopError where it fails. */
function run(program: string, words: readonly string[]): Promise<string> {
  return new Promise((done, failed) => {
    execFile(program, [...words], { timeout: 120_000 }, (error, stdout, stderr) => {
      if (error === null) return done(stdout);
      if ((error as NodeJS.ErrnoException).code === "ENOENT")
        return failed(inputError(`${program} is not installed here`, { hint: "see the scripts with --dry-run" }));
      const said = (stderr.trim() || error.message).split("\n")[0]!;
      failed(stopError(`${program} failed: ${said}`, { where: words.at(-1) ?? program }));
    });
  });
}
