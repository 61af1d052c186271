/**
 * Days of a run on a cluster of 1,000 GPUs in seconds: a scheduler that is simulated here runs the job script itself,
 * whose trainer is a stand-in with a clock of its own.
 * Nodes fail about every two hours, jobs are preempted, disks fill up, chains run out.
 */
import { execFile } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { randomStream } from "../../../src/base/random.js";
import { parseLaunchConfig } from "../../../src/base/schemas/index.js";
import { launchArguments } from "../../../src/cluster/plan/arguments.js";
import type { LaunchPlan } from "../../../src/cluster/plan/scripts.js";
import type { Alert } from "../../../src/cluster/logs/monitor.js";
import { RunKeeper } from "../../../src/cluster/run/keep.js";
import { startRun } from "../../../src/cluster/run/launch.js";
import { watchRun } from "../../../src/cluster/run/watch.js";
import { resultOf } from "../../../src/base/events.js";
import { specFromConfig } from "../../../src/model/decoder/config.js";
import { golden } from "../../support/golden.js";

const root = mkdtempSync(join(tmpdir(), "upcycle-days-"));
const trainer = fileURLToPath(new URL("../../support/stub-trainer.mjs", import.meta.url));
const path = process.env["PATH"]!;
afterAll(() => {
  process.env["PATH"] = path;
  rmSync(root, { recursive: true, force: true });
});

const spec = specFromConfig(JSON.parse(readFileSync(golden("moe/mixtral", "config.json"), "utf8")), "mixtral");
const saveEvery = 100;

/** A folder with a run and stand-ins of Slurm's programs, whose queue is a file: lines of id, state and comment. */
class Cluster {
  readonly folder: string;
  readonly plan: LaunchPlan;
  readonly queue: string;
  readonly ledger: string;

  constructor(name: string, { steps, jobs = 3, minutes = 240 }: { steps: number; jobs?: number; minutes?: number }) {
    this.folder = join(root, name);
    const bin = join(this.folder, "bin");
    mkdirSync(bin, { recursive: true });
    mkdirSync(join(this.folder, "megatron"));
    mkdirSync(join(this.folder, "model"));
    writeFileSync(join(this.folder, "model/latest_checkpointed_iteration.txt"), "release");
    this.queue = join(this.folder, "queue");
    this.ledger = join(this.folder, "ledger");
    writeFileSync(this.queue, "");
    const programs = {
      sbatch:
        `n=$(cat ${this.folder}/last 2> /dev/null || echo 1000); n=$((n + 1)); echo $n > ${this.folder}/last\n` +
        `c=$(sed -n "s/^#SBATCH --comment=//p" "\${@: -1}"); echo "$n|PENDING|$c" >> ${this.queue}; echo $n`,
      squeue: `cat ${this.queue}`,
      scancel: `for id in "$@"; do sed -i "/^$id|/d" ${this.queue}; done; echo "$*" >> ${this.folder}/cancelled`,
      scontrol: "echo node0",
      // Passes over its own options and those of torchrun.
      srun: 'while [ "$1" != torchrun ]; do shift; done; exec "$@"',
      torchrun: `while [ "$1" != pretrain_gpt.py ]; do shift; done; exec ${process.execPath} ${trainer} "$@"`,
    };
    for (const [program, body] of Object.entries(programs)) {
      writeFileSync(join(bin, program), `#!/bin/bash\n${body}\n`);
      chmodSync(join(bin, program), 0o755);
    }
    process.env["PATH"] = `${bin}${delimiter}${path}`;
    const config = parseLaunchConfig(
      JSON.stringify({
        out: join(this.folder, "run"),
        checkpoint: join(this.folder, "model"),
        data: ["x"],
        tokenizer: "x",
        megatron: join(this.folder, "megatron"),
        slurm: { jobs, minutes },
        hardware: { gpus: 1000 },
        training: { batch: 1000, accumulate: 1, sequence: 32, steps, saveEvery, lr: { peak: 1e-3, warmup: 2 } },
      }),
      "launch",
    );
    const layout = {
      ...{ tp: 1, pp: 1, vpp: 1, cp: 1, ep: 1, etp: 1, dp: 1000, edp: 1000 },
      ...{ microBatch: 1, microBatches: 1, recompute: "none" as const },
    };
    this.plan = {
      config,
      layout,
      vocab: spec.vocab,
      arguments: launchArguments({ config, spec, layout }),
      environment: [],
      gpusPerNode: 8,
    };
  }

