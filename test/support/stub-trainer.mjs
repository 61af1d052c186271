// Stands for `torchrun ... pretrain_gpt.py`: writes Megatron-LM's log lines and checkpoint folders, goes on from its
// tracker, and ends as Megatron-LM does: at its last iteration, at a signal, at its time. Settings for tests in the
// environment: STUB_STEP_MS of real time, STUB_SECONDS of a step by its own clock, STUB_BEGIN (that clock at the
// start), STUB_FAIL_AFTER steps (STUB_FAILURE: node, disk or term), STUB_LEDGER (a file that gets what was trained),
// STUB_MOE (what Megatron-LM says of a mixture and of memory, too), STUB_MEASURES (a
// validation loss and the memory at the end, as bench/megatron/record.py has it).
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

const words = process.argv.slice(2);
const after = (flag) => (words.includes(flag) ? words[words.indexOf(flag) + 1] : undefined);
const [load, save] = [after("--load"), after("--save")];
const total = Number(after("--train-iters"));
const interval = Number(after("--save-interval") ?? Infinity);
const minutes = Number(after("--exit-duration-in-mins") ?? Infinity);
const { env } = process;
const stepSeconds = Number(env.STUB_SECONDS ?? 1);
const failAfter = Number(env.STUB_FAIL_AFTER ?? Infinity);
let clock = Number(env.STUB_BEGIN ?? Date.now());
const begin = clock;
const stamp = () => new Date(clock).toISOString().replace("T", " ").replace("Z", "000");
// At once: what is still on its way when a process ends is lost.
const say = (line) => writeSync(1, `${line}\n`);
const note = (line) => (env.STUB_LEDGER ? appendFileSync(env.STUB_LEDGER, `${line}\n`) : undefined);

// Two of a run at once would destroy each other's checkpoints.
const lock = save === undefined ? null : join(save, "running");
if (lock !== null) {
  mkdirSync(save, { recursive: true });
  if (existsSync(lock)) {
    note("double");
    say("RuntimeError: this run is under way already");
    process.exit(1);
  }
  mkdirSync(lock);
}
const end = (code) => {
  if (lock !== null) rmSync(lock, { recursive: true });
  process.exit(code);
};

const trackerOf = (dir) => join(dir, "latest_checkpointed_iteration.txt");
const isLoading = load !== undefined;
const tracked = isLoading && existsSync(trackerOf(load)) ? readFileSync(trackerOf(load), "utf8").trim() : null;
say("using world size: 1000, data-parallel size: 125, context-parallel size: 1, tensor-model-parallel size: 8");
if (isLoading && tracked === null) {
  say(`WARNING: could not find the metadata file ${trackerOf(load)}`);
  say("    will not load any checkpoints and will start from random");
  if (words.includes("--exit-on-missing-checkpoint")) end(1);
}
const isFirst = tracked === "release" || words.includes("--finetune");
let iteration = isFirst ? 0 : Number(tracked);
if (isLoading) say(`  successfully loaded checkpoint from ${load} [ t 1/8, p 1/1 ] at iteration ${iteration}`);
note(`begin ${iteration}`);

let isAsked = false;
process.on("SIGTERM", () => {
  isAsked = true;
});
const write = () => {
  if (save === undefined) return;
  const name = `iter_${String(iteration).padStart(7, "0")}`;
  mkdirSync(join(save, name), { recursive: true });
  writeFileSync(join(save, name, "__0_0.distcp"), "weights");
  writeFileSync(join(save, name, "metadata.json"), "{}");
  writeFileSync(`${trackerOf(save)}.part`, String(iteration));
  renameSync(`${trackerOf(save)}.part`, trackerOf(save));
  say(
    ` [${stamp()}]  successfully saved checkpoint from iteration ${String(iteration).padStart(7)} to ${save} ` +
      "[ t 1/8, p 1/1 ]",
  );
  note(`saved ${iteration}`);
};
const leave = (why) => {
  write();
  say(`[exiting program ${why}] datetime: ${stamp()}`);
  // A real trainer takes a while to end. srun may lose what a process says in its last moment.
  if (env.SLURM_JOB_ID) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
  end(0);
};

const balance = env.STUB_MOE ? "load_balancing_loss: 1.050000E+00 | " : "";
const memory = "allocated: 100.5 | max allocated: 200.25 | reserved: 300.0";
let done = 0;
while (iteration < total && !words.includes("--skip-train")) {
  if (env.STUB_STEP_MS) await new Promise((resolve) => setTimeout(resolve, Number(env.STUB_STEP_MS)));
  iteration++;
  clock += 1000 * stepSeconds;
  done++;
  const loss = (2 + 8 / Math.sqrt(iteration)).toExponential(6).toUpperCase();
  const line =
    ` [${stamp()}] iteration ${String(iteration).padStart(8)}/${String(total).padStart(8)} | ` +
    `consumed samples: ${iteration * 8} | elapsed time per iteration (ms): ${(1000 * stepSeconds).toFixed(1)} | ` +
    `throughput per GPU (TFLOP/s/GPU): 400.0 | learning rate: 3.000000E-04 | global batch size:     8 | ` +
    `lm loss: ${loss} | ${balance}loss scale: 1.0 | grad norm: 0.500 | number of skipped iterations:   0 | ` +
    "number of nan iterations:   0 |";
  if (done >= failAfter) {
    note(`lost ${iteration - 1}`);
    if (env.STUB_FAILURE === "disk") {
      mkdirSync(join(save, `iter_${String(iteration).padStart(7, "0")}`), { recursive: true });
      say("OSError: [Errno 28] No space left on device");
    } else if (env.STUB_FAILURE === "term") leave("after receiving SIGTERM.");
    // A node that is gone ends a line where it stands.
    else writeSync(1, line.slice(0, 60));
    end(1);
  }
  say(line);
  if (env.STUB_MOE && done === 1) say(`[Rank 0] (after ${iteration} iterations) memory (MB) | ${memory}`);
  if (isAsked && words.includes("--exit-signal-handler")) leave("after receiving SIGTERM.");
  if (iteration % interval === 0 || iteration === total) write();
  if ((clock - begin) / 60_000 > minutes) leave(`after ${minutes} minutes`);
}
say(`[after training is done] datetime: ${stamp()}`);
if (env.STUB_MEASURES) {
  say(
    ` validation loss at iteration ${iteration} on validation set | lm loss value: 3.131371E+00 | ` +
      "lm loss PPL: 2.290528E+01 | ",
  );
  say("peak memory of rank 0: allocated 40000000000 reserved 45000000000 device 50000000000");
}
end(0);
