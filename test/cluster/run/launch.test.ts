/** Runs on a cluster of stand-ins: sbatch, squeue, kubectl and torchrun are scripts on the PATH. */
import {
  appendFileSync,
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { launchPlan } from "../../../src/cli/launch.js";
import { followLines } from "../../../src/cluster/run/follow.js";
import { RunKeeper } from "../../../src/cluster/run/keep.js";
import { startRun } from "../../../src/cluster/run/launch.js";
import { watchRun, type WatchEvent } from "../../../src/cluster/run/watch.js";
import { writeOneDocument } from "../../../src/text/prepare/one-document.js";
import { golden, readTensors } from "../../support/golden.js";
import { writeRunInputs } from "../../support/run-inputs.js";
import { start } from "../../cli/upcycle.js";

const root = mkdtempSync(join(tmpdir(), "upcycle-cluster-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let made = 0;

interface Cluster {
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
  readonly file: string;
}

/** A folder with stand-ins, which write what they were asked into `asked`. */
function cluster(more: string, programs: Readonly<Record<string, string>>): Cluster {
  const folder = join(root, String(made++));
  const bin = join(folder, "bin");
  mkdirSync(bin, { recursive: true });
  mkdirSync(join(folder, "megatron"));
  cpSync(golden("megatron/moe"), join(folder, "ckpt"), { recursive: true });
  writeRunInputs(folder);
  for (const [name, body] of Object.entries(programs)) {
    writeFileSync(join(bin, name), `#!/bin/bash\necho "${name} $*" >> ${folder}/asked\n${body}\n`);
    chmodSync(join(bin, name), 0o755);
  }
  const file = join(folder, "launch.yaml");
  writeFileSync(
    file,
    `out: ${folder}/run
checkpoint: ${folder}/ckpt
data: [${folder}/data]
tokenizer: ${folder}/tok
megatron: ${folder}/megatron
transformerEngine: false
${more}
training: { batch: 2, accumulate: 4, sequence: 32, steps: 20, lr: { peak: 1e-3, warmup: 2 } }
hardware: { gpus: 2 }
`,
  );
  return { folder, env: { PATH: `${bin}:${process.env["PATH"]}` }, file };
}

async function upcycle(
  { env }: Cluster,
  ...words: string[]
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return start(words, undefined, { env }).outcome;
}
const asked = ({ folder }: Cluster): string[] => readFileSync(join(folder, "asked"), "utf8").trim().split("\n");

describe("what a run needs", () => {
  const submits = { sbatch: "echo 1", squeue: "exit 0" };

  it.each([
    ["data.bin", "data.bin: no such file; upcycle data prepare writes it"],
    ["tok", "tok: no such folder"],
    ["ckpt", "ckpt: no such folder; make it with upcycle convert or export --format megatron"],
  ])("is asked for before anything is submitted: %s", async (name, words) => {
    const here = cluster("slurm: {}", submits);
    rmSync(join(here.folder, name), { recursive: true });
    const { code, stderr } = await upcycle(here, "launch", here.file);
    expect(code).toBe(2);
    expect(stderr).toContain(words);
    expect(existsSync(join(here.folder, "asked"))).toBe(false);
  });

  it("is a folder of saves: neither a save in it nor a Hugging Face folder will do", async () => {
    const here = cluster("slurm: {}", submits);
    const changed = (checkpoint: string): void =>
      writeFileSync(
        here.file,
        readFileSync(here.file, "utf8").replace(/^checkpoint: .*$/m, `checkpoint: ${checkpoint}`),
      );
    changed(join(here.folder, "ckpt", "iter_0000012"));
    expect((await upcycle(here, "launch", here.file, "--dry-run")).stderr).toMatch(
      /is a single save, .*; write .*ckpt$/m,
    );
    changed(golden("moe/mixtral"));
    expect((await upcycle(here, "launch", here.file, "--dry-run")).stderr).toContain(
      "is no checkpoint of Megatron-Core; make one of it: upcycle export",
    );
  });

  it("may lack Megatron-LM here, where nodes of Slurm have it", async () => {
    const here = cluster("slurm: {}", submits);
    rmSync(join(here.folder, "megatron"), { recursive: true });
    const { code, stderr } = await upcycle(here, "launch", here.file);
    expect(code).toBe(0);
    expect(stderr).toContain("has no pretrain_gpt.py on this machine; the nodes need it");
  });
});

describe("a run on Slurm", () => {
  const sbatch = 'n=$(grep -c "^sbatch" "$(dirname "$0")/../asked"); echo $((100 + n))';

  it("is a chain of jobs, each behind the one before, and is not started twice", { timeout: 60_000 }, async () => {
    const here = cluster("slurm: { jobs: 3, minutes: 60 }", {
      sbatch,
      squeue: 'echo "101|RUNNING|"; echo "7|RUNNING|another"',
    });
    const first = await upcycle(here, "launch", here.file, "--json");
    expect(first.stderr).toBe("");
    expect(JSON.parse(first.stdout)).toMatchObject({ where: "slurm", jobs: ["101", "102", "103"] });
    const started = asked(here).filter((line) => line.startsWith("sbatch"));
    expect(started.map((line) => /--dependency=\S+/.exec(line)?.[0] ?? "none")).toEqual([
      "none",
      "--dependency=afterany:101,singleton",
      "--dependency=afterany:102,singleton",
    ]);
    const again = await upcycle(here, "launch", here.file);
    expect([again.code, again.stderr]).toEqual([
      2,
      expect.stringContaining("the run is under way already: job 101 RUNNING"),
    ]);
    expect(asked(here).filter((line) => line.startsWith("sbatch")).length).toBe(3);
  });

  it("starts again when its jobs are gone", { timeout: 60_000 }, async () => {
    const here = cluster("slurm: { minutes: 60 }", {
      sbatch,
      squeue: "echo '101|COMPLETED|'",
    });
    expect((await upcycle(here, "launch", here.file)).code).toBe(0);
    expect((await upcycle(here, "launch", here.file)).code).toBe(0);
    expect(asked(here).filter((line) => line.startsWith("sbatch")).length).toBe(2);
  });

  it("says what sbatch says, and what is missing", { timeout: 60_000 }, async () => {
    const refusing = cluster("slurm: {}", {
      squeue: "",
      sbatch: "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1",
    });
    const { code, stderr } = await upcycle(refusing, "launch", refusing.file);
    expect([code, stderr]).toEqual([1, expect.stringContaining("invalid partition specified: gpu")]);
    const bare = cluster("kubernetes: { image: x }", {});
    const missing = await upcycle({ ...bare, env: { PATH: join(bare.folder, "bin") } }, "launch", bare.file);
    expect([missing.code, missing.stderr]).toEqual([2, expect.stringContaining("kubectl is not installed here")]);
  });
});

describe("a chain of jobs that Slurm cuts short", () => {
  it("names the jobs that are queued already, and how to end them", { timeout: 60_000 }, async () => {
    const here = cluster("slurm: { jobs: 3, minutes: 60 }", {
      sbatch:
        'n=$(grep -c "^sbatch" "$(dirname "$0")/../asked"); [ $n -lt 3 ] && echo $((100 + n)) && exit 0; ' +
        "echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1",
      squeue: "exit 0",
    });
    const { code, stderr } = await upcycle(here, "launch", here.file);
    expect(code).toBe(1);
    expect(stderr).toContain("QOSMaxSubmitJobPerUserLimit (job 3 of 3)");
    expect(stderr).toContain("the jobs before it are queued and will run: 101 102; scancel ends them");
  });
});

describe("a run on Kubernetes", () => {
  const object = 'o="$(dirname "$0")/../object"; ';
  const kubectl =
    `${object}case "$1" in\n` +
    `create) [ -e $o ] && echo 'Error from server (AlreadyExists): it exists' >&2 && exit 1; echo Running > $o;;\n` +
    `get) [ -e $o ] && echo "{\\"metadata\\":{\\"name\\":\\"run\\"},\\"status\\":{\\"conditions\\":[` +
    `{\\"type\\":\\"$(cat $o)\\",\\"status\\":\\"True\\"}]}}"; exit 0;;\n` +
    `delete) rm -f $o;;\nesac`;

  it("that is under way is said to be, with the command that ends it", { timeout: 60_000 }, async () => {
    const here = cluster("kubernetes: { image: x }", { kubectl });
    expect((await upcycle(here, "launch", here.file)).code).toBe(0);
    const { code, stderr } = await upcycle(here, "launch", here.file);
    expect(code).toBe(2);
    expect(stderr).toContain(`kubectl delete --filename ${here.folder}/run/job.json`);
  });

  it("that has failed is started again by whoever keeps it, under the same name", { timeout: 60_000 }, async () => {
    const here = cluster("kubernetes: { image: x }", { kubectl });
    const path = process.env["PATH"];
    process.env["PATH"] = here.env["PATH"];
    try {
      const plan = await launchPlan(here.file, undefined);
      await startRun(plan);
      writeFileSync(join(here.folder, "object"), "Failed");
      const keeper = new RunKeeper({ plan, pause: async () => undefined });
      expect(await keeper.look(0)).toMatchObject({ action: "restarted", from: null });
      expect(readFileSync(join(here.folder, "object"), "utf8").trim()).toBe("Running");
    } finally {
      process.env["PATH"] = path;
    }
  });
});

describe("a run on this machine", () => {
  const line = (iteration: number, loss: number): string =>
    `echo " [2026-01-01 00:00:0${iteration}.0] iteration ${iteration}/ 20 | elapsed time per iteration (ms): 10.0 | global batch size: 8 | lm loss: ${loss} | number of skipped iterations: 0 | number of nan iterations: 0 |"`;

  it("writes its log, and loads its own checkpoint the second time", { timeout: 60_000 }, async () => {
    const torchrun = `${line(1, 4)}\nmkdir -p "$(dirname "$0")/../run/checkpoints"; echo 10 > "$(dirname "$0")/../run/checkpoints/latest_checkpointed_iteration.txt"`;
    const here = cluster("", { torchrun });
    expect((await upcycle(here, "launch", here.file)).code).toBe(0);
    expect((await upcycle(here, "launch", here.file)).code).toBe(0);
    const [first, second] = asked(here);
    expect(first).toContain(`--load ${here.folder}/ckpt --finetune --save`);
    expect(second).toContain(`--load ${here.folder}/run/checkpoints --save`);
    expect(second).not.toContain("--finetune");
    expect(readFileSync(join(here.folder, "run/logs/run.log"), "utf8").split("\n").length).toBe(3);
  });

  it("can be checked: its loss is compared with ours, and a broken load found", { timeout: 120_000 }, async () => {
    const expected = golden("megatron/moe", "expected.safetensors");
    const [ids, labels, losses] = ["val_input_ids", "val_labels", "val_token_loss"].map(
      (name) => readTensors(expected).get(name)!.data,
    ) as [Int32Array, Int32Array, Float32Array];
    // The first sequence that Megatron-LM itself evaluated, and the loss that it had there.
    const tokens = Int32Array.of(...ids.subarray(0, 32), labels[31]!);
    const loss = losses.subarray(0, 32).reduce((sum, one) => sum + one, 0) / 32;
    const printing = async (value: number, before = ""): Promise<Cluster> => {
      const made = cluster("", {
        torchrun: `${before}echo " validation loss at iteration 0 on validation set | lm loss value: ${value} |"`,
      });
      writeFileSync(made.file, readFileSync(made.file, "utf8").replace("gpus: 2", "gpus: 1"));
      await writeOneDocument(join(made.folder, "data"), tokens, 128);
      return made;
    };
    const sound = await printing(loss);
    const good = await upcycle(sound, "launch", sound.file, "--check", "--within", "1e-5");
    expect([good.code, good.stdout]).toEqual([0, expect.stringContaining("as expected")]);
    const given = asked(sound)[0]!;
    for (const words of ["--skip-train", "--eval-iters 1", "--seq-length 32", "--global-batch-size 1"])
      expect(given).toContain(words);
    expect(given).toContain(`--valid-data-path ${sound.folder}/run/check/check_document`);
    expect(given).not.toContain("--data-path");
    const off = await printing(loss + 0.02);
    const bad = await upcycle(off, "launch", off.file, "--check");
    expect([bad.code, bad.stderr]).toEqual([1, expect.stringContaining(`expected ${loss.toPrecision(5).slice(0, 5)}`)]);
    const told = await upcycle(off, "launch", off.file, "--check", "--expect", String(loss + 0.02));
    expect(told.code).toBe(0);
    const broken = await printing(loss, 'echo "load_return: _IncompatibleKeys(missing)"; ');
    expect((await upcycle(broken, "launch", broken.file, "--check")).stderr).toContain("load_return");
  });

  it("that fails gives its exit code and the log", { timeout: 60_000 }, async () => {
    const here = cluster("", { torchrun: "echo 'RuntimeError: no GPU'; exit 3" });
    const { code, stderr } = await upcycle(here, "launch", here.file);
    expect([code, stderr]).toEqual([1, expect.stringContaining("the run ended with code 3")]);
  });

  it("whose log cannot be written is ended, in one line", { timeout: 60_000 }, async () => {
    const here = cluster("", { torchrun: "exec sleep 50" });
    mkdirSync(join(here.folder, "run/logs/run.log"), { recursive: true });
    const { code, stderr } = await upcycle(here, "launch", here.file);
    expect([code, stderr.trim().split("\n").at(-1)]).toEqual([
      2,
      expect.stringContaining("run.log: cannot write the log: this is a folder, expected a file"),
    ]);
    expect(stderr).not.toContain("    at ");
    expect(existsSync(join(here.folder, "run/.lock"))).toBe(false);
  });

  it("shows lines whole: of both outputs, cut within a letter, and without an end", { timeout: 60_000 }, async () => {
    const here = cluster("", {
      torchrun:
        "printf 'first h\\xc3'; sleep 0.3; printf 'other ' >&2; sleep 0.3; printf '\\xa9\\nlast'; sleep 0.3; " +
        "printf 'one\\n' >&2",
    });
    const { stderr } = await upcycle(here, "launch", here.file);
    for (const line of ["first h\u00e9", "other one", "last"]) expect(stderr.split("\n")).toContain(line);
  });

  it("that is asked to end is stopped, not done: exit code 130", { timeout: 60_000 }, async () => {
    // As Megatron-LM with --exit-signal-handler: it saves, and its exit code is 0.
    const here = cluster("", { torchrun: "trap 'exit 0' TERM; echo begun; while true; do sleep 0.1; done" });
    const run = start(["launch", here.file], undefined, { env: here.env });
    await run.saw("begun");
    run.process.kill("SIGINT");
    const { code, stderr } = await run.outcome;
    expect([code, stderr]).toEqual([130, expect.stringContaining("the run was stopped; the same command goes on")]);
  });

  it("does not begin where the stop comes before it", async () => {
    const here = cluster("", {});
    const plan = await launchPlan(here.file, undefined);
    await expect(startRun(plan, { signal: AbortSignal.abort() })).rejects.toThrow("stopped before the run began");
    expect(existsSync(join(here.folder, "run/.lock"))).toBe(false);
  });

  it("is only printed by a dry run", { timeout: 60_000 }, async () => {
    const here = cluster("", {});
    const { code, stdout } = await upcycle(here, "launch", here.file, "--dry-run");
    expect(code).toBe(0);
    expect(stdout).toContain("--moe-router-pre-softmax");
    expect(existsSync(join(here.folder, "run"))).toBe(false);
  });
});

describe("logs that are followed", () => {
  const step = (iteration: number): string =>
    ` iteration ${iteration}/ 100 | lm loss: 2.0E+00 | elapsed time per iteration (ms): 5.0 |\n`;

  it("may be renamed, cut off, appear later and end within a line", { timeout: 30_000 }, async () => {
    const folder = join(root, "logs");
    mkdirSync(folder);
    const log = join(folder, "a.log");
    writeFileSync(log, step(1));
    const acts = [
      () => appendFileSync(log, step(2).slice(0, 20)),
      () => appendFileSync(log, step(2).slice(20)),
      () => {
        appendFileSync(log, step(3));
        renameSync(log, join(folder, "a.log.1"));
        writeFileSync(log, step(4));
      },
      () => {
        truncateSync(log, 0);
        appendFileSync(log, step(5).slice(0, 10) + step(5).slice(10));
      },
      () => writeFileSync(join(folder, "b.out"), step(6)),
    ];
    const abort = new AbortController();
    const seen: number[] = [];
    let idle = 0;
    for await (const followed of followLines([folder], { once: false, every: 5, signal: abort.signal })) {
      if (followed !== null) {
        seen.push(Number(/iteration (\d+)/.exec(followed.line)![1]));
        continue;
      }
      const act = acts.shift();
      if (act === undefined && ++idle > 3) abort.abort();
      act?.();
    }
    expect(seen).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("become events, states and alerts, of several nodes together", async () => {
    const folder = join(root, "nodes");
    mkdirSync(folder);
    cpSync(golden("megatron/logs/moe_scratch.log"), join(folder, "node0.log"));
    writeFileSync(join(folder, "node1.log"), "load_return: missing\n");
    const events: WatchEvent[] = [];
    const watched = watchRun({ names: [folder], once: true, now: () => 0 });
    for (;;) {
      const next = await watched.next();
      if (next.done === true) {
        expect(next.value).toMatchObject({ iteration: 60, savedIteration: 60 });
        break;
      }
      events.push(next.value);
    }
    expect(events.flatMap((event) => (event.type === "alert" ? [event.kind] : []))).toEqual(["load"]);
    expect(events.filter(({ type }) => type === "state").length).toBeGreaterThan(5);
  });

  it("of many nodes take memory for what they hold, not a piece of 1 MiB each", async () => {
    const folder = join(root, "many");
    mkdirSync(folder);
    for (let node = 0; node < 300; node++) writeFileSync(join(folder, `${node}.log`), step(1));
    const before = process.memoryUsage().arrayBuffers;
    let [lines, taken] = [0, 0];
    for await (const followed of followLines([folder], { once: true })) {
      if (followed !== null) lines++;
      taken = Math.max(taken, process.memoryUsage().arrayBuffers - before);
    }
    expect(lines).toBe(300);
    expect(taken).toBeLessThan(20 * 2 ** 20);
  });

  it("that are not there are named", async () => {
    const failed = (async () => {
      for await (const line of followLines([join(root, "none.log")], { once: true })) expect(line).toBeNull();
    })();
    await expect(failed).rejects.toThrow(UpcycleError);
  });
});
