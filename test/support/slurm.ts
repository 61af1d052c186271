/**
 * A real Slurm on this machine: munged, slurmctld and slurmd of Debian's slurm-wlm in a folder of their own, with one
 * node that claims two GPUs. Needs root.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";

/** Why there is no Slurm here; null: there is one. */
export function slurmMissing(): string | null {
  const missing = ["munged", "slurmctld", "slurmd", "sbatch", "srun"].filter(
    (program) => spawnSync("bash", ["-c", `command -v ${program}`]).status !== 0,
  );
  if (missing.length > 0) return `${missing.join(", ")} not installed (apt-get install slurm-wlm munge)`;
  return process.getuid?.() === 0 ? null : "Slurm's daemons want root";
}

/** A running cluster of one node. */
export interface Slurm {
  readonly node: string;
  readonly env: Readonly<Record<string, string>>;
  readonly ask: (program: string, ...words: string[]) => string;
  readonly stop: () => void;
}

const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Waits for something to become true. Throws when it does not in `seconds`, with what was `seen` then. */
export async function eventually(
  what: string,
  holds: () => boolean,
  seconds = 60,
  seen: () => string = () => "",
): Promise<void> {
  for (const end = Date.now() + seconds * 1000; Date.now() < end; await pause(200)) if (holds()) return;
  throw new Error(`not within ${seconds} s: ${what}\n${seen()}`);
}

/**
 * Whether a process of slurmd still sees to a step of this job. One ends only after the controller has heard how its
 * step ended.
 */
export function stepsRemain(job: string): boolean {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .some((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").startsWith(`slurmstepd: [${job}.`);
      } catch {
        return false; // It has ended meanwhile.
      }
    });
}

/** Starts the daemons, and waits for the node. Throws where it does not come. */
export async function startSlurm(folder: string, port: number): Promise<Slurm> {
  const [node = "node"] = hostname().split(".");
  for (const name of ["state", "spool"]) mkdirSync(join(folder, name), { recursive: true });
  const of = (name: string): string => join(folder, name);
  writeFileSync(of("munge.key"), randomBytes(1024), { mode: 0o600 });
  for (const gpu of ["gpu0", "gpu1"]) writeFileSync(of(gpu), "");
  const settings = {
    ClusterName: "upcycle",
    SlurmctldHost: `${node}(127.0.0.1)`,
    SlurmctldPort: port,
    SlurmdPort: port + 1,
    SlurmUser: "root",
    SlurmdUser: "root",
    AuthType: "auth/munge",
    AuthInfo: `socket=${of("munge.sock")}`,
    StateSaveLocation: of("state"),
    SlurmdSpoolDir: of("spool"),
    SlurmctldPidFile: of("slurmctld.pid"),
    SlurmdPidFile: of("slurmd.pid"),
    SlurmctldLogFile: of("slurmctld.log"),
    SlurmdLogFile: of("slurmd.log"),
    ProctrackType: "proctrack/linuxproc",
    TaskPlugin: "task/none",
    SelectType: "select/cons_tres",
    ReturnToService: 2,
    MpiDefault: "none",
    JobAcctGatherType: "jobacct_gather/none",
    AccountingStorageType: "accounting_storage/none",
    GresTypes: "gpu",
    KillWait: 10,
    SchedulerParameters: "sched_interval=2,bf_interval=2",
  };
  const lines = [
    ...Object.entries(settings).map(([name, value]) => `${name}=${value}`),
    `NodeName=${node} NodeAddr=127.0.0.1 CPUs=2 RealMemory=500 Gres=gpu:2 State=UNKNOWN`,
    "PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP",
  ];
  writeFileSync(of("slurm.conf"), `${lines.join("\n")}\n`);
  writeFileSync(of("gres.conf"), `Name=gpu File=${of("gpu[0-1]")}\n`);
  const env = { SLURM_CONF: of("slurm.conf") };
  const ask = (program: string, ...words: string[]): string =>
    execFileSync(program, words, { env: { ...process.env, ...env }, encoding: "utf8" });
  const munge = ["key-file=munge.key", "socket=munge.sock", "pid-file=munged.pid", "log-file=munged.log"];
  execFileSync("munged", [
    "--force",
    ...[...munge, "seed-file=munge.seed"].map((one) => `--${one.replace("=", `=${folder}/`)}`),
  ]);
  ask("slurmctld");
  ask("slurmd");
  const stop = (): void => {
    for (const name of ["slurmd.pid", "slurmctld.pid", "munged.pid"]) {
      if (!existsSync(of(name))) continue;
      try {
        process.kill(Number(readFileSync(of(name), "utf8")));
      } catch {
        // It has ended by itself.
      }
    }
  };
  try {
    await eventually("the node is idle", () => /\bidle\b/.test(ask("sinfo", "--noheader", "--format=%t")), 30);
  } catch (cause) {
    stop();
    throw cause;
  }
  return { node, env, ask, stop };
}