  jobs(): { id: string; state: string; rest: string }[] {
    return readFileSync(this.queue, "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => {
        const [id = "", state = "", ...rest] = line.split("|");
        return { id, state, rest: rest.join("|") };
      });
  }

  set(id: string, state: string | null): void {
    const lines = this.jobs().flatMap((job) =>
      job.id === id && state === null ? [] : [`${job.id}|${job.id === id ? state! : job.state}|${job.rest}`],
    );
    writeFileSync(this.queue, lines.map((line) => `${line}\n`).join(""));
  }

  /** Runs a job to its end, its output behind what its log has already. */
  async run(id: string, env: Readonly<Record<string, string>>): Promise<number> {
    const out = this.plan.config.out;
    return new Promise((done) => {
      execFile(
        "bash",
        [join(out, "job.sbatch")],
        {
          env: {
            ...process.env,
            SLURM_JOB_ID: id,
            SLURM_JOB_NODELIST: "node[0-124]",
            STUB_LEDGER: this.ledger,
            ...env,
          },
          maxBuffer: 1 << 28,
        },
        (error, stdout, stderr) => {
          appendFileSync(join(out, "logs", `${id}.log`), stdout + stderr);
          // A node that failed has removed nothing.
          rmSync(join(out, "checkpoints/running"), { recursive: true, force: true });
          done(error === null ? 0 : 1);
        },
      );
    });
  }

  entries(): [string, number][] {
    return readFileSync(this.ledger, "utf8")
      .trim()
      .split("\n")
      .map((line) => [line.split(" ")[0]!, Number(line.split(" ")[1])]);
  }
}

describe("a run of days on 1,000 GPUs that fail about every two hours", () => {
  const steps = 12_000;
  const stepSeconds = 6;
  let cluster: Cluster;
  const kinds: string[] = [];
  const kept: string[] = [];
  let refused = 0;
  let begun = 0;

  beforeAll(async () => {
    cluster = new Cluster("days", { steps });
    const random = randomStream("days", "failures");
    let drawn = 0;
    const draw = (): number => random.uniformAt(drawn++);
    let clock = Date.UTC(2026, 0, 1);
    const keeper = new RunKeeper({ plan: cluster.plan, pause: async () => undefined });
    await startRun(cluster.plan);
    while (!keeper.isOver) {
      const job = cluster.jobs()[0];
      if (job === undefined) {
        clock += 61_000;
        const event = await keeper.look(clock);
        if (event !== null) kept.push(event.action);
        continue;
      }
      cluster.set(job.id, "RUNNING");
      const failAfter = 1 + Math.floor((-Math.log(1 - draw()) * 7200) / stepSeconds);
      const failure = ["node", "node", "node", "term", "disk"][Math.floor(draw() * 5)]!;
      begun++;
      const running = cluster.run(job.id, {
        STUB_SECONDS: String(stepSeconds),
        // Clocks of nodes differ by up to a minute and a half.
        STUB_BEGIN: String(Math.round(clock + (draw() - 0.5) * 180_000)),
        STUB_FAIL_AFTER: String(failAfter),
        STUB_FAILURE: failure,
      });
      // Somebody starts it again while it runs.
      if (draw() < 0.5)
        await startRun(cluster.plan).catch((cause: Error) => (refused += /under way/.test(cause.message) ? 1 : 0));
      const code = await running;
      kinds.push(`${failure} ${code}`);
      clock += Math.min(failAfter * stepSeconds, 230 * 60) * 1000;
      // Slurm queues the jobs of failed nodes and preempted ones again; a job that ends by itself is over.
      const isBack = existsSync(join(cluster.folder, "run/checkpoints")) && failure === "node" && code === 1;
      cluster.set(job.id, isBack ? "PENDING" : null);
    }
  }, 240_000);

  it("comes to its last step", () => {
    expect(kept.at(-1)).toBe("finished");
    expect(readFileSync(join(cluster.folder, "run/checkpoints/latest_checkpointed_iteration.txt"), "utf8")).toBe(
      String(steps),
    );
    expect(begun).toBeGreaterThan(8);
    expect(new Set(kinds.map((kind) => kind.split(" ")[0])).size).toBeGreaterThan(1);
  });

  it("goes on from its last checkpoint each time, and loses no step before that", () => {
    let saved = 0;
    for (const [what, step] of cluster.entries()) {
      if (what === "begin") expect(step).toBe(saved);
      if (what === "saved") saved = step;
      if (what === "lost") expect(step - saved).toBeLessThan(saveEvery);
    }
    expect(saved).toBe(steps);
  });

  it("is never at work twice, however often it is started", () => {
    expect(cluster.entries().some(([what]) => what === "double")).toBe(false);
    expect(refused).toBeGreaterThan(2);
    expect(kept.filter((action) => action === "restarted").length).toBeGreaterThan(0);
  });

  it("has logs that say all of it: every step, and each restart", async () => {
    const seen = new Set<number>();
    const saved = new Set(cluster.entries().flatMap(([what, step]) => (what === "saved" ? [step] : [])));
    const state = await resultOf(
      watchRun({ names: [join(cluster.folder, "run/logs")], once: true, now: () => 0 }),
      (event) => {
        if (event.type === "event" && event.event.type === "iteration") seen.add(event.event.iteration);
      },
    );
    expect(state.iteration).toBe(steps);
    expect(state.savedIteration).toBe(steps);
    // The line that the node's end cut off belongs to a step that was done again.
    const unseen = Array.from({ length: steps }, (_, i) => i + 1).filter((step) => !seen.has(step));
    // A job that is asked to end saves a step without a line of its own.
    expect(unseen.length).toBeLessThanOrEqual(begun);
    expect(unseen.slice(0, 3)).toEqual(unseen.slice(0, 3).filter((step) => saved.has(step)));
    expect(state.restarts).toBeGreaterThan(5);
  });
});

