/**
 * Starts a run: writes its scripts into its folder and hands them to torchrun, Slurm or Kubernetes. What was started is
 * recorded, so that one run is never started twice.
 */
import { createHash } from "node:crypto";
import { spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { mkdir } from "node:fs/promises";
import { constants } from "node:os";
import { basename, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { inputError, interruptedError, stopError, UpcycleError } from "../../base/errors.js";
import { shellPath } from "../../base/shell.js";
import { writeFileAtomic } from "../../files/io/atomic.js";
import { fsError, withFsErrors } from "../../files/io/fs-errors.js";
import { lockFolder } from "../../files/io/lock.js";
import { kubernetesManifest, localScript, slurmScript, type LaunchPlan } from "../plan/scripts.js";
import { jobsUnderWay, recordJobs } from "./jobs.js";
import { runProgram } from "./programs.js";

/** Where a run was started. */
export type Started =
  | { readonly where: "local"; readonly exitCode: number; readonly log: string }
  | { readonly where: "slurm"; readonly jobs: readonly string[]; readonly script: string }
  | { readonly where: "kubernetes"; readonly name: string; readonly manifest: string };

/** A name that Slurm and Kubernetes take, unlike that of any other folder. */
export function runName(out: string): string {
  const path = resolve(out);
  const name = basename(path)
    .toLowerCase()
    .replace(/[^a-z0-9-]+/g, "-")
    .replace(/^-+|-+$/g, "");
  const mark = createHash("sha256").update(path).digest("hex").slice(0, 6);
  return `${name === "" ? "run" : name.slice(0, 40)}-${mark}`;
}

/** The texts that would be used, by the names that they get in the run's folder. */
export function launchFiles(plan: LaunchPlan, more: readonly string[] = []): Record<string, string> {
  const name = runName(plan.config.out);
  if (plan.config.slurm !== undefined) return { "job.sbatch": slurmScript(plan, name) };
  if (plan.config.kubernetes !== undefined)
    return { "job.json": `${JSON.stringify(kubernetesManifest(plan, name), null, 2)}\n` };
  return { "run.sh": localScript(plan, more) };
}

/**
 * Starts the run. Throws inputError where it is under way already, stopError where a scheduler refuses it or its log
 * cannot be written, interruptedError where `signal` fired before a run on this machine began.
 */
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
    await requireIdle(plan);
    const files = launchFiles(plan, more);
    for (const [name, text] of Object.entries(files)) await writeFileAtomic(join(out, name), text);
    if (plan.config.slurm !== undefined) return await onSlurm(plan, join(out, "job.sbatch"));
    if (plan.config.kubernetes !== undefined) return await onKubernetes(plan, join(out, "job.json"));
    return await here(plan, join(out, "run.sh"), signal, onLine);
  } finally {
    await release();
  }
}

/** Throws inputError if jobs of this run wait or work, stopError where that cannot be found out. */
async function requireIdle(plan: LaunchPlan): Promise<void> {
  // A run on this machine holds the folder's lock, which is ours by now.
  if (plan.config.slurm === undefined && plan.config.kubernetes === undefined) return;
  const alive = await jobsUnderWay(plan);
  if (alive.length === 0) return;
  const { out, slurm } = plan.config;
  const end =
    slurm === undefined
      ? `kubectl delete --filename ${shellPath(join(out, "job.json"))}`
      : `scancel ${alive.map(({ id }) => id).join(" ")}`;
  throw inputError(`the run is under way already: job ${alive[0]!.id} ${alive[0]!.state}`, {
    where: out,
    hint: `wait for it, or end it: ${end}`,
  });
}

async function onSlurm(plan: LaunchPlan, script: string): Promise<Started> {
  const { jobs } = plan.config.slurm!;
  const ids: string[] = [];
  for (let job = 0; job < jobs; job++) {
    // Whatever ended the one before: its checkpoint is where the next goes on.
    const after = ids.length === 0 ? [] : [`--dependency=afterany:${ids.at(-1)},singleton`];
    const answer = await runProgram("sbatch", ["--parsable", ...after, script]).catch((cause: unknown) => {
      throw chainCut(cause, ids, jobs);
    });
    const id = /^\d+/.exec(answer.trim())?.[0];
    if (id === undefined)
      throw stopError(`sbatch answered ${JSON.stringify(answer.trim().slice(0, 100))}`, { where: script });
    ids.push(id);
    await recordJobs(plan.config.out, { slurm: ids });
  }
  return { where: "slurm", jobs: ids, script };
}

/** What sbatch said of a job in the middle of a chain, with the jobs before it, which stay. */
function chainCut(cause: unknown, ids: readonly string[], jobs: number): unknown {
  if (ids.length === 0 || !(cause instanceof UpcycleError)) return cause;
  const { kind, message, where } = cause;
  return new UpcycleError(
    {
      kind,
      message: `${message} (job ${ids.length + 1} of ${jobs})`,
      ...(where === undefined ? {} : { where }),
      hint: `the jobs before it are queued and will run: ${ids.join(" ")}; scancel ends them`,
    },
    { cause },
  );
}

async function onKubernetes(plan: LaunchPlan, manifest: string): Promise<Started> {
  const name = runName(plan.config.out);
  // create, not apply: a run of this name that is there is an error.
  await runProgram("kubectl", ["create", "--filename", manifest]);
  await recordJobs(plan.config.out, { kubernetes: name });
  return { where: "kubernetes", name, manifest };
}

/**
 * Runs on this machine until it ends; lines go to the log and to `onLine`. A run whose log can no longer be written is
 * asked to save and end.
 */
async function here(
  plan: LaunchPlan,
  script: string,
  signal: AbortSignal | undefined,
  onLine: ((line: string) => void) | undefined,
): Promise<Started> {
  if (signal?.aborted === true) throw interruptedError("stopped before the run began", { where: plan.config.out });
  const log = join(plan.config.out, "logs", "run.log");
  const child = spawn("bash", [resolve(script)], { stdio: ["ignore", "pipe", "pipe"] });
  const stop = (): void => void child.kill("SIGTERM");
  signal?.addEventListener("abort", stop);
  const file = createWriteStream(log, { flags: "a" });
  const unwritten: Error[] = [];
  file.on("error", (cause) => {
    unwritten.push(cause);
    stop();
  });
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => file.write(chunk));
    if (onLine !== undefined) createInterface({ input: stream, crlfDelay: Infinity }).on("line", onLine);
  }
  try {
    const exitCode = await new Promise<number>((done, failed) => {
      child.on("error", (cause) => failed(fsError(cause, "bash", "start the run")));
      child.on("close", (code, by) => done(code ?? 128 + (by === null ? 0 : constants.signals[by])));
    });
    if (unwritten.length > 0) throw fsError(unwritten[0], log, "write the log");
    return { where: "local", exitCode, log };
  } finally {
    signal?.removeEventListener("abort", stop);
    await new Promise<void>((done) => file.end(() => done()));
  }
}
