/**
 * `upcycle launch` and `watch` on a real Slurm, with a stand-in for the trainer. Skipped where Slurm is missing:
 * apt-get install slurm-wlm munge.
 */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { cpSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { golden } from "../../support/golden.js";
import { writeRunInputs } from "../../support/run-inputs.js";
import { eventually, slurmMissing, startSlurm, stepsRemain, type Slurm } from "../../support/slurm.js";
import { start } from "../../cli/upcycle.js";

const missing = slurmMissing();
const trainer = fileURLToPath(new URL("../../support/stub-trainer.mjs", import.meta.url));

describe.skipIf(missing !== null)(`a real Slurm${missing === null ? "" : ` (skipped: ${missing})`}`, () => {
  const root = mkdtempSync(join(tmpdir(), "upcycle slurm-"));
  let slurm: Slurm;
  let made = 0;

  beforeAll(async () => {
    // Munge wants a folder that others cannot write to, whose path it can parse.
    const daemons = mkdtempSync(join(tmpdir(), "upcycle-slurmd-"));
    chmodSync(daemons, 0o755);
    slurm = await startSlurm(daemons, 20_000 + (process.pid % 20_000));
  }, 60_000);
  afterAll(() => {
    slurm?.stop();
    rmSync(root, { recursive: true, force: true });
  });

  /** A run whose steps take so many milliseconds. */
  class Run {
    readonly folder = join(root, `run ${made++}`);
    readonly file = join(this.folder, "launch.yaml");
    readonly env: Readonly<Record<string, string>>;

    constructor(more: string, { steps = 12, stepMs = 20 } = {}) {
      const bin = join(this.folder, "bin");
      mkdirSync(bin, { recursive: true });
      mkdirSync(join(this.folder, "megatron"));
      cpSync(golden("megatron/moe"), join(this.folder, "ckpt"), { recursive: true });
      writeRunInputs(this.folder);
      writeFileSync(join(this.folder, "ckpt/latest_checkpointed_iteration.txt"), "release");
      for (const name of readdirSync(join(this.folder, "ckpt")))
        if (name.startsWith("iter_"))
          cpSync(join(this.folder, "ckpt", name), join(this.folder, "ckpt/release"), { recursive: true });
      writeFileSync(
        join(bin, "torchrun"),
        `#!/bin/bash\nwhile [ "$1" != pretrain_gpt.py ]; do shift; done\nexec ${process.execPath} ${trainer} "$@"\n`,
      );
      chmodSync(join(bin, "torchrun"), 0o755);
      this.env = {
        ...slurm.env,
        PATH: `${bin}:${process.env["PATH"]}`,
        STUB_STEP_MS: String(stepMs),
        STUB_SECONDS: String(stepMs / 1000),
        STUB_LEDGER: join(this.folder, "ledger"),
      };
      writeFileSync(
        this.file,
        `out: ${this.folder}/run
checkpoint: ${this.folder}/ckpt
data: [${this.folder}/data]
tokenizer: ${this.folder}/tok
megatron: ${this.folder}/megatron
transformerEngine: false
slurm: ${more}
training: { batch: 2, accumulate: 4, sequence: 32, steps: ${steps}, saveEvery: 4, lr: { peak: 1e-3, warmup: 2 } }
hardware: { gpus: 2 }
`,
      );
    }

    upcycle(...words: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
      return start(words, undefined, { env: this.env }).outcome;
    }

    async launch(): Promise<string[]> {
      const { code, stdout, stderr } = await this.upcycle("launch", this.file, "--json");
      expect([code, stderr]).toEqual([0, ""]);
      return (JSON.parse(stdout) as { jobs: string[] }).jobs;
    }

    ledger(): string {
      return existsSync(this.env["STUB_LEDGER"]!) ? readFileSync(this.env["STUB_LEDGER"]!, "utf8") : "";
    }

    /** What a failed test shows. */
    seen(id: string): string {
      return [slurm.ask("scontrol", "show", "job", id), this.ledger(), this.log(id)].join("\n");
    }

    log(id: string): string {
      const path = join(this.folder, "run/logs", `${id}.log`);
      return existsSync(path) ? readFileSync(path, "utf8") : "";
    }
  }

  const stateOf = (id: string): string => /JobState=(\w+)/.exec(slurm.ask("scontrol", "show", "job", id))![1]!;

  it("runs a chain: the first job trains, the next has nothing left to do", { timeout: 90_000 }, async () => {
    const run = new Run("{ minutes: 30, jobs: 2 }");
    const [first = "", second = ""] = await run.launch();
    await eventually("the chain ends", () => stateOf(second) === "COMPLETED");
    expect(stateOf(first)).toBe("COMPLETED");
    expect(run.ledger()).toBe("begin 0\nsaved 4\nsaved 8\nsaved 12\n");
    expect(run.log(second)).toContain("all 12 iterations are done");
    const { stdout } = await run.upcycle("watch", join(run.folder, "run/logs"), "--once");
    expect(stdout).toContain("step 12 of 12");
  });

  it("takes a job that is queued again on from its checkpoint", { timeout: 120_000 }, async () => {
    const run = new Run("{ minutes: 30 }", { steps: 60, stepMs: 150 });
    const [id = ""] = await run.launch();
    await eventually("it trains", () => run.ledger().includes("saved 8"));
    slurm.ask("scontrol", "requeue", id);
    await eventually("it waits", () => stateOf(id) === "PENDING");
    // Slurm keeps it back for two minutes. In the second in which its first run ends it could not start: slurmd
    // compares when the job was revoked with when it was allowed anew, in whole seconds.
    await eventually("its first run is cleared away", () => {
      if (stepsRemain(id)) return false;
      try {
        slurm.ask("scontrol", "update", `JobId=${id}`, "StartTime=now+3");
        return true;
      } catch {
        return false; // Refused until the controller has cleared it away too.
      }
    });
    await eventually("it trains again", () => stateOf(id) !== "PENDING");
    await eventually(
      "it has ended",
      () => stateOf(id) === "COMPLETED",
      90,
      () => run.seen(id),
    );
    const begins = [...run.ledger().matchAll(/saved (\d+)\nbegin (\d+)/g)];
    expect(begins.length).toBe(1);
    expect(begins[0]![2]).toBe(begins[0]![1]);
    expect(run.ledger().trim().endsWith("saved 60")).toBe(true);
    expect(run.ledger()).not.toContain("double");
  });

  it("saves when the time of a job is nearly over, and the next one goes on", { timeout: 240_000 }, async () => {
    // Slurm's controller looks every 30 seconds for jobs to signal, 120 seconds before their end: at 30 to 60 seconds
    // of three minutes. A job of one minute may be signalled before its step is there, and is never signalled again.
    const run = new Run("{ minutes: 30, jobs: 2, options: [--time=3] }", { steps: 100_000, stepMs: 100 });
    const [first = "", second = ""] = await run.launch();
    await eventually("the first ends", () => !["PENDING", "RUNNING", "COMPLETING"].includes(stateOf(first)), 150);
    expect(run.log(first)).toContain("exiting program after receiving SIGTERM.");
    const saved = /saved (\d+)\n(?!saved)/.exec(`${run.ledger()}\n`)![1]!;
    await eventually("the second goes on", () => run.ledger().includes(`begin ${saved}\n`));
    slurm.ask("scancel", second);
  });

  it("is not started twice, and can be after it was cancelled", { timeout: 90_000 }, async () => {
    const run = new Run("{ minutes: 30, jobs: 2 }", { steps: 100_000, stepMs: 100 });
    const [first = "", second = ""] = await run.launch();
    await eventually("it trains", () => run.ledger().includes("begin"));
    const again = await run.upcycle("launch", run.file);
    expect([again.code, again.stderr]).toEqual([2, expect.stringContaining("the run is under way already: job")]);
    slurm.ask("scancel", first, second);
    await eventually("it is cancelled", () => stateOf(first) === "CANCELLED", 60);
    const [third = ""] = await run.launch();
    expect(Number(third)).toBeGreaterThan(Number(second));
    slurm.ask("scancel", third, String(Number(third) + 1));
    expect(run.ledger()).not.toContain("double");
  });

  it("waits while its node is drained", { timeout: 90_000 }, async () => {
    await eventually("nothing runs", () => slurm.ask("squeue", "--noheader").trim() === "");
    slurm.ask("scontrol", "update", `NodeName=${slurm.node}`, "State=DRAIN", "Reason=test");
    const run = new Run("{ minutes: 30 }");
    const [id = ""] = await run.launch();
    await eventually(
      "Slurm says why",
      () => /Reason=\S*(Drain|Down|Unavail|Req)/i.test(slurm.ask("scontrol", "show", "job", id)),
      30,
    );
    const again = await run.upcycle("launch", run.file);
    expect(again.stderr).toContain("PENDING");
    slurm.ask("scontrol", "update", `NodeName=${slurm.node}`, "State=RESUME");
    await eventually("it runs to its end", () => stateOf(id) === "COMPLETED");
  });
});
