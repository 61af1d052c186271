/**
 * The jobs of a run: whether any waits or works, and how they are ended. What was started is recorded in the run's
 * folder; jobs of Slurm also carry a mark, because a command may be killed between the start of a job and its record.
 */
import { userInfo } from "node:os";
import { join } from "node:path";
import { stopError } from "../../base/errors.js";
import { exists, writeJson } from "../../files/io/atomic.js";
import { isFolderLocked } from "../../files/io/lock.js";
import { readJson } from "../../files/io/ranges.js";
import { slurmMark, type LaunchPlan } from "../plan/scripts.js";
import { runProgram } from "./programs.js";

/** What was started, as the run's folder keeps it. */
interface LaunchRecord {
  readonly slurm?: readonly string[];
  readonly kubernetes?: string;
}

const recordName = "launch.json";

/** A job that waits or works. */
export interface ClusterJob {
  readonly id: string;
  readonly state: string;
}

/** Writes down what was started. */
export const recordJobs = (out: string, record: LaunchRecord): Promise<void> =>
  writeJson(join(out, recordName), record);

/** Jobs of the run that wait or work. Throws stopError where the scheduler does not answer. */
export async function jobsUnderWay({ config }: Pick<LaunchPlan, "config">): Promise<ClusterJob[]> {
  const { out } = config;
  if (config.slurm !== undefined) return slurmJobs(out);
  if (config.kubernetes !== undefined) return kubernetesJobs(join(out, "job.json"));
  return (await isFolderLocked(out)) ? [{ id: "torchrun", state: "RUNNING" }] : [];
}

/** States of Slurm's jobs that will do nothing more; squeue shows some of them for a while. */
const over = new Set([
  "BOOT_FAIL",
  "CANCELLED",
  "COMPLETED",
  "DEADLINE",
  "FAILED",
  "NODE_FAIL",
  "OUT_OF_MEMORY",
  "REVOKED",
  "TIMEOUT",
]);

/** All jobs of the user are asked for: squeue fails for the numbers of jobs that it has forgotten. */
async function slurmJobs(out: string): Promise<ClusterJob[]> {
  const path = join(out, recordName);
  const { slurm = [] } = (await exists(path)) ? ((await readJson(path)) as LaunchRecord) : {};
  const listed = await runProgram("squeue", [
    "--noheader",
    `--user=${userInfo().username}`,
    "--states=all",
    "--format=%i|%T|%k",
  ]);
  return listed.split("\n").flatMap((line) => {
    const [id = "", state = "", ...comment] = line.trim().split("|");
    const isOurs = slurm.includes(id) || comment.join("|") === slurmMark(out);
    return isOurs && !over.has(state) ? [{ id, state }] : [];
  });
}

/** The objects of a manifest, unless their controller says that they have ended. */
async function kubernetesJobs(manifest: string): Promise<ClusterJob[]> {
  if (!(await exists(manifest))) return [];
  const found = await runProgram("kubectl", ["get", "--ignore-not-found", "--output=json", "--filename", manifest]);
  if (found.trim() === "") return [];
  let status: { metadata?: { name?: string }; status?: { conditions?: { type?: string; status?: string }[] } };
  try {
    status = JSON.parse(found) as typeof status;
  } catch {
    throw stopError("kubectl answered something that is no JSON", { where: manifest });
  }
  const reached = (status.status?.conditions ?? []).filter((one) => one.status === "True").map(({ type }) => type);
  const hasEnded = reached.some((type) => type === "Succeeded" || type === "Failed" || type === "Completed");
  return hasEnded ? [] : [{ id: status.metadata?.name ?? manifest, state: reached.at(-1) ?? "Created" }];
}

/** Ends the jobs of a run, and waits until they are gone. Throws stopError where that takes more than `most` looks. */
export async function endJobs(plan: Pick<LaunchPlan, "config">, pause: () => Promise<void>, most = 60): Promise<void> {
  for (let look = 0; look <= most; look++) {
    const alive = await jobsUnderWay(plan);
    if (alive.length === 0) break;
    if (look === most) throw stopError(`job ${alive[0]!.id} does not end`, { where: plan.config.out });
    // Asked each time: a job that was just about to be requeued is back by now.
    if (plan.config.slurm !== undefined)
      await runProgram(
        "scancel",
        alive.map(({ id }) => id),
      );
    await pause();
  }
  const manifest = join(plan.config.out, "job.json");
  if (plan.config.kubernetes !== undefined && (await exists(manifest)))
    await runProgram("kubectl", ["delete", "--ignore-not-found", "--wait=true", "--filename", manifest]);
}