describe("a run that is kept going", () => {
  const alert = (kind: Alert["kind"], iteration: number): Alert => ({
    type: "alert",
    level: "error",
    kind,
    iteration,
    message: kind,
  });
  const saves = (cluster: Cluster, ...at: number[]): string => {
    const folder = join(cluster.folder, "run/checkpoints");
    for (const step of at) {
      mkdirSync(join(folder, `iter_${String(step).padStart(7, "0")}`), { recursive: true });
      writeFileSync(join(folder, `iter_${String(step).padStart(7, "0")}`, "metadata.json"), "{}");
      writeFileSync(join(folder, "latest_checkpointed_iteration.txt"), String(step));
    }
    return join(folder, "latest_checkpointed_iteration.txt");
  };
  const keeperOf = ({ plan }: Cluster): RunKeeper => new RunKeeper({ plan, pause: async () => undefined });

  it("ends its jobs when its loss is no number, and goes back before that", async () => {
    const cluster = new Cluster("nan", { steps: 1000, jobs: 2 });
    await startRun(cluster.plan);
    const tracker = saves(cluster, 100, 200, 300);
    const keeper = keeperOf(cluster);
    keeper.heed(alert("nan", 250));
    keeper.heed(alert("nan", 260));
    expect(await keeper.look(0)).toMatchObject({ action: "restarted", from: 200 });
    expect(readFileSync(tracker, "utf8")).toBe("200");
    expect(readFileSync(join(cluster.folder, "cancelled"), "utf8").trim()).toBe("1001 1002");
    expect(cluster.jobs().map(({ id }) => id)).toEqual(["1003", "1004"]);
    expect(existsSync(join(cluster.folder, "run/checkpoints/iter_0000300"))).toBe(true);
  });

  it("begins anew where no checkpoint is older than what went wrong", async () => {
    const cluster = new Cluster("early", { steps: 1000 });
    const tracker = saves(cluster, 100);
    const keeper = keeperOf(cluster);
    keeper.heed(alert("divergence", 60));
    expect(await keeper.look(0)).toMatchObject({ action: "restarted", from: null });
    expect(existsSync(tracker)).toBe(false);
  });

  it("is left alone while it works, and where nothing but a warning was told", async () => {
    const cluster = new Cluster("alive", { steps: 1000 });
    await startRun(cluster.plan);
    const keeper = keeperOf(cluster);
    keeper.heed({ ...alert("nan", 3), level: "warning" });
    keeper.heed(alert("load", 3));
    expect(await keeper.look(0)).toBeNull();
    expect(cluster.jobs().length).toBe(3);
  });

  it("is left alone where its log tells of steps that were done again since", async () => {
    const cluster = new Cluster("mended", { steps: 1000 });
    await startRun(cluster.plan);
    saves(cluster, 100, 200, 300);
    const keeper = keeperOf(cluster);
    keeper.heed(alert("nan", 250));
    keeper.heed({ ...alert("restart", 201), level: "warning" });
    expect(await keeper.look(0)).toBeNull();
    // The run starts again behind them: they are not done again.
    keeper.heed(alert("nan", 350));
    keeper.heed({ ...alert("restart", 380), level: "warning" });
    expect(await keeper.look(0)).toMatchObject({ action: "restarted", from: 300 });
  });

  it("is left alone where its log is read from the beginning, and it has recovered long ago", async () => {
    const cluster = new Cluster("recovered", { steps: 100_000 });
    await startRun(cluster.plan);
    const tracker = saves(cluster, 200, 9000);
    const line = (step: number, loss: number): string =>
      ` iteration ${step}/ 100000 | elapsed time per iteration (ms): 10.0 | lm loss: ${loss} |\n`;
    const log = join(cluster.folder, "run/logs/1001.log");
    const losses = Array.from({ length: 9000 }, (_, i) => (i === 300 ? 9 : 3));
    writeFileSync(log, losses.map((loss, i) => line(i + 1, loss)).join(""));
    const abort = new AbortController();
    const events: string[] = [];
    for await (const event of watchRun({
      names: [log],
      once: false,
      every: 1,
      signal: abort.signal,
      keeper: keeperOf(cluster),
      now: () => {
        if (events.includes("divergence")) setTimeout(() => abort.abort(), 300);
        return 0;
      },
    }))
      if (event.type === "alert" || event.type === "kept")
        events.push(event.type === "alert" ? event.kind : event.type);
    expect(events).toEqual(["divergence"]);
    expect(readFileSync(tracker, "utf8")).toBe("9000");
  });

  it("is given up when restarts bring no new checkpoint", async () => {
    const cluster = new Cluster("vain", { steps: 1000, jobs: 1 });
    saves(cluster, 100);
    const keeper = keeperOf(cluster);
    const actions: string[] = [];
    for (let look = 0; look < 6; look++) {
      const event = await keeper.look(look * 61_000);
      if (event !== null) actions.push(event.action);
      writeFileSync(cluster.queue, "");
    }
    expect(actions).toEqual(["restarted", "restarted", "restarted", "given-up"]);
  });

  it("is not started where the scheduler does not answer", async () => {
    const cluster = new Cluster("mute", { steps: 1000 });
    writeFileSync(
      join(cluster.folder, "bin/squeue"),
      "#!/bin/bash\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1\n",
    );
    await expect(startRun(cluster.plan)).rejects.toThrow("Unable to contact slurm controller");
    const keeper = keeperOf(cluster);
    expect(await keeper.look(0)).toMatchObject({
      action: "waiting",
      message: expect.stringContaining("Unable to contact slurm controller") as string,
    });
    await expect(keeper.look(1_800_000)).rejects.toThrow("Unable to contact slurm controller");
    expect(cluster.jobs()).toEqual([]);
  });

  it("is left alone while the scheduler does not answer, which is told once, and kept when it does again", async () => {
    const cluster = new Cluster("restarted", { steps: 1000 });
    const squeue = join(cluster.folder, "bin/squeue");
    const answering = readFileSync(squeue, "utf8");
    const keeper = keeperOf(cluster);
    const actions: (string | null)[] = [];
    const look = async (minute: number): Promise<void> => {
      actions.push((await keeper.look(minute * 60_000))?.action ?? null);
    };
    writeFileSync(squeue, "#!/bin/bash\necho 'slurm_load_jobs error: Connection refused' >&2; exit 1\n");
    for (const minute of [0, 1, 2, 29]) await look(minute);
    expect(cluster.jobs()).toEqual([]);
    writeFileSync(squeue, answering);
    await look(31);
    expect(actions).toEqual(["waiting", null, null, null, "restarted"]);
    expect(cluster.jobs()).toHaveLength(3);
    // Its patience begins anew.
    writeFileSync(squeue, "#!/bin/bash\nexit 1\n");
    await look(40);
    expect(actions.at(-1)).toBe("waiting");
  });
});
